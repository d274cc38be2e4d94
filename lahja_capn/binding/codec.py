"""Between records and messages: how a local record becomes segments."""

from __future__ import annotations

import struct
from typing import Any

import capnp
from lahja_capn.binding.anypointer import unboxed
from lahja_capn.binding.plan import StructPlan, plan_for
from lahja_capn.binding.pointers import Segments, far_list, landing_pad, root_pointer, struct_at
from lahja_capn.binding.record import Record, new, reason_of, root, set_dict, unreadable
from lahja_capn.binding.scalars import LARGE_BYTES, Late
from lahja_capn.errors import EventArgumentError

_Message = capnp._MallocMessageBuilder


def encode_view(record: Record) -> Segments:
    """Return the message of a struct that is part of another event, to be sent as an event of its own."""
    segments = root(record)._segments or (bytes(8),)
    try:
        return unboxed(record._refresh(), sum(map(len, segments)) // 8)
    except Exception as error:
        raise unreadable(record, "", error) from error


def encode_values(binding: Any, values: dict[str, Any]) -> Segments:
    """Return the message of a struct with these (checked) values; private names are skipped."""
    message = _Message()
    builder = message.init_root(binding.plan.schema)
    set_field = builder._set_by_field
    setters = binding.setters
    late: Late = []
    try:
        for name, value in values.items():
            setter = setters.get(name)
            if setter is None:
                continue
            capnp_field, put, field = setter
            if put is None or (type(value) is bytes and len(value) < LARGE_BYTES):
                set_field(capnp_field, value)
            else:
                put(builder, field, value, late)
    except Exception as error:
        event = binding.cls.__qualname__
        reason = reason_of(error)
        raise EventArgumentError(
            f"{event} cannot be encoded: {reason}.",
            event=event,
            path="",
            wanted="a message Cap'n Proto can hold",
            got=reason,
        ) from error
    segments = message.get_segments_for_output()
    return _with_late(segments, late) if late else tuple(segments)


def _with_late(segments: list[bytes], late: Late) -> Segments:
    """Append large contents as segments of their own, and point the root struct's fields at them.

    A pointer to a list that starts its segment is a double far pointer: the field holds a far pointer to a
    landing pad of two words (behind the root's segment), which holds the other segment's number and the
    list's element size and count. That way the segment is exactly the content, and no byte of it is copied
    unless its length is no multiple of 8.
    """
    first = root_pointer(segments)
    place = struct_at(first) if first is not None else None
    assert place is not None
    home = bytearray(segments[place.segment])
    result: list[Any] = list(segments)
    for offset, code, count, content in late:
        struct.pack_into("<Q", home, place.pointers + 8 * offset, far_list(len(home) // 8, place.segment))
        home += landing_pad(len(result), code, count)
        size = content.nbytes if isinstance(content, memoryview) else len(content)
        if isinstance(content, memoryview) and type(content.obj) is bytes and len(content.obj) == size:
            content = content.obj
        result.append(b"".join((content, bytes(-size % 8))) if size % 8 else content)
    result[place.segment] = bytes(home)
    return tuple(result)


class StructCodec:
    """Encodes and opens messages whose root is a given struct: for control messages, which are no events.

    ::

        codec = StructCodec(wire_schema().Control)
        segments = codec.encode(credit={"events": 4096, "requests": 0})
        control = codec.open(segments)
        control.which(), control.credit.events
    """

    __slots__ = ("_binding", "_class", "plan")

    def __init__(self, schema: Any) -> None:
        self.plan: StructPlan = plan_for(schema)
        self._class = self.plan.view_class()
        binding = self._class._binding
        assert binding is not None
        self._binding = binding

    def encode(self, **fields: Any) -> Segments:
        """Return the message with these fields. They are checked as an event's are: EventArgumentError."""
        return encode_values(self._binding, self._class(**fields).__dict__)

    def open(self, segments: Segments) -> Any:
        """Return a lazy view. Nothing is read yet; reading raises EventFieldError for what is malformed."""
        record = new(self._class)
        set_dict(record, {"_segments": segments, "_plan": self.plan})
        return record

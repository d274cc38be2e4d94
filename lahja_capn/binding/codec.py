"""Between records and messages: how a local record becomes segments."""

from __future__ import annotations

import struct
from typing import Any

import capnp
from lahja_capn.binding.fieldtypes import Late
from lahja_capn.binding.plan import Binding, StructPlan, plan_for
from lahja_capn.binding.pointers import Segments, far_list, landing_pad, root_pointer, struct_at
from lahja_capn.binding.record import Record, is_local, new, reason_of, set_dict
from lahja_capn.errors import EventArgumentError

_Message = capnp._MallocMessageBuilder


def encode_record(record: Record) -> Segments:
    """Return the message of a record: the one it came in, or a new one."""
    if record._segments is not None:
        return record._segments
    binding = record._binding
    assert binding is not None
    if is_local(record):
        return encode_values(binding, record.__dict__)
    # A view of a struct inside another event, sent as an event of its own.
    from lahja_capn.binding.anypointer import unboxed
    from lahja_capn.binding.record import root

    segments = root(record)._segments or (bytes(8),)
    return unboxed(record._refresh(), sum(map(len, segments)) // 8)


def encode_values(binding: Binding, values: dict[str, Any]) -> Segments:
    """Return the message of a struct with these (checked) values; private names are skipped."""
    plan = binding.plan
    assert plan is not None
    message = _Message()
    root = message.init_root(plan.schema)
    set_field = root._set_by_field
    attrs = binding.attrs
    late: Late = []
    try:
        for name, value in values.items():
            field = attrs.get(name)
            if field is None:
                continue
            kind = field.type
            if kind.plain:
                set_field(field.capnp, value)
            else:
                kind.put(root, field, value, late)
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

"""A second codec: encodes and lazily reads events from a table of field offsets, without pycapnp.

It stands in for the compiled codec of docs/design.md, and shows that ``EventType.encode`` and ``EventType.open`` are
all that one has to provide. It knows numbers, Bool, Text and Data; an event with anything else, and one that carries
another's message, is left to the codec of the project, as a compiled one would do with rare types. What it makes is
Cap'n Proto, so the other side may have either codec.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lahja_capn.binding import BaseEvent, EventType, RequestToken, Segments
from lahja_capn.binding.pointers import list_at, root_pointer, struct_at
from lahja_capn.binding.record import new, set_dict

# By the schema's spelling of the type.
NUMBERS = {
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}
BLOBS = ("text", "data")


class Table:
    """Where the fields of a struct lie: attribute name, kind, and offset (bits of a Bool, bytes, or pointers)."""

    def __init__(self, event_type: EventType) -> None:
        binding: Any = event_type.event_class._binding
        node = binding.plan.schema.node
        self.data_words: int = node.struct.dataWordCount
        self.pointers: int = node.struct.pointerCount
        self.fields: list[tuple[str, str, int]] = []
        self.by_field: dict[int, tuple[str, int]] = {}
        self.is_complete = node.struct.discriminantCount == 0
        for name, field in binding.attrs.items():
            proto = field.capnp.proto
            kind = str(proto.slot.type.which()) if str(proto.which()) == "slot" else ""
            if kind not in NUMBERS and kind not in BLOBS and kind != "bool":
                self.is_complete = False
                return
            if proto.slot.hadExplicitDefault:
                self.is_complete = False
                return
            offset = proto.slot.offset
            if kind in NUMBERS:
                offset *= struct.calcsize("<" + NUMBERS[kind])
            self.fields.append((name, kind, offset))
            self.by_field[id(field.capnp)] = (kind, offset)

    def encode(self, values: dict[str, Any]) -> Segments:
        words = 1 + self.data_words + self.pointers
        head = bytearray(8 * words)
        struct.pack_into("<Q", head, 0, self.data_words << 32 | self.pointers << 48)
        tail: list[bytes] = []
        end = words
        for name, kind, offset in self.fields:
            if name not in values:
                continue
            value = values[name]
            if kind == "bool":
                head[8 + offset // 8] |= bool(value) << offset % 8
            elif kind in NUMBERS:
                struct.pack_into("<" + NUMBERS[kind], head, 8 + offset, value)
            else:
                content = value.encode() + b"\0" if kind == "text" else bytes(value)
                place = 1 + self.data_words + offset
                pointer = 1 | (end - place - 1) << 2 | 2 << 32 | len(content) << 35
                struct.pack_into("<Q", head, 8 * place, pointer)
                tail.append(content + bytes(-len(content) % 8))
                end += len(tail[-1]) // 8
        return (b"".join([bytes(head), *tail]),)


class Reader:
    """Reads the fields of one message, each when it is asked for."""

    def __init__(self, table: Table, segments: Segments) -> None:
        self._table = table
        root = root_pointer(segments)
        self._segments = segments
        self._place = struct_at(root) if root is not None else None
        if self._place is None and (root is None or root.word() != 0):
            raise ValueError("the root is no struct within the message")

    def _blob(self, index: int) -> memoryview | None:
        place = self._place.pointer(index) if self._place is not None else None
        if place is None or place.word() == 0:
            return None
        items = list_at(place)
        found = items.view(1) if items is not None else None
        if found is None:
            raise ValueError("a pointer to something else than bytes within the message")
        return found

    # The name by which the descriptors of events ask the reader that an event has.
    def _get_by_field(self, field: Any) -> Any:
        kind, offset = self._table.by_field[id(field)]
        place = self._place
        if kind in BLOBS:
            found = self._blob(offset)
            if found is None:
                return "" if kind == "text" else b""
            if kind == "data":
                return bytes(found)
            if not found or found[-1] != 0:
                raise ValueError("Text without a zero byte at its end")
            return str(found[:-1], "utf-8")
        if kind == "bool":
            inside = place is not None and offset // 8 < 8 * place.data_words
            return bool(
                inside and place and self._segments[place.segment][place.data + offset // 8] >> offset % 8 & 1
            )
        shape = "<" + NUMBERS[kind]
        if place is None or offset + struct.calcsize(shape) > 8 * place.data_words:
            return struct.unpack(shape, bytes(struct.calcsize(shape)))[0]
        return struct.unpack_from(shape, self._segments[place.segment], place.data + offset)[0]


class Codec:
    """The codec and what it did, by event type."""

    def __init__(self) -> None:
        self.encoded: Counter[str] = Counter()
        self.opened: Counter[str] = Counter()
        self._tables: dict[EventType, Table] = {}
        self._encode: Callable[..., Segments] = EventType.encode
        self._open: Callable[..., BaseEvent] = EventType.open

    def table(self, event_type: EventType) -> Table:
        table = self._tables.get(event_type)
        if table is None:
            table = self._tables[event_type] = Table(event_type)
        return table

    def encode(self, event_type: EventType, event: BaseEvent) -> Segments:
        private = event.__dict__
        table = self.table(event_type)
        if not table.is_complete or "_segments" in private or "_parent" in private:
            return self._encode(event_type, event)
        self.encoded[event_type.name] += 1
        return table.encode(private)

    def open(
        self,
        event_type: EventType,
        segments: Segments,
        origin: str | None = None,
        token: RequestToken | None = None,
    ) -> BaseEvent:
        table = self.table(event_type)
        if not table.is_complete:
            return self._open(event_type, segments, origin, token)
        try:
            reader = Reader(table, segments)
        except ValueError:
            # Where it cannot read, the other one says what is wrong.
            return self._open(event_type, segments, origin, token)
        self.opened[event_type.name] += 1
        event = new(event_type.event_class)
        set_dict(event, {"_segments": segments, "_reader": reader, "_origin": origin, "_token": token})
        return event


@contextmanager
def installed() -> Iterator[Codec]:
    """Put the codec in the place of the project's own: at the seam, and nowhere else."""
    codec = Codec()
    encode, open_ = EventType.encode, EventType.open

    def new_encode(self: EventType, event: BaseEvent) -> Segments:
        return codec.encode(self, event)

    def new_open(
        self: EventType, segments: Segments, origin: str | None = None, token: RequestToken | None = None
    ) -> BaseEvent:
        return codec.open(self, segments, origin, token)

    EventType.encode, EventType.open = new_encode, new_open  # type: ignore[method-assign]
    try:
        yield codec
    finally:
        EventType.encode, EventType.open = encode, open_  # type: ignore[method-assign]

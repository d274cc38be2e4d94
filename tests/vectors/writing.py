"""A small writer of Cap'n Proto messages that puts objects where it is told to.

Libraries decide themselves when to start a segment, and never write what is wrong. This one takes a value in the
JSON form of README.md and writes it with each object in a segment of the caller's choice; and it writes whatever
words it is given.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .plans import Field, Plan, Type, conformance, plan_of

MASK_30 = (1 << 30) - 1
BYTE, POINTER, COMPOSITE = 2, 6, 7
_CODE_OF_BITS = {0: 0, 1: 1, 8: 2, 16: 3, 32: 4, 64: 5}

# Where to put the next object, of so many words: (segment, whether the way there is a double far pointer).
Place = Callable[["Builder", int, int], tuple[int, bool]]


@dataclass(frozen=True)
class Where:
    segment: int
    word: int

    def __add__(self, words: int) -> Where:
        return Where(self.segment, self.word + words)


@dataclass(frozen=True)
class Raw:
    """A value whose pointer the caller writes: what it reads as, and what writes it at a place."""

    json: Any
    write: Callable[[Builder, Where], None]


@dataclass(frozen=True)
class Sized:
    """A struct of another size than the schema's: what an older or newer writer makes."""

    json: Any
    data_words: int
    pointers: int


def in_one_segment(builder: Builder, parent: int, words: int) -> tuple[int, bool]:
    return 0, False


def each_in_its_own(builder: Builder, parent: int, words: int) -> tuple[int, bool]:
    """Every object in a new segment: single far pointers everywhere."""
    return builder.new_segment(), False


def each_far_away(builder: Builder, parent: int, words: int) -> tuple[int, bool]:
    """Every object in a new segment that has no room for a landing pad: double far pointers everywhere."""
    # The C++ library takes a pointer into a segment without words for one to nowhere.
    return builder.new_segment(0 if words else 1), True


def in_turns(segments: int) -> Place:
    """Objects go round a fixed number of segments."""
    turn = 0

    def place(builder: Builder, parent: int, words: int) -> tuple[int, bool]:
        nonlocal turn
        while len(builder.parts) < segments:
            builder.new_segment()
        turn += 1
        return turn % segments, False

    return place


class Builder:
    """The segments of one message. The first word of segment 0 is the root pointer."""

    def __init__(self, place: Place = in_one_segment) -> None:
        self.parts = [bytearray(8)]
        self._place = place

    # --- words ------------------------------------------------------------------------------------------

    def new_segment(self, words: int = 0) -> int:
        self.parts.append(bytearray(8 * words))
        return len(self.parts) - 1

    def alloc(self, segment: int, words: int) -> Where:
        part = self.parts[segment]
        where = Where(segment, len(part) // 8)
        part += bytes(8 * words)
        return where

    def put(self, where: Where, word: int) -> None:
        struct.pack_into("<Q", self.parts[where.segment], 8 * where.word, word & (1 << 64) - 1)

    def put_bytes(self, where: Where, data: bytes) -> None:
        start = 8 * where.word
        self.parts[where.segment][start : start + len(data)] = data

    def put_bits(self, base: Where, bit: int, bits: int, raw: int) -> None:
        """XOR ``raw`` into a data section, at a bit's offset from its start."""
        part = self.parts[base.segment]
        at = 8 * base.word + bit // 8
        size = max(1, bits // 8)
        value = int.from_bytes(part[at : at + size], "little") ^ (raw << bit % 8)
        part[at : at + size] = value.to_bytes(size, "little")

    @property
    def segments(self) -> tuple[bytes, ...]:
        return tuple(bytes(part) for part in self.parts)

    # --- pointers ---------------------------------------------------------------------------------------

    def point(self, at: Where, to: Where, low: int, high: int, double: bool = False) -> None:
        """Write a struct (``low`` 0) or list (1) pointer, through far pointers where it takes them."""
        if at.segment == to.segment and not double:
            self.put(at, near(at, to, low, high))
            return
        if not double:
            pad = self.alloc(to.segment, 1)
            self.put(pad, near(pad, to, low, high))
            self.put(at, far(pad))
            return
        pad = self.alloc(self.new_segment(), 2)
        self.put(pad, far(to))
        self.put(pad + 1, low | high << 32)
        self.put(at, far(pad, double=True))

    def _object(self, at: Where, words: int) -> tuple[Where, bool]:
        segment, double = self._place(self, at.segment, words)
        return self.alloc(segment, words), double

    # --- objects ----------------------------------------------------------------------------------------

    def struct(self, at: Where, plan: Plan, value: Any) -> None:
        """Write a struct and the pointer to it."""
        data_words, pointers = plan.data_words, plan.pointers
        if isinstance(value, Raw):
            value.write(self, at)
            return
        if isinstance(value, Sized):
            data_words, pointers = value.data_words, value.pointers
        to, double = self._object(at, data_words + pointers)
        if data_words + pointers == 0:
            # Offset -1 tells a struct without words from a null pointer.
            self.put(at, MASK_30 << 2)
            return
        self.point(at, to, 0, data_words | pointers << 16, double)
        self.fill(to, to + data_words, plan, value)

    def fill(self, data: Where, pointers: Where, plan: Plan, value: Any) -> None:
        """Write a struct's fields, those that are given, into its sections."""
        value = getattr(value, "json", value)
        if "anything" in value and "anyKind" not in value:
            value = {**value, "anyKind": next(iter(value["anything"]))}
        for name, content in value.items():
            if name == "unknown":
                assert plan.discriminant_offset is not None
                self.put_bits(data, 16 * plan.discriminant_offset, 16, content)
                continue
            f = plan.fields[name]
            if f.discriminant is not None:
                assert plan.discriminant_offset is not None
                self.put_bits(data, 16 * plan.discriminant_offset, 16, f.discriminant)
            if f.group is not None:
                self.fill(data, pointers, f.group, content)
            elif f.type is not None and f.type.is_pointer:
                self.pointer(pointers + f.offset, f.type, content)
            else:
                self._scalar(data, f, content)

    def _scalar(self, data: Where, f: Field, content: Any) -> None:
        kind = f.type
        assert kind is not None
        if kind.kind != "void":
            self.put_bits(data, f.offset * kind.bits, kind.bits, kind.raw(content) ^ f.default)

    def pointer(self, at: Where, kind: Type, value: Any) -> None:
        if isinstance(value, Raw):
            value.write(self, at)
        elif value is None:
            return
        elif kind.kind == "struct":
            self.struct(at, kind.plan, value)
        elif kind.kind == "text":
            self.bytes(at, value.encode() + b"\0")
        elif kind.kind == "data":
            self.bytes(at, bytes.fromhex(value))
        elif kind.kind == "any":
            self._anything(at, value)
        else:
            assert kind.element is not None
            self.list(at, kind.element, value)

    def _anything(self, at: Where, value: Any) -> None:
        ((member, content),) = value.items()
        kind = {
            "null": None,
            "text": Type("text"),
            "data": Type("data"),
            "inner": Type("struct", schema=conformance.Inner),
            "u16s": Type("list", element=Type("int", 16)),
        }[member]
        if kind is not None:
            self.pointer(at, kind, content)

    def bytes(self, at: Where, data: bytes, code: int = BYTE) -> None:
        to, double = self._object(at, -(-len(data) // 8))
        self.put_bytes(to, data)
        self.point(at, to, 1, code | len(data) << 3, double)

    def list(self, at: Where, element: Type, values: list[Any]) -> None:
        count = len(values)
        if element.kind == "struct":
            self.composite(at, element.plan, values)
            return
        if element.is_pointer:
            to, double = self._object(at, count)
            self.point(at, to, 1, POINTER | count << 3, double)
            for i, value in enumerate(values):
                self.pointer(to + i, element, value)
            return
        bits = element.bits
        to, double = self._object(at, -(-count * bits // 64))
        self.point(at, to, 1, _CODE_OF_BITS[bits] | count << 3, double)
        for i, value in enumerate(values):
            if bits:
                self.put_bits(to, i * bits, bits, element.raw(value))

    def composite(
        self,
        at: Where,
        plan: Plan,
        values: list[Any],
        data_words: int | None = None,
        pointers: int | None = None,
    ) -> None:
        """Write a list of structs, of the schema's size or of another."""
        data_words = plan.data_words if data_words is None else data_words
        pointers = plan.pointers if pointers is None else pointers
        words = len(values) * (data_words + pointers)
        to, double = self._object(at, 1 + words)
        self.put(to, len(values) << 2 | data_words << 32 | pointers << 48)
        self.point(at, to, 1, COMPOSITE | words << 3, double)
        for i, value in enumerate(values):
            start = to + (1 + i * (data_words + pointers))
            self.fill(start, start + data_words, plan, value)


def near(at: Where, to: Where, low: int, high: int) -> int:
    return low | (to.word - at.word - 1 & MASK_30) << 2 | high << 32


def far(pad: Where, double: bool = False) -> int:
    return 2 | double << 2 | pad.word << 3 | pad.segment << 32


def message(schema: Any, value: Any, place: Place = in_one_segment) -> tuple[bytes, ...]:
    """Return the segments of a message whose root is ``value``, in JSON form; left-out fields stay unset."""
    builder = Builder(place)
    builder.struct(Where(0, 0), plan_of(schema), value)
    return builder.segments


def stream(segments: tuple[bytes, ...], padding: int = 0) -> bytes:
    """Return a message in stream framing."""
    sizes = [len(segment) // 8 for segment in segments]
    table = struct.pack(f"<I{len(sizes)}I", len(sizes) - 1, *sizes)
    if len(sizes) % 2 == 0:
        table += struct.pack("<I", padding)
    return table + b"".join(segments)


def frame(wire_id: int, flags: int, correlation: int, segments: tuple[bytes, ...]) -> bytes:
    return framed(wire_id, flags, correlation, stream(segments))


def framed(wire_id: int, flags: int, correlation: int, body: bytes) -> bytes:
    """Return the frame around a body that may be anything."""
    return struct.pack("<IHHQ", 12 + len(body), wire_id, flags, correlation) + body

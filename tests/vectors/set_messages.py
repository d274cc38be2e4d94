"""Messages that a schema's own writer would not make: several segments, other versions, unusual and broken pointers."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from . import writing
from .plans import Plan, complete, conformance, newer, older, plan_of, wire
from .set_values import everything_values
from .store import Store, recipe_of
from .writing import Builder, Raw, Sized, Where, message, stream

SOME: dict[str, Any] = {
    "u16": 5,
    "text": "text",
    "inner": {"number": 1, "label": "one", "more": [{"number": 2}]},
    "texts": ["a", "bcdefghij"],
    "inners": [{"number": 3, "label": "three"}],
    "u64s": ["1", "2", "3"],
    "word": "w",
}


def add(store: Store) -> None:
    _add_segments(store)
    _add_forms(store)
    _add_evolution(store)
    _add_broken(store)


def _put(
    store: Store, name: str, kind: str, note: str, segments: tuple[bytes, ...], value: Any, **more: Any
) -> None:
    facts = {
        "note": note,
        "type": kind,
        **more,
        "segments": len(segments),
        "value": complete(plan_of(getattr(wire if more else conformance, kind)), value),
    }
    data = stream(segments)
    store.add("messages", name, facts, data)


# --- segments -----------------------------------------------------------------------------------------------


def _add_segments(store: Store) -> None:
    full = everything_values()["full"][1]
    for name, place, note in (
        ("two", writing.in_turns(2), "objects in turns in two segments; padding behind the table"),
        ("three", writing.in_turns(3), "in three segments; no padding"),
        ("far", writing.each_in_its_own, "every object in a segment of its own, behind a far pointer"),
        ("double-far", writing.each_far_away, "every object behind a double far pointer"),
    ):
        segments = message(conformance.Everything, full, place)
        _put(store, f"segments-{name}", "Everything", note, segments, full)

    builder = Builder(writing.in_turns(2))
    builder.struct(Where(0, 0), plan_of(conformance.Everything), SOME)
    for _ in range(2):
        builder.new_segment()
    builder.parts.insert(1, bytearray())
    # What pointed to segment 1 points to segment 2 now.
    for segment in (0, 2):
        part = builder.parts[segment]
        for at in range(0, len(part), 8):
            word = int.from_bytes(part[at : at + 8], "little")
            if word & 7 == 2 and word >> 32 == 1:
                part[at + 4] = 2
    _put(
        store,
        "segments-empty-ones",
        "Everything",
        "five segments, of which 1, 3 and 4 are empty",
        builder.segments,
        SOME,
    )

    segments = _in_many_segments()
    _put(
        store,
        "segments-512",
        "Everything",
        "the most segments that are legal: a text in each but the first",
        segments,
        {"texts": [f"text {i}" for i in range(511)]},
    )
    segments = (*message(conformance.Count, {"number": "9"}), *[b""] * 511)
    _put(
        store,
        "segments-512-empty",
        "Count",
        "512 segments, all but the first empty",
        segments,
        {"number": "9"},
    )

    # The first segment holds the root pointer alone; what the far pointer leads to may be anywhere.
    builder = Builder()
    builder.new_segment(1)
    to = builder.alloc(1, 1)
    builder.put(to, 7)
    pad = builder.alloc(1, 1)
    builder.put(pad, writing.near(pad, to, 0, 1))
    builder.put(Where(0, 0), writing.far(pad))
    _put(
        store,
        "segments-pad-behind",
        "Count",
        "the landing pad stands behind the struct: a negative offset",
        builder.segments,
        {"number": "7"},
    )

    builder = Builder()
    to = builder.alloc(builder.new_segment(), 1)
    builder.put(to, 8)
    builder.point(Where(0, 0), to, 0, 1, double=True)
    _put(
        store,
        "segments-double-far-root",
        "Count",
        "the root pointer is a double far one",
        builder.segments,
        {"number": "8"},
    )


def _in_many_segments() -> tuple[bytes, ...]:
    turn = 0

    def place(builder: Builder, parent: int, words: int) -> tuple[int, bool]:
        nonlocal turn
        turn += 1
        # The struct, the list, and the first text stay in segment 0, so that 511 others are used.
        return (builder.new_segment(), False) if turn > 2 else (0, False)

    value = {"texts": [f"text {i}" for i in range(511)]}
    return message(conformance.Everything, value, place)


# --- forms that are legal -----------------------------------------------------------------------------------


def upgraded(values: list[Any], bits: int) -> Callable[[Builder, Where], None]:
    """A list of numbers, written as a list of structs of one data word and one pointer."""

    def write(builder: Builder, at: Where) -> None:
        to = builder.alloc(at.segment, 1 + 2 * len(values))
        builder.put(to, len(values) << 2 | 1 << 32 | 1 << 48)
        builder.point(at, to, 1, writing.COMPOSITE | 2 * len(values) << 3)
        for i, value in enumerate(values):
            # What follows the number belongs to fields that the reader does not know.
            builder.put(to + (1 + 2 * i), int(value) | (0xABCD << bits if bits < 48 else 0))

    return write


def upgraded_texts(values: list[str]) -> Callable[[Builder, Where], None]:
    """A list of texts, written as a list of structs of one data word and two pointers."""

    def write(builder: Builder, at: Where) -> None:
        to = builder.alloc(at.segment, 1 + 3 * len(values))
        builder.put(to, len(values) << 2 | 1 << 32 | 2 << 48)
        builder.point(at, to, 1, writing.COMPOSITE | 3 * len(values) << 3)
        for i, value in enumerate(values):
            builder.put(to + (1 + 3 * i), 99)
            builder.bytes(to + (2 + 3 * i), value.encode() + b"\0")

    return write


def _plain_list(values: list[int], bits: int, code: int) -> Callable[[Builder, Where], None]:
    """A list of numbers, where the schema has structs."""

    def write(builder: Builder, at: Where) -> None:
        to = builder.alloc(at.segment, -(-len(values) * bits // 64))
        builder.point(at, to, 1, code | len(values) << 3)
        for i, value in enumerate(values):
            builder.put_bits(to, i * bits, bits, value)

    return write


def _add_forms(store: Store) -> None:
    def everything(name: str, note: str, written: dict[str, Any], value: dict[str, Any]) -> None:
        segments = message(conformance.Everything, written)
        _put(store, name, "Everything", note, segments, value)

    value: dict[str, Any] = {"u16s": [1, 2, 65535], "u64s": ["1", str(2**64 - 1)], "texts": ["x", "yz"]}
    written = {
        "u16s": Raw(value["u16s"], upgraded(value["u16s"], 16)),
        "u64s": Raw(value["u64s"], upgraded(value["u64s"], 64)),
        "texts": Raw(value["texts"], upgraded_texts(value["texts"])),
    }
    everything(
        "forms-lists-as-structs",
        "lists of numbers and of texts, written as lists of structs: the reader takes each one's first field",
        written,
        value,
    )

    value = {"inners": [{"number": 7}, {"number": -1}]}
    everything(
        "forms-structs-as-numbers",
        "a list of structs, written as a list of UInt32: the first field of each, the rest has its defaults",
        {"inners": Raw(value["inners"], _plain_list([7, 2**32 - 1], 32, 4))},
        value,
    )

    def labels(builder: Builder, at: Where) -> None:
        to = builder.alloc(at.segment, 2)
        builder.point(at, to, 1, writing.POINTER | 2 << 3)
        builder.bytes(to, b"first\0")

    value = {"inners": [{"label": "first"}, {}]}
    everything(
        "forms-structs-as-pointers",
        "a list of structs, written as a list of pointers: the first pointer of each",
        {"inners": Raw(value["inners"], labels)},
        value,
    )

    def nothing(builder: Builder, at: Where) -> None:
        builder.point(at, builder.alloc(at.segment, 0), 1, 0 | 3 << 3)

    value = {"inners": [{}, {}, {}]}
    everything(
        "forms-structs-as-voids",
        "a list of three structs, written as a list of Void",
        {"inners": Raw(value["inners"], nothing)},
        value,
    )

    def no_size(builder: Builder, at: Where) -> None:
        plan = plan_of(conformance.Inner)
        builder.composite(at, plan, [{}, {}], data_words=0, pointers=0)

    value = {"inners": [{}, {}]}
    everything(
        "forms-structs-without-words",
        "a list of two structs that have no words",
        {"inners": Raw(value["inners"], no_size)},
        value,
    )

    everything(
        "forms-structs-shorter",
        "structs without pointers, and without data, and without anything",
        {"inner": Sized({"number": 4}, 1, 0), "innerDefault": Sized({}, 0, 0), "part": Sized({}, 0, 1)},
        {"inner": {"number": 4}, "innerDefault": {}, "part": {}},
    )
    everything(
        "forms-structs-longer",
        "structs with two more words of data and one more pointer than the schema has",
        {"inner": Sized({"number": 4, "label": "four"}, 3, 3)},
        {"inner": {"number": 4, "label": "four"}},
    )

    # Bytes of a Void, and of a data section beyond what a union's member uses, mean nothing.
    builder = Builder()
    builder.struct(Where(0, 0), plan_of(conformance.Everything), {"none": None})
    builder.put_bits(Where(0, 1), 448, 32, 0xDEADBEEF)
    _put(
        store,
        "forms-union-left-overs",
        "Everything",
        "the union is `none`, but bytes of a member that was set before are still there",
        builder.segments,
        {"none": None},
    )

    builder = Builder()
    builder.struct(Where(0, 0), plan_of(conformance.Count), {"number": "6"})
    builder.alloc(0, 3)
    for i in range(3):
        builder.put(Where(0, 2 + i), 0x0101010101010101 * (i + 1))
    _put(
        store,
        "forms-unused-words",
        "Count",
        "words that no pointer leads to",
        builder.segments,
        {"number": "6"},
    )

    _put(store, "forms-null-root", "Everything", "a null root pointer: all defaults", (bytes(8),), {})
    _put(
        store,
        "forms-root-without-words",
        "Everything",
        "a root struct without words: all defaults",
        (struct.pack("<Q", writing.MASK_30 << 2),),
        {},
    )

    value = {"data": "0005ff"}
    _put(
        store,
        "opaque",
        "Opaque",
        "the message of an event of kind opaque",
        message(wire.Opaque, value),
        value,
        schema="wire",
    )


# --- other versions -----------------------------------------------------------------------------------------


def evolving() -> dict[str, tuple[str, Any, Any, Any]]:
    """Name -> (note, the writer's struct, what it wrote, what a reader of conformance.capnp sees)."""
    return {
        "older": (
            "an older writer",
            older.Evolving,
            {"number": 1, "text": "old"},
            {"number": 1, "text": "old"},
        ),
        "older-empty": ("an older writer, nothing set", older.Evolving, {}, {}),
        "newer": (
            "a newer writer: more fields, and a struct with more fields",
            newer.Evolving,
            {
                "number": 2,
                "text": "new",
                "inner": {"number": 3, "weight": "3fc00000", "more": [{"number": 4, "weight": "40000000"}]},
                "choice": {"right": "r"},
                "extra": ["unknown here", "this too"],
                "more": "8",
            },
            {
                "number": 2,
                "text": "new",
                "inner": {"number": 3, "more": [{"number": 4}]},
                "choice": {"right": "r"},
            },
        ),
        "newer-unknown-member": (
            "a newer writer, whose union has a member that the reader does not know",
            newer.Evolving,
            {"number": 3, "choice": {"middle": "3ff8000000000000"}},
            {"number": 3, "choice": {"unknown": 2}},
        ),
    }


def _add_evolution(store: Store) -> None:
    for name, (note, struct_, written, value) in evolving().items():
        _put(store, f"evolving-{name}", "Evolving", note, message(struct_, written), value)


# --- broken inside ------------------------------------------------------------------------------------------


def broken() -> dict[str, tuple[str, dict[str, Any]]]:
    """Name -> (note, Everything in which something cannot be read)."""

    def word(value: int) -> Callable[[Builder, Where], None]:
        return lambda builder, at: builder.put(at, value)

    def cycle(builder: Builder, at: Where) -> None:
        """A far pointer to a landing pad that is a far pointer to itself."""
        pad = builder.alloc(at.segment, 1)
        builder.put(pad, writing.far(pad))
        builder.put(at, writing.far(pad))

    def double_cycle(builder: Builder, at: Where) -> None:
        pad = builder.alloc(at.segment, 2)
        builder.put(pad, writing.far(pad, double=True))
        builder.put(pad + 1, 1 << 32)
        builder.put(at, writing.far(pad, double=True))

    def loop(builder: Builder, at: Where) -> None:
        """An Everything whose `again` is itself."""
        plan: Plan = plan_of(conformance.Everything)
        to = builder.alloc(at.segment, plan.data_words + plan.pointers)
        size = plan.data_words | plan.pointers << 16
        builder.point(at, to, 0, size)
        again = to + plan.data_words + plan.fields["again"].offset
        builder.point(again, to, 0, size)

    def many_voids(builder: Builder, at: Where) -> None:
        """2^29 - 1 elements in no word."""
        builder.point(at, builder.alloc(at.segment, 0), 1, 0 | (2**29 - 1) << 3)

    def many_empty_structs(builder: Builder, at: Where) -> None:
        to = builder.alloc(at.segment, 1)
        builder.put(to, (2**29 - 1) << 2)
        builder.point(at, to, 1, writing.COMPOSITE)

    def lying_tag(builder: Builder, at: Where) -> None:
        to = builder.alloc(at.segment, 3)
        builder.put(to, 1000 << 2 | 1 << 32 | 1 << 48)
        builder.point(at, to, 1, writing.COMPOSITE | 2 << 3)

    def list_as_text(builder: Builder, at: Where) -> None:
        builder.list(at, plan_of(conformance.Everything).fields["u64s"].type.element, ["1"])  # type: ignore[union-attr, arg-type]

    def unterminated(builder: Builder, at: Where) -> None:
        builder.bytes(at, b"no end!!")

    def no_bytes(builder: Builder, at: Where) -> None:
        builder.bytes(at, b"")

    def amplified(builder: Builder, at: Where) -> None:
        to = builder.alloc(at.segment, 1000)
        builder.point(at, to, 1, writing.POINTER | 1000 << 3)
        one = builder.alloc(at.segment, 500)
        for i in range(1000):
            builder.point(to + i, one, 1, writing.BYTE | 4000 << 3)

    struct_far_away = 0 | 100_000 << 2 | 1 << 32
    return {
        "pointer-outside": ("a struct beyond the segment's end", {"inner": Raw({}, word(struct_far_away))}),
        "pointer-before": (
            "a struct before the segment's start",
            {"inner": Raw({}, word((-100_000 & writing.MASK_30) << 2 | 1 << 32))},
        ),
        "list-too-long": (
            "a list that goes on behind the segment's end",
            {"u64s": Raw([], word(1 | 0 << 2 | 5 << 32 | 1_000_000 << 35))},
        ),
        "far-unknown-segment": (
            "a far pointer into segment 77 of one",
            {"text": Raw("", word(2 | 0 << 3 | 77 << 32))},
        ),
        "far-outside": ("a far pointer beyond its segment", {"text": Raw("", word(2 | 99_999 << 3))}),
        "far-cycle": ("a far pointer whose landing pad leads to itself", {"text": Raw("", cycle)}),
        "far-double-cycle": ("the same, doubly", {"inner": Raw({}, double_cycle)}),
        "struct-for-list": ("a struct where a list should be", {"u16s": Raw([], word(1 << 32))}),
        "list-for-struct": (
            "a list where a struct should be",
            {"inner": Raw({}, word(1 | 2 << 32 | 0 << 35))},
        ),
        "capability": (
            "a capability, of which content has none",
            {"anyKind": "text", "anything": Raw({"null": None}, word(3))},
        ),
        "pointer-reserved": (
            "bits of an `other` pointer that mean nothing",
            {"text": Raw("", word(7 | 1 << 40))},
        ),
        "struct-in-itself": ("a struct that contains itself", {"again": Raw(None, loop)}),
        "voids-without-end": ("536,870,911 elements of Void", {"nothings": Raw([], many_voids)}),
        "structs-without-end": (
            "536,870,911 structs without words",
            {"inners": Raw([], many_empty_structs)},
        ),
        "list-tag-lies": ("a list's tag that says more elements than words", {"inners": Raw([], lying_tag)}),
        "wrong-element-size": ("numbers where a text should be", {"text": Raw("", list_as_text)}),
        "text-without-nul": ("a text without its final NUL", {"text": Raw("", unterminated)}),
        "text-of-no-bytes": ("a text of zero bytes, not even its NUL", {"text": Raw("", no_bytes)}),
        "text-not-utf-8": (
            "a text that is not UTF-8",
            {"text": Raw("", lambda b, at: b.bytes(at, b"\xff\xfe\x80\0"))},
        ),
        "amplified": ("1,000 pointers to the same 4,000 bytes: 4 MB in 12 kB", {"datas": Raw([], amplified)}),
    }


def _add_broken(store: Store) -> None:
    for name, (note, value) in broken().items():
        data = stream(message(conformance.Everything, value))
        facts = {"note": note, "type": "Everything", "segments": 1, "unreadable": True}
        store.add("messages", f"broken-{name}", facts, data)
    plan = plan_of(conformance.Everything)
    deep = Builder()
    at = Where(0, 0)
    size = 0 | plan.pointers << 16
    for _ in range(200):
        to = deep.alloc(0, plan.pointers)
        deep.point(at, to, 0, size)
        at = to + plan.fields["again"].offset
    data = stream(deep.segments)
    facts = {
        "note": "200 times Everything in Everything: more than the nesting limit of most readers",
        "type": "Everything",
        "segments": 1,
        "unreadable": True,
        "recipe": recipe_of(data, 8 * plan.pointers),
    }
    store.add("messages", "broken-too-deep", facts, data)

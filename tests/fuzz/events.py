"""Events from hostile bytes, read in full.

An input is a byte of options and a message in stream framing::

    bits 0-2  the type, of KINDS
    bit 3     what a handler may do with parts is done too
    bit 4     the event is compared with another of the same content
"""

from __future__ import annotations

import contextlib
from random import Random
from typing import Any

from lahja_capn import AnyPointer, BaseEvent, EventFieldError, bind
from lahja_capn.binding import EventType, event_type
from tests.fuzz import corpus
from tests.fuzz.mutate import damage_bytes, damage_message, join_message, split_message
from tests.fuzz.reading import read_in_full, use_parts
from tests.unit.binding import support as everything
from tests.vectors import bound


@bind(type_id=0xD5C4B3A291807F6E)
class Letters(BaseEvent):
    """Serializes itself, and is choosy."""

    def __init__(self, letters: str) -> None:
        self.letters = letters

    def serialize(self) -> bytes:
        return self.letters.encode()

    @classmethod
    def deserialize(cls, data: bytes) -> Letters:
        return cls(data.decode("ascii"))


def _inner(depth: int) -> Any:
    return everything.Inner(number=depth, text="t" * depth, more=[_inner(depth - 1)] * 2 if depth else [])


def full() -> everything.Everything:
    """An event of everything.capnp with every field set, but for the members of unions that exclude each other."""
    numbers = {f"{sign}int{bits}s": [1, 2, 3, 100] for sign in ("", "u") for bits in (8, 16, 32, 64)}
    return everything.Everything(
        bool=True,
        int8=-1,
        uint64=2**64 - 1,
        float32=1.5,
        float64=-2.5,
        text="text",
        data=b"data",
        color="green",
        inner=_inner(2),
        voids=[None] * 3,
        bools=[True, False] * 5,
        **numbers,
        float32s=[1.0] * 8,
        float64s=[2.0] * 8,
        texts=["a", "", "longer than a word"],
        datas=[b"a", b"", b"longer than a word"],
        colors=["red", "blue"],
        inners=[_inner(1), _inner(0)],
        numberLists=[[1, 2], [], [3]],
        textLists=[["a"], [], ["b", "c"]],
        innerLists=[[_inner(0)], [], [_inner(1)]],
        place={"x": 1.0, "label": "here", "inner": _inner(0)},
        part=_inner(1),
        shape={"polygon": [1.0, 2.0]},
        any=_inner(1),
        anyStruct=_inner(0),
        anyList=AnyPointer.of_list("UInt16", [1, 2, 3]),
        textBox={"value": "boxed"},
        innerBox={"value": _inner(0)},
        pair={"first": "one", "second": b"two", "boxed": {"value": b"three"}},
        nested={"value": {"value": [_inner(0)]}},
        dataDefault=b"other",
        listDefault=[9],
        innerDefault=_inner(0),
        self={"any": "text", "word": "inside", "self": {"any": _inner(0)}},
    )


# Everything twice: it has the most to go wrong.
KINDS: list[EventType] = [
    event_type(everything.Everything),
    bound.TYPES["Everything"],
    event_type(everything.Blob),
    event_type(everything.Choice),
    bound.TYPES["Evolving"],
    bound.TYPES["Answer"],
    event_type(Letters),
    event_type(everything.Everything),
]
_PARTS = 8
_COMPARE = 16
_ALL = _PARTS | _COMPARE
_BY_NAME = {"Everything": 1, "Evolving": 4, "Answer": 5}


class Events:
    name = "events"
    # libcapnp's limit lets 8,192 words be read besides eight times the message's own, and elements without words count
    # one each: as many objects may come of a few bytes. One that is copied into another event takes about 1 KiB.
    base_bytes = 16 << 20
    bytes_per_byte = 256
    max_bytes = 8192

    def seeds(self) -> list[bytes]:
        found = [bytes((_BY_NAME.get(name, 0) | _ALL,)) + data for name, data in corpus.messages()]
        blob = everything.Blob(
            id=1,
            data=b"blob",
            numbers=range(20),
            note="note",
            choice={"payload": b"payload"},
            parts=[everything.Part(name="p", content=b"content")] * 2,
        )
        made: list[tuple[int, Any]] = [
            (0, full()),
            (2, blob),
            (3, everything.Choice(data=b"data")),
            (3, everything.Choice(bytes=range(200))),
            (6, Letters("letters")),
        ]
        for index, event in made:
            segments = tuple(map(bytes, KINDS[index].encode(event)))
            found.append(bytes((index | _ALL,)) + join_message(segments))
            # Read as another type: its pointers then lead to what is of another kind.
            found.append(bytes((index + 1 & 7,)) + join_message(segments))
        return found

    def mutate(self, data: bytes, seed: int) -> bytes:
        rng = Random(seed)
        kind, message = data[0] & 7 if data else 0, data[1:]
        if rng.random() < 0.02:
            kind = rng.randrange(len(KINDS))
        # The options take longer than the rest: now and then, one of them.
        option = rng.choice((0, 0, 0, 0, 0, 0, 0, 0, _PARTS, _COMPARE))
        damage = damage_message if rng.random() < 0.97 else damage_bytes
        return bytes((kind | option,)) + damage(message, rng)

    def run(self, data: bytes) -> None:
        options = data[0] if data else 0
        kind = KINDS[options & 7]
        segments = split_message(data[1:])
        try:
            event: Any = kind.open(segments, "peer")
        except EventFieldError:
            assert kind.row.kind == "opaque"
            return
        if kind.row.kind == "opaque":
            assert event.letters.isascii()
            return
        read_in_full(event)
        if options & _PARTS:
            use_parts(event)
        if options & _COMPARE:
            # Another message with the same content, so that comparing has to look.
            twin: Any = kind.open((*segments, b""), "peer")
            with contextlib.suppress(EventFieldError):
                assert event == twin, "an event differs from its copy"
            assert repr(event) == repr(twin), "reading changed what there is to read"

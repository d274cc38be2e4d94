"""Values of every field type: as messages, and as values to build."""

from __future__ import annotations

from typing import Any

from .plans import complete, conformance, plan_of
from .store import Store, recipe_of
from .writing import message, stream

F32 = {"-0": "80000000", "inf": "7f800000", "-inf": "ff800000", "nan": "7fc00000", "1.5": "3fc00000"}
F32 |= {"max": "7f7fffff", "least": "00000001", "0": "00000000"}
F64 = {"-0": "8000000000000000", "inf": "7ff0000000000000", "-inf": "fff0000000000000"}
F64 |= {"nan": "7ff8000000000000", "max": "7fefffffffffffff", "least": "0000000000000001"}
F64 |= {"0": "0000000000000000", "1/3": "3fd5555555555555"}

NON_ASCII = 'žluťoučký 你好 🦀 \u0301 "\\" \u2028 \U0010ffff'

Everything = dict[str, Any]

# Enumerants without a name: most libraries cannot be made to write them.
_READ_ONLY = ("everything-enums", "ask-unknown-mode")


def inner(number: int, label: str | None = None, *more: Any) -> dict[str, Any]:
    value: dict[str, Any] = {"number": number}
    if label is not None:
        value["label"] = label
    if more:
        value["more"] = list(more)
    return value


def ints(bits: int, signed: bool) -> list[Any]:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    values = [low, low + 1, *([-1, 0, 1] if signed else [2]), high - 1, high]
    return [str(v) for v in values] if bits == 64 else values


def everything_values() -> dict[str, tuple[str, Everything]]:
    """Name -> (note, value)."""
    deep: Any = inner(0, "bottom")
    for level in range(1, 21):
        deep = inner(level, f"level {level}", deep)
    found: dict[str, tuple[str, Everything]] = {
        "empty": ("nothing is set: every field has its default", {}),
        "full": (
            "every field holds something that is not its default",
            {
                "nothing": None,
                "flag": True,
                "i8": -5,
                "i16": -300,
                "i32": -70000,
                "i64": "-5000000000",
                "u8": 200,
                "u16": 60000,
                "u32": 4000000000,
                "u64": "10000000000000000000",
                "f32": F32["1.5"],
                "f64": F64["1/3"],
                "text": "text",
                "data": "00ff10",
                "color": "green",
                "inner": inner(3, "inside", inner(4), inner(5, "")),
                "nothings": [None, None, None],
                "flags": [True, False, True, True, False, False, False, True, True],
                "i8s": [-1, 2],
                "i16s": [-1, 2],
                "i32s": [-1, 2],
                "i64s": ["-1", "2"],
                "u8s": [1, 255],
                "u16s": [1, 65535],
                "u32s": [1, 4294967295],
                "u64s": ["1", "18446744073709551615"],
                "f32s": [F32["1.5"]],
                "f64s": [F64["1/3"]],
                "texts": ["a", "", "bcdefgh"],
                "datas": ["00", "", "0102030405060708"],
                "colors": ["blue", "red", "green"],
                "inners": [inner(1), inner(2, "two")],
                "u16Lists": [[], [1], [2, 3, 4, 5, 6]],
                "textLists": [["x"], [], ["", "yz"]],
                "innerLists": [[inner(7, "seven")], []],
                "place": {"x": F64["max"], "label": "here", "inner": inner(8, "placed")},
                "count": 12345,
                "shape": {"polygon": [F32["1.5"], F32["-0"]]},
                "anything": {"text": "any text"},
                "flagDefault": False,
                "i16Default": 12,
                "f64Default": F64["-inf"],
                "textDefault": "other",
                "dataDefault": "04",
                "colorDefault": "red",
                "u8sDefault": [9],
                "innerDefault": inner(6, "mine"),
                "again": {"i8": 1, "word": "nested", "again": {"text": "deeper"}},
            },
        ),
        "numbers-lowest": (
            "least values",
            {
                "i8": -128,
                "i16": -32768,
                "i32": -2147483648,
                "i64": "-9223372036854775808",
                "f32": F32["least"],
                "f64": F64["least"],
                "i16Default": -32768,
                "f64Default": F64["-0"],
                "span": {"first": -32768, "last": -1},
            },
        ),
        "numbers-highest": (
            "greatest values",
            {
                "i8": 127,
                "i16": 32767,
                "i32": 2147483647,
                "i64": "9223372036854775807",
                "u8": 255,
                "u16": 65535,
                "u32": 4294967295,
                "u64": "18446744073709551615",
                "f32": F32["max"],
                "f64": F64["max"],
                "i16Default": 32767,
                "count": 4294967295,
            },
        ),
        "numbers-above-2-53": (
            "64-bit integers that a double cannot hold",
            {"i64": "-9007199254740993", "u64": "9007199254740993", "u64s": ["18446744073709551557"]},
        ),
        "numbers-minus-one": (
            "all bits set, also against a default",
            {"i8": -1, "i16": -1, "i32": -1, "i64": "-1", "i16Default": -1, "span": {"first": -1, "last": 0}},
        ),
        "numbers-zero-against-defaults": (
            "zero where the default is something else",
            {
                "flagDefault": False,
                "i16Default": 0,
                "f64Default": F64["0"],
                "textDefault": "",
                "dataDefault": "",
                "colorDefault": "red",
                "u8sDefault": [],
                "innerDefault": {},
            },
        ),
        "floats-nan": ("NaN", {"f32": F32["nan"], "f64": F64["nan"], "f64Default": F64["nan"]}),
        "floats-infinite": ("infinities", {"f32": F32["-inf"], "f64": F64["inf"], "f64Default": F64["inf"]}),
        "floats-minus-zero": ("negative zero", {"f32": F32["-0"], "f64": F64["-0"], "f64Default": F64["-0"]}),
        "lists-of-extremes": (
            "lists of every number type, with the extreme values",
            {
                "flags": [False, True] * 40 + [True],
                "i8s": ints(8, True),
                "i16s": ints(16, True),
                "i32s": ints(32, True),
                "i64s": ints(64, True),
                "u8s": ints(8, False),
                "u16s": ints(16, False),
                "u32s": ints(32, False),
                "u64s": ints(64, False),
                "f32s": sorted(F32.values()),
                "f64s": sorted(F64.values()),
                "nothings": [None] * 100,
                "shape": {"polygon": sorted(F32.values())},
            },
        ),
        "lists-empty": (
            "lists that are there and empty",
            {
                "nothings": [],
                "flags": [],
                "u8s": [],
                "u64s": [],
                "f64s": [],
                "texts": [],
                "datas": [],
                "inners": [],
                "u16Lists": [[], []],
                "textLists": [[]],
                "innerLists": [[], [{}]],
                "inner": {"more": []},
            },
        ),
        "texts-empty": (
            "texts and data that are there and empty",
            {
                "text": "",
                "data": "",
                "texts": ["", ""],
                "datas": ["", ""],
                "inner": {"label": ""},
                "word": "",
                "anything": {"text": ""},
                "textDefault": "",
                "dataDefault": "",
            },
        ),
        "texts-non-ascii": (
            "UTF-8 of one to four bytes a character",
            {
                "text": NON_ASCII,
                "texts": [NON_ASCII, "é" * 7, "🦀"],
                "inner": {"label": NON_ASCII},
                "word": "ключ",
                "place": {"label": "場所"},
                "textLists": [["ß"], ["Ω", "ﬀ"]],
                "textDefault": "défaut",
            },
        ),
        "texts-with-zeros": (
            "zero bytes inside: legal in Data, and legal in Text before its final NUL",
            {
                "text": "a\0b\0",
                "data": "00010000ff00",
                "texts": ["\0"],
                "datas": ["00", "0000000000000000"],
            },
        ),
        "texts-line-ends": ("line ends and controls are bytes like others", {"text": "\r\n\t\x7f\x01 end "}),
        "text-of-eight": ("lengths around a word", {"texts": ["1234567", "12345678", "123456789"]}),
        "structs-deep": ("lists in structs in lists, twenty levels", {"inner": deep, "inners": [deep]}),
        "again-deep": ("Everything in Everything", {"again": {"again": {"again": {"again": {"u8": 1}}}}}),
        "again-empty": ("set, and nothing in it: not the same as a null pointer", {"again": {}}),
        "enums": (
            "each enumerant, and numbers that no enumerant has",
            {"color": 3, "colors": ["red", "green", "blue", 3, 65535], "colorDefault": 1000},
        ),
        "any-data": ("an AnyPointer that holds Data", {"anything": {"data": "00010203ff"}}),
        "any-inner": ("a struct", {"anything": {"inner": inner(-1, "any", inner(-2))}}),
        "any-u16s": ("a list", {"anything": {"u16s": [0, 1, 65535]}}),
        "any-text": ("a text", {"anything": {"text": "žluť"}}),
        "any-empty-list": ("an empty list is not a null pointer", {"anything": {"u16s": []}}),
        "union-none": ("the first member, stated", {"none": None}),
        "union-count-zero": ("a member that holds its default is still the one that is set", {"count": 0}),
        "union-word": ("a text member", {"word": "word"}),
        "union-part": ("a struct member", {"part": inner(9, "part")}),
        "union-span": ("a group as a member", {"span": {"first": -2, "last": 3}}),
        "shape-circle": ("the named union's first member", {"shape": {"circle": F64["1/3"]}}),
        "shape-polygon-empty": ("a list member that is empty", {"shape": {"polygon": []}}),
        "shape-blank": ("a Void member", {"shape": {"blank": None}}),
    }
    return found


def other_values() -> dict[str, tuple[str, str, Any]]:
    """Name -> (type, note, value)."""
    return {
        "count-zero": ("Count", "zero", {}),
        "count-highest": ("Count", "2^64 - 1", {"number": str(2**64 - 1)}),
        "blob-empty": ("Blob", "no data", {"id": 1}),
        "blob-odd": ("Blob", "not a multiple of 8 bytes", {"id": 4294967295, "data": "0102030405060708ff"}),
        "late": ("Late", "the type that is declared late", {"text": "better than never"}),
        "ask": ("Ask", "a request", {"number": str(2**63), "mode": "fail"}),
        "ask-unknown-mode": ("Ask", "an enumerant of a newer schema", {"number": "1", "mode": 77}),
        "answer": ("Answer", "a response", {"number": "18446744073709551614", "text": "twice N"}),
        "evolving-right": (
            "Evolving",
            "the version in the middle",
            {"number": 5, "text": "five", "inner": inner(1, "in"), "choice": {"right": "right"}},
        ),
    }


def add(store: Store) -> None:
    plan = plan_of(conformance.Everything)
    for name, (note, value) in everything_values().items():
        _add(store, f"everything-{name}", "Everything", note, value, plan)
    for name, (kind, note, value) in other_values().items():
        _add(store, name, kind, note, value, plan_of(getattr(conformance, kind)))
    _add_long(store)


def _add(store: Store, name: str, kind: str, note: str, value: Any, plan: Any) -> None:
    shown = complete(plan, value)
    segments = message(getattr(conformance, kind), value)
    facts = {"note": note, "type": kind, "segments": 1, "value": shown}
    store.add("messages", name, facts, stream(segments))
    if name not in _READ_ONLY:
        store.add("values", name, {"note": note, "type": kind, "build": value, "value": shown})


def _add_long(store: Store) -> None:
    unit = bytes((k * 31 + 3) % 256 for k in range(256))
    long_data = {"repeat": unit.hex(), "times": 4096}
    data = stream(message(conformance.Blob, {"id": 3, "data": (unit * 4096).hex()}))
    facts: dict[str, Any] = {
        "note": "1 MiB of Data: byte k is (31 k + 3) mod 256",
        "type": "Blob",
        "segments": 1,
        "recipe": recipe_of(data, 256),
        "value": {"id": 3, "data": long_data},
    }
    store.add("messages", "blob-1-mib", facts, data)
    build = {"id": 3, "data": long_data}
    store.add(
        "values", "blob-1-mib", {"note": "1 MiB of Data", "type": "Blob", "build": build, "value": build}
    )
    long_text = {"repeat_text": "0123456789abcdé", "times": 8192}
    text = stream(message(conformance.Late, {"text": "0123456789abcdé" * 8192}))
    facts = {
        "note": "a text of 131,072 bytes",
        "type": "Late",
        "segments": 1,
        "recipe": recipe_of(text, 16),
        "value": {"text": long_text},
    }
    store.add("messages", "late-long-text", facts, text)
    build = {"text": long_text}
    store.add(
        "values", "late-long-text", {"note": "a long text", "type": "Late", "build": build, "value": build}
    )

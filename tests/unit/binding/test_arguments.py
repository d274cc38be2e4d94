"""Constructor arguments: what is refused, with which words, and what is copied."""

from __future__ import annotations

import enum
import fractions
from array import array
from collections.abc import Callable
from typing import Any

import pytest

from lahja_capn.binding import AnyPointer, Enumerant, Struct, event_type
from lahja_capn.binding.scalars import TextType
from lahja_capn.binding.values import MAX_EMPTY_ITEMS
from lahja_capn.errors import BindError, EventArgumentError

from .support import Blob, Everything, Inner, Small, opened, received, schema


class Colour(enum.IntEnum):
    GREEN = 1


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"void": 0}, "void", "None (Void)"),
    ({"bool": 1}, "bool", "bool"),
    ({"bool": None}, "bool", "bool"),
    ({"int8": 128}, "int8", "int from -128 to 127 (Int8)"),
    ({"int8": -129}, "int8", "int from -128 to 127 (Int8)"),
    ({"uint8": -1}, "uint8", "int from 0 to 255 (UInt8)"),
    ({"uint16": 2**16}, "uint16", "int from 0 to 65535 (UInt16)"),
    ({"int64": 2**63}, "int64", f"int from {-(2**63)} to {2**63 - 1} (Int64)"),
    ({"uint64": 2**64}, "uint64", f"int from 0 to {2**64 - 1} (UInt64)"),
    ({"uint64": True}, "uint64", f"int from 0 to {2**64 - 1} (UInt64)"),
    ({"uint64": 1.0}, "uint64", f"int from 0 to {2**64 - 1} (UInt64)"),
    ({"uint64": "1"}, "uint64", f"int from 0 to {2**64 - 1} (UInt64)"),
    ({"float32": 1e39}, "float32", "float (Float32), within its range"),
    ({"float32": True}, "float32", "float (Float32)"),
    ({"float64": "1"}, "float64", "float (Float64)"),
    ({"float64": 10**400}, "float64", "float (Float64), within its range"),
    ({"text": b"x"}, "text", "str (Text): decode it"),
    ({"text": 1}, "text", "str (Text)"),
    ({"text": "\ud800"}, "text", "str (Text) that is valid Unicode"),
    ({"data": "aGVsbG8="}, "data", "bytes-like (Data): encode it"),
    ({"data": [1, 2]}, "data", "bytes-like (Data)"),
    ({"color": "violet"}, "color", "Color, one of red, green, blue"),
    ({"color": 3}, "color", "Color, one of red, green, blue"),
    ({"color": True}, "color", "Color, one of red, green, blue"),
    ({"color": 1.0}, "color", "Color, one of red, green, blue"),
    ({"int32s": [1, 2, "3"]}, "int32s[2]", "int from -2147483648 to 2147483647 (Int32)"),
    ({"int32s": [1, True]}, "int32s[1]", "int from -2147483648 to 2147483647 (Int32)"),
    ({"int32s": [2**31]}, "int32s[0]", "int from -2147483648 to 2147483647 (Int32)"),
    ({"float32s": [1.0, 1e39]}, "float32s[1]", "float (Float32), within its range"),
    ({"texts": "abc"}, "texts", "a sequence of str (Text) (List(Text))"),
    ({"uint16s": b"abc"}, "uint16s", "a sequence of int from 0 to 65535 (UInt16) (List(UInt16))"),
    ({"texts": {"a": 1}}, "texts", "a sequence of str (Text) (List(Text))"),
    ({"texts": 5}, "texts", "a sequence of str (Text) (List(Text))"),
    ({"texts": ["a", b"b"]}, "texts[1]", "str (Text): decode it"),
    ({"numberLists": [[1], [2, -1]]}, "numberLists[1][1]", "int from 0 to 65535 (UInt16)"),
    ({"inners": [{}, {"more": [{"text": 1}]}]}, "inners[1].more[0].text", "str (Text)"),
    (
        {"place": {"inner": {"number": "x"}}},
        "place.inner.number",
        "int from -2147483648 to 2147483647 (Int32)",
    ),
    ({"inner": 5}, "inner", "Inner: its class, a dict, or a pycapnp struct of the same type"),
    ({"inner": None}, "inner", "Inner: its class, a dict, or a pycapnp struct of the same type"),
    ({"inner": {1: 2}}, "inner", "field names as keys"),
    ({"inner": {"numbr": 2}}, "inner.numbr", "a field of Inner, such as number"),
    (
        {"inner": schema.Small.new_message()},
        "inner",
        "Inner: its class, a dict, or a pycapnp struct of the same type",
    ),
    ({"span": {"from": 1, "too": 2}}, "span.too", "a field of Everything.span, such as to"),
    (
        {"shape": {"circle": 1.0, "nothing": None}},
        "shape",
        "one member of the union circle, polygon, nothing",
    ),
    ({"count": 1, "word": "x"}, "", "one member of the union none, count, word, part, span"),
    ({"textBox": {"value": 1}}, "textBox.value", "str (Text)"),
    ({"pair": {"boxed": {"value": "x"}}}, "pair.boxed.value", "bytes-like (Data): encode it"),
    ({"any": 5}, "any", "a bound struct or event, str, bytes, or an AnyPointer (AnyPointer)"),
    ({"any": None}, "any", "a bound struct or event, str, bytes, or an AnyPointer (AnyPointer)"),
    ({"any": [1]}, "any", "a bound struct or event, str, bytes, or an AnyPointer (AnyPointer)"),
    ({"anyStruct": "text"}, "anyStruct", "a bound struct or event, or an AnyPointer to one (AnyStruct)"),
    ({"anyList": Inner()}, "anyList", "an AnyPointer to a list (AnyPointer.of_list), bytes or str (AnyList)"),
    (
        {"voids": [None] * (MAX_EMPTY_ITEMS + 1)},
        "voids",
        f"at most {MAX_EMPTY_ITEMS} elements: a reader refuses more Voids",
    ),
]


@pytest.mark.parametrize(
    ("fields", "path", "wanted"), REFUSED, ids=lambda v: str(v)[:40] if isinstance(v, str) else ""
)
def test_a_wrong_argument_is_refused_with_its_path_and_what_was_wanted(
    fields: dict[str, Any], path: str, wanted: str
) -> None:
    with pytest.raises(EventArgumentError) as caught:
        Everything(**fields)
    error = caught.value
    assert (error.event, error.path, error.wanted) == ("Everything", path, wanted)
    assert str(error) == f"Everything{'.' + path if path else ''}: wanted {wanted}, got {error.got}."
    assert isinstance(error, TypeError)
    assert isinstance(error, ValueError)


def test_an_unknown_field_names_close_ones() -> None:
    with pytest.raises(EventArgumentError) as caught:
        Everything(colour="red")
    assert "Everything.colour: wanted a field of Everything, such as color" in str(caught.value)
    with pytest.raises(EventArgumentError, match="one of id, value, data, text, flag"):
        Small(zzzzzz=1)  # type: ignore[call-arg]


def test_positional_arguments_are_refused() -> None:
    with pytest.raises(EventArgumentError) as caught:
        Small(1, 2.0, b"", "", True)  # type: ignore[misc]
    assert str(caught.value) == (
        "Small takes its fields as keywords: Small(id=..., value=..., data=..., text=..., ...); "
        "got 5 without a name."
    )
    with pytest.raises(
        EventArgumentError, match=r"keywords: Inner\(number=\.\.\., text=\.\.\., more=\.\.\.\); got"
    ):
        Inner(1)  # type: ignore[misc]


def test_a_long_wrong_value_is_shortened_in_the_message() -> None:
    with pytest.raises(EventArgumentError) as caught:
        Everything(data="x" * 10_000)
    assert len(str(caught.value)) < 200
    with pytest.raises(EventArgumentError) as caught:
        Everything(text=list(range(1000)))
    assert len(str(caught.value)) < 200


def test_a_value_whose_repr_raises_is_named_by_its_type() -> None:
    class Rude:
        def __repr__(self) -> str:
            raise RuntimeError

    with pytest.raises(EventArgumentError, match=r"got Rude\."):
        Everything(text=Rude())


ACCEPTED: list[tuple[str, Any, Any]] = [
    ("float64", 3, 3.0),
    ("float64", fractions.Fraction(1, 2), 0.5),
    ("color", Colour.GREEN, "green"),
    ("color", Enumerant("red", 0), "red"),
    ("texts", (t for t in ("a", "b")), ["a", "b"]),
    ("texts", {"only": 1}.keys(), ["only"]),
    ("int32s", range(3), [0, 1, 2]),
    ("int32s", array("i", [5, 6]), [5, 6]),
    ("int32s", array("q", [5, 6]), [5, 6]),
    ("int32s", memoryview(array("i", [5, 6])), [5, 6]),
    ("int32s", memoryview(array("i", [1, 2, 3, 4]))[::2], [1, 3]),
    ("uint8s", b"\1\2", [1, 2]),
    ("uint8s", bytearray(b"\1\2"), [1, 2]),
    ("float64s", [1, 2.5], [1.0, 2.5]),
    ("float64s", [fractions.Fraction(1, 4)], [0.25]),
    ("inners", (), []),
    ("inner", schema.Inner.new_message(number=4), Inner(number=4)),
    ("inner", schema.Inner.new_message(number=4).as_reader(), Inner(number=4)),
    ("any", schema.Inner.new_message(number=4), AnyPointer(Inner(number=4))),
]


@pytest.mark.parametrize(("field", "given", "read"), ACCEPTED)
def test_equivalent_arguments_are_accepted(field: str, given: Any, read: Any) -> None:
    event = Everything(**{field: given})
    assert getattr(event, field) == read
    assert getattr(received(event), field) == read


def test_a_str_subclass_is_taken_by_its_text() -> None:
    class Name(str, enum.Enum):  # noqa: UP042 - its str() is not its text, which is the point
        A = "text of a"

    event = Everything(text=Name.A, texts=[Name.A], any=Name.A)
    assert (event.text, event.texts[0], event.any.as_text()) == ("text of a",) * 3
    assert type(event.text) is str


def test_objects_with_index_are_integers() -> None:
    class Number:
        def __index__(self) -> int:
            return 7

    event = Everything(uint8=Number(), uint8s=[Number()])
    assert (event.uint8, event.uint8s[0]) == (7, 7)
    assert type(event.uint8) is int


def test_a_numpy_like_bool_is_a_bool() -> None:
    class bool_:
        def __bool__(self) -> bool:
            return True

    assert Everything(bool=bool_()).bool is True


@pytest.mark.parametrize(
    "change", [lambda a: a.append(9), lambda a: a.clear(), lambda a: a.__setitem__(0, 9)]
)
def test_later_changes_to_an_argument_do_not_show(change: Callable[[Any], None]) -> None:
    data, texts, numbers = bytearray(b"abc"), ["a", "b", "c"], [1, 2, 3]
    inner: dict[str, Any] = {"number": 1, "more": [{"number": 2}]}
    event = Everything(data=data, int8s=numbers, uint8s=data, inner=inner, any=data)
    blob = Blob(data=data)
    words = Everything(texts=texts)
    for argument in (data, numbers):
        change(argument)
    texts.append("d")
    inner["number"] = 5
    inner["more"][0]["number"] = 6
    inner["more"].append({})
    assert event.data == b"abc"
    assert blob.data == b"abc"
    assert event.uint8s == list(b"abc")
    assert event.any.as_data() == b"abc"
    assert event.int8s == [1, 2, 3]
    assert words.texts == ["a", "b", "c"]
    assert event.inner == Inner(number=1, more=[Inner(number=2)])


def test_a_builder_given_as_an_argument_is_copied() -> None:
    builder = schema.Inner.new_message(number=1, text="t")
    event = Everything(inner=builder, inners=[builder], part=builder)
    builder.number = 2
    assert event.inner.number == event.inners[0].number == event.part.number == 1
    assert received(event).inner == Inner(number=1, text="t")


def test_a_part_of_a_received_event_is_copied_out_of_it() -> None:
    import gc
    import weakref

    source = received(
        Everything(inner={"number": 1}, inners=[{"number": 2}], place={"x": 1.0, "inner": {"number": 3}})
    )
    event = Everything(inner=source.inner, inners=source.inners, place=source.place, any=source.inner)
    gone = weakref.ref(source)
    del source
    gc.collect()
    assert gone() is None, "the copy must not keep the whole received event alive"
    for read in (event, received(event)):
        assert read.inner.number == 1
        assert read.inners == [Inner(number=2)]
        assert (read.place.x, read.place.inner.number) == (1.0, 3)
        assert read.any.as_struct(Inner).number == 1


def test_an_unreadable_part_is_refused_as_an_argument() -> None:
    # A root with one pointer (Everything.text has index 0), and the 16th pointing outside the message.
    segment = bytearray(8 * 60)
    size = schema.Everything.schema.node.struct
    segment[0:8] = (size.dataWordCount << 32 | size.pointerCount << 48).to_bytes(8, "little")
    index = Everything._plan.fields["inner"].offset
    place = 8 + 8 * size.dataWordCount + 8 * index
    segment += bytes(max(0, place + 8 + 8 * size.pointerCount - len(segment)))
    segment[place : place + 8] = (0x7FFF << 2 | 1 << 32).to_bytes(8, "little")
    broken = opened(Everything, bytes(segment))
    with pytest.raises(Exception, match="cannot be read"):
        broken.inner.number
    with pytest.raises(Exception, match=r"Everything\.inner"):
        Everything(inner=broken.inner)


def test_a_part_with_something_unreadable_inside_is_refused_as_an_argument() -> None:
    event = Everything(inner={"text": "some text"}, any="note")
    (segment,) = event_type(event).encode(event)
    at = bytes(segment).index(b"some text")
    pointer = next(
        i
        for i in range(0, len(segment), 8)
        if segment[i] & 3 == 1 and segment[i + 4 : i + 8] == b"\x52\0\0\0"
    )
    assert pointer < at
    hurt = bytearray(segment)
    hurt[pointer + 4 : pointer + 8] = b"\xfa\xff\xff\xff"  # a Text that ends outside the message
    broken = opened(Everything, bytes(hurt))
    inner = broken.inner
    assert inner.number == 0
    for field in ("inner", "any", "part"):
        with pytest.raises(
            EventArgumentError, match=rf"Everything\.{field}: wanted .*, got one that cannot be copied"
        ):
            Everything(**{field: inner})
    with pytest.raises(EventArgumentError, match=r"AnyPointer: wanted .*, got one that cannot be copied"):
        AnyPointer(inner)
    # As an event of its own it is taken as it is, and fails where it would be copied.
    outer = Everything(self=broken)
    with pytest.raises(EventArgumentError, match="Everything cannot be encoded"):
        event_type(outer).encode(outer)
    nested = opened(Everything, bytes(8))
    assert received(nested) == Everything()


def test_wrong_arguments_of_a_pointer_by_itself() -> None:
    with pytest.raises(EventArgumentError, match=r"^AnyPointer: wanted a bound struct .* got int 5\.$"):
        AnyPointer(5)
    with pytest.raises(EventArgumentError, match=r"^AnyPointer\.of_list\[1\]: wanted int .* got int 300\.$"):
        AnyPointer.of_list("UInt8", [1, 300])
    with pytest.raises(EventArgumentError, match=r"got a group"):
        AnyPointer(Everything().place)

    class Plain(Struct):
        pass

    for use in (lambda: AnyPointer(Plain.__new__(Plain)), lambda: Everything(inner=Plain.__new__(Plain))):
        with pytest.raises(BindError, match="not bound"):
            use()
    with pytest.raises(EventArgumentError, match=r"got a Small \(struct everything\.capnp:Small\)"):
        Everything(inner=Small(id=1, value=0.0, data=b"", text="", flag=True))


@pytest.mark.parametrize("field", ["text", "texts"])
def test_a_text_over_the_limit_is_refused(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lahja_capn.binding.scalars.MAX_TEXT_BYTES", 4)
    with pytest.raises(Exception, match="at most 4 bytes"):
        TextType().convert("ééé")


def test_data_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lahja_capn.binding.scalars.MAX_BLOB_BYTES", 4)
    monkeypatch.setattr("lahja_capn.binding.anypointer.MAX_BLOB_BYTES", 4)
    monkeypatch.setattr("lahja_capn.binding.fieldtypes.MAX_LIST_ITEMS", 4)
    for fields in (
        {"data": bytearray(5)},
        {"data": memoryview(bytes(5))},
        {"datas": [bytes(5)]},
        {"any": bytes(5)},
    ):
        with pytest.raises(EventArgumentError, match="5 bytes"):
            Everything(**fields)
    for fields in ({"int8s": [0] * 5}, {"texts": ["a"] * 5}):
        with pytest.raises(EventArgumentError, match="at most 4 elements"):
            Everything(**fields)

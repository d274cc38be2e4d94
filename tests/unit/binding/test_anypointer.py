"""AnyPointer: what goes in comes out as whatever the receiver says it is, or as an error."""

from __future__ import annotations

from typing import Any

import pytest

from lahja_capn.binding import AnyPointer, Struct
from lahja_capn.errors import BindError, EventFieldError

from .support import Everything, Inner, Small, received, schema


@pytest.fixture(params=["local", "received"])
def carried(request: pytest.FixtureRequest) -> Any:
    def carry(value: Any) -> AnyPointer:
        event = Everything(any=value)
        result: AnyPointer = (received(event) if request.param == "received" else event).any
        return result

    return carry


def test_text(carried: Any) -> None:
    for text in ("", "hello", "with\0nul", "é\U0001f600"):
        assert carried(text).as_text() == text


def test_data(carried: Any) -> None:
    for data in (b"", b"1234567", bytes(range(256)) * 100):
        assert carried(data).as_data() == data
        assert carried(bytearray(data)).as_data() == data
        assert carried(data).as_list("UInt8") == list(data)


def test_struct(carried: Any) -> None:
    inner = Inner(number=5, text="t", more=[Inner(number=6)])
    for value in (
        inner,
        received(Everything(inner=inner)).inner,
        schema.Inner.new_message(number=5, text="t", more=[{"number": 6}]),
    ):
        pointer = carried(value)
        assert pointer.as_struct(Inner) == inner
        assert pointer.as_struct(schema.Inner).more[0].number == 6
        assert type(pointer.as_struct(Inner)) is Inner
        assert type(pointer.as_struct(schema.Inner)) is Inner
    assert carried(Small(id=1, value=0.0, data=b"", text="", flag=True)).as_struct(Small).id == 1


@pytest.mark.parametrize(
    ("element", "values"),
    [
        ("UInt16", [1, 2, 65535]),
        ("UInt16", list(range(100))),
        ("Float64", [1.5, 2.5]),
        ("Bool", [True, False]),
        ("Void", [None, None]),
        ("Text", ["a", "", "ccc"]),
        ("Data", [b"a", b""]),
        ("List(UInt8)", [[1], [], [2, 3]]),
        ("List(List(Text))", [[["a"]], []]),
        (schema.Color, ["red", "blue"]),
        (Inner, [Inner(number=1), Inner(text="x")]),
        (schema.Inner, [Inner(number=1)]),
        ("Int8", []),
    ],
)
def test_lists(carried: Any, element: Any, values: list[Any]) -> None:
    pointer = carried(AnyPointer.of_list(element, values))
    assert pointer.as_list(element) == values
    assert not pointer.is_null


def test_null(carried: Any) -> None:
    for pointer in (AnyPointer(), carried(AnyPointer()), Everything().any, received(Everything()).any):
        assert pointer.is_null
        assert pointer.as_text() == ""
        assert pointer.as_data() == b""
        assert pointer.as_struct(Inner) == Inner()
        assert pointer.as_list("Int8") == []
        assert pointer == AnyPointer()


def test_read_as_what_it_is_not_is_a_field_error(carried: Any) -> None:
    text, data, inner = carried("text"), carried(b"data"), carried(Inner(number=1))
    numbers = carried(AnyPointer.of_list("UInt32", [1, 2]))
    for read in (
        lambda: text.as_struct(Inner),
        lambda: inner.as_text(),
        lambda: inner.as_data(),
        lambda: inner.as_list("UInt8"),
        lambda: numbers.as_text(),
        lambda: numbers.as_data(),
        lambda: data.as_text(),
        lambda: numbers.as_list("Text"),
        lambda: numbers.as_struct(Inner),
    ):
        with pytest.raises(EventFieldError, match="cannot be read"):
            read()
    with pytest.raises(EventFieldError, match=r"cannot be read as text: it is not valid UTF-8"):
        carried(b"\xff\0").as_text()


def test_an_error_names_the_field_it_is_in() -> None:
    event = received(Everything(any=Inner(), inners=[], self={"any": "x"}))
    with pytest.raises(EventFieldError) as caught:
        event.any.as_text()
    assert (caught.value.event, caught.value.path) == ("Everything", "any")
    with pytest.raises(EventFieldError) as caught:
        event.self.any.as_struct(Inner)
    assert caught.value.path == "self.any.as_struct(everything.capnp:Inner)"


def test_equality_is_by_content(carried: Any) -> None:
    assert carried("a") == AnyPointer("a")
    assert carried(b"a") != AnyPointer("a")
    assert carried(Inner(number=1)) == AnyPointer(Inner(number=1))
    assert carried(Inner(number=1)) != AnyPointer(Inner(number=2))
    assert carried("a") != "a"
    with pytest.raises(TypeError, match="unhashable"):
        hash(carried("a"))


def test_a_received_pointer_can_be_sent_in_another_event(carried: Any) -> None:
    for value in ("text", b"data" * 5000, Inner(number=4), AnyPointer.of_list("Text", ["a"]), AnyPointer()):
        again = received(Everything(any=carried(value)))
        assert again.any == AnyPointer(value) if not isinstance(value, AnyPointer) else value


def test_any_struct_and_any_list() -> None:
    event = received(Everything(anyStruct=Inner(number=1), anyList=AnyPointer.of_list("Text", ["a"])))
    assert event.anyStruct.as_struct(Inner).number == 1
    assert event.anyList.as_list("Text") == ["a"]
    assert received(Everything(anyList=b"bytes")).anyList.as_data() == b"bytes"
    assert received(Everything(anyStruct=AnyPointer())).anyStruct.is_null


def test_views_from_a_pointer_read_on_after_the_budget_is_used_up() -> None:
    event = received(Everything(any=Inner(text="x" * 5000)))
    inner = event.any.as_struct(Inner)
    alone = AnyPointer(Inner(text="x" * 5000)).as_struct(Inner)
    texts = received(Everything(any=AnyPointer.of_list("Text", ["y" * 5000]))).any.as_list("Text")
    for _ in range(100):
        assert len(inner.text) == len(alone.text) == len(texts[0]) == 5000
        assert len(event.any.as_struct(Inner).text) == 5000


def test_an_unknown_element_type_is_refused() -> None:
    for element in ("UInt128", "List(Nope)", "List(", 5, schema.Service):
        with pytest.raises(BindError):
            AnyPointer.of_list(element, [])


def test_an_unbound_class_is_refused() -> None:
    class Unbound(Struct):
        pass

    with pytest.raises(BindError, match="not bound"):
        AnyPointer().as_struct(Unbound)

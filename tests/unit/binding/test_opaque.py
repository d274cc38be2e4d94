"""Events that serialize themselves: @bind(type_id=...)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Self

import pytest

from lahja_capn.binding import BaseEvent, RequestToken, bind, event_type, find_event_type
from lahja_capn.errors import EventArgumentError, EventFieldError
from lahja_capn.schema import wire_schema

TYPE_ID = 0x9F8E7D6C5B4A3921


@bind(type_id=TYPE_ID)
@dataclass
class Point(BaseEvent):
    x: int
    y: int

    def serialize(self) -> bytes:
        return f"{self.x},{self.y}".encode()

    @classmethod
    def deserialize(cls, data: bytes) -> Self:
        x, y = data.decode().split(",")
        return cls(x=int(x), y=int(y))


def test_the_bytes_travel_in_the_wire_schemas_opaque() -> None:
    kind = event_type(Point)
    segments = kind.encode(Point(x=1, y=2))
    assert wire_schema().Opaque.from_segments(list(segments)).data == b"1,2"
    token = RequestToken(1, 2)
    event: Any = kind.open(segments, "peer", token)
    assert event == Point(x=1, y=2)
    assert (event.get_origin(), event._token) == ("peer", token)
    assert type(event) is Point


def test_its_row_is_opaque_and_has_no_layout() -> None:
    kind = event_type(Point)
    assert find_event_type(TYPE_ID) is kind
    assert (kind.type_id, kind.row.kind, kind.row.layout, kind.reachable) == (TYPE_ID, "opaque", (), ())
    assert kind.row.name.endswith(".Point")
    assert not kind.is_request


def test_it_is_as_mutable_as_its_author_made_it_and_serialized_when_sent() -> None:
    event = Point(x=1, y=2)
    kind = event_type(event)
    first = kind.encode(event)
    event.x = 5
    assert kind.encode(event) != first
    again: Any = kind.open(kind.encode(event))
    again.y = 7
    del again.x
    assert b"5,2" in bytes(kind.encode(event)[0])


def test_copies_and_comparison_are_its_own() -> None:
    event = Point(x=1, y=2)
    event._bind("me", None)
    twin = copy.copy(event)
    assert twin == event
    assert twin is not event
    assert twin.get_origin() == "me"
    assert copy.deepcopy(event) == event
    assert repr(event) == "Point(x=1, y=2)"

    @bind(type_id=TYPE_ID + 1)
    class Bare(BaseEvent):
        def __init__(self) -> None:
            self.value = 1

        def serialize(self) -> bytes:
            return b""

        @classmethod
        def deserialize(cls, data: bytes) -> Self:
            return cls()

    bare = Bare()
    assert bare == bare
    assert bare != Bare()
    assert len({bare, Bare()}) == 2
    assert "Bare object" in repr(bare)


@pytest.mark.parametrize("data", [b"not a point", b"\xff\xff"])
def test_bytes_that_deserialize_refuses_are_a_field_error(data: bytes) -> None:
    kind = event_type(Point)
    segments = tuple(wire_schema().Opaque.new_message(data=data).to_segments())
    with pytest.raises(
        EventFieldError, match=r"Point cannot be read: its deserialize\(\) failed with"
    ) as caught:
        kind.open(segments)
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(EventFieldError):
        kind.open((b"\xff" * 16,))


def test_deserialize_must_return_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Point, "deserialize", classmethod(lambda cls, data: None))
    with pytest.raises(EventFieldError, match="deserialize returned NoneType"):
        event_type(Point).open(event_type(Point).encode(Point(x=1, y=2)))


def test_serialize_must_return_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Point, "serialize", lambda self: "text")
    with pytest.raises(EventArgumentError, match="wanted bytes-like"):
        event_type(Point).encode(Point(x=1, y=2))


def test_a_large_content_is_not_copied() -> None:
    content = b"1," + b"2".rjust(65536 - 2, b"0")

    class Fixed(Point):
        def serialize(self) -> bytes:
            return content

    segments = event_type(Point).encode(Fixed(x=1, y=2))
    assert any(segment is content for segment in segments)

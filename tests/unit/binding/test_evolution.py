"""Two versions of one struct: old bytes with the new schema, new bytes with the old one."""

from __future__ import annotations

from typing import Any

import pytest

from lahja_capn.binding import BaseEvent, Enumerant, bind, event_type
from lahja_capn.errors import EventArgumentError, EventFieldError
from lahja_capn.schema import load

from .support import SCHEMAS, own_registry


def make(file: str) -> type[BaseEvent]:
    with own_registry():

        @bind(load(SCHEMAS / file).Event)
        class Event(BaseEvent):
            pass

    return Event


@pytest.fixture
def old() -> Any:
    return make("original.capnp")


@pytest.fixture
def new() -> Any:
    return make("evolved.capnp")


def carried(event: Any, cls: Any) -> Any:
    return event_type(cls).open(event_type(event).encode(event))


def test_a_layout_grows_and_keeps_its_beginning(old: Any, new: Any) -> None:
    before, after = event_type(old).row, event_type(new).row
    assert before.type_id == after.type_id
    assert after.layout[: len(before.layout)] == before.layout
    assert len(after.layout) == len(before.layout) + 2


def test_an_unknown_enumerant_reads_with_its_number_and_can_be_sent_on(old: Any, new: Any) -> None:
    event = carried(new(color="violet", colors=["red", "violet"]), old)
    assert event.color == "unknown(3)"
    assert (event.color.raw, event.color.known) == (3, False)
    assert repr(event.color) == "<unknown(3): 3>"
    assert [color.raw for color in event.colors] == [0, 3]
    copied = old(color=event.color, colors=event.colors)
    assert copied.color.raw == 3
    assert carried(copied, new).color == "violet"
    assert carried(copied, new).colors == ["red", "violet"]
    with pytest.raises(EventArgumentError):
        old(color=3)
    with pytest.raises(EventArgumentError):
        old(color="unknown(3)")
    # What is unknown here and known there is taken by name only: another enum's number means something else.
    with pytest.raises(EventArgumentError):
        new(color=Enumerant("unknown(3)", 3, known=False))


def test_an_unknown_union_member_says_so_and_the_rest_is_readable(old: Any, new: Any) -> None:
    event = carried(new(newMember="x", color="green"), old)
    assert event.which() == "unknown(2)"
    assert event.color == "green"
    with pytest.raises(EventFieldError, match=r"the union holds 'unknown\(2\)'"):
        event.old
    assert "color='green'" in repr(event)
    assert event == carried(new(newMember="x", color="green"), old)
    assert event != carried(new(old=1, color="green"), old)
    # Sent on, nothing is lost.
    assert carried(event, new).newMember == "x"


def test_fields_added_later_read_as_their_defaults_and_survive_being_sent_on(old: Any, new: Any) -> None:
    assert carried(old(color="blue"), new).added == "added later"
    assert carried(old(older="x"), new).which() == "older"
    event = carried(new(added="extra", old=5), old)
    assert event.old == 5
    with pytest.raises(AttributeError):
        event.added
    assert carried(event, new).added == "extra"

"""StructCodec: control messages."""

from __future__ import annotations

from typing import Any

import pytest

from lahja_capn.binding import StructCodec
from lahja_capn.errors import EventArgumentError, EventFieldError, InactiveUnionMember
from lahja_capn.schema import wire_schema

codec = StructCodec(wire_schema().Control)


def through(**fields: Any) -> Any:
    return codec.open(tuple(bytes(segment) for segment in codec.encode(**fields)))


def test_every_part_of_a_control_message_reads_as_it_was_given() -> None:
    row = {"wireId": 1, "kind": "opaque", "typeId": 2**64 - 1, "name": "n", "layout": [1, 2**32 - 1]}
    hello = {"protocolVersion": 1, "name": "me", "instance": bytes(16), "features": ["a"], "types": [row, {}]}
    control = through(hello=hello)
    assert control.which() == "hello"
    assert (control.hello.protocolVersion, control.hello.name, control.hello.instance) == (1, "me", bytes(16))
    assert control.hello.features == ["a"]
    first, second = control.hello.types
    assert (first.wireId, first.kind, first.kind.raw, first.typeId, first.name) == (
        1,
        "opaque",
        1,
        2**64 - 1,
        "n",
    )
    assert first.layout == [1, 2**32 - 1]
    assert (second.kind, second.layout) == ("struct", [])
    with pytest.raises(InactiveUnionMember):
        control.declare


def test_void_members_and_defaults() -> None:
    assert through(ping=None).which() == "ping"
    assert through(subscriptions={"add": [1, 2]}).subscriptions.add == [1, 2]
    assert through(subscriptions={}).subscriptions.ackWanted is False
    assert through(goodbye={"code": "tooSlow"}).goodbye.code == "tooSlow"


def test_arguments_are_checked() -> None:
    with pytest.raises(EventArgumentError, match=r"credit\.events"):
        codec.encode(credit={"events": -1})
    with pytest.raises(EventArgumentError, match="one member of the union"):
        codec.encode(ping=None, pong=None)


def test_opening_reads_nothing_and_reading_raises_field_errors() -> None:
    control = codec.open((b"\xff" * 16,))
    with pytest.raises(EventFieldError):
        control.which()
    with pytest.raises(EventFieldError):
        control.hello


def test_an_unknown_variant_has_a_name_with_its_number() -> None:
    segment = bytearray(codec.encode(ping=None)[0])
    offset = codec.plan.discriminant_offset
    segment[8 + 2 * offset : 10 + 2 * offset] = (99).to_bytes(2, "little")
    assert codec.open((bytes(segment),)).which() == "unknown(99)"

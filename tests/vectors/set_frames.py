"""One frame each: every control message, and content of every kind."""

from __future__ import annotations

from typing import Any

from . import peer
from .plans import complete, conformance, plan_of, wire
from .store import Store
from .writing import Place, each_far_away, each_in_its_own, frame, in_one_segment, in_turns, message

OPAQUE_ID = 0xDDDD_0000_0000_0001


def controls() -> dict[str, tuple[str, dict[str, Any]]]:
    """Name -> (note, Control)."""
    ids = [str(peer.type_id("Count")), str(peer.type_id("Everything"))]
    opaque = {"wireId": 12, "kind": "opaque", "typeId": str(OPAQUE_ID), "name": "Pickled", "layout": []}
    return {
        "hello": ("all event types but Late", {"hello": peer.hello_value(*_ALL)}),
        "hello-bare": ("no rows, nothing about the implementation", {"hello": _bare()}),
        "hello-unlimited": (
            "unlimited windows, the largest frame limit, features, a row of kind opaque",
            {
                "hello": peer.hello_value(
                    frameLimit=2**31 - 8,
                    keepaliveMs=2**32 - 1,
                    eventCredit=str(peer.UNLIMITED),
                    requestCredit=str(peer.UNLIMITED),
                    features=["x", "", "ünknown"],
                    types=[opaque],
                )
            },
        ),
        "declare": ("one row late", {"declare": {"types": peer.rows("Late")}}),
        "declare-empty": ("no rows: legal, and says nothing", {"declare": {}}),
        "subscriptions-empty": ("a first one that wants nothing", {"subscriptions": {"sequence": "1"}}),
        "subscriptions": (
            "everything in it",
            {
                "subscriptions": {
                    "sequence": "18446744073709551615",
                    "add": ids,
                    "remove": ["0", "18446744073709551615"],
                    "all": True,
                    "ackWanted": True,
                }
            },
        ),
        "subscriptions-ack": ("an acknowledgement", {"subscriptionsAck": {"sequence": "3"}}),
        "credit": ("both windows", {"credit": {"events": "4096", "requests": "9223372036854775807"}}),
        "failed": (
            "the answer to a request",
            {
                "failed": {
                    "correlation": "18446744073709551615",
                    "code": "incompatibleType",
                    "typeName": "KeyError",
                    "text": "říká proč",
                }
            },
        ),
        "failed-unknown-code": (
            "a code of a later version: like handlerRaised",
            {"failed": {"correlation": "1", "code": 99}},
        ),
        "ping": ("a ping", {"ping": None}),
        "pong": ("a pong", {"pong": None}),
        "dropped": (
            "a type twice: counts add up",
            {
                "dropped": {
                    "counts": [
                        {"typeId": ids[0], "count": "2"},
                        {"typeId": ids[1], "count": "18446744073709551615"},
                        {"typeId": ids[0], "count": "1"},
                    ]
                }
            },
        ),
        "goodbye": ("an end", {"goodbye": {"code": "notPermitted", "text": "nobody from outside"}}),
        "goodbye-unknown-code": ("a code of a later version", {"goodbye": {"code": 500, "text": "?"}}),
    }


_ALL = ("Everything", "Count", "Blob", "Evolving", "Ask", "Answer")


def _bare() -> dict[str, Any]:
    return peer.hello_value(implementation=..., version=..., types=..., eventCredit="0", requestCredit="0")


def add(store: Store) -> None:
    for name, (note, value) in controls().items():
        _control(store, name, note, value)
    for name, place in (("in-two-segments", in_turns(2)), ("far", each_in_its_own)):
        _control(store, f"hello-{name}", "a hello in several segments", controls()["hello"][1], place)
    _control(store, "subscriptions-double-far", "double far", controls()["subscriptions"][1], each_far_away)

    count = {"number": "7"}
    _content(store, "event", "an event", 0, 0, "Count", count)
    _content(store, "event-highest-wire-id", "wire id 65535", 0, 0, "Blob", {"id": 1, "data": "00ff"})
    _content(store, "event-no-bytes", "all of its fields have their defaults", 0, 0, "Late", {})
    _content(store, "event-two-segments", "padding", 0, 0, "Everything", _SOME, in_turns(2))
    _content(store, "event-three-segments", "no padding", 0, 0, "Everything", _SOME, in_turns(3))
    _content(store, "request", "a request", 1, 1, "Ask", {"number": "3", "mode": "silence"})
    _content(store, "request-highest", "the highest number", 1, 2**64 - 1, "Ask", {})
    _content(store, "response", "a response", 2, 2**32, "Answer", {"number": "6", "text": "twice 3"})
    _content(store, "response-of-event-type", "any type may be a response", 2, 5, "Count", count)


_SOME = {"text": "some text", "inners": [{"number": 1}], "u64s": ["1", "2"], "again": {"word": "w"}}


def _control(
    store: Store, name: str, note: str, value: dict[str, Any], place: Place = in_one_segment
) -> None:
    segments = message(wire.Control, value, place)
    facts = {
        "note": note,
        "kind": "control",
        "wire_id": 0,
        "correlation": "0",
        "segments": len(segments),
        "control": complete(plan_of(wire.Control), value),
    }
    if name.endswith("unknown-code"):
        facts["read_only"] = True
    store.add("frames", f"control-{name}", facts, frame(0, 0, 0, segments))


def _content(
    store: Store,
    name: str,
    note: str,
    flags: int,
    number: int,
    kind: str,
    value: Any,
    place: Place = in_one_segment,
) -> None:
    segments = message(getattr(conformance, kind), value, place)
    facts = {
        "note": note,
        "kind": ("event", "request", "response")[flags],
        "wire_id": peer.WIRE_IDS[kind],
        "correlation": str(number),
        "segments": len(segments),
        **peer.full(kind, value),
    }
    store.add("frames", name, facts, frame(peer.WIRE_IDS[kind], flags, number, segments))

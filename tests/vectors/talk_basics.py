"""Conversations about the handshake, ping, and every way to end."""

from __future__ import annotations

from typing import Any

from . import peer, writing
from .peer import NAME, Script, control, hello, subscriptions, talk
from .plans import conformance, plan_of, wire
from .set_messages import upgraded
from .store import Store
from .writing import Builder, Raw, Sized, Where, frame, message

ROLES = ("acceptor", "connector")
LOST = {"code": "", "by_peer": True}


def add(store: Store) -> None:
    _handshakes(store)
    _forms_of_hello(store)
    _pings(store)
    _ends(store)


def _count(*numbers: int) -> list[bytes]:
    return [peer.event("Count", {"number": str(n)}) for n in numbers]


def see_counts(script: Script, *numbers: int) -> Script:
    for number in numbers:
        script.sees("Count", {"number": str(number)})
    return script


def _handshakes(store: Store) -> None:
    for role in ROLES:
        script = Script(role, subscribe=["Count"]).come_up("Count").send(*_count(1, 2))
        talk(
            store,
            f"two-events-{role}",
            "handshake, two events, goodbye",
            see_counts(script, 1, 2).goodbye(),
        )

        script = Script(role, subscribe=["Count", "Late"])
        script.send(hello("Count"), note="hello")
        script.send(control(declare={}), control(declare={"types": peer.rows("Late")}), note="declares")
        script.send(subscriptions("Late", "Count"), note="subscriptions").sent("subscriptions")
        script.expect(up=NAME).send(peer.event("Late", {"text": "declared"})).sees(
            "Late", {"text": "declared"}
        )
        talk(
            store,
            f"handshake-in-steps-{role}",
            "each message by itself, declares among them, one of no rows",
            script.goodbye(),
        )

        script = Script(role).send(hello(), control(ping=None), control(pong=None), subscriptions())
        script.sent("pong").expect(up=NAME)
        talk(store, f"handshake-ping-{role}", "a ping among the declares is answered", script.goodbye())

        script = Script(role).send(hello(), subscriptions(ackWanted=True))
        script.sent("subscriptions").sent("subscriptionsAck", sequence="1").expect(up=NAME)
        talk(
            store,
            f"handshake-ack-{role}",
            "an acknowledgement owed for the first subscriptions follows the consumer's own first ones",
            script.goodbye(),
        )

    script = Script().send(hello()[:17], note="the beginning of hello")
    script.count("hello", 0).send(hello()[17:], subscriptions()).sent("hello").sent("subscriptions")
    talk(
        store,
        "acceptor-waits-for-hello",
        "the acceptor sends nothing before it has read the connector's hello",
        script.expect(up=NAME).goodbye(),
    )


def _forms_of_hello(store: Store) -> None:
    def comes_up(
        name: str, note: str, first: bytes, *more: bytes, wants: bytes = b"", role: str = "acceptor"
    ) -> None:
        script = Script(role, subscribe=["Count"])
        script.send(first, *more, wants or subscriptions(), note="hello and the rest").sent("subscriptions")
        script.expect(up=NAME).send(*_count(5))
        talk(store, name, note, see_counts(script, 5).goodbye())

    facts = peer.hello_value("Count")
    for name, place, note in (
        ("far", writing.each_in_its_own, "every object behind a far pointer"),
        ("double-far", writing.each_far_away, "every object behind a double far pointer"),
        ("three-segments", writing.in_turns(3), "in three segments"),
    ):
        comes_up(
            f"hello-{name}",
            note,
            control(place, hello=facts),
            wants=control(place, subscriptions={"sequence": "1", "ackWanted": True}),
        )
    plan = plan_of(wire.Hello)
    longer = Sized(facts, plan.data_words + 3, plan.pointers + 2)
    comes_up("hello-longer", "a Hello with fields of a later version", control(hello=longer))
    unlimited = str(peer.UNLIMITED)
    comes_up(
        "hello-unlimited",
        "unlimited windows, the largest frameLimit",
        hello(
            "Count",
            eventCredit=unlimited,
            requestCredit=unlimited,
            frameLimit=2**31 - 8,
            keepaliveMs=2**32 - 1,
        ),
    )
    comes_up(
        "hello-largest-windows",
        "windows of 2^63 - 1, the least frameLimit",
        hello("Count", eventCredit=str(2**63 - 1), requestCredit=str(2**63 - 1), frameLimit=1024),
    )
    comes_up("hello-no-windows", "windows of 0", hello("Count", eventCredit=..., requestCredit=...))
    comes_up(
        "hello-features",
        "256 features that nobody knows: ignored",
        hello("Count", features=["x"] * 250 + ["", "ž", "y" * 300, "x", "z", "x"]),
    )
    comes_up(
        "hello-long-texts",
        "implementation and version of 1,024 bytes each",
        hello("Count", implementation="ů" * 512, version="v" * 1024),
    )
    long_name = "A" + "b._-9" * 19 + "wxyz"
    assert len(long_name) == 100
    script = Script().send(hello("Count", name=long_name), subscriptions()).sent("subscriptions")
    talk(
        store,
        "hello-longest-name",
        "a name of 100 characters, of every allowed kind",
        script.expect(up=long_name).goodbye(),
    )
    comes_up(
        "hello-connector-far",
        "every object behind a far pointer",
        control(writing.each_in_its_own, hello=facts),
        role="connector",
    )

    rows = peer.rows("Count")
    inner = peer.row(conformance.Inner)
    for name, note, types in (
        ("repeated", "a row that repeats another changes nothing", rows + rows + [inner, inner]),
        ("without-wire-id-first", "a type id that had wire id 0 gets one", [{**rows[0], "wireId": 0}, *rows]),
        (
            "without-wire-id-after",
            "repeated with wire id 0: changes nothing",
            [*rows, {**rows[0], "wireId": 0}],
        ),
        ("unchecked", "an empty layout is not checked", [{**rows[0], "layout": []}]),
        ("nameless", "a name may be empty", [{**rows[0], "name": ""}]),
        (
            "odd-name",
            "a name may have any characters, and 1,024 bytes",
            [{**rows[0], "name": "é \0\n" + "n" * 1019}],
        ),
        (
            "opaque",
            "a type of kind opaque that nobody knows",
            [*rows, {"wireId": 8, "kind": "opaque", "typeId": "77", "name": "Pickled"}],
        ),
        (
            "longer-layout",
            "more fields than are known here",
            [{**rows[0], "layout": [*rows[0]["layout"], 1, 2, 3]}],
        ),
    ):
        comes_up(f"rows-{name}", note, hello(types=types))
    comes_up(
        "rows-declared-again",
        "what hello declared, declared again",
        hello("Count"),
        control(declare={"types": rows}),
    )
    comes_up(
        "rows-wire-id-later",
        "in hello with wire id 0, in declare with one",
        hello(types=[{**rows[0], "wireId": 0}]),
        control(declare={"types": rows}),
    )

    type_id = peer.type_id("Count")
    ids = Raw([str(type_id)], upgraded([str(type_id)], 64))
    forms: dict[str, Any] = {"sequence": "1", "add": ids}
    comes_up(
        "subscriptions-list-of-structs",
        "a list of ids, written as a list of structs",
        hello("Count"),
        wants=control(subscriptions=forms),
    )

    def wide_rows(builder: Builder, at: Where) -> None:
        row_plan = plan_of(wire.TypeRow)
        builder.composite(at, row_plan, rows, row_plan.data_words + 1, row_plan.pointers + 2)

    comes_up(
        "rows-wide", "rows that are longer structs than this version's", hello(types=Raw(rows, wide_rows))
    )
    script = Script(subscribe=["Count"])
    script.send(_padded(message(wire.Control, {"hello": facts}), 1 << 20), subscriptions()).sent(
        "subscriptions"
    )
    script.period = 8
    talk(
        store,
        "hello-of-1-mib",
        "a control frame of exactly 1,048,576 bytes, most of it words that no pointer leads to",
        script.expect(up=NAME).goodbye(),
    )


def _padded(segments: tuple[bytes, ...], size: int) -> bytes:
    (segment,) = segments
    data = frame(0, 0, 0, (segment + bytes(size - 24 - len(segment)),))
    assert len(data) == size
    return data


def _pings(store: Store) -> None:
    script = Script().come_up().still_there().still_there()
    talk(store, "ping", "pings are answered", script.eof().expect(closed=LOST))
    script = Script().come_up().send(control(ping=None) * 100, note="100 pings").sent("pong")
    talk(store, "pings-at-once", "one pong may answer many", script.goodbye())
    script = Script().come_up().send(control(pong=None) * 3).still_there()
    talk(store, "pong-unasked", "a pong that nobody asked for means nothing", script.goodbye())
    counts = [{"typeId": "5", "count": "7"}, {"typeId": "5", "count": "18446744073709551615"}]
    script = Script().come_up().send(control(dropped={"counts": counts}), control(dropped={})).still_there()
    talk(store, "dropped", "obliges the receiver to nothing", script.goodbye())


def _ends(store: Store) -> None:
    for role in ROLES:
        script = (
            Script(role, subscribe=["Count"])
            .come_up("Count")
            .send(*_count(1), control(goodbye={"code": "tooSlow"}))
        )
        script = see_counts(script, 1).expect(closed={"code": "tooSlow", "by_peer": True})
        talk(store, f"goodbye-{role}", "an event and goodbye in one go: the event is delivered", script)

        script = Script(role).come_up("Count", wants=("Count",)).do("stop")
        script.sent("goodbye", code="shutdown").expect(closed={"code": "shutdown", "by_peer": False})
        script.send(
            *_count(1), b"GET / HTTP/1.1\r\n\r\n", note="what arrives after our goodbye is not judged"
        ).eof()
        talk(store, f"stop-{role}", "the consumer ends the connection", script)

        script = Script(role).send(hello()).eof().expect(closed=LOST)
        talk(store, f"eof-in-handshake-{role}", "the stream ends before the connection is up", script)

    script = Script("connector").send(control(goodbye={"code": "nameInUse", "text": "no"}))
    script.expect(closed={"code": "nameInUse", "by_peer": True})
    talk(store, "goodbye-instead-of-hello", "the acceptor refuses", script)
    script = Script().send(control(goodbye={"code": "internalError"})).count("hello", 0)
    script.expect(closed={"code": "internalError", "by_peer": True})
    talk(store, "goodbye-first", "the connector leaves before its hello", script)
    script = Script().send(hello(), control(goodbye={"code": "wrongName"}))
    script.expect(closed={"code": "wrongName", "by_peer": True})
    talk(store, "goodbye-introduced", "the connector leaves after its hello", script)
    script = Script().come_up().goodbye().send(bytes(range(1, 256)), note="after goodbye nothing is judged")
    talk(store, "goodbye-then-garbage", "what comes after a goodbye is discarded", script)

    script = Script(subscribe=["Count"]).come_up("Count").send(*_count(1), _count(2)[0][:39])
    talk(store, "eof-inside-a-frame", "the frame is lost", see_counts(script, 1).eof().expect(closed=LOST))

    def goodbye(name: str, note: str, data: bytes, code: Any) -> None:
        script = Script().come_up().send(data, note="goodbye").count("goodbye", 0)
        talk(store, f"goodbye-{name}", note, script.expect(closed={"code": code, "by_peer": True}))

    goodbye(
        "unknown-code",
        "a code of a later version is the end like any other",
        control(goodbye={"code": 500}),
        500,
    )
    goodbye(
        "null", "a null pointer for the struct: shutdown, without a text", control(goodbye=None), "shutdown"
    )
    bad_text = Raw("", lambda b, at: b.bytes(at, b"\xff\xfe\0"))
    goodbye(
        "text-not-utf-8",
        "a goodbye all the same",
        control(goodbye={"code": "tooSlow", "text": bad_text}),
        None,
    )
    far = Raw("", lambda b, at: b.put(at, 2 | 5 << 3 | 9 << 32))
    goodbye(
        "text-nowhere",
        "a text whose pointer leads nowhere",
        control(goodbye={"code": "tooSlow", "text": far}),
        None,
    )
    nowhere = Raw({}, lambda b, at: b.put(at, 2 | 5 << 3 | 9 << 32))
    goodbye("struct-nowhere", "a struct whose pointer leads nowhere", control(goodbye=nowhere), None)
    goodbye(
        "long-text",
        "a text longer than its sender should make it",
        control(goodbye={"code": "shutdown", "text": "x" * 5000}),
        "shutdown",
    )

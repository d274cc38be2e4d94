"""Conversations about types: every value, versions, unknown and incompatible ones, subscriptions."""

from __future__ import annotations

from typing import Any

from . import peer, writing
from .peer import Script, control, subscriptions, talk
from .plans import conformance, newer, older, wire
from .set_messages import broken, evolving
from .set_values import everything_values
from .store import Store
from .talk_basics import see_counts
from .writing import frame, message

UNKNOWN_ID = 0xABCDEF0123456789


def add(store: Store) -> None:
    _values(store)
    _segments(store)
    _unknown(store)
    _evolution(store)
    _incompatible(store)
    _subscriptions_of_peer(store)
    _subscriptions_of_consumer(store)


def count(*numbers: int) -> list[bytes]:
    return [peer.event("Count", {"number": str(n)}) for n in numbers]


def broadcasts(script: Script, name: str, value: dict[str, Any]) -> Script:
    """The consumer broadcasts, and must send, this event."""
    script.do("broadcast", type=name, value=value)
    return script.sent("event", **peer.full(name, value))


# --- values -------------------------------------------------------------------------------------------------


def _values(store: Store) -> None:
    values = everything_values()
    chosen = (
        "empty",
        "full",
        "numbers-lowest",
        "numbers-highest",
        "floats-nan",
        "texts-non-ascii",
        "lists-empty",
    )
    for role in ("acceptor", "connector"):
        script = Script(role, subscribe=["Everything"]).come_up("Everything", wants=("Everything",))
        for name in chosen:
            value = values[name][1]
            script.send(peer.event("Everything", value), note=name).sees("Everything", value)
            broadcasts(script, "Everything", value)
        talk(
            store,
            f"every-field-both-ways-{role}",
            "events with every kind of field, in both directions",
            script.ends(),
        )
    script = Script(subscribe=["Everything"]).come_up("Everything", wants=("Everything",))
    for name, (_, value) in values.items():
        if name.startswith(("any-", "union-", "shape-")):
            script.send(peer.event("Everything", value), note=name).sees("Everything", value)
            broadcasts(script, "Everything", value)
    talk(store, "every-union-member-both-ways", "every member of every union, both ways", script.ends())

    names = [*broken()]
    script = Script(subscribe=["Everything", "Count"]).come_up("Everything", "Count")
    for i, name in enumerate(names):
        script.send(peer.event("Everything", broken()[name][1]), *count(i), note=name)
        script.expect(event={"type": "Everything", "unreadable": True})
        script.sees("Count", {"number": str(i)})
    script.still_there()
    talk(
        store,
        "unreadable-events",
        "events whose fields cannot be read: the handler's problem, never the connection's",
        script.ends(),
    )

    unit = bytes((k * 31 + 5) % 256 for k in range(256))
    blob = {"id": 5, "data": (unit * 4096).hex()}
    short = {"repeat": unit.hex(), "times": 4096}
    script = Script(subscribe=["Blob"], frame_limit=2 << 20).come_up(
        "Blob", "Count", wants=("Blob",), frameLimit=2 << 20, eventCredit=str(16 << 20)
    )
    script.period = 256
    script.send(peer.event("Blob", blob)).expect(event={"type": "Blob", "value": {"id": 5, "data": short}})
    script.do("broadcast", type="Blob", value={"id": 5, "data": short})
    script.sent("event", type="Blob", value={"id": 5, "data": short})
    talk(
        store,
        "one-mib-both-ways",
        "an event with 1 MiB of data, over the limit of control frames, both ways",
        script.ends(),
    )

    script = Script(subscribe=["Blob"]).come_up("Blob")
    size = 1048576 - 24 - 8 - 16
    script.period = 8
    script.send(peer.event("Blob", {"id": 1, "data": "00" * size}))
    script.expect(event={"type": "Blob", "value": {"id": 1, "data": {"repeat": "00", "times": size}}})
    talk(store, "frame-of-the-limit", "a frame of exactly frameLimit bytes passes", script.ends())

    script = Script(subscribe=["Blob"], frame_limit=1024).come_up(
        "Everything", "Evolving", "Blob", implementation="v" * 1024
    )
    wide = [unknown_row(61, typeId=str(UNKNOWN_ID + 1), layout=[7] * 2000)]
    script.send(control(declare={"types": wide}), note="a control frame of over 8,000 bytes")
    fits = {"id": 1, "data": "ab" * (1024 - 24 - 8 - 16)}
    script.send(peer.event("Blob", fits)).sees("Blob", fits)
    note = "frameLimit 1,024: control frames may be larger, and an event of 1,024 bytes passes"
    talk(store, "frame-of-the-least-limit", note, script.ends())


def _segments(store: Store) -> None:
    full = everything_values()["full"][1]
    script = Script(subscribe=["Everything", "Count"]).come_up("Everything", "Count")
    for place in (writing.in_turns(2), writing.in_turns(3), writing.each_in_its_own, writing.each_far_away):
        script.send(peer.event("Everything", full, place=place)).sees("Everything", full)
    empty = (*message(conformance.Count, {"number": "9"}), *[b""] * 511)
    script.send(frame(peer.WIRE_IDS["Count"], 0, 0, empty)).sees("Count", {"number": "9"})
    ping = (*message(wire.Control, {"ping": None}), *[b""] * 511)
    script.send(frame(0, 0, 0, ping), note="a ping of 512 segments").sent("pong")
    talk(store, "segments", "events of several segments, up to 512, of which some are empty", script.ends())


# --- unknown ------------------------------------------------------------------------------------------------


def unknown_row(wire_id: int = 60, **changes: Any) -> dict[str, Any]:
    facts = {
        "wireId": wire_id,
        "kind": "struct",
        "typeId": str(UNKNOWN_ID),
        "name": "elsewhere.capnp:Thing",
        "layout": [1, 2, 3],
    }
    return {**facts, **changes}


def unknown_content(flags: int = 0, number: int = 0, wire_id: int = 60) -> bytes:
    return frame(wire_id, flags, number, message(conformance.Count, {"number": "3"}))


def _unknown(store: Store) -> None:
    for everything in (False, True):
        script = Script(subscribe=["Count"], **({"all": True} if everything else {}))
        script.come_up(types=[*peer.rows("Count"), unknown_row()])
        script.send(unknown_content(), *count(1), unknown_content(), unknown_content(), *count(2))
        name = "unknown-type-all" if everything else "unknown-type"
        see_counts(script, 1, 2)
        talk(
            store,
            name,
            "events of a type that is declared but not known here are skipped",
            script.ends({"skipped": 3}),
        )

    opaque = unknown_row(kind="opaque", layout=[])
    script = (
        Script(subscribe=["Count"], all=True)
        .come_up(types=[*peer.rows("Count"), opaque])
        .send(unknown_content(), *count(1))
    )
    talk(store, "unknown-opaque-type", "of kind opaque", see_counts(script, 1).ends({"skipped": 1}))

    script = Script().come_up("Count", "Blob").send(*count(1), peer.event("Blob", {"id": 1})).still_there()
    talk(
        store,
        "not-subscribed",
        "events that nobody subscribed to here are skipped",
        script.ends({"skipped": 2}),
    )

    script = Script(all=True).come_up("Count", "Blob", "Evolving")
    script.send(*count(1), peer.event("Blob", {"id": 1}))
    script.sees("Count", {"number": "1"}).sees("Blob", {"id": 1})
    talk(store, "subscribed-to-all", "`all`: every type that is known", script.ends({"skipped": 0}))

    script = Script(subscribe=["Late", "Count"]).come_up("Count", wants=("Count",)).send(*count(1))
    script.send(control(declare={"types": peer.rows("Late")}), peer.event("Late", {"text": "at last"}))
    see_counts(script, 1).sees("Late", {"text": "at last"})
    script.send(subscriptions("Late", sequence=2, ackWanted=True)).sent("subscriptionsAck", sequence="2")
    broadcasts(script, "Late", {"text": "here too"})
    talk(store, "late-declare", "a type that is declared after the handshake, both ways", script.ends())


# --- versions -----------------------------------------------------------------------------------------------


def _evolution(store: Store) -> None:
    for name, module in (("older", older), ("newer", newer)):
        rows = [peer.row(module.Evolving, 40, f"{name}.capnp")]
        if name == "newer":
            rows.insert(0, peer.row(newer.Inner, 0, "newer.capnp"))
        script = Script(subscribe=["Evolving"]).come_up(types=rows, wants=(peer.type_id("Evolving"),))
        for variant, (_, struct_, written, value) in evolving().items():
            if variant.startswith(name):
                script.send(frame(40, 0, 0, message(struct_, written)), note=variant).sees("Evolving", value)
        broadcasts(
            script, "Evolving", {"number": 1, "text": "mid", "inner": {"number": 2}, "choice": {"right": "r"}}
        )
        note = "rows and events of a peer whose schema is " + name
        talk(store, f"evolution-{name}", note, script.ends({"skipped": 0}))


def changed(rows: list[dict[str, Any]], name: str, ordinal: int = 0) -> list[dict[str, Any]]:
    """Return the rows with another layout for one type."""
    found = []
    for row in rows:
        if row["name"].endswith(f":{name}"):
            layout = list(row["layout"])
            layout[ordinal] ^= 1
            row = {**row, "layout": layout}
        found.append(row)
    assert found != rows
    return found


def _incompatible(store: Store) -> None:
    rows = changed(peer.rows("Evolving", "Count"), "Evolving", ordinal=4)
    script = Script(subscribe=["Evolving", "Count"]).come_up(types=rows, wants=("Evolving", "Count"))
    script.send(peer.event("Evolving", {"number": 1}), *count(1), peer.event("Evolving", {"number": 2}))
    script.do("broadcast", type="Evolving", value={"number": 3})
    broadcasts(see_counts(script, 1), "Count", {"number": "4"})
    talk(
        store,
        "incompatible",
        "a type whose layouts differ is disabled: skipped, and not sent; others go on",
        script.ends({"skipped": 2}),
    )

    rows = changed(peer.rows("Everything", "Evolving", "Count"), "Inner", ordinal=1)
    script = Script(subscribe=["Evolving", "Everything", "Count"]).come_up(
        types=rows, wants=("Evolving", "Everything", "Count")
    )
    script.send(peer.event("Evolving", {"number": 1}), peer.event("Everything", {}), *count(1))
    script.do("broadcast", type="Evolving", value={}).do("broadcast", type="Everything", value={})
    broadcasts(see_counts(script, 1), "Count", {"number": "4"})
    talk(
        store,
        "incompatible-inside",
        "a struct that two types contain differs: both are disabled",
        script.ends({"skipped": 2}),
    )

    rows = [*peer.rows("Count"), {**peer.rows("Blob")[0], "kind": "opaque", "layout": []}]
    script = Script(subscribe=["Blob", "Count"]).come_up(types=rows, wants=("Blob",))
    script.send(peer.event("Blob", {"id": 1}), *count(1)).do("broadcast", type="Blob", value={"id": 1})
    talk(store, "incompatible-kind", "struct here, opaque there", see_counts(script, 1).ends({"skipped": 1}))

    rows = [row for row in peer.rows("Everything", "Count") if not row["name"].endswith(":Inner")]
    late = changed(peer.rows("Everything"), "Inner", ordinal=0)[:1]
    script = Script(subscribe=["Everything", "Count"]).come_up(types=rows, wants=("Everything",))
    script.send(peer.event("Everything", {"u8": 1})).sees("Everything", {"u8": 1})
    broadcasts(script, "Everything", {"u8": 3})
    script.send(control(declare={"types": late}), peer.event("Everything", {"u8": 2}), *count(1))
    script.do("broadcast", type="Everything", value={"u8": 4})
    talk(
        store,
        "incompatible-later",
        "a row that comes later disables a type",
        see_counts(script, 1).still_there().ends({"skipped": 1}),
    )

    rows = [{**row, "layout": row["layout"][:-1]} for row in peer.rows("Evolving")]
    script = Script(subscribe=["Evolving"]).come_up(types=rows).send(peer.event("Evolving", {"number": 1}))
    script.sees("Evolving", {"number": 1})
    talk(
        store,
        "compatible-prefix",
        "layouts of which one is the beginning of the other",
        script.ends({"skipped": 0}),
    )


# --- subscriptions ------------------------------------------------------------------------------------------


def _subscriptions_of_peer(store: Store) -> None:
    count_id, blob_id = str(peer.type_id("Count")), str(peer.type_id("Blob"))
    script = Script().come_up("Count", "Blob")
    script.do("broadcast", type="Count", value={"number": "1"})
    script.send(subscriptions("Count", sequence=2, ackWanted=True)).sent("subscriptionsAck", sequence="2")
    broadcasts(script, "Count", {"number": "2"})
    script.do("broadcast", type="Blob", value={"id": 1})
    script.send(subscriptions("Blob", sequence=3, remove=[count_id], ackWanted=True)).sent(
        "subscriptionsAck", sequence="3"
    )
    script.do("broadcast", type="Count", value={"number": "3"})
    broadcasts(script, "Blob", {"id": 2})
    script.send(subscriptions(sequence=4, remove=["12345", blob_id, blob_id], ackWanted=True)).sent(
        "subscriptionsAck", sequence="4"
    )
    script.do("broadcast", type="Blob", value={"id": 3})
    talk(
        store,
        "subscriptions-deltas",
        "added, removed, removed again; unknown ids in `remove`",
        script.still_there().ends(),
    )

    script = Script().come_up("Count", wants=("Count", "Count"))
    script.send(subscriptions("Count", "Count", sequence=2, remove=[count_id], ackWanted=True)).sent(
        "subscriptionsAck", sequence="2"
    )
    broadcasts(script, "Count", {"number": "1"})
    talk(store, "subscriptions-remove-then-add", "`remove` is applied before `add`", script.ends())

    script = (
        Script()
        .come_up()
        .send(subscriptions(sequence=2, all=True, ackWanted=True))
        .sent("subscriptionsAck", sequence="2")
    )
    broadcasts(script, "Count", {"number": "1"})
    broadcasts(script, "Late", {"text": "t"})
    script.send(subscriptions(sequence=3, all=True, remove=[count_id], ackWanted=True)).sent(
        "subscriptionsAck", sequence="3"
    )
    broadcasts(script, "Count", {"number": "2"})
    script.send(subscriptions(sequence=4, ackWanted=True)).sent("subscriptionsAck", sequence="4")
    script.do("broadcast", type="Count", value={"number": "3"}).still_there()
    talk(store, "subscriptions-all", "`all` overrules `remove`, and is stated anew each time", script.ends())

    script = Script().come_up(types=[unknown_row()], wants=(UNKNOWN_ID,)).still_there()
    talk(store, "subscriptions-unknown-type", "a peer may subscribe to what only it knows", script.ends())

    script = Script().come_up("Count", wants=("Count",), eventCredit="0")
    for number in range(3):
        script.do("broadcast", type="Count", value={"number": str(number)})
    script.send(subscriptions(sequence=2, remove=[count_id], ackWanted=True)).sent(
        "subscriptionsAck", sequence="2"
    )
    script.send(control(credit={"events": "100000"})).still_there().count("event", 0)
    talk(store, "subscriptions-purge", "what is queued and no longer wanted is not sent", script.ends())


def _subscriptions_of_consumer(store: Store) -> None:
    script = Script().come_up("Count", "Blob").send(*count(1))
    script.do("subscribe", types=["Count"]).sent("subscriptions", add=["Count"])
    script.send(control(subscriptionsAck={"sequence": "0"}), patch=_ack_patch()).send(*count(2))
    script.do("subscribe", types=["Blob"]).sent("subscriptions", add=["Blob"])
    script.send(peer.event("Blob", {"id": 1}), *count(3))
    ack = control(subscriptionsAck={"sequence": "0"})
    script.send(ack, ack, patch=[*_ack_patch(), *_ack_patch(len(ack))])
    script.do("unsubscribe", types=["Count"]).sent("subscriptions", remove=["Count"])
    script.send(*count(4), peer.event("Blob", {"id": 2}))
    see_counts(script, 2).sees("Blob", {"id": 1})
    see_counts(script, 3).sees("Blob", {"id": 2})
    talk(
        store,
        "consumer-subscribes",
        "what is not wanted yet, or any more, is skipped; an acknowledgement may come twice",
        script.ends({"skipped": 2}),
    )

    script = Script(subscribe=["Count"]).come_up("Count")
    script.send(control(subscriptionsAck={"sequence": "1"}), *count(1))
    talk(
        store,
        "ack-unasked",
        "an acknowledgement of what is applied is legal, asked for or not",
        see_counts(script, 1).ends(),
    )


def _ack_patch(start: int = 0) -> list[dict[str, Any]]:
    """Where the sequence stands in the frame of a subscriptionsAck of our writer."""
    data = control(subscriptionsAck={"sequence": str(0x1122334455667788)})
    at = data.index((0x1122334455667788).to_bytes(8, "little"))
    return [{"at": start + at, "sequence": "last"}]

"""Refusals of docs/wire.md sections 3, 4 and 6.1: hello, the states of a direction, the id table."""

from __future__ import annotations

from typing import Any

from . import peer
from .peer import NAME, Script, control, hello, refuse, subscriptions
from .plans import conformance
from .store import Store
from .talk_types import count
from .writing import Raw, frame, message

_CONSUMER_INSTANCE = "c0c1c2c3c4c5c6c7c8c9cacbcccdcecf"
_BAD_TEXT = Raw("", lambda b, at: b.bytes(at, b"\xc3\x28\0"))


def add(store: Store) -> None:
    _hello(store)
    _order(store)
    _states(store)
    _tables(store)
    _large_table(store)


def _refuse_hello(
    store: Store, name: str, check: str, note: str, data: bytes, *codes: str, role: str = "acceptor"
) -> None:
    script = Script(role, subscribe=["Count"]).send(data, subscriptions(), note="hello, and more behind it")
    if role == "acceptor":
        # It answers with its hello or with goodbye, never both.
        script.count("hello", 0)
    refuse(store, f"hello-{name}", f"3: {check}", note, script, *codes)


def _hello(store: Store) -> None:
    def bad(case: str, check: str, note: str, /, *codes: str, **changes: Any) -> None:
        data = hello("Count", **changes)
        _refuse_hello(store, case, check, note, data, *codes)
        _refuse_hello(store, f"{case}-connector", check, note, data, *codes, role="connector")

    bad("version-0", "protocolVersion is 1", "version 0", "unsupportedVersion", protocolVersion=0)
    bad("version-2", "protocolVersion is 1", "version 2", "unsupportedVersion", protocolVersion=2)
    bad("version-257", "protocolVersion is 1", "1 in the low byte", "unsupportedVersion", protocolVersion=257)
    null = frame(0, 0, 0, (bytes(8),))
    note = "a null root pointer is a hello of version 0"
    _refuse_hello(store, "null-root", "protocolVersion is 1", note, null, "unsupportedVersion")
    _refuse_hello(
        store, "null-struct", "protocolVersion is 1", note, control(hello=None), "unsupportedVersion"
    )

    check = "the whole message can be read"
    for field in ("name", "implementation", "version"):
        bad(f"{field}-not-utf-8", check, f"{field} is not UTF-8", "protocolError", **{field: _BAD_TEXT})
    bad("feature-not-utf-8", check, "a feature is not UTF-8", "protocolError", features=["a", _BAD_TEXT])
    rows = [{**peer.rows("Count")[0], "name": _BAD_TEXT}]
    bad("row-name-not-utf-8", check, "the name of a row is not UTF-8", "protocolError", types=rows)

    bad("257-features", "at most 256 features", "257 of them", "protocolError", features=["x"] * 257)

    for name, text in (
        ("empty", ""),
        ("101-characters", "a" * 101),
        ("dash-first", "-a"),
        ("dot-first", ".hidden"),
        ("underscore-first", "_a"),
        ("space", "a b"),
        ("slash", "a/b"),
        ("line-end", "vector\n"),
        ("nul", "vector\0"),
        ("non-ascii", "véctor"),
        ("non-ascii-digit", "a٣"),
        ("colon", "a:b"),
    ):
        note = "an empty name" if not text else f"the name {text[:20]!r}"
        bad(f"name-{name}", "name is valid", note, "invalidName", name=text)
    bad("name-null", "name is valid", "no name", "invalidName", name=...)

    for size in (0, 15, 17, 32):
        note = f"instance of {size} bytes"
        bad(
            f"instance-{size}-bytes",
            "instance has exactly 16 bytes",
            note,
            "protocolError",
            instance="ab" * size,
        )
    bad("instance-null", "instance has exactly 16 bytes", "no instance", "protocolError", instance=...)
    for field in ("implementation", "version"):
        check = "implementation and version have at most 1,024 bytes each"
        bad(f"{field}-1025-bytes", check, "1,025 bytes", "protocolError", **{field: "x" * 1025})
        bad(f"{field}-1026-bytes", check, "513 characters of 2 bytes", "protocolError", **{field: "é" * 513})
    for limit in (0, 1023, 2**31 - 7, 2**31, 2**32 - 1):
        check = "frameLimit is 1,024 to 2^31 - 8"
        bad(f"frame-limit-{limit}", check, f"frameLimit {limit}", "protocolError", frameLimit=limit)
    note = "the consumer's own instance"
    bad("own-instance", "instance is not the receiver's own", note, "duplicate", instance=_CONSUMER_INSTANCE)
    for window in (2**63, 2**64 - 2):
        check = "each credit window is at most 2^63 - 1, or is 2^64 - 1"
        bad(
            f"event-credit-{window}", check, f"eventCredit {window}", "protocolError", eventCredit=str(window)
        )
        bad(
            f"request-credit-{window}",
            check,
            f"requestCredit {window}",
            "protocolError",
            requestCredit=str(window),
        )

    check = "connector only: name is the one it wanted to reach"
    for name in ("Vector", "vector2", "vecto", "consumer"):
        _refuse_hello(
            store,
            f"wrong-name-{name}",
            check,
            f"{name} instead of {NAME}",
            hello(name=name),
            "wrongName",
            role="connector",
        )

    script = Script().send(hello("Count", name="consumer"), subscriptions()).count("hello", 0)
    script.needs.append("endpoint")
    refuse(
        store,
        "hello-own-name",
        "13: 1, the name is the receiver's own",
        "another instance of it",
        script,
        "nameInUse",
    )


def _order(store: Store) -> None:
    """Of several faults in a hello the first check that fails gives the code."""

    def first(case: str, note: str, code: str, /, role: str = "connector", **changes: Any) -> None:
        data = hello(**changes)
        _refuse_hello(store, f"order-{case}", "the order of the checks", note, data, code, role=role)

    bad_rows = [{"wireId": 1, "typeId": "0", "name": "zero"}]
    first(
        "version-before-all",
        "version 7, of which nothing else is looked at",
        "unsupportedVersion",
        protocolVersion=7,
        name=_BAD_TEXT,
        instance="",
        frameLimit=0,
        types=bad_rows,
    )
    first(
        "reading-before-name",
        "a bad name, and a version that is not UTF-8",
        "protocolError",
        name="-",
        version=_BAD_TEXT,
    )
    first(
        "features-before-name", "257 features and a bad name", "protocolError", name="-", features=[""] * 257
    )
    first("name-before-instance", "a bad name and a short instance", "invalidName", name="-", instance="00")
    first(
        "instance-before-wrong-name",
        "a short instance and another name",
        "protocolError",
        name="other",
        instance="00",
    )
    first(
        "limit-before-duplicate",
        "frameLimit 0 and the consumer's instance",
        "protocolError",
        frameLimit=0,
        instance=_CONSUMER_INSTANCE,
    )
    first(
        "duplicate-before-wrong-name",
        "the consumer's instance and another name",
        "duplicate",
        name="other",
        instance=_CONSUMER_INSTANCE,
    )
    first("wrong-name-before-table", "another name and a bad row", "wrongName", name="other", types=bad_rows)
    first(
        "table-before-credit",
        "a bad row and a window of 2^63",
        "invalidTable",
        types=bad_rows,
        eventCredit=str(2**63),
    )
    first(
        "table-before-credit-acceptor",
        "a bad row and a window of 2^63",
        "invalidTable",
        role="acceptor",
        types=bad_rows,
        requestCredit=str(2**63),
    )


def _variants() -> dict[str, bytes]:
    return {
        "hello": hello("Count"),
        "declare": control(declare={}),
        "subscriptions": subscriptions(),
        "subscriptionsAck": control(subscriptionsAck={"sequence": "1"}),
        "credit": control(credit={"events": "1"}),
        "failed": control(failed={"correlation": "1"}),
        "ping": control(ping=None),
        "pong": control(pong=None),
        "dropped": control(dropped={}),
    }


def _states(store: Store) -> None:
    for role in ("acceptor", "connector"):
        for name, data in _variants().items():
            if name != "hello":
                script = Script(role).send(data)
                if role == "acceptor":
                    script.count("hello", 0)
                rule = f"4: {name} while opening"
                refuse(store, f"opening-{name}-{role}", rule, "before hello", script, "protocolError")
            if name not in ("declare", "subscriptions", "ping", "pong"):
                # failed to a request that was never sent breaks a second rule.
                codes = ["protocolError", *(["unknownCorrelation"] if name == "failed" else [])]
                script = Script(role).send(hello("Count"), note="hello")
                if role == "acceptor":
                    # A connector may wait for the acceptor's first subscriptions before it sends its own.
                    script.sent("subscriptions")
                script.send(data, subscriptions())
                rule = f"4: {name} while introduced"
                refuse(
                    store, f"introduced-{name}-{role}", rule, "before the first subscriptions", script, *codes
                )
        script = Script(role, subscribe=["Count"]).come_up("Count").send(hello("Count"), *count(1))
        refuse(
            store, f"active-hello-{role}", "4: hello while active", "a second hello", script, "protocolError"
        )

    rule = "7: sequence is exactly one more than the last"
    for sequence in (0, 2, 2**64 - 1):
        script = Script().send(hello(), subscriptions(sequence=sequence))
        refuse(store, f"sequence-first-{sequence}", rule, f"the first is {sequence}", script, "protocolError")
    for sequence in (0, 1, 3, 2**32 + 2):
        script = Script().come_up().send(subscriptions(sequence=sequence))
        refuse(store, f"sequence-second-{sequence}", rule, f"{sequence} after 1", script, "protocolError")


# --- the id table -------------------------------------------------------------------------------------------


def _tables(store: Store) -> None:
    (row,) = peer.rows("Count")
    (blob,) = peer.rows("Blob")
    other = {"wireId": 5, "kind": "struct", "typeId": "999", "name": "x.capnp:X", "layout": [1, 2]}
    cases: list[tuple[str, str, str, list[dict[str, Any]]]] = [
        ("wire-id-twice", "rule 1", "one wire id for two types", [row, {**blob, "wireId": row["wireId"]}]),
        ("two-wire-ids", "rule 1", "two wire ids for one type", [row, {**row, "wireId": 3}]),
        ("other-name", "rule 2", "repeated with another name", [row, {**row, "name": "y.capnp:Count"}]),
        ("other-layout", "rule 2", "repeated with another layout", [row, {**row, "layout": [1]}]),
        (
            "longer-layout",
            "rule 2",
            "repeated with a longer layout",
            [row, {**row, "layout": [*row["layout"], 1]}],
        ),
        ("no-layout", "rule 2", "repeated without its layout", [row, {**row, "layout": []}]),
        (
            "layout-after-none",
            "rule 2",
            "repeated with a layout where there was none",
            [{**row, "layout": []}, row],
        ),
        (
            "other-kind",
            "rule 2",
            "repeated with another kind",
            [{**other, "layout": []}, {**other, "layout": [], "kind": "opaque"}],
        ),
        (
            "other-layout-wire-id-0",
            "rule 2",
            "repeated with wire id 0 and another layout",
            [row, {**row, "wireId": 0, "layout": [1]}],
        ),
        (
            "promoted-other-name",
            "rule 2",
            "gets a wire id, and another name",
            [{**row, "wireId": 0}, {**row, "name": "y"}],
        ),
        ("type-id-0", "rule 3", "type id 0", [row, {**other, "typeId": "0"}]),
        ("type-id-0-struct", "rule 3", "type id 0, wire id 0", [row, {**other, "typeId": "0", "wireId": 0}]),
        ("unknown-kind", "rule 3", "kind 2", [row, {**other, "kind": 2}]),
        (
            "unknown-kind-struct",
            "rule 3",
            "kind 65535, wire id 0",
            [row, {**other, "kind": 65535, "wireId": 0}],
        ),
        ("name-1025-bytes", "rule 3", "a name of 1,025 bytes", [row, {**other, "name": "n" * 1025}]),
        (
            "name-1026-bytes",
            "rule 3",
            "a name of 513 characters of 2 bytes",
            [row, {**other, "name": "é" * 513}],
        ),
        ("opaque-layout", "rule 3", "kind opaque with a layout", [row, {**other, "kind": "opaque"}]),
    ]
    for name, rule, note, rows in cases:
        _refuse_hello(
            store, f"rows-{name}", f"rows of types, 6.1 {rule}", note, hello(types=rows), "invalidTable"
        )
        script = Script().come_up(types=rows[:1]).send(control(declare={"types": rows[1:]}), *count(1))
        refuse(store, f"declare-{name}", f"6.1: {rule}", f"{note}; in declare", script, "invalidTable")
        script = Script().send(hello(types=rows[:1]), control(declare={"types": rows[1:]}), subscriptions())
        refuse(
            store, f"declare-early-{name}", f"6.1: {rule}", f"{note}; before it is up", script, "invalidTable"
        )

    rule = "6.1: content of an id never declared"
    for wire_id in (1, 8, 263, 65535):
        note = f"wire id {wire_id}; only {row['wireId']} is declared"
        data = frame(wire_id, 0, 0, message(conformance.Count, {}))
        script = Script(subscribe=["Count"]).come_up("Count").send(*count(1), data, *count(2))
        script.sees("Count", {"number": "1"})
        refuse(store, f"unknown-id-event-{wire_id}", rule, note, script, "unknownId")
    data = frame(8, 1, 1, message(conformance.Count, {}))
    script = Script(subscribe=["Count"]).come_up("Count").send(data)
    refuse(store, "unknown-id-request", rule, "a request", script, "unknownId")
    script = Script().come_up("Ask", "Answer", wants=("Ask",)).do("request", type="Ask", value={}, tag="a")
    script.sent("request").send(
        frame(8, 2, 1, message(conformance.Count, {})), patch=[{"at": 8, "request": 1}]
    )
    refuse(store, "unknown-id-response", rule, "a response", script.expect(lost={"tag": "a"}), "unknownId")

    rule = "6.1, 7: a subscription of an id never declared"
    note = "in the first subscriptions"
    script = Script().send(hello("Count"), subscriptions("Count", "Blob"))
    refuse(store, "unknown-id-subscription-first", rule, note, script, "unknownId")
    script = Script().come_up("Count").send(subscriptions("Blob", sequence=2))
    refuse(store, "unknown-id-subscription", rule, "later", script, "unknownId")
    script = Script().come_up("Evolving").send(subscriptions(0xF7A3D0925C4BE186, sequence=2))
    refuse(
        store, "unknown-id-subscription-wire-id-0", rule, "declared with wire id 0 only", script, "unknownId"
    )
    script = Script().come_up("Count").send(subscriptions("Blob", sequence=2, all=True))
    refuse(store, "unknown-id-subscription-all", rule, "also beside `all`", script, "unknownId")
    script = Script().come_up("Count").send(subscriptions(0, sequence=2))
    refuse(store, "unknown-id-subscription-0", rule, "type id 0", script, "unknownId")
    declare = control(declare={"types": [blob]})
    script = Script().come_up("Count").send(subscriptions("Blob", sequence=2), declare)
    refuse(
        store, "unknown-id-subscription-declared-after", rule, "declared just after it", script, "unknownId"
    )


def _large_table(store: Store) -> None:
    """More than 16 MiB of rows, in declares of nearly 1 MiB."""
    script = Script().come_up()
    declares = []
    for i in range(17):
        row = {"wireId": i + 1, "typeId": str(1000 + i), "name": "x", "layout": [0] * 250_000}
        declares.append(control(declare={"types": [row]}))
    script.send(*declares, note="17 rows of 1,000,025 bytes each, as they count")
    script.period = 8
    note = "rows that take more than 16 MiB together"
    refuse(store, "declare-over-16-mib", "6.1: rule 4", note, script, "invalidTable")

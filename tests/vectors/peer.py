"""What the vector's side of a connection says: its id table, its control messages, its scripts."""

from __future__ import annotations

from typing import Any

from lahja_capn.binding.layout import layout_of

from .plans import complete, conformance, plan_of, wire
from .store import Store, recipe_of
from .writing import Place, frame, in_one_segment, message

NAME = "vector"
INSTANCE = "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"

# The wire ids that the vectors give their types, unless a note says otherwise. Not 1, 2, 3, as the consumer's
# own may be, and not in the order of the schema.
WIRE_IDS = {
    "Everything": 300,
    "Count": 7,
    "Blob": 65535,
    "Evolving": 40,
    "Ask": 9,
    "Answer": 258,
    "Late": 1000,
}
UNLIMITED = 2**64 - 1


def row(struct: Any, wire_id: int = 0, file: str = "conformance.capnp", **changes: Any) -> dict[str, Any]:
    """Return the row of a struct, as a value."""
    schema = getattr(struct, "schema", struct)
    facts: dict[str, Any] = {
        "wireId": wire_id,
        "kind": "struct",
        "typeId": str(schema.node.id),
        "name": f"{file}:{schema.node.displayName.rsplit(':', 1)[1]}",
        "layout": list(layout_of(schema)),
    }
    return {**facts, **changes}


def rows(*names: str) -> list[dict[str, Any]]:
    """Return the rows of types of conformance.capnp and of what is reachable from them."""
    found = []
    if {"Everything", "Evolving"} & set(names):
        found.append(row(conformance.Inner))
    return found + [row(getattr(conformance, name), WIRE_IDS[name]) for name in names]


def type_id(name: str) -> int:
    return plan_of(getattr(conformance, name)).type_id


def control(_place: Place = in_one_segment, **variant: Any) -> bytes:
    """Return a control frame: ``control(ping=None)``, ``control(credit={"events": 5})``."""
    return frame(0, 0, 0, message(wire.Control, variant, _place))


def hello_value(*names: str, **changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "protocolVersion": 1,
        "name": NAME,
        "instance": INSTANCE,
        "implementation": "vectors",
        "version": "1",
        "frameLimit": 1048576,
        "keepaliveMs": 0,
        "eventCredit": str(1 << 20),
        "requestCredit": str(1 << 20),
        "types": rows(*names),
    }
    facts.update(changes)
    return {name: value for name, value in facts.items() if value is not ...}


def hello(*names: str, **changes: Any) -> bytes:
    return control(hello=hello_value(*names, **changes))


def subscriptions(*names: str | int, sequence: int = 1, **changes: Any) -> bytes:
    """Subscribe to types of conformance.capnp, or to type ids."""
    ids = [str(name if isinstance(name, int) else type_id(name)) for name in names]
    facts: dict[str, Any] = {"sequence": str(sequence)}
    if ids:
        facts["add"] = ids
    return control(subscriptions={**facts, **changes})


def event(name: str, value: Any, wire_id: int | None = None, place: Place = in_one_segment) -> bytes:
    return content(0, 0, name, value, wire_id, place)


def request(number: int, value: Any, name: str = "Ask", wire_id: int | None = None) -> bytes:
    return content(1, number, name, value, wire_id)


def response(number: int, value: Any, name: str = "Answer", wire_id: int | None = None) -> bytes:
    return content(2, number, name, value, wire_id)


def content(
    flags: int,
    number: int,
    name: str,
    value: Any,
    wire_id: int | None = None,
    place: Place = in_one_segment,
) -> bytes:
    segments = message(getattr(conformance, name), value, place)
    return frame(WIRE_IDS[name] if wire_id is None else wire_id, flags, number, segments)


def full(name: str, value: Any) -> dict[str, Any]:
    """Return the type and the whole value, as facts show it."""
    return {"type": name, "value": complete(plan_of(getattr(conformance, name)), value)}


class Script:
    """Collects the bytes and the steps of a conversation or refusal."""

    def __init__(self, role: str = "acceptor", **setup: Any) -> None:
        self.role = role
        self.setup = setup
        self.data = b""
        self.steps: list[dict[str, Any]] = []
        self.facts: list[dict[str, Any]] = []
        self.counters: dict[str, int] = {}
        self.needs: list[str] = []
        # Bytes after which a long part repeats itself: the vector gets a recipe.
        self.period = 0
        if role == "connector":
            self.sent("hello")

    def send(self, *data: bytes, note: str = "", patch: list[dict[str, Any]] | None = None) -> Script:
        joined = b"".join(data)
        step: dict[str, Any] = {"send": len(joined)}
        if patch:
            step["patch"] = patch
        if note:
            step["note"] = note
        self.data += joined
        self.steps.append(step)
        return self

    def sent(self, kind: str, **match: Any) -> Script:
        """The consumer must have sent this; what is exact also becomes an expectation."""
        found = {"sent": kind, **match}
        self.steps.append({"await": found})
        if kind in ("event", "request", "response", "failed", "goodbye"):
            self.facts.append(found)
        return self

    def count(self, kind: str, number: int) -> Script:
        self.steps.append({"count": kind, "is": number})
        return self

    def do(self, action: str, **facts: Any) -> Script:
        self.steps.append({"do": action, **facts})
        return self

    def eof(self) -> Script:
        self.steps.append({"eof": True})
        return self

    def expect(self, **fact: Any) -> Script:
        self.facts.append(fact)
        return self

    def sees(self, name: str, value: Any) -> Script:
        """The consumer's user sees this event."""
        return self.expect(event=full(name, value))

    def come_up(self, *names: str, wants: tuple[str | int, ...] = (), **changes: Any) -> Script:
        """Let the connection come up: the vector declares ``names`` and subscribes to ``wants``."""
        self.send(hello(*names, **changes), subscriptions(*wants), note="hello, subscriptions")
        self.sent("subscriptions")
        return self.expect(up=NAME)

    def goodbye(self, code: str = "shutdown", text: str = "done") -> Script:
        """The vector ends the connection."""
        self.send(control(goodbye={"code": code, "text": text}), note="goodbye")
        return self.expect(closed={"code": code, "by_peer": True})

    def ends(self, counters: dict[str, int] | None = None) -> Script:
        """The vector ends the connection; the consumer has counted this."""
        self.counters = counters or {}
        return self.goodbye()

    def still_there(self) -> Script:
        """The consumer has handled everything so far, and the connection goes on."""
        return self.send(control(ping=None), note="ping").sent("pong")

    def json(self, note: str) -> dict[str, Any]:
        facts: dict[str, Any] = {"note": note, "role": self.role}
        if self.setup:
            facts["setup"] = self.setup
        facts["script"] = self.steps
        facts["expect"] = self.facts
        if self.counters:
            facts["counters"] = self.counters
        if self.needs:
            facts["needs"] = self.needs
        return facts


def talk(store: Store, name: str, note: str, script: Script) -> None:
    """Add a conversation."""
    _add(store, "conversations", name, script.json(note), script)


def refuse(store: Store, name: str, rule: str, note: str, script: Script, *codes: str) -> None:
    """Add a refusal: ``rule`` is what docs/wire.md says, ``codes`` are those that it allows."""
    _add(store, "refusals", name, {"rule": rule, "goodbye": list(codes), **script.json(note)}, script)


def _add(store: Store, folder: str, name: str, facts: dict[str, Any], script: Script) -> None:
    if script.period:
        facts["recipe"] = recipe_of(script.data, script.period)
    store.add(folder, name, facts, script.data)

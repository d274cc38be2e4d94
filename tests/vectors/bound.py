"""The events of conformance.capnp bound to classes; their values from JSON and to JSON, through the binding."""

from __future__ import annotations

import struct
from typing import Any

from lahja_capn import AnyPointer, BaseEvent, BaseRequestResponseEvent, Struct, bind
from lahja_capn.binding import EventType, event_type

from .plans import Plan, Type, conformance, plan_of

_FLOAT = {32: ">f", 64: ">d"}


@bind(conformance.Inner)
class Inner(Struct):
    pass


@bind(conformance.Everything)
class Everything(BaseEvent):
    pass


@bind(conformance.Count)
class Count(BaseEvent):
    pass


@bind(conformance.Blob)
class Blob(BaseEvent):
    pass


@bind(conformance.Late)
class Late(BaseEvent):
    pass


@bind(conformance.Evolving)
class Evolving(BaseEvent):
    pass


@bind(conformance.Answer)
class Answer(BaseEvent):
    pass


@bind(conformance.Ask)
class Ask(BaseRequestResponseEvent[Answer]):
    pass


TYPES: dict[str, EventType] = {
    cls.__name__: event_type(cls) for cls in (Everything, Count, Blob, Late, Evolving, Ask, Answer)
}
BY_ID = {found.type_id: found for found in TYPES.values()}


def build(name: str, value: dict[str, Any]) -> BaseEvent:
    """Return the event with these fields; those left out keep their default."""
    kind = TYPES[name]
    return kind.event_class(**_arguments(plan_of(getattr(conformance, name)), value))


def read(event: Any) -> dict[str, Any]:
    """Return the whole value of an event."""
    return _read(event, plan_of(getattr(conformance, type(event).__name__)))


# --- from JSON ----------------------------------------------------------------------------------------------


def _arguments(plan: Plan, value: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, content in value.items():
        f = plan.fields[name]
        if f.group is not None:
            found[name] = _arguments(f.group, content)
        elif (name == "again" and content is None) or content == {"null": None}:
            pass  # left out is how a null pointer is built
        else:
            assert f.type is not None
            found[name] = _argument(f.type, content)
        if name == "anything":
            found.setdefault("anyKind", next(iter(content)))
    return found


def _argument(kind: Type, content: Any) -> Any:
    if kind.kind == "float":
        return struct.unpack(_FLOAT[kind.bits], bytes.fromhex(content))[0]
    if kind.kind == "int":
        return int(content)
    if kind.kind == "data":
        return bytes.fromhex(content)
    if kind.kind == "struct":
        return _arguments(kind.plan, content)
    if kind.kind == "list":
        assert kind.element is not None
        return [_argument(kind.element, element) for element in content]
    if kind.kind == "any":
        ((member, value),) = content.items()
        if member == "inner":
            return Inner(**_arguments(plan_of(conformance.Inner), value))
        if member == "u16s":
            return AnyPointer.of_list("UInt16", value)
        return bytes.fromhex(value) if member == "data" else value
    return content


# --- to JSON ------------------------------------------------------------------------------------------------


def _read(record: Any, plan: Plan) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    members = plan.members
    active = record.which() if members else ""
    if active.startswith("unknown("):
        shown["unknown"] = int(active[8:-1])
    for name, f in plan.fields.items():
        if name in members and name != active:
            continue
        if f.group is not None:
            shown[name] = _read(getattr(record, name), f.group)
        elif name == "again" and not _is_set(record, name):
            shown[name] = None
        else:
            assert f.type is not None
            shown[name] = _shown(f.type, getattr(record, name), shown)
    return shown


def _is_set(record: Any, name: str) -> bool:
    # The public API has no question for this: a null pointer reads as a struct of defaults.
    found: bool = record._open()._has_by_field(record._plan.fields[name].capnp)
    return found


def _shown(kind: Type, value: Any, shown: dict[str, Any]) -> Any:
    if kind.kind == "float":
        if value != value:
            return {32: "7fc00000", 64: "7ff8000000000000"}[kind.bits]
        return struct.pack(_FLOAT[kind.bits], value).hex()
    if kind.kind == "int":
        return str(value) if kind.bits == 64 else value
    if kind.kind == "enum":
        return str(value) if value.known else value.raw
    if kind.kind == "data":
        return bytes(value).hex()
    if kind.kind == "struct":
        return _read(value, kind.plan)
    if kind.kind == "list":
        assert kind.element is not None
        return [_shown(kind.element, element, shown) for element in value]
    if kind.kind == "any":
        return _anything(value, shown["anyKind"])
    return value


def _anything(value: AnyPointer, kind: str) -> dict[str, Any]:
    if value.is_null:
        return {"null": None}
    if kind == "text":
        return {"text": value.as_text()}
    if kind == "data":
        return {"data": bytes(value.as_data()).hex()}
    if kind == "inner":
        return {"inner": _read(value.as_struct(Inner), plan_of(conformance.Inner))}
    assert kind == "u16s", kind
    return {"u16s": list(value.as_list("UInt16"))}

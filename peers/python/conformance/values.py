"""Events from JSON and back, in the forms of tests/vectors/README.md.

What a field is comes from the schema; its value goes through the event classes, as a user's would.
"""

from __future__ import annotations

import struct
from typing import Any

from lahja_capn import AnyPointer, BaseEvent

from .events import EVENTS, Inner, schema

_WIDE = ("int64", "uint64")
_FLOATS = {"float32": ">f", "float64": ">d"}
_COMPOUND = ("struct", "enum", "list")

# The one field whose null pointer shows in JSON: its default would contain itself.
_MAYBE_NULL = "again"


def build(type_name: str, value: dict[str, Any]) -> BaseEvent:
    """The event of this type with this JSON value. Fields that are left out keep their default."""
    return EVENTS[type_name](**_arguments(getattr(schema, type_name).schema, value))


def show(event: BaseEvent) -> dict[str, Any]:
    """The JSON value of an event, with every field."""
    return _fields_of(event, getattr(schema, type(event).__name__).schema)


# --- from JSON ------------------------------------------------------------------------------------------


def _arguments(struct_schema: Any, value: dict[str, Any]) -> dict[str, Any]:
    arguments = {}
    fields = struct_schema.fields
    for name, item in value.items():
        if name not in fields:
            raise ValueError(f"{struct_schema.node.displayName} has no field {name!r}")
        field = fields[name]
        if item is None and name == _MAYBE_NULL:
            continue
        if field.proto.which() == "group":
            arguments[name] = _arguments(field.schema, item)
        elif name == "anything":
            ((kind, content),) = item.items()
            arguments.setdefault("anyKind", kind)
            if kind != "null":
                arguments[name] = _anything(kind, content)
        else:
            arguments[name] = _argument(field.proto.slot.type, field, item)
    return arguments


def _argument(type_: Any, owner: Any, item: Any) -> Any:
    """The argument for one value. ``owner.schema`` is the schema of a compound type."""
    kind = type_.which()
    if kind in _WIDE:
        return int(item)
    if kind in _FLOATS:
        return struct.unpack(_FLOATS[kind], bytes.fromhex(item))[0]
    if kind == "data":
        return bytes.fromhex(item)
    if kind == "struct":
        return _arguments(owner.schema, item)
    if kind == "list":
        element, inner = _element(type_, owner)
        return [_argument(element, inner, one) for one in item]
    return item


def _anything(kind: str, content: Any) -> Any:
    if kind == "text":
        return content
    if kind == "data":
        return bytes.fromhex(content)
    if kind == "inner":
        return Inner(**_arguments(schema.Inner.schema, content))
    if kind == "u16s":
        return AnyPointer.of_list("UInt16", content)
    raise ValueError(f"anything holds null, text, data, inner or u16s, got {kind!r}")


class _Element:
    """What stands for a field where a list's element is described."""

    def __init__(self, schema_: Any) -> None:
        self.schema = schema_


def _element(type_: Any, owner: Any) -> tuple[Any, _Element]:
    element = type_.list.elementType
    # pycapnp knows an element's schema only where it has one.
    return element, _Element(owner.schema.elementType if element.which() in _COMPOUND else None)


# --- to JSON --------------------------------------------------------------------------------------------


def _fields_of(record: Any, struct_schema: Any) -> dict[str, Any]:
    value: dict[str, Any] = {}
    union = struct_schema.union_fields
    active = record.which() if union else ""
    if active.startswith("unknown("):
        value["unknown"] = int(active[len("unknown(") : -1])
    for name, field in struct_schema.fields.items():
        if name in union and name != active:
            continue
        item = getattr(record, name)
        if field.proto.which() == "group":
            value[name] = _fields_of(item, field.schema)
        elif name == _MAYBE_NULL:
            # The public API does not tell a null pointer from a struct of defaults.
            value[name] = None if item == type(item)() else _fields_of(item, field.schema)
        elif name == "anything":
            value[name] = _shown_anything(str(record.anyKind), item)
        else:
            value[name] = _shown(field.proto.slot.type, field, item)
    return value


def _shown(type_: Any, owner: Any, item: Any) -> Any:
    kind = type_.which()
    if kind in _WIDE:
        return str(item)
    if kind in _FLOATS:
        bits = struct.pack(_FLOATS[kind], item).hex()
        # Of NaN only the quiet one without payload is known to JSON.
        return bits if item == item else {"float32": "7fc00000", "float64": "7ff8000000000000"}[kind]
    if kind == "data":
        return bytes(item).hex()
    if kind == "enum":
        return item.raw if item.startswith("unknown(") else str(item)
    if kind == "struct":
        return _fields_of(item, owner.schema)
    if kind == "list":
        element, inner = _element(type_, owner)
        return [_shown(element, inner, one) for one in item]
    return item


def _shown_anything(kind: str, item: Any) -> dict[str, Any]:
    if item.is_null:
        return {"null": None}
    if kind == "text":
        return {"text": item.as_text()}
    if kind == "data":
        return {"data": bytes(item.as_data()).hex()}
    if kind == "inner":
        return {"inner": _fields_of(item.as_struct(Inner), schema.Inner.schema)}
    if kind == "u16s":
        return {"u16s": list(item.as_list("UInt16"))}
    raise ValueError(f"anything is set, but anyKind is {kind!r}")

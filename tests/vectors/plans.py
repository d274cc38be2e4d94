"""What the writer knows of a schema: where each field lies, and what it is when nobody set it.

Read from pycapnp's schema nodes, so that the placement of fields is the compiler's and never ours.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lahja_capn
from lahja_capn.schema import wire_schema

HERE = Path(__file__).resolve().parent

conformance: Any = lahja_capn.load(HERE / "conformance.capnp")
older: Any = lahja_capn.load(HERE / "older.capnp")
newer: Any = lahja_capn.load(HERE / "newer.capnp")
wire: Any = wire_schema()

_INTS = {
    "int8": (8, True),
    "int16": (16, True),
    "int32": (32, True),
    "int64": (64, True),
    "uint8": (8, False),
    "uint16": (16, False),
    "uint32": (32, False),
    "uint64": (64, False),
}
_NO_DISCRIMINANT = 65535

# Defaults of lists and structs, which pycapnp's nodes do not show: as JSON, by field.
_POINTER_DEFAULTS: dict[str, Any] = {
    "u8sDefault": [1, 2, 3],
    "innerDefault": {"number": 5, "label": "inner default", "more": []},
}


@dataclass(frozen=True)
class Type:
    """The type of a field or of a list's elements. ``kind`` says which of the others count."""

    kind: str  # void bool int float text data enum struct list any
    bits: int = 0
    signed: bool = False
    enumerants: tuple[str, ...] = ()
    element: Type | None = None
    schema: Any = None

    @property
    def is_pointer(self) -> bool:
        return self.kind in ("text", "data", "struct", "list", "any")

    @property
    def plan(self) -> Plan:
        return plan_of(self.schema)

    def raw(self, value: Any) -> int:
        """Return the bits of a value in its JSON form, unsigned."""
        if self.kind == "void":
            return 0
        if self.kind == "bool":
            return int(value)
        if self.kind == "enum":
            return value if isinstance(value, int) else self.enumerants.index(value)
        if self.kind == "float":
            return int(value, 16)
        number = int(value)
        low, high = (-(1 << self.bits - 1), 1 << self.bits - 1) if self.signed else (0, 1 << self.bits)
        assert low <= number < high, (number, self)
        return number & ((1 << self.bits) - 1)

    def json(self, raw: int) -> Any:
        """Return the JSON form of bits."""
        if self.kind == "void":
            return None
        if self.kind == "bool":
            return bool(raw)
        if self.kind == "enum":
            return self.enumerants[raw] if raw < len(self.enumerants) else raw
        if self.kind == "float":
            return f"{raw:0{self.bits // 4}x}"
        if self.signed and raw >> (self.bits - 1):
            raw -= 1 << self.bits
        return str(raw) if self.bits == 64 else raw


@dataclass(frozen=True)
class Field:
    name: str
    type: Type | None  # None: a group
    offset: int
    # Scalars: the bits it is XOR-ed with. Pointers: what a null one reads as, in JSON.
    default: Any
    discriminant: int | None
    group: Plan | None


@dataclass(eq=False)
class Plan:
    """A struct or a group."""

    name: str
    type_id: int
    data_words: int
    pointers: int
    # Of its own union, in 16-bit units; None without one.
    discriminant_offset: int | None
    fields: dict[str, Field] = field(default_factory=dict)

    @property
    def members(self) -> dict[str, Field]:
        return {name: f for name, f in self.fields.items() if f.discriminant is not None}


_plans: dict[tuple[int, str], Plan] = {}
_keep: list[Any] = []


def plan_of(schema: Any) -> Plan:
    """Return the plan of a struct: of a module's struct, or of pycapnp's schema object."""
    schema = getattr(schema, "schema", schema)
    node = schema.node
    # Three files describe the same type id differently: the file's id tells them apart.
    key = (node.id, node.displayName)
    if key not in _plans:
        proto = node.struct
        plan = Plan(
            node.displayName,
            node.id,
            proto.dataWordCount,
            proto.pointerCount,
            proto.discriminantOffset if proto.discriminantCount else None,
        )
        _plans[key] = plan
        _keep.append(schema)
        for name, found in schema.fields.items():
            plan.fields[name] = _field(name, found)
    return _plans[key]


def _field(name: str, found: Any) -> Field:
    proto = found.proto
    discriminant = None if proto.discriminantValue == _NO_DISCRIMINANT else proto.discriminantValue
    if str(proto.which()) == "group":
        return Field(name, None, 0, None, discriminant, plan_of(found.schema))
    slot = proto.slot
    kind = _type(slot.type, lambda: found.schema)
    return Field(name, kind, slot.offset, _default(name, kind, slot), discriminant, None)


def _type(proto: Any, schema: Any) -> Type:
    which = str(proto.which())
    if which in _INTS:
        bits, signed = _INTS[which]
        return Type("int", bits, signed)
    if which == "enum":
        by_number = sorted(schema().enumerants.items(), key=lambda item: item[1])
        return Type("enum", 16, enumerants=tuple(name for name, _ in by_number))
    if which == "struct":
        return Type("struct", schema=schema())
    if which == "list":
        return Type("list", element=_type(proto.list.elementType, lambda: schema().elementType))
    return {
        "void": Type("void"),
        "bool": Type("bool", 1),
        "float32": Type("float", 32),
        "float64": Type("float", 64),
        "text": Type("text"),
        "data": Type("data"),
        "anyPointer": Type("any"),
    }[which]


def _default(name: str, kind: Type, slot: Any) -> Any:
    value = slot.defaultValue
    if not kind.is_pointer:
        which = str(value.which())
        if kind.kind == "float":
            code = {32: "<f", 64: "<d"}[kind.bits]
            return int.from_bytes(struct.pack(code, getattr(value, which)), "little")
        return 0 if kind.kind == "void" else int(getattr(value, which)) & ((1 << kind.bits) - 1)
    if kind.kind == "text":
        return str(value.text)
    if kind.kind == "data":
        return bytes(value.data).hex()
    if slot.hadExplicitDefault:
        return _POINTER_DEFAULTS[name]
    if kind.kind == "list":
        return []
    return None  # a struct: all its defaults; anything: null


# --- what a value reads as --------------------------------------------------------------------------------


def complete(plan: Plan, value: Any) -> dict[str, Any]:
    """Return ``value`` with every field that a reader sees: defaults applied, of a union the active member."""
    value = value or {}
    members = plan.members
    active = [name for name in members if name in value]
    assert len(active) <= 1, active
    first = next((name for name, f in members.items() if f.discriminant == 0), None)
    shown: dict[str, Any] = {}
    for name, f in plan.fields.items():
        if name in members:
            if "unknown" in value or name != (active[0] if active else first):
                continue
        given = value.get(name)
        if f.group is not None:
            shown[name] = complete(f.group, given)
        elif name not in value:
            shown[name] = _unset(plan, f)
        else:
            assert f.type is not None
            shown[name] = _complete_value(f.type, given)
    if "unknown" in value:
        shown["unknown"] = value["unknown"]
    if "anyKind" in shown and "anyKind" not in value:
        shown["anyKind"] = next(iter(shown["anything"]))
    unknown = value.keys() - plan.fields.keys() - {"unknown"}
    assert not unknown, (plan.name, unknown)
    return shown


def _unset(plan: Plan, f: Field) -> Any:
    kind = f.type
    assert kind is not None
    if not kind.is_pointer:
        return kind.json(f.default)
    if kind.kind == "any":
        return {"null": None}
    if kind.kind == "struct" and f.default is None:
        # A struct that contains itself would have no end.
        return None if kind.plan is plan else complete(kind.plan, {})
    return f.default


def _complete_value(kind: Type, value: Any) -> Any:
    value = getattr(value, "json", value)
    if kind.kind == "struct":
        return None if value is None else complete(kind.plan, value)
    if kind.kind == "list":
        assert kind.element is not None
        return [_complete_value(kind.element, element) for element in value]
    if kind.kind == "any":
        ((member, content),) = value.items()
        if member == "inner":
            content = complete(plan_of(conformance.Inner), getattr(content, "json", content))
        return {member: getattr(content, "json", content)}
    if kind.is_pointer:
        return value
    return kind.json(kind.raw(value))

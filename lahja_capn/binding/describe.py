"""What a tool says about the structs of a schema: rows, texts and field names, without binding a class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lahja_capn.binding.eventtype import TypeRow, reachable_plans, row_of
from lahja_capn.binding.layout import layout_texts
from lahja_capn.binding.plan import StructPlan, get_plan, struct_schema
from lahja_capn.errors import BindError


@dataclass(frozen=True, slots=True)
class StructDescription:
    """A struct of a loaded schema.

    Attributes:
        row: its row of an id table.
        texts: per ordinal the text whose hash is in ``row.layout`` (docs/wire.md 6.2).
        fields: per ordinal the field's name; of a group's field ``group.field``.
    """

    row: TypeRow
    texts: tuple[str, ...]
    fields: tuple[str, ...]


def describe_struct(struct: Any) -> StructDescription:
    """Describe a struct of a loaded schema, such as ``load("events.capnp").OrderPlaced``."""
    return _describe(get_plan(struct_schema(struct, "describe_struct"), {}))


def describe_event(struct: Any) -> tuple[StructDescription, tuple[StructDescription, ...]]:
    """Describe a struct as an event type: itself, and the structs that are reachable from it, by type id.

    Raises:
        BindError: it cannot be an event type: it is generic, a group, or has an interface field, itself or
            in a struct that is reachable from it.
    """
    schema = struct_schema(struct, "describe_event")
    node = schema.node
    owner = node.displayName.rpartition(":")[2]
    if node.isGeneric or node.struct.isGroup:
        what = "generic" if node.isGeneric else "a group"
        raise BindError(
            f"{owner} is {what}, so it is no event type: name a struct that has a field of it.",
            event=owner,
            field=None,
        )
    plan = get_plan(schema, {})
    return _describe(plan), tuple(map(_describe, reachable_plans(plan, owner)))


def _describe(plan: StructPlan) -> StructDescription:
    texts = layout_texts(plan.schema)
    names: dict[int, str] = {}
    _name_fields(plan.schema, "", names)
    return StructDescription(
        row_of(plan),
        tuple(texts[ordinal] for ordinal in sorted(texts)),
        tuple(names[ordinal] for ordinal in sorted(texts)),
    )


def _name_fields(schema: Any, path: str, names: dict[int, str]) -> None:
    for proto, field in zip(schema.node.struct.fields, schema.fields_list, strict=True):
        name = f"{path}{proto.name}"
        if str(proto.ordinal.which()) == "explicit":
            names[proto.ordinal.explicit] = name
        if str(proto.which()) == "group":
            _name_fields(field.schema, f"{name}.", names)

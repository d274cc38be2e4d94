"""Checks the annotations of a bound class against its struct."""

from __future__ import annotations

import collections.abc
import difflib
import inspect
import types
import typing
from typing import Any, ClassVar, Literal, get_args, get_origin

from lahja_capn.binding.anypointer import AnyPointer, Cast, box_pointer
from lahja_capn.binding.dataview import DataView
from lahja_capn.binding.enumerant import Enumerant
from lahja_capn.binding.fieldtypes import AnyPointerType, ListType, StructType
from lahja_capn.binding.plan import StructPlan
from lahja_capn.binding.record import Record
from lahja_capn.binding.scalars import (
    BoolType,
    DataType,
    EnumType,
    FieldType,
    FloatType,
    IntType,
    TextType,
    VoidType,
)
from lahja_capn.binding.structs import Struct
from lahja_capn.binding.values import Mismatch, describe
from lahja_capn.errors import BindError

Own = tuple[type, int]

# Stands as a default for "may be left out" where the field's default cannot be written: a nested struct, an
# AnyPointer, a member of a union. For a type checker it is of any type.
OPTIONAL: Any = type("Optional", (), {"__slots__": (), "__repr__": lambda self: "OPTIONAL"})()


def check_class(
    cls: type[Record],
    plan: StructPlan,
    attr_of: dict[str, str],
    base: type[Record],
    local_names: dict[str, Any],
) -> frozenset[str]:
    """Check annotations and defaults of `cls`; return the attributes annotated as ``DataView``.

    Raises:
        BindError: an annotation names no field, or does not fit the field's type; a default is not the
            schema's.
    """
    names = {attr: name for name, attr in attr_of.items()}
    views = set()
    for attr, annotation in annotations_of(cls, base, local_names).items():
        if annotation is ClassVar or get_origin(annotation) is ClassVar:
            continue
        if attr not in names:
            raise _no_field(cls, plan, attr, names)
        field = plan.fields[names[attr]]
        wanted = _accepts(field.type, annotation, (cls, plan.type_id))
        if wanted is not None:
            raise BindError(
                f"{cls.__qualname__}.{attr} is annotated {_show(annotation)}, but {plan.name}.{field.name} "
                f"is {field.type.name}: annotate it {wanted}.{_OPTIONAL_HINT if _allows_none(annotation) else ''}",
                event=cls.__qualname__,
                field=attr,
            )
        if annotation is DataView:
            views.add(attr)
    annotated = {attr for owner in _owners(cls, base) for attr in inspect.get_annotations(owner)}
    for attr, name in names.items():
        for owner in _owners(cls, base):
            if attr in owner.__dict__:
                _check_default(cls, plan, attr, name, owner.__dict__[attr], attr in annotated)
                break
    return frozenset(views)


def _owners(cls: type, base: type) -> list[type]:
    """Return the classes of the user's whose bodies count: all above our base, nearest first."""
    return [owner for owner in cls.__mro__ if owner not in base.__mro__ and owner is not typing.Generic]


def annotations_of(cls: type, base: type, local_names: dict[str, Any]) -> dict[str, Any]:
    """Return the resolved annotations of `cls` and its bases up to ours.

    Names in string annotations are looked up in the class's module, then among `local_names` (those of the
    function that defines the class, if one does), then the class itself.
    """
    hints: dict[str, Any] = {}
    for owner in reversed(_owners(cls, base)):
        try:
            own = inspect.get_annotations(owner)
            # A class of its own, because get_type_hints would go through our bases as well.
            alone = type(owner.__name__, (), {"__annotations__": own, "__module__": owner.__module__})
            hints.update(typing.get_type_hints(alone, localns={**local_names, cls.__name__: cls}))
        except Exception as error:
            raise BindError(
                f"{cls.__qualname__}: an annotation cannot be resolved ({error}). A class used in an "
                f"annotation must "
                "be defined (and bound) above this one; `Struct` or `Any` stand for any struct.",
                event=cls.__qualname__,
                field=None,
            ) from error
    return hints


def _check_default(cls: type, plan: StructPlan, attr: str, name: str, value: Any, annotated: bool) -> None:
    if value is OPTIONAL or isinstance(value, DataView):
        return
    field = plan.fields[name]
    if callable(value) or hasattr(value, "__get__") or not annotated:
        what = "a method or attribute" if not annotated else "a value"
        raise BindError(
            f"{cls.__qualname__}.{attr} is {what} of the class and a field of {plan.name}: rename one of "
            f"them, the "
            f'field with @bind(..., rename={{"{name}": "{name}_"}}).',
            event=cls.__qualname__,
            field=attr,
        )
    default = None if field.in_union else _default(plan, name)
    try:
        stated = field.type.convert(value)
        if field.in_union or stated == default or (stated != stated and default != default):
            return
    except Mismatch:
        pass
    where = f"{cls.__qualname__}.{attr} = {describe(value)}"
    if field.in_union or isinstance(field.type, (StructType, AnyPointerType)):
        what = "a member of a union" if field.in_union else f"of type {field.type.name}"
        reason = (
            f"{where}, but {plan.name}.{name} is {what}, whose default cannot be written so: write "
            f"{attr} = OPTIONAL, which says that it may be left out."
        )
    else:
        reason = (
            f"{where}, but the schema's default of {plan.name}.{name} is {default!r}: that is what a receiver "
            "reads when the field is left out. Write the same, or OPTIONAL."
        )
    raise BindError(reason, event=cls.__qualname__, field=attr)


def _default(plan: StructPlan, name: str) -> Any:
    """Return what a field reads as when it is left out, None for a group inside a group."""
    field = plan.fields[name]
    if not plan.is_group:
        view = object.__new__(plan.view_class())
        view.__dict__.update({"_segments": (bytes(8),), "_plan": plan})
        return field.read(view)
    # A group is no message's root, and pycapnp's module of it does not lead to the struct it is part of.
    proto = next(proto for proto in plan.node.struct.fields if proto.name == name)
    if str(proto.which()) == "group":
        return None
    value = proto.slot.defaultValue
    which = str(value.which())
    raw = getattr(value, which)
    if isinstance(field.type, EnumType):
        return field.type.table.at(raw)
    if which not in ("struct", "list", "anyPointer"):
        return raw
    pointer = AnyPointer._holding(box_pointer(raw)) if proto.slot.hadExplicitDefault else AnyPointer()
    if isinstance(field.type, ListType):
        return pointer._cast(Cast("list", field.type))
    return pointer.as_struct(field.type.plan) if isinstance(field.type, StructType) else pointer


def _no_field(cls: type, plan: StructPlan, attr: str, names: dict[str, str]) -> BindError:
    close = difflib.get_close_matches(attr, names, 3, 0.5)
    return BindError(
        f"{cls.__qualname__}.{attr}: {plan.name} has no such field; "
        f"{'did you mean ' + ' or '.join(close) + '?' if close else 'it has ' + (', '.join(names) or 'none') + '.'} "
        "An attribute that is no field is annotated ClassVar.",
        event=cls.__qualname__,
        field=attr,
    )


def _accepts(kind: FieldType, annotation: Any, own: Own) -> str | None:
    """Return None if `annotation` describes what reading a field of this type gives, else what would.

    Args:
        own: the class that is being bound, which its own fields may name, and its type id.
    """
    if annotation is Any or annotation is object:
        return None
    wanted, fits = _describe(kind, annotation, own)
    return None if fits else wanted


def _describe(kind: FieldType, annotation: Any, own: Own) -> tuple[str, bool]:
    if isinstance(kind, VoidType):
        return "None", annotation is None or annotation is type(None)
    if isinstance(kind, BoolType):
        return "bool", annotation is bool
    if isinstance(kind, IntType):
        return "int", annotation is int
    if isinstance(kind, FloatType):
        return "float", annotation is float
    if isinstance(kind, TextType):
        return "str", annotation is str
    if isinstance(kind, DataType):
        return "bytes, or DataView for a view without a copy", annotation in (bytes, DataView)
    if isinstance(kind, EnumType):
        names = tuple(kind.table.by_name)
        if get_origin(annotation) is Literal:
            return (
                f"Literal[{', '.join(map(repr, names))}] (all the schema's names), or str",
                sorted(map(str, get_args(annotation))) == sorted(names),
            )
        return "str, Enumerant, or a Literal of all its names", annotation in (str, Enumerant)
    if isinstance(kind, StructType):
        wanted = f"a class bound to {kind.name} (@bind on a Struct), or Struct"
        if not isinstance(annotation, type):
            return wanted, False
        if annotation is Struct or annotation is Record:
            return wanted, True
        plan = getattr(annotation, "_plan", None)
        type_id = own[1] if annotation is own[0] else plan.type_id if plan is not None else None
        return wanted, issubclass(annotation, Record) and type_id == kind.type_id
    if isinstance(kind, AnyPointerType):
        return "AnyPointer", annotation is AnyPointer
    if isinstance(kind, ListType):
        inner = get_args(annotation)
        if get_origin(annotation) is collections.abc.Sequence and len(inner) == 1:
            element_wanted = _accepts(kind.element, inner[0], own)
            return f"Sequence[{element_wanted}]", element_wanted is None
        element, _ = _describe(kind.element, _Nothing, own)
        hint = (
            " (a field is immutable, so list does not describe it)"
            if (get_origin(annotation) or annotation) is list
            else ""
        )
        return f"Sequence[{element}]{hint}", annotation is collections.abc.Sequence
    return "nothing", False


class _Nothing:
    """Fits no field."""


_OPTIONAL_HINT = " A field is never None: to let it be left out, give it the default OPTIONAL."


def _allows_none(annotation: Any) -> bool:
    return get_origin(annotation) in (typing.Union, types.UnionType) and type(None) in get_args(annotation)


def _show(annotation: Any) -> str:
    if isinstance(annotation, type) and not get_args(annotation):
        return annotation.__qualname__
    return repr(annotation)

"""Hypothesis: random arguments for Everything, by schema, so that no kind of field is forgotten."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from lahja_capn.binding import AnyPointer
from lahja_capn.binding.fieldtypes import AnyPointerType, ListType, StructType
from lahja_capn.binding.plan import StructPlan
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

from .support import Inner

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def values(kind: FieldType, depth: int) -> st.SearchStrategy[Any]:
    if isinstance(kind, VoidType):
        return st.none()
    if isinstance(kind, BoolType):
        return st.booleans()
    if isinstance(kind, IntType):
        return st.integers(kind.low, kind.high) | st.sampled_from([kind.low, kind.high])
    if isinstance(kind, FloatType):
        return st.floats(width=32 if kind.code == "f" else 64)
    if isinstance(kind, TextType):
        return _TEXT
    if isinstance(kind, DataType):
        return st.binary(max_size=40) | st.binary(max_size=40).map(bytearray)
    if isinstance(kind, EnumType):
        return st.sampled_from([*kind.table.by_name, *kind.table.by_raw])
    if isinstance(kind, ListType):
        sizes = 0 if depth <= 0 else 12 if isinstance(kind.element, IntType) else 3
        return st.lists(values(kind.element, depth - 1), max_size=sizes) | st.just(())
    if isinstance(kind, AnyPointerType):
        structs = st.builds(Inner, number=st.integers(-5, 5), text=_TEXT)
        lists = st.lists(st.integers(0, 2**16 - 1), max_size=4).map(lambda v: AnyPointer.of_list("UInt16", v))
        texts = st.lists(_TEXT, max_size=3).map(lambda v: AnyPointer.of_list("Text", v))
        if kind.name == "AnyStruct":
            return structs
        if kind.name == "AnyList":
            return lists | texts
        return structs | lists | texts | _TEXT | st.binary(max_size=20)
    assert isinstance(kind, StructType), kind
    if depth <= 0:
        return st.just({})
    return st.deferred(lambda: arguments(kind.plan, depth - 1))


def arguments(plan: StructPlan, depth: int = 3) -> st.SearchStrategy[dict[str, Any]]:
    """Return arguments for a struct: any subset of its fields, at most one member of its union."""
    plain = {f.name: values(f.type, depth) for f in plan.fields.values() if not f.in_union}
    fields: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries({}, optional=plain)
    if plan.union:
        members = [
            values(f.type, depth).map(lambda v, n=f.name: {n: v}) for f in plan.fields.values() if f.in_union
        ]
        member: st.SearchStrategy[dict[str, Any]] = st.one_of(st.just({}), *members)
        return st.tuples(fields, member).map(lambda pair: {**pair[0], **pair[1]})
    return fields

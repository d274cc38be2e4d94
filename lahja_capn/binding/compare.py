"""Whole records: equality and repr. Each walks on one traversal budget (see record.py, "sealed")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lahja_capn.binding.anypointer import AnyPointer
from lahja_capn.binding.lists import ListView
from lahja_capn.binding.record import Record, is_local
from lahja_capn.errors import EventFieldError

# Of a repr: characters of one value, elements of a list, levels of nesting, characters in all.
_VALUE_CHARS = 64
_ITEMS = 6
_LEVELS = 4
_TOTAL_CHARS = 2000


def present_fields(record: Record) -> Iterator[tuple[str, Any]]:
    """Yield (attribute, value) of what a record holds: no pointers left null, only the set union member.

    A struct that was left out reads as one with all defaults, whose structs read so again: walking into what
    is not there need not end.
    """
    binding = record._binding
    assert binding is not None
    active = record.which() if binding.union else ""
    local = is_local(record)
    reader: Any = None if local else record._open()
    for attr, field in binding.attrs.items():
        if field.in_union and attr != active:
            continue
        if field.type.is_pointer:
            if local:
                present = attr in record.__dict__
            else:
                try:
                    present = reader._has_by_field(record._plan.fields[field.name].capnp)
                except Exception:
                    present = True  # a bad pointer: reading it below says what is wrong with it
            if not present:
                continue
        yield attr, getattr(record, attr)


def same_records(one: Record, other: Record) -> bool:
    """Say whether two records of one class have equal fields, as their schema reads them.

    NaN equals NaN here: the question is whether both say the same.
    """
    if (
        one._segments is not None
        and one._segments == other._segments
        and one._parent is other._parent is None
    ):
        return True
    one, other = one._sealed(), other._sealed()
    mine, theirs = dict(present_fields(one)), dict(present_fields(other))
    for attr in mine.keys() | theirs.keys():
        if attr in mine and attr in theirs:
            if not _same(mine[attr], theirs[attr]):
                return False
        else:
            # Left out on one side: the other may state the default.
            stated, record = (mine[attr], other) if attr in mine else (theirs[attr], one)
            assert record._binding is not None
            if record._binding.attrs[attr].in_union:
                return False
            if not _same(stated, getattr(record, attr)):
                return False
    return True


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, ListView):
        return isinstance(other, (ListView, list, tuple)) and same_lists(one, other)
    if isinstance(one, float):
        return bool(one == other or (one != one and other != other))
    if isinstance(one, Record) and isinstance(other, Record) and one is not other:
        return one._plan.type_id == other._plan.type_id and same_records(one, other)
    return bool(one == other)


def same_lists(one: ListView[Any], other: Sequence[Any]) -> bool:
    if len(one) != len(other):
        return False
    one = one._sealed()
    if isinstance(other, ListView):
        other = other._sealed()
        mine, theirs = one._items, other._items
        if (
            isinstance(mine, memoryview)
            and isinstance(theirs, memoryview)
            and mine.format == theirs.format not in "fd"
        ):
            return mine == theirs
    return all(map(_same, one, other))


def describe_record(record: Record, level: int = 0) -> str:
    """Return the repr. Never raises: what cannot be read says so."""
    name = type(record).__name__
    if level >= _LEVELS:
        return f"{name}(...)"
    parts: list[str] = []
    total = 0
    try:
        for attr, value in present_fields(record._sealed() if level == 0 else record):
            parts.append(f"{attr}={_describe(value, level)}")
            total += len(parts[-1])
            if total > _TOTAL_CHARS:
                parts.append("...")
                break
    except EventFieldError as error:
        parts.append(f"<unreadable: {error}>")
    return f"{name}({', '.join(parts)})"


def describe_list(view: ListView[Any], level: int = 0) -> str:
    try:
        shown = [_describe(item, level) for item in (view._sealed() if level == 0 else view)[:_ITEMS]]
    except EventFieldError as error:
        return f"[<unreadable: {error}>]"
    if len(view) > _ITEMS:
        shown.append(f"... {len(view)} in all")
    return f"[{', '.join(shown)}]"


def _describe(value: Any, level: int) -> str:
    if isinstance(value, Record):
        return describe_record(value, level + 1)
    if isinstance(value, ListView):
        return describe_list(value, level + 1)
    if isinstance(value, (str, bytes, memoryview)) and not isinstance(value, memoryview):
        if len(value) <= _VALUE_CHARS:
            return str.__repr__(value) if isinstance(value, str) else repr(value)
        unit = "bytes" if isinstance(value, bytes) else "characters"
        return f"{value[: _VALUE_CHARS // 2]!r}... {len(value)} {unit}"
    if isinstance(value, memoryview):
        head = bytes(value[: _VALUE_CHARS // 2])
        return f"<view of {head!r}{'...' if len(value) > len(head) else ''} {len(value)} bytes>"
    if isinstance(value, AnyPointer):
        return repr(value)
    return repr(value)

"""Reads everything that a received event has, as the most thorough handler would, through the public API.

A handler may be told EventFieldError by any read, and EventArgumentError where it puts a received part into an event
of its own. Anything else is a finding.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from lahja_capn import AnyPointer, BaseEvent, EventArgumentError, EventFieldError
from lahja_capn.binding import Enumerant, Struct, event_type
from lahja_capn.binding.lists import ListView
from tests.unit.binding import support as everything
from tests.vectors import bound

# What an AnyPointer is read as, one after the other.
_ELEMENTS: list[Any] = [
    *"Void Bool Int8 UInt16 Int32 UInt64 Float32 Float64 Text Data List(UInt16) List(Text)".split(),
    everything.Inner,
    everything.schema.Color,
]
_STRUCTS: list[Any] = [
    everything.Inner,
    bound.Inner,
    everything.Blob,
    everything.Everything,
    everything.schema.Empty,
]


def read_in_full(value: Any, level: int = 0, anys: int = 0) -> int:
    """Read every part of a value, to the last one; return how many there were. ``anys`` counts AnyPointers above."""
    if isinstance(value, (BaseEvent, Struct)):
        return _read_record(value, level, anys)
    if isinstance(value, ListView):
        return _read_list(value, level, anys)
    if isinstance(value, AnyPointer):
        return _read_any(value, level, anys)
    if isinstance(value, Enumerant):
        assert str(value)
        assert 0 <= value.raw < 65536
    elif isinstance(value, memoryview):
        assert value.readonly
        bytes(value)
    elif isinstance(value, str):
        value.encode()
    else:
        assert value is None or isinstance(value, (bool, int, float, bytes)), type(value)
    return 1


def _read_record(record: Any, level: int, anys: int) -> int:
    count = 1
    binding = record._binding
    active = None
    if binding.union:
        with contextlib.suppress(EventFieldError):
            active = record.which()
            assert isinstance(active, str)
    for attr, field in binding.attrs.items():
        # What was left out reads as its defaults, and those of its parts, without end: at the top it is read once.
        is_set = not field.type.is_pointer or _is_set(record, field)
        if level and (not is_set or (field.in_union and attr != active)):
            continue
        try:
            part = getattr(record, attr)
        except EventFieldError as error:
            if not error.event:
                raise
            str(error)
            count += 1
            continue
        if is_set:
            _same_as_pycapnp(record, field, part)
            count += read_in_full(part, level + 1, anys)
    if level < 2:
        repr(record)
    return count


def _is_set(record: Any, field: Any) -> bool:
    try:
        found: bool = record._open()._has_by_field(record._plan.fields[field.name].capnp)
        return found
    except Exception:
        return True  # a bad pointer: reading it says what is wrong with it


def _same_as_pycapnp(record: Any, field: Any, part: Any) -> None:
    """Hold what lahja_capn finds by its own walk over the pointers against what pycapnp reads."""
    shared = part._items if isinstance(part, ListView) else part
    if not isinstance(shared, memoryview):
        return
    try:
        raw = record._refresh()._get_by_field(record._plan.fields[field.name].capnp)
        plain = raw if isinstance(raw, bytes) else list(raw)
    except Exception:
        # Only that it has no budget left: the walk needs none.
        return
    mine = bytes(shared) if isinstance(plain, bytes) else list(shared)
    assert mine == plain or str(mine) == str(plain), (
        f"{field.name}: {mine!r:.80}, pycapnp reads {plain!r:.80}"
    )


def _read_list(view: Any, level: int, anys: int) -> int:
    count = len(view) + 1
    if level < 2:
        repr(view)
    if not len(view):
        return 1
    numbers = view._items is not None
    if numbers:
        list(view)
        return count
    for index in range(len(view)):
        try:
            item = view[index]
        except EventFieldError as error:
            str(error)
        else:
            count += read_in_full(item, level + 1, anys)
    with contextlib.suppress(EventFieldError):
        view[-1]
        view[::3]
    return count


def _read_any(value: Any, level: int, anys: int) -> int:
    assert isinstance(value.is_null, bool)
    repr(value)
    reads: list[Callable[[], Any]] = [value.as_text, value.as_data]
    # Read as all kinds at every level, a chain of them would take longer for each link by the number of kinds.
    structs = _STRUCTS if anys == 0 else _STRUCTS[anys % len(_STRUCTS) :][:1]
    elements = _ELEMENTS if anys == 0 else _ELEMENTS[anys % len(_ELEMENTS) :][:1]
    reads += [functools.partial(value.as_struct, target) for target in structs]
    reads += [functools.partial(value.as_list, element) for element in elements]
    count = 1
    for read in reads:
        try:
            part = read()
        except EventFieldError as error:
            str(error)
            count += 1
        else:
            count += read_in_full(part, level + 1, anys + 1) if not value.is_null else 1
    _same_as_its_copy(value)
    return count


def _same_as_its_copy(value: Any) -> None:
    """Hold what lahja_capn finds by its own walk to be text or data against what libcapnp copies."""
    found: list[Any] = []
    for read in (value.as_data, value.as_text):
        try:
            found.append(read())
        except EventFieldError:
            found.append(None)
    try:
        copy = AnyPointer(value)
    except EventFieldError as error:
        # The walk does not count what was read, nor the level that it has reached.
        limited = "traversal limit" in str(error) or "too deeply-nested" in str(error)
        if not limited and found[0] is not None:
            raise AssertionError("data was read of what cannot be copied") from error
        return
    assert value == copy or value != value
    assert [found[0]] == [copy.as_data() if found[0] is not None else None]
    if found[1]:
        assert found[0].endswith(b"\0"), "a text without NUL"
        assert copy.as_text() == found[1]


def use_parts(event: Any) -> None:
    """Do with the parts of an event what a handler may do: compare them, send them on, put them into others."""
    kind = event_type(event)
    assert kind.encode(event) is kind.encode(event)
    for attr, field in event._binding.attrs.items():
        try:
            part = getattr(event, attr)
        except EventFieldError:
            continue
        if not field.type.is_pointer:
            continue
        with contextlib.suppress(EventFieldError):
            assert part == getattr(event, attr), "a part differs from itself"
        with contextlib.suppress(EventFieldError, EventArgumentError):
            made = type(event)(**{attr: part})
            segments = event_type(made).encode(made)
            again = kind.open(tuple(map(bytes, segments)))
            read_in_full(getattr(again, attr), 3, 1)
        with contextlib.suppress(EventFieldError, EventArgumentError):
            AnyPointer(part if isinstance(part, (BaseEvent, Struct, AnyPointer, str)) else b"")
        if isinstance(part, BaseEvent):
            with contextlib.suppress(EventFieldError, EventArgumentError):
                segments = event_type(part).encode(part)
                read_in_full(event_type(part).open(tuple(map(bytes, segments))), 3, 1)

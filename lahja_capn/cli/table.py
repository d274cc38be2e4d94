"""The id table of a schema's event types, as a value: what ``lahja-capn table`` emits in some language."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lahja_capn.binding.describe import StructDescription, describe_event
from lahja_capn.wire.limits import MAX_TABLE_TYPES


@dataclass(frozen=True, slots=True)
class Entry:
    """One row with its suggested wire id.

    Attributes:
        wire_id: 0 for a struct that is only reachable from event types.
        type_id, kind, name, layout: docs/wire.md 6.1.
        texts, fields: per element of the layout the text that was hashed, and the field's name.
        reaches: type ids of the structs that are reachable from it: their rows go before it, or with it.
        struct: its name in its file, such as ``Order.Line``.
    """

    wire_id: int
    type_id: int
    kind: str
    name: str
    layout: tuple[int, ...]
    texts: tuple[str, ...]
    fields: tuple[str, ...]
    reaches: tuple[int, ...]
    struct: str


@dataclass(frozen=True, slots=True)
class Table:
    """Attributes:
    source: base name of the schema file.
    command: the command that makes this table, without the folders of this machine.
    entries: in an order in which they may be declared: structs that are only reachable first.
    """

    source: str
    command: str
    entries: tuple[Entry, ...]


def make_entries(
    events: Iterable[Any], opaque: Sequence[tuple[str, int]], first_wire_id: int
) -> tuple[Entry, ...]:
    """Return the rows for these structs and opaque types, each type id once.

    Raises:
        BindError: one of the structs cannot be an event type.
        ValueError: more event types than there are wire ids, or one type id twice.
    """
    numbered: dict[int, Entry] = {}
    reachable: dict[int, Entry] = {}
    for struct in events:
        own, inside = describe_event(struct)
        ids = tuple(part.row.type_id for part in inside)
        if own.row.type_id not in numbered:
            numbered[own.row.type_id] = _entry(own, first_wire_id + len(numbered), ids)
        for part in inside:
            reachable.setdefault(part.row.type_id, _entry(part, 0, ()))
    for name, type_id in opaque:
        if type_id in numbered or type_id in reachable:
            raise ValueError(f"type id 0x{type_id:016x} of the opaque type {name} is taken by another type")
        numbered[type_id] = Entry(
            first_wire_id + len(numbered), type_id, "opaque", name, (), (), (), (), name
        )
    if first_wire_id + len(numbered) - 1 > MAX_TABLE_TYPES:
        raise ValueError(
            f"{len(numbered)} event types from wire id {first_wire_id} on do not fit: the highest wire id is "
            f"{MAX_TABLE_TYPES}"
        )
    only_reachable = [reachable[type_id] for type_id in sorted(reachable.keys() - numbered.keys())]
    return (*only_reachable, *numbered.values())


def _entry(struct: StructDescription, wire_id: int, reaches: tuple[int, ...]) -> Entry:
    row = struct.row
    name = row.name.rpartition(":")[2]
    return Entry(
        wire_id, row.type_id, row.kind, row.name, row.layout, struct.texts, struct.fields, reaches, name
    )


def identifiers(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """Return for each entry the words of its name in source code; unlike for each entry.

    Structs of two files may have one name, and ``Order.Line`` may stand beside ``OrderLine``: those get their
    type id behind.
    """
    words = [_words(entry.struct) for entry in entries]
    joined = ["".join(parts).lower() for parts in words]
    return [
        (*parts, f"{entry.type_id:016x}") if joined.count(name) > 1 else parts
        for parts, name, entry in zip(words, joined, entries, strict=True)
    ]


def _words(name: str) -> tuple[str, ...]:
    """``HTTPRequest.Header2`` -> ``("HTTP", "Request", "Header2")``."""
    words = tuple(re.findall(r"[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z]+[0-9]*|[0-9]+", name))
    # The name of an opaque type may be any text.
    return words if words and not words[0][0].isdigit() else ("Type", *words)

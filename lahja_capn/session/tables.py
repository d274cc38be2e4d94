"""Id tables: our own, the peer's, and whether the two agree on a type. docs/wire.md section 6."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from ..binding import EventType, TypeRow
from ..errors import LocalProtocolError, RemoteProtocolError
from ..wire.limits import NAME_TEXT_BYTES, TABLE_BYTES, TABLE_ROW_BYTES, Limits
from .control import TableRow

_KINDS = ("struct", "opaque")

# A peer's layouts are kept packed: as Python's integers their 16 MiB would take 150.
_Layout: TypeAlias = bytes
_UNCHECKED: Final[_Layout] = b""


class WireTable:
    """An endpoint's own id table, shared by its sessions. It only grows.

    Each session declares to its peer what is new before it sends anything else, so a type may be added at any
    time. ``rows`` is append-only; only this class appends.
    """

    __slots__ = ("_events", "_limits", "_structs", "rows")

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._events: dict[int, tuple[int, TypeRow]] = {}
        self._structs: dict[int, TypeRow] = {}
        self.rows: list[TableRow] = []

    def __contains__(self, type_id: int) -> bool:
        return type_id in self._events

    @property
    def type_ids(self) -> Iterable[int]:
        """All types that have a wire id."""
        return self._events

    def wire_id(self, event_type: EventType) -> int:
        """Return the type's wire id; on its first use add it, after the structs that are reachable from it.

        Raises:
            LocalProtocolError: the table is full, or a struct was declared with another layout before, which
                cannot be taken back while the endpoint runs. Nothing was added.
        """
        known = self._events.get(event_type.type_id)
        row = event_type.row
        if known is not None and (known[1] is row or known[1] == row):
            return known[0]
        new = [r for r in (*event_type.reachable, row) if self._is_new(r)]
        if len(self._events) + 1 > self._limits.table_types:
            raise LocalProtocolError(
                f"{event_type.name} does not fit the id table: {self._limits.table_types} event types are in "
                "use (Limits.table_types)",
                limit=self._limits.table_types,
            )
        structs = {r.type_id: r for r in new if r.type_id != row.type_id}
        if len(self._structs) + len(structs) > self._limits.table_structs:
            raise LocalProtocolError(
                f"the structs of {event_type.name} do not fit the id table: the limit is "
                f"{self._limits.table_structs} (Limits.table_structs)",
                limit=self._limits.table_structs,
            )
        self._structs.update(structs)
        self.rows.extend((0, r) for r in structs.values())
        wire_id = len(self._events) + 1
        self._events[row.type_id] = (wire_id, row)
        self.rows.append((wire_id, row))
        return wire_id

    def _is_new(self, row: TypeRow) -> bool:
        known = self._structs.get(row.type_id)
        if known is None and row.type_id in self._events:
            known = self._events[row.type_id][1]
        if known is None:
            size = len(row.name.encode())
            if size > NAME_TEXT_BYTES:
                raise LocalProtocolError(
                    f"the name of {row.name[:100]!r}... has {size} bytes: peers accept {NAME_TEXT_BYTES}"
                )
            return True
        if known != row:
            raise LocalProtocolError(
                f"{row.name} ({row.type_id:#018x}) is in the id table as {known.name!r} with another "
                "layout or kind. What peers were told cannot change: restart the endpoint or bind one version.",
                type_id=row.type_id,
            )
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Incompatibility:
    """Why a type cannot pass between two endpoints."""

    # The event type, and its name here.
    type_id: int
    name: str
    # The struct that differs: the event's own or one reachable from it.
    struct_id: int
    struct_name: str
    # The first field that differs; None if the kinds do.
    ordinal: int | None

    def __str__(self) -> str:
        where = "" if self.struct_id == self.type_id else f" through {self.struct_name}"
        what = "kind of row" if self.ordinal is None else f"field with ordinal {self.ordinal}"
        return f"{self.name} ({self.type_id:#018x}){where}: the {what} differs"


class Route:
    """What to do with frames of one of the peer's wire ids."""

    __slots__ = ("event_type", "known", "round", "row")

    def __init__(self, row: TypeRow) -> None:
        self.row = row
        # The session's round of receiving in which the next two were looked up: bindings and subscriptions
        # may have changed between two rounds, not within one.
        self.round = 0
        # The class bound here; and the same if its events are also wanted.
        self.known: EventType | None = None
        self.event_type: EventType | None = None


class PeerTable:
    """The id table of one peer, as it declared it, and the verdict on each type both sides know."""

    __slots__ = (
        "_bytes",
        "_layouts",
        "_limits",
        "_reached_by",
        "_rows",
        "_structs",
        "_verdicts",
        "_wire_ids",
        "routes",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # Without their layouts; of these only those that are not empty.
        self._rows: dict[int, TypeRow] = {}
        self._layouts: dict[int, _Layout] = {}
        self._wire_ids: dict[int, int] = {}
        self._structs = 0
        self._bytes = 0
        # By the peer's wire id.
        self.routes: dict[int, Route] = {}
        self._verdicts: dict[int, tuple[EventType, Incompatibility | None]] = {}
        # Struct -> event types whose verdict depends on it.
        self._reached_by: dict[int, set[int]] = {}

    def __contains__(self, type_id: int) -> bool:
        """True if the peer declared this event type (with a wire id)."""
        return type_id in self._wire_ids

    @property
    def type_ids(self) -> Iterable[int]:
        """The event types that the peer declared."""
        return self._wire_ids.keys()

    def add(self, rows: Iterable[TableRow]) -> list[int]:
        """Add what the peer declared. Return the event types whose verdict may be another now.

        A row that says the same as before changes nothing. A struct may get its wire id later.

        Raises:
            RemoteProtocolError: the table contradicts itself or exceeds a limit (code ``invalidTable``).
        """
        affected: dict[int, None] = {}
        for wire_id, row in rows:
            if self._add(wire_id, row):
                for type_id in (row.type_id, *self._reached_by.get(row.type_id, ())):
                    self._verdicts.pop(type_id, None)
                    if type_id in self._wire_ids:
                        affected[type_id] = None
        return list(affected)

    def _add(self, wire_id: int, row: TypeRow) -> bool:
        type_id = row.type_id
        known = self._rows.get(type_id)
        if known is None:
            if row.kind not in _KINDS:
                raise _invalid(f"row {row.name!r} is of kind {row.kind}: wanted struct or opaque")
            if type_id == 0:
                raise _invalid(f"row {row.name!r} has type id 0")
            if row.layout and row.kind == "opaque":
                raise _invalid(f"row {row.name!r} is opaque and has a layout of {len(row.layout)} elements")
            name_bytes = len(row.name.encode())
            if name_bytes > NAME_TEXT_BYTES:
                raise _invalid(f"a row's name has {name_bytes} bytes: the limit is {NAME_TEXT_BYTES}")
            self._bytes += TABLE_ROW_BYTES + name_bytes + 4 * len(row.layout)
            if self._bytes > TABLE_BYTES:
                raise _invalid(f"the id table takes more than {TABLE_BYTES} bytes")
        elif not self._is_same(known, row):
            raise _invalid(
                f"type {type_id:#018x} is declared twice, differently: {known.name!r}, then {row.name!r}"
            )
        if wire_id == 0:
            if known is None:
                self._structs += 1
                if self._structs > self._limits.table_structs:
                    raise _invalid(f"more than {self._limits.table_structs} structs without a wire id")
                self._keep(row)
            return known is None
        before = self._wire_ids.get(type_id)
        if before == wire_id:
            return False
        if before is not None:
            raise _invalid(f"type {type_id:#018x} ({row.name!r}) has two wire ids, {before} and {wire_id}")
        taken = self.routes.get(wire_id)
        if taken is not None:
            raise _invalid(f"wire id {wire_id} stands for {taken.row.name!r} and for {row.name!r}")
        if len(self._wire_ids) >= self._limits.table_types:
            raise _invalid(f"more than {self._limits.table_types} event types")
        if known is None:
            known = self._keep(row)
        self._wire_ids[type_id] = wire_id
        self.routes[wire_id] = Route(known)
        return True

    def _keep(self, row: TypeRow) -> TypeRow:
        if row.layout:
            self._layouts[row.type_id] = array("I", row.layout).tobytes()
            row = TypeRow(row.type_id, row.kind, row.name, ())
        self._rows[row.type_id] = row
        return row

    def _is_same(self, known: TypeRow, row: TypeRow) -> bool:
        layout = self._layouts.get(row.type_id, _UNCHECKED)
        return (
            known.kind == row.kind and known.name == row.name and layout == array("I", row.layout).tobytes()
        )

    def verdict(self, event_type: EventType) -> tuple[Incompatibility | None, bool]:
        """Return why the two sides cannot exchange this type, or None; and True if that is a new finding.

        Looks at every struct reachable from the type, as bound here, that the peer declared too: their common
        prefixes of layout must be equal. An absent layout is not checked.
        """
        type_id = event_type.type_id
        cached = self._verdicts.get(type_id)
        if cached is not None and cached[0] is event_type:
            return cached[1], False
        found = None
        for ours in (event_type.row, *event_type.reachable):
            self._reached_by.setdefault(ours.type_id, set()).add(type_id)
            theirs = self._rows.get(ours.type_id)
            if theirs is None or found is not None:
                continue
            ordinal = _first_difference(ours.layout, self._layouts.get(ours.type_id, _UNCHECKED))
            if ordinal is not None or ours.kind != theirs.kind:
                found = Incompatibility(
                    type_id=type_id,
                    name=event_type.name,
                    struct_id=ours.type_id,
                    struct_name=ours.name,
                    ordinal=ordinal if ours.kind == theirs.kind else None,
                )
        self._verdicts[type_id] = (event_type, found)
        return found, found is not None


def _first_difference(ours: tuple[int, ...], theirs: _Layout) -> int | None:
    for ordinal, (a, b) in enumerate(zip(ours, memoryview(theirs).cast("I"), strict=False)):
        if a != b:
            return ordinal
    return None


def _invalid(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"the peer's id table: {what}", code="invalidTable")

"""Who is connected: the table of peers, the rules for names, and the waits on both.

Names are settled when a peer's hello arrives (docs/wire.md, "Names"):

- nobody holds the name: the connection is accepted;
- the same instance holds it through a connection opened by the same side: the new connection replaces the old;
- the same instance, opened by the other side (both dialed): the one opened by the lower name survives;
- a peer of another user or certificate holds it: the newcomer is refused;
- another instance holds it: the old one is pinged. Silent for a second, it is replaced; else the newcomer is
  refused (lahja L2: a restarted peer was refused for ever; L7: a second claimant took the server down).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import anyio

from ..binding import EventType, find_event_type
from ..errors import (
    ConnectionAttemptRejected,
    DuplicateConnection,
    LahjaError,
    NameInUse,
    RemoteDisconnected,
    UnsupportedVersion,
    WrongName,
)
from ..session import Closed, LocalEndpoint
from ..session.local import PROTOCOL_VERSION
from ..wire.limits import LEFT_CONNECTION_BYTES, UNLIMITED, Limits
from .changes import Changes
from .connection import Connection
from .core import ConnectionCore
from .limitedlog import LimitedLog
from .needs import Runtime

logger = logging.getLogger("lahja_capn.endpoint")


class Peers:
    """Connections of one endpoint, by name and by serial."""

    def __init__(self, local: LocalEndpoint, runtime: Runtime, limits: Limits) -> None:
        self._local = local
        self._runtime = runtime
        self._limits = limits
        # Everything that has a channel; the accepted holder of each name; those of them that are up.
        self.all: dict[int, Connection] = {}
        self._holders: dict[str, Connection] = {}
        self.up: dict[str, Connection] = {}
        # Connections we opened whose peer has not said hello yet, by the name we expect.
        self._dialing: dict[str, Connection] = {}
        # Bytes of events from connections that have ended which still wait in our subscriptions, by peer. A peer that
        # connects again and again would else get a new window each time, while a slow subscription holds the old ones.
        self._left: dict[str, int] = {}
        # The same by connection, and all together.
        self._left_by: dict[ConnectionCore, int] = {}
        self._left_bytes = 0
        self.connections_changed = Changes(runtime)
        self.subscriptions_changed = Changes(runtime)
        self._serial = 0
        self._log_full = LimitedLog(logger)

    # --- table ----------------------------------------------------------------------------------------

    def next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def add(self, connection: Connection, expected: str | None) -> None:
        self.all[connection.serial] = connection
        if expected is not None:
            self._dialing[expected] = connection

    def dialed(self, name: str) -> bool:
        """True if we hold, or are opening, a connection to ``name`` that we opened ourselves."""
        holder = self._holders.get(name)
        return name in self._dialing or (holder is not None and holder.dialed)

    def holds(self, name: str) -> bool:
        """True if a connection to ``name`` is up, or accepted and about to be."""
        return name in self._holders

    def is_connected_to(self, name: str) -> bool:
        return name in self.up

    def left(self, name: str) -> int:
        """Bytes of events of this peer's former connections that still wait here, at most its window."""
        return min(self._left.get(name, 0), self._limits.event_credit_bytes)

    def count_left(self, connection: Connection) -> None:
        """``connection`` has ended: the events that were not taken yet are still delivered."""
        window = self._limits.event_credit_bytes
        if connection.accepted and window != UNLIMITED:
            held = window - connection.withheld - connection.session.granted_event_credit
            if held > 0:
                self._left[connection.name] = self._left.get(connection.name, 0) + held
                self._left_by[connection] = held
                self._left_bytes += held + LEFT_CONNECTION_BYTES

    def too_much_left(self) -> set[ConnectionCore]:
        """Connections that have ended and whose events are to be dropped: those that left most, until half is left."""
        limits = self._limits
        limit = max(limits.left_events_bytes, limits.event_credit_bytes + LEFT_CONNECTION_BYTES)
        found: set[ConnectionCore] = set()
        if self._left_bytes > limit:
            rest = self._left_bytes
            for connection, size in sorted(self._left_by.items(), key=lambda entry: -entry[1]):
                if 2 * rest <= limit:
                    break
                found.add(connection)
                rest -= size + LEFT_CONNECTION_BYTES
        return found

    def taken_late(self, connection: ConnectionCore, size: int) -> None:
        """An event of ``connection``, which has ended, was taken."""
        left = self._left_by.pop(connection, 0)
        self._left_bytes -= min(size, left)
        if left > size:
            self._left_by[connection] = left - size
        elif left:
            self._left_bytes -= LEFT_CONNECTION_BYTES
        name = connection.name
        left = self._left.get(name, 0) - size
        if left > 0:
            self._left[name] = left
        else:
            self._left.pop(name, None)
        heir = self.up.get(name)
        if heir is not None:
            heir.give_withheld(self.left(name))

    def came_up(self, connection: Connection) -> None:
        self.up[connection.name] = connection
        connection.give_withheld(self.left(connection.name))
        logger.debug("%s: connected to %s", self._local.name, connection.name)
        self._both_changed()

    def remove(self, connection: Connection) -> None:
        """The tasks of ``connection`` have ended."""
        self.all.pop(connection.serial, None)
        self.hang_up(connection)

    def hang_up(self, connection: Connection) -> None:
        """Nothing comes or goes on ``connection`` any more: its name is free, its peer is gone."""
        for table in (self._dialing, self._holders, self.up):
            for name in [name for name, held in table.items() if held is connection]:
                del table[name]
        self._both_changed()

    def stop(self, error: LahjaError) -> None:
        """Nothing will change any more."""
        self.connections_changed.stop(error)
        self.subscriptions_changed.stop(error)
        self._log_full.end(self._local.name, "peers that were refused")

    def _both_changed(self) -> None:
        self.connections_changed.notify()
        self.subscriptions_changed.notify()

    # --- names ----------------------------------------------------------------------------------------

    def settle(
        self,
        newcomer: Connection,
        accept: Callable[[Connection], None],
        spawn: Callable[..., None],
    ) -> None:
        """Decide about a connection whose peer has just said hello: ``accept`` it, refuse it, or ask first."""
        info = newcomer.session.peer
        assert info is not None  # hello has arrived
        name = info.name
        if newcomer.dialed:
            for expected in [e for e, held in self._dialing.items() if held is newcomer]:
                del self._dialing[expected]
        if name == self._local.name:
            newcomer.say_goodbye("nameInUse", f"the endpoint you reached is itself called {name!r}")
            return
        rival = self._dialing.get(name)
        holder = self._holders.get(name)
        if rival is not None and not newcomer.dialed:
            if self._local.name < name:
                newcomer.say_goodbye("duplicate", f"{self._local.name!r} is connecting to {name!r} already")
                return
            rival.say_goodbye("duplicate", f"{name!r} connected to {self._local.name!r} first")
        if holder is None or holder.closed is not None:
            self._hold(newcomer, name, accept)
            return
        held_by = holder.session.peer
        assert held_by is not None  # it was accepted
        if holder.identity != newcomer.identity:
            # Whoever else may connect, by his user id or certificate, cannot take the name from its owner, however
            # silent that one is.
            newcomer.say_goodbye(
                "nameInUse",
                f"the name {name!r} is held at {self._local.name!r} by a peer of another user or certificate",
            )
            return
        if held_by.instance != info.instance:
            spawn(self._probe, holder, newcomer, name, accept, spawn)
            return
        if holder.dialed == newcomer.dialed:
            self._replace(holder, newcomer, name, accept, "a newer connection of the same endpoint took over")
            return
        ours_survives = self._local.name < name
        if newcomer.dialed == ours_survives:
            holder.say_goodbye("duplicate", "both sides connected; the one opened by the lower name stays")
            self._hold(newcomer, name, accept)
        else:
            newcomer.say_goodbye("duplicate", "both sides connected; the one opened by the lower name stays")

    def _hold(self, newcomer: Connection, name: str, accept: Callable[[Connection], None]) -> None:
        limit = self._limits.connections
        if len(self._holders) >= limit and not newcomer.dialed:
            text = (
                f"{self._local.name!r} has {limit} connections and takes no more (Limits.connections there)"
            )
            self._log_full.log(logging.WARNING, "%s: refused %r: %s", self._local.name, name, text)
            newcomer.say_goodbye("notPermitted", text)
            return
        self._holders[name] = newcomer
        accept(newcomer)

    def _replace(
        self,
        holder: Connection,
        newcomer: Connection,
        name: str,
        accept: Callable[[Connection], None],
        why: str,
    ) -> None:
        holder.say_goodbye("replaced", why)
        self._hold(newcomer, name, accept)

    async def _probe(
        self,
        holder: Connection,
        newcomer: Connection,
        name: str,
        accept: Callable[[Connection], None],
        spawn: Callable[..., None],
    ) -> None:
        """Another instance claims ``name``: does the holder still live?"""
        asked_at = time.monotonic()
        holder.session.ping(asked_at)
        holder.flush()
        with anyio.move_on_after(self._limits.name_probe_s):
            await holder.heard()
        if holder.closed is None:
            # This loop may be the one that was busy: an answer that lies there counts.
            holder.read()
        if newcomer.closed is not None:
            return
        if self._holders.get(name) is not holder:
            # It has gone, and perhaps another newcomer holds the name by now: look again.
            self.settle(newcomer, accept, spawn)
        elif holder.session.last_received > asked_at:
            newcomer.say_goodbye(
                "nameInUse",
                f"another, living endpoint is connected to {self._local.name!r} as {name!r}; choose another name",
            )
        else:
            self._replace(
                holder, newcomer, name, accept, f"silent for {self._limits.name_probe_s:g} s, name claimed"
            )

    # --- subscriptions of peers -----------------------------------------------------------------------

    def wanting(self, event_type: EventType) -> list[Connection]:
        """Every peer that subscribes to the type."""
        return [connection for connection in self.up.values() if connection.wants(event_type)]

    def incompatible(self, event_type: EventType, names: Iterable[str]) -> tuple[tuple[str, ...], str]:
        """Peers among ``names`` that hold another layout of the type, and the first one's explanation."""
        peers = []
        detail = ""
        for name in names:
            connection = self.up.get(name)
            found = None if connection is None else connection.session.incompatible(event_type.type_id)
            if found is not None:
                peers.append(name)
                detail = detail or str(found)
        return tuple(peers), detail

    def subscribed_classes(self, connection: Connection) -> set[type[Any]]:
        """Event classes, bound in this process, that a peer subscribes to."""
        found = (find_event_type(type_id) for type_id in connection.session.remote_subscriptions)
        return {event_type.event_class for event_type in found if event_type is not None}


def rejection(closed: Closed, peer: str, own: str, address: object) -> LahjaError:
    """The error that a refused or broken-off attempt to connect raises."""
    error = closed.error
    where = f"{own!r} could not connect to {peer!r} at {str(address)!r}"
    if closed.code == "wrongName":
        got = str(getattr(error, "got", "")) or "another name"
        return WrongName(
            f"{where}: the endpoint at this address is called {got!r}. Correct the name or the path in the "
            "ConnectionConfig.",
            peer=peer,
            code=closed.code,
            wanted=peer,
            got=got,
        )
    if closed.code == "nameInUse":
        return NameInUse(
            f"{where}: the name {own!r} is in use there ({closed.text}). Give this endpoint another name, or "
            "stop the other one.",
            peer=peer,
            code=closed.code,
        )
    if closed.code in ("duplicate", "replaced"):
        return DuplicateConnection(f"{where}: {closed.text}", peer=peer, code=closed.code)
    if isinstance(error, LahjaError):
        # The session knows what came, and not where from.
        return type(error)(f"{where}: {error}", **{**error.facts, "peer": peer})
    if closed.code == "unsupportedVersion":
        return UnsupportedVersion(
            f"{where}: it does not speak protocol version {PROTOCOL_VERSION} ({closed.text}). Run versions of "
            "the library that share one.",
            peer=peer,
            code=closed.code,
            theirs=None,
            ours=PROTOCOL_VERSION,
        )
    if closed.code:
        return ConnectionAttemptRejected(
            f"{where}: refused with {closed.code}: {closed.text or 'no reason given'}",
            peer=peer,
            code=closed.code,
        )
    return RemoteDisconnected(
        f"{where}: it closed the connection during the handshake ({closed.text or 'no reason given'}). Look at "
        "its log, and whether a lahja_capn endpoint serves there.",
        peer=peer,
        reason=closed.text,
    )

"""What one connection knows; the part that writing, waiting and reading share."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Protocol

import anyio

from ..binding import EventType
from ..session import (
    Arrivals,
    Arrived,
    Closed,
    FailedArrived,
    PeerDropped,
    ResponseArrived,
    Session,
    TypeDisabled,
)
from ..wire import Buffer
from .needs import Channel, Runtime, Waiter
from .requests import OpenRequest, PendingRequest

if TYPE_CHECKING:
    from .connection import Connection


class Traffic(Protocol):
    """Where a connection hands what it received."""

    def on_events(self, connection: Connection, arrivals: Arrivals) -> None: ...

    def on_request(self, connection: Connection, arrived: Arrived) -> None: ...

    def on_response(self, connection: Connection, response: ResponseArrived) -> None: ...

    def on_failed(self, connection: Connection, failed: FailedArrived) -> None: ...


class Owner(Protocol):
    """What a connection tells its endpoint about itself."""

    def on_hello(self, connection: Connection) -> None: ...

    def on_up(self, connection: Connection) -> None: ...

    def on_subscriptions(self, connection: Connection) -> None: ...

    def on_type_disabled(self, connection: Connection, disabled: TypeDisabled) -> None: ...

    def on_dropped(self, connection: Connection, dropped: PeerDropped) -> None: ...

    def on_closed(self, connection: Connection, closed: Closed) -> None: ...

    def on_taken_late(self, connection: ConnectionCore, size: int) -> None: ...

    def on_deadline(self, deadline: float) -> None: ...


class ConnectionCore(ABC):
    """State of one connection. :class:`~lahja_capn.endpoint.connection.Connection` is the class to use."""

    __slots__ = (
        "_blocked",
        "_broken",
        "_channel",
        "_dispatching",
        "_drops",
        "_ended",
        "_event_parts",
        "_events_before",
        "_flushing",
        "_heard_waiters",
        "_more_to_read",
        "_out",
        "_owner",
        "_pending_add",
        "_pending_remove",
        "_pending_version",
        "_read_limit",
        "_room_waiters",
        "_runtime",
        "_scope",
        "_sequence_versions",
        "_traffic",
        "_unflushed_calls",
        "_write_closed",
        "_writer",
        "accepted",
        "applied_version",
        "closed",
        "dialed",
        "drops_unlogged",
        "flush_wanted",
        "is_up",
        "line",
        "log_drops_at",
        "name",
        "open_requests",
        "pending",
        "serial",
        "session",
        "unflushed",
        "withheld",
    )

    def __init__(
        self,
        runtime: Runtime,
        owner: Owner,
        traffic: Traffic,
        channel: Channel,
        session: Session,
        serial: int,
        dialed: bool,
    ) -> None:
        self.serial = serial
        # The peer's name, "" before its hello.
        self.name = ""
        self.session = session
        self._drops = session.drops
        self.dialed = dialed
        self.accepted = False
        self.is_up = False
        self.closed: Closed | None = None
        # Requests that wait for an answer from here, and requests from here that wait for ours, by number.
        self.pending: dict[int, PendingRequest] = {}
        self.open_requests: dict[int, OpenRequest] = {}
        # Events that the peer dropped for us and the log does not tell yet, and when the next one may be logged.
        self.drops_unlogged = 0
        self.log_drops_at = 0.0
        # Broadcasts that found the queue full, in the order of their calls: the first one waits for room, each other
        # one until it is the first.
        self.line: deque[Waiter[None]] = deque()
        # Event credit that the peer does not get yet, because what its former connections sent still lies here.
        self.withheld = 0
        # The endpoint's subscription version that this peer has confirmed; -1 before its first confirmation.
        self.applied_version = -1
        self._runtime = runtime
        self._owner = owner
        self._traffic = traffic
        self._channel = channel
        self._scope: anyio.CancelScope | None = None
        self._out: list[Buffer] = []
        # Events that were pulled before what `_out` holds; and how often a part of `_out` has left that has events
        # in it, or that events with credit wait behind: of a large frame that is all there is to see for long.
        self._events_before = 0
        self._event_parts = 0
        # Bytes that the next read takes at most.
        self._read_limit = sys.maxsize
        self._blocked = False
        self._flushing = False
        # What arrived is being passed on; and why nothing can be written any more, found out meanwhile.
        self._dispatching = False
        self._broken: OSError | None = None
        self._more_to_read = False
        self.flush_wanted = False
        self.unflushed = 0
        self._unflushed_calls = 0
        self._write_closed = False
        self._ended = False
        self._writer: Waiter[None] | None = None
        self._room_waiters: list[Waiter[None]] = []
        self._heard_waiters: list[Waiter[None]] = []
        self._pending_add: set[int] = set()
        self._pending_remove: set[int] = set()
        self._pending_version = 0
        self._sequence_versions: dict[int, int] = {}

    @property
    def channel(self) -> Channel:
        return self._channel

    @property
    def identity(self) -> str:
        """Whose peer this is, by the word of the kernel or of a certificate; "" if nobody knows."""
        return self._channel.identity

    def __repr__(self) -> str:
        return (
            f"<Connection {self.serial} {'to' if self.dialed else 'from'} {self.name!r} {self.session.state}>"
        )

    def check_deadline(self) -> None:
        """The session may want to be called earlier than before."""
        deadline = self.session.next_deadline()
        if deadline is not None:
            self._owner.on_deadline(deadline)

    def stop(self) -> None:
        """End the tasks; what can still be sent has been."""
        if self._scope is not None:
            self._scope.cancel()

    def wants(self, event_type: EventType) -> bool:
        """True if the peer subscribes to the type, and both sides read it the same way."""
        return self.is_up and self.session.wants(event_type)

    @abstractmethod
    def read(self) -> None:
        """Hand everything that has arrived to the session, and on to the endpoint."""

    @abstractmethod
    def say_goodbye(self, code: str, text: str) -> None:
        """Close from our side: the peer is told why, what is queued is dropped and counted."""

    def _is_closed(self) -> bool:
        return self.closed is not None


def wake_all(waiters: list[Waiter[None]]) -> list[Waiter[None]]:
    """Wake every waiter; returns the list that takes its place."""
    for waiter in waiters:
        waiter.wake(None)
    return []

"""What stands between a connection and the user's code: one bounded queue for each subscription.

An :class:`Inbox` never waits. Its policy says what happens to an event that finds it full; each drop is
counted, and the event's credit goes back at once, so that a drop never starves the connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from typing import NamedTuple

from ..binding import BaseEvent, EventType
from ..errors import ConfigError
from ..session import Policy
from .needs import Runtime, Waiter
from .requests import OpenRequest

# Queued events at which a drop policy begins to drop, and at which a local broadcast waits under `wait`.
# (Events from peers are bounded in bytes by the credit window instead.) Large enough that a burst between two
# turns of the loop never meets it, small enough that 64-byte events stay within a few MiB.
DEFAULT_QUEUE_EVENTS = 10_000


class Grant:
    """The credit of one received event; it goes back when the last subscription has taken the event."""

    __slots__ = ("_give_back", "_size", "_takers")

    def __init__(self, give_back: Callable[[int], None], size: int, takers: int) -> None:
        self._give_back = give_back
        self._size = size
        self._takers = takers

    @property
    def giver(self) -> object:
        """The connection that the event came on."""
        return getattr(self._give_back, "__self__", None)

    def taken(self) -> None:
        self._takers -= 1
        if self._takers == 0:
            self._give_back(self._size)


class Item(NamedTuple):
    """One queued event, its credit (None for a local one) and, for a request, its open request."""

    event: BaseEvent
    grant: Grant | None
    request: OpenRequest | None


class InboxCounters:
    """``delivered`` to the user's code, ``dropped`` by the policy, ``queued`` now, ``failed`` handlers; all events.

    ``abandoned``: handlers at work now for an asker that has gone.
    """

    __slots__ = ("abandoned", "delivered", "dropped", "failed", "queued")

    def __init__(self, delivered: int, dropped: int, queued: int, failed: int, abandoned: int = 0) -> None:
        self.delivered = delivered
        self.dropped = dropped
        self.queued = queued
        self.failed = failed
        self.abandoned = abandoned

    def __repr__(self) -> str:
        return (
            f"InboxCounters(delivered={self.delivered}, dropped={self.dropped}, queued={self.queued}, "
            f"failed={self.failed}, abandoned={self.abandoned})"
        )


class Inbox:
    """Events of one type for one subscription, in order of arrival."""

    __slots__ = (
        "_close",
        "_delivered",
        "_disconnect",
        "_dropped",
        "_failed",
        "_limit",
        "_policy",
        "_queue",
        "_room_waiters",
        "_runtime",
        "closed",
        "event_type",
        "is_ready",
        "version",
    )

    def __init__(
        self,
        runtime: Runtime,
        event_type: EventType,
        policy: Policy,
        limit: int,
        close: Callable[[Inbox], None],
        disconnect: Callable[[BaseEvent, EventType], None],
    ) -> None:
        if type(limit) is not int or limit < 1:
            raise ConfigError(f"queue is a whole number of events, at least 1, got {limit!r}")
        self.event_type = event_type
        self.closed = False
        # Whether `handle` may be called now.
        self.is_ready = False
        self.version = 0
        self._runtime = runtime
        self._policy = policy
        self._limit = 1 if policy is Policy.NEWEST_ONLY else limit
        self._close = close
        self._disconnect = disconnect
        self._queue: deque[Item] = deque()
        self._room_waiters: list[Waiter[None]] = []
        self._delivered = 0
        self._dropped = 0
        self._failed = 0

    def put(self, event: BaseEvent, grant: Grant | None, request: OpenRequest | None) -> None:
        """Take one event. Under every policy but `wait` a full queue loses one event, counted."""
        raise NotImplementedError

    def handle(self, event: BaseEvent) -> None:
        """Hand an event over at once, if ``is_ready``: no request, and its credit is the caller's to give back."""
        raise NotImplementedError

    def put_nowait(self, event: BaseEvent) -> None:
        """Take a local event whose publisher does not wait: without room it is dropped, and counted."""
        if self.has_room:
            self.put(event, None, None)
        else:
            self._dropped += 1

    def counters(self) -> InboxCounters:
        return InboxCounters(self._delivered, self._dropped, len(self._queue), self._failed)

    def _enqueue(self, item: Item) -> bool:
        """Queue ``item`` under the policy; False if it was dropped."""
        queue = self._queue
        if len(queue) >= self._limit:
            if self._policy in (Policy.DROP_OLDEST, Policy.NEWEST_ONLY):
                while len(queue) >= self._limit:
                    self._drop(queue.popleft())
            elif self._policy is not Policy.WAIT:
                self._drop(item)
                # Only what came from a peer has a grant; the origin alone may name one whose event we sent on.
                if self._policy is Policy.DISCONNECT and item.grant is not None:
                    self._disconnect(item.event, self.event_type)
                return False
        queue.append(item)
        return True

    def _refuse(self, grant: Grant | None, request: OpenRequest | None) -> None:
        """Give back an event that came after the end: an earlier handler of the same event ended this one."""
        if grant is not None:
            grant.taken()
        if request is not None:
            request.handed_over()
            request.unsubscribed()

    def _drop(self, item: Item) -> None:
        self._dropped += 1
        if item.grant is not None:
            item.grant.taken()
        if item.request is not None:
            item.request.dropped()

    def asker_gone(self, serial: int) -> None:
        """Drop what waits of the requests that came on this connection, which has ended; counted.

        They are not carried out: nobody is there to be answered.
        """
        kept = [item for item in self._queue if item.request is None or item.request.serial != serial]
        if len(kept) < len(self._queue):
            self._dropped += len(self._queue) - len(kept)
            self._queue.clear()
            self._queue.extend(kept)
            self._wake_if_room()

    def drop_left(self, gone: Container[object]) -> int:
        """Drop what waits of events that came on these connections, which have ended; return how many, counted."""
        queue = self._queue
        dropped = [item for item in queue if item.grant is not None and item.grant.giver in gone]
        if dropped:
            kept = [item for item in queue if item.grant is None or item.grant.giver not in gone]
            queue.clear()
            queue.extend(kept)
            for item in dropped:
                self._drop(item)
            self._wake_if_room()
        return len(dropped)

    def _wake_if_room(self) -> None:
        if self._room_waiters and len(self._queue) < self._limit:
            waiters, self._room_waiters = self._room_waiters, []
            for waiter in waiters:
                waiter.wake(None)

    def _take(self) -> Item:
        item = self._queue.popleft()
        if item.grant is not None:
            item.grant.taken()
        self._delivered += 1
        if self._room_waiters:
            self._wake_if_room()
        return item

    @property
    def has_room(self) -> bool:
        """False if a local broadcast must wait here before it goes on."""
        return len(self._queue) < self._limit or self._policy is not Policy.WAIT

    @property
    def is_idle(self) -> bool:
        """True if no event waits here, and none is being handled as far as is known here."""
        return not self._queue

    async def room(self) -> None:
        """Wait until there is room, or until nobody reads here any more."""
        while not self.has_room and not self.closed:
            waiter = self._runtime.new_waiter()
            self._room_waiters.append(waiter)
            await waiter.wait()

    def close(self, discard: bool = True) -> None:
        """Take no more events. What is queued is given back, or left to the consumer. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self.is_ready = False
        self._close(self)
        while self._queue and discard:
            item = self._queue.popleft()
            if item.grant is not None:
                item.grant.taken()
            if item.request is not None:
                item.request.unsubscribed()
        waiters, self._room_waiters = self._room_waiters, []
        for waiter in waiters:
            waiter.wake(None)
        self._on_close()

    def _on_close(self) -> None:
        """Wake whoever waits for events."""

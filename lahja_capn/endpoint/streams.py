"""Streams: the user's code takes events with ``async for``."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Generic, TypeVar

import anyio.lowlevel

from ..binding import BaseEvent
from ..errors import LifecycleError
from .inbox import Grant, Inbox, InboxCounters, Item
from .needs import Waiter
from .requests import OpenRequest

E = TypeVar("E", bound=BaseEvent)

# Events a consumer may take from a full queue before the loop gets a turn.
TURN_EVENTS = 64


class StreamInbox(Inbox):
    """A queue that one consumer empties."""

    __slots__ = ("_taken_in_a_row", "_waiters")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._waiters: list[Waiter[None]] = []
        self._taken_in_a_row = 0

    def put(self, event: BaseEvent, grant: Grant | None, request: OpenRequest | None) -> None:
        if self.closed:
            self._refuse(grant, request)
            return
        if request is not None:
            request.handed_over()
        if self._enqueue(Item(event, grant, request)) and self._waiters:
            # The one that waits longest, so that several consumers share the work.
            self._waiters.pop(0).wake(None)

    async def next(self) -> BaseEvent | None:
        """The next event; None once the inbox is closed and empty."""
        if self._queue:
            self._taken_in_a_row += 1
            if self._taken_in_a_row >= TURN_EVENTS:
                self._taken_in_a_row = 0
                await anyio.lowlevel.checkpoint()
        while not self._queue:
            self._taken_in_a_row = 0
            if self.closed:
                return None
            waiter = self._runtime.new_waiter()
            self._waiters.append(waiter)
            try:
                await waiter.wait()
            except BaseException:
                # Cancelled: an event that was announced to this task must not be forgotten by the others.
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                elif self._queue and self._waiters:
                    self._waiters.pop(0).wake(None)
                raise
        item = self._take()
        if item.request is not None:
            item.request.taken_by_stream()
        return item.event

    def _on_close(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.wake(None)


class EventStream(Generic[E]):
    """Events of one type, from the moment ``stream()`` was called, for ``async for``.

    It ends after ``num_events`` events, with ``aclose()``, or when the endpoint stops. A stream that is
    dropped without either unsubscribes itself (lahja L5: an abandoned one blocked its endpoint for ever).
    """

    __slots__ = ("__weakref__", "_inbox", "_left")

    def __init__(self, inbox: StreamInbox, num_events: int | None) -> None:
        self._inbox = inbox
        self._left = num_events
        if num_events is not None and num_events <= 0:
            inbox.close()

    def __aiter__(self) -> EventStream[E]:
        return self

    async def __anext__(self) -> E:
        if self._left == 0:
            raise StopAsyncIteration
        event = await self._inbox.next()
        if event is None:
            raise StopAsyncIteration
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._inbox.close()
        return event  # type: ignore[return-value]  # the inbox holds events of this stream's type only

    async def asend(self, _value: None) -> E:
        """The next event; lahja's streams were generators."""
        return await self.__anext__()

    async def aclose(self) -> None:
        """Unsubscribe and end the stream; events that were not taken are given back."""
        self._left = 0
        self._inbox.close()

    async def __aenter__(self) -> EventStream[E]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        inbox = getattr(self, "_inbox", None)
        if inbox is not None and not inbox.closed:
            inbox.close()

    def counters(self) -> InboxCounters:
        """What this stream delivered, dropped and still queues."""
        return self._inbox.counters()


async def first_event(inbox: StreamInbox, name: str) -> BaseEvent:
    """The first event that arrives; the inbox is closed whatever happens."""
    try:
        event = await inbox.next()
    finally:
        inbox.close()
    if event is None:
        raise LifecycleError(f"The endpoint stopped while wait_for({name}) was waiting")
    return event

"""What ``subscribe`` returns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..binding import BaseEvent
from .inbox import Inbox, InboxCounters


class Subscription:
    """A handler's subscription to one event class."""

    __slots__ = ("_acknowledged", "_inbox")

    def __init__(self, inbox: Inbox, acknowledged: Callable[[int], Awaitable[None]]) -> None:
        self._inbox = inbox
        self._acknowledged = acknowledged

    @property
    def event_type(self) -> type[BaseEvent]:
        return self._inbox.event_type.event_class

    def unsubscribe(self) -> None:
        """Take no more events; a handler that runs is left to finish. Idempotent."""
        self._inbox.close()

    async def acknowledged(self) -> None:
        """Return when every connected peer has applied this subscription: no later event of theirs is missed.

        A peer that has not said so after ``limits.request_timeout_s`` (30) is disconnected.
        """
        await self._acknowledged(self._inbox.version)

    def counters(self) -> InboxCounters:
        """What this subscription delivered, dropped and still queues, and how often its handler raised."""
        return self._inbox.counters()

    def __repr__(self) -> str:
        state = "ended" if self._inbox.closed else repr(self._inbox.counters())
        return f"<Subscription to {self._inbox.event_type.name}: {state}>"

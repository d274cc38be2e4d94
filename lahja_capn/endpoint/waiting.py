"""Waits on one connection: for room, for an empty queue, for a sign of life."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio

from .core import wake_all
from .writing import WritingConnection


class WaitingConnection(WritingConnection):
    """A connection on which publishers and requesters wait."""

    __slots__ = ()

    async def room(self, too_slow_s: float) -> None:
        """Wait until another event can be queued, or the connection has ended.

        A peer that takes no event for ``too_slow_s`` is disconnected: it must not hold its publisher for ever,
        whatever else it reads and writes. One that is slow paces the publisher.
        """
        session = self.session
        await self._wait_to_send(lambda: session.has_room, self._events_taken, too_slow_s)

    async def room_for_request(self, too_slow_s: float) -> None:
        """Wait until a request can be queued, or the connection has ended; ``too_slow_s`` as in ``room``.

        Requests have a credit window and room of their own, and overtake events. Events that wait for the
        peer's handlers must not hold them back: those handlers may be waiting for a request to us.
        """
        session = self.session
        await self._wait_to_send(
            lambda: session.has_request_room,
            lambda: (session.requests_taken, self._event_parts),
            too_slow_s,
        )

    async def less_queued(self, too_slow_s: float) -> None:
        """Wait until less is queued than now, or the connection has ended; ``too_slow_s`` as in ``room``.

        Answers come and go beside the events, so it is the events that are looked at while there are any.
        """
        session = self.session
        counters = session.counters
        sent, queued_events, queued_bytes = counters.sent, session.queued_events, session.queued_bytes

        def is_less() -> bool:
            if session.queued_events:
                return counters.sent != sent or session.queued_events < queued_events
            return queued_events > 0 or session.queued_bytes < queued_bytes

        await self._wait_to_send(is_less, self._events_taken, too_slow_s)

    def _events_taken(self) -> object:
        """Changes whenever the peer takes events; if only answers and requests wait, whatever it takes."""
        session = self.session
        if session.queued_events:
            return session.events_taken, self._event_parts
        return session.queued_bytes, sum(map(len, self._out))

    async def _wait_to_send(
        self, enough: Callable[[], bool], progress: Callable[[], object], too_slow_s: float
    ) -> None:
        # A peer from which nobody wanted anything did not fail to take it: the time counts from here.
        taken, since = progress(), time.monotonic()
        while self.closed is None and not enough():
            if (now_taken := progress()) != taken:
                taken, since = now_taken, time.monotonic()
            patience = since + too_slow_s - time.monotonic()
            if patience <= 0:
                # This loop may be the one that was busy.
                self._catch_up()
                if enough() or progress() != taken or self._is_closed():
                    continue
                self.say_goodbye(
                    "tooSlow",
                    f"took nothing of what waits for it for {too_slow_s:g} s (Limits.too_slow_s) while "
                    f"{self.session.queued_bytes} bytes were queued",
                )
                return
            waiter = self._runtime.new_waiter()
            self._room_waiters.append(waiter)
            with anyio.move_on_after(patience):
                await waiter.wait()

    def _catch_up(self) -> None:
        """Read what has arrived and send what now goes, whatever the loop has not got round to."""
        self.read()
        if not self.session.is_closed:
            self._blocked = False
            self.flush()
        if self.session.is_closed:
            self.stop()

    async def drained(self) -> None:
        """Wait until all that was queued has been sent, or the connection has ended."""
        # Once: each flush wakes us, so asking for one each time would spin while the peer gives no credit.
        self.wake_writer()
        while self.closed is None and (self._out or self.session.queued_bytes):
            waiter = self._runtime.new_waiter()
            self._room_waiters.append(waiter)
            await waiter.wait()

    async def heard(self) -> None:
        """Wait until the next byte from the peer, or the end of the connection."""
        if self.closed is None:
            waiter = self._runtime.new_waiter()
            self._heard_waiters.append(waiter)
            await waiter.wait()

    def _wake_all_waiters(self) -> None:
        self._room_waiters = wake_all(self._room_waiters)
        self._heard_waiters = wake_all(self._heard_waiters)

"""Handlers: run the user's function for every event of a subscription."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio.lowlevel

from ..binding import BaseEvent
from ..errors import EventFieldError, InactiveUnionMember
from .inbox import Grant, Inbox, InboxCounters, Item
from .limitedlog import LimitedLog
from .needs import Waiter
from .requests import OpenRequest

logger = logging.getLogger("lahja_capn.endpoint")

Handler = Callable[[Any], Any]
HandlerErrorHook = Callable[[BaseEvent, Exception], None]

# Request handlers of one subscription that run at the same time; an event's handlers run one at a time.
CONCURRENT_REQUESTS = 100

# Handlers of one subscription that are at work for askers which have gone, and are not counted as running. A peer that
# asks what takes long, leaves, and does it again must not keep a subscription from the others; nor fill the memory.
MOST_ABANDONED = 1_000

# Workers of a request subscription that stay for the next request; more only live through a burst.
IDLE_WORKERS = 4

# Events that one turn of an inline drain handles before the loop gets a turn.
INLINE_BATCH = 256

# The same for an async handler that never waits for anything. Without it a window full of small events kept the
# loop for seconds: no ping was answered, no request of anybody.
WORKER_TURN_EVENTS = 64


def is_async_handler(handler: Handler) -> bool:
    """True if calling ``handler`` gives a coroutine; sees through partials and callable objects (lahja L19)."""
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004 - looking for an async __call__, not for callability
    )


class HandlerInbox(Inbox):
    """Calls a handler for each event, one at a time and in order; for requests up to 100 at the same time.

    A plain function is called right where the event arrives, which costs no task and no queue. An async one
    runs in workers that live as long as the subscription.

    A handler whose asker has gone is left to end: half of what it does may be worse than all of it. But others do
    not wait for it.
    """

    __slots__ = (
        "_abandoned",
        "_at_work",
        "_awaiting",
        "_concurrency",
        "_handler",
        "_hook",
        "_idle",
        "_inline",
        "_log",
        "_paused",
        "_spawn",
        "_waking",
        "_workers",
    )

    def __init__(
        self,
        *args: Any,
        handler: Handler,
        hook: HandlerErrorHook | None,
        spawn: Callable[..., None],
    ) -> None:
        super().__init__(*args)
        self._handler = handler
        self._hook = hook
        self._spawn = spawn
        # What a handler raises often depends on what a peer sent.
        self._log = LimitedLog(logger)
        self._inline = not is_async_handler(handler)
        self._concurrency = CONCURRENT_REQUESTS if self.event_type.is_request else 1
        # Not while a call is under way, or as many results are awaited as may be.
        self.is_ready = self._inline
        self._awaiting = 0
        self._paused = False
        # Requests that async handlers are at work on, and those of them whose asker has gone.
        self._at_work: set[OpenRequest] = set()
        self._abandoned: set[OpenRequest] = set()
        self._workers = 0
        # Workers that were started or woken and have not run yet.
        self._waking = 0
        self._idle: list[Waiter[None]] = []

    @property
    def is_idle(self) -> bool:
        is_busy = self._inline and not self.is_ready and not self.closed
        return not (self._queue or is_busy or self._awaiting) and self._workers == len(self._idle)

    def put(self, event: BaseEvent, grant: Grant | None, request: OpenRequest | None) -> None:
        if self.closed:
            self._refuse(grant, request)
            return
        if request is not None:
            request.handed_over()
        if self.is_ready:
            # A handler that broadcasts its own type comes back here while it runs: that event then waits its
            # turn in the queue instead of nesting.
            self.is_ready = False
            if grant is not None:
                grant.taken()
            self._delivered += 1
            self._run_inline(event, request)
            return
        if self._enqueue(Item(event, grant, request)) and not self._inline and not self._waking:
            self._wake_worker()

    def handle(self, event: BaseEvent) -> None:
        self.is_ready = False
        self._delivered += 1
        try:
            result = self._handler(event)
        except (Exception, self._runtime.cancelled_error) as error:
            self._failed_with(event, error, None)
        else:
            if result is not None and not self._goes_on(event, result, None):
                return
        if self._queue:
            event, _, request = self._take()
            self._run_inline(event, request)
        else:
            self.is_ready = not self.closed

    def _run_inline(self, event: BaseEvent, request: OpenRequest | None) -> None:
        left = INLINE_BATCH
        while True:
            try:
                result = self._handler(event)
            except (Exception, self._runtime.cancelled_error) as error:
                self._failed_with(event, error, request)
            else:
                if not self._goes_on(event, result, request):
                    return
            if not self._queue:
                self.is_ready = not self.closed
                return
            left -= 1
            if left == 0:
                # A handler that keeps feeding itself must not keep the loop.
                self._spawn(self._go_on_inline)
                return
            event, _, request = self._take()

    def _goes_on(self, event: BaseEvent, result: Any, request: OpenRequest | None) -> bool:
        """Take what the handler returned. False if as many results are awaited as may be."""
        if result is not None and inspect.isawaitable(result):
            # A plain function that returns an awaitable (a lambda around an async method).
            self._awaiting += 1
            self._spawn(self._finish_inline, event, result, request)
            self._paused = self._awaiting >= self._most_at_work
            return not self._paused
        if request is not None:
            if result is not None:
                self._warn_of_result(result)
            request.handler_ended(None)
        return True

    async def _go_on_inline(self) -> None:
        if self._queue:
            event, _, request = self._take()
            self._run_inline(event, request)
        else:
            self.is_ready = not self.closed

    async def _finish_inline(
        self, event: BaseEvent, result: Awaitable[Any], request: OpenRequest | None
    ) -> None:
        await self._await_result(event, result, request)
        self._awaiting -= 1
        if self._paused and self._awaiting < self._most_at_work:
            # There was no room for one more: go on where it stopped.
            self._paused = False
            await self._go_on_inline()

    @property
    def _most_at_work(self) -> int:
        return self._concurrency + min(len(self._abandoned), MOST_ABANDONED)

    def asker_gone(self, serial: int) -> None:
        super().asker_gone(serial)
        gone = [request for request in self._at_work if request.serial == serial]
        if not gone:
            return
        self._abandoned.update(gone)
        if self._inline:
            if self._paused and self._awaiting < self._most_at_work:
                self._paused = False
                self._spawn(self._go_on_inline)
        elif self._queue and not self._waking:
            self._wake_worker()

    def counters(self) -> InboxCounters:
        counters = super().counters()
        counters.abandoned = len(self._abandoned)
        return counters

    def _warn_of_result(self, result: object) -> None:
        """A request handler returned an event: most likely it was meant to be the answer."""
        if isinstance(result, BaseEvent):
            self._log.log(
                logging.WARNING,
                "Handler %s returned %s, which goes nowhere: answer a request with "
                "`await endpoint.respond(request, response)`",
                self._handler_name,
                type(result).__qualname__,
            )

    async def _await_result(
        self, event: BaseEvent, result: Awaitable[Any] | None, request: OpenRequest | None
    ) -> None:
        """Await what the handler returned; without ``result`` call it first, which may fail too (its signature)."""
        if request is not None:
            self._at_work.add(request)
        try:
            value = await (self._handler(event) if result is None else result)
            if request is not None and isinstance(value, BaseEvent):
                self._warn_of_result(value)
        except Exception as error:
            self._failed_with(event, error, request)
        except self._runtime.cancelled_error as error:
            # asyncio raises it also in whoever awaits a future that somebody cancelled; that is the
            # handler's own failure, and must end neither the worker nor the requester's hope of an answer.
            if self._runtime.is_task_cancelled():
                raise
            self._failed_with(event, error, request)
        else:
            if request is not None:
                request.handler_ended(None)
        finally:
            if request is not None:
                self._at_work.discard(request)
                if self._abandoned:
                    self._abandoned.discard(request)

    def _wake_worker(self) -> None:
        if self._idle:
            self._waking += 1
            self._idle.pop().wake(None)
        elif self._workers < self._most_at_work:
            self._waking += 1
            self._workers += 1
            self._spawn(self._work)

    async def _work(self) -> None:
        """Handle what is queued, then wait to be woken.

        A burst does not wake a worker for each of its requests: handlers that never wait are all run by the first
        one. A worker that finds more than it takes itself wakes two others, so that where handlers do wait the
        number at work doubles with every turn of the loop.
        """
        try:
            while True:
                left = WORKER_TURN_EVENTS
                self._waking -= 1
                for _ in range(min(2, len(self._queue) - 1 - self._waking)):
                    self._wake_worker()
                while self._queue:
                    event, _, request = self._take()
                    await self._await_result(event, None, request)
                    if self._workers > self._most_at_work:
                        # It was one more, beside one whose asker has gone.
                        return
                    left -= 1
                    if left == 0:
                        left = WORKER_TURN_EVENTS
                        await anyio.lowlevel.checkpoint()
                if self.closed or len(self._idle) >= IDLE_WORKERS:
                    return
                waiter = self._runtime.new_waiter()
                self._idle.append(waiter)
                await waiter.wait()
        finally:
            self._workers -= 1
            if self._queue and not self._waking and not self.closed:
                self._wake_worker()

    def _failed_with(self, event: BaseEvent, error: BaseException, request: OpenRequest | None) -> None:
        self._failed += 1
        self._log.log(
            logging.ERROR,
            "Handler %s raised on %s from %s",
            self._handler_name,
            self.event_type.name,
            event.get_origin(),
            exc_info=error,
        )
        if self._hook is not None:
            try:
                self._hook(event, error)  # type: ignore[arg-type]  # of others only asyncio's CancelledError
            except Exception as raised:
                self._log.log(logging.ERROR, "The on_handler_error hook itself raised", exc_info=raised)
        if request is not None:
            request.handler_ended(error, "unreadable" if self._is_unreadable(error) else "handlerRaised")

    def _is_unreadable(self, error: BaseException) -> bool:
        """True if the request's own bytes are to blame, not the handler.

        A handler that asks for a union member that is not set is to blame itself.
        """
        return (
            isinstance(error, EventFieldError)
            and not isinstance(error, InactiveUnionMember)
            and error.event == self.event_type.name
        )

    @property
    def _handler_name(self) -> object:
        return getattr(self._handler, "__qualname__", self._handler)

    def _on_close(self) -> None:
        self._log.end(str(self._handler_name), "what it raised")
        idle, self._idle = self._idle, []
        self._waking += len(idle)
        for waiter in idle:
            waiter.wake(None)

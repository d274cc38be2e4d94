"""Requests: the side that asks (:class:`PendingRequest`) and the side that is asked (:class:`OpenRequest`)."""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ..binding import BaseEvent, EventType, Segments
from ..errors import (
    LahjaError,
    RemoteDisconnected,
    RequestFailed,
    RequestTimeout,
    ResponderFailure,
    UnexpectedResponse,
)
from .needs import Waiter

if TYPE_CHECKING:
    from .connection import Connection

# (connection serial, request number); serial 0 is this endpoint itself.
RequestKey = tuple[int, int]

# Places of ended requests that the heap of deadlines may hold beyond as many as there are open ones.
SPARE_DEADLINES = 256


class PendingRequest:
    """One call of ``request()``, waiting for the first response of several possible responders.

    It ends with the first response; with an error once every responder has failed or gone, or has answered with
    something else; or in time.
    """

    __slots__ = (
        "_error",
        "_expected",
        "_failures",
        "_gone",
        "_reason",
        "_sealed",
        "_waiter",
        "done",
        "request",
        "responders",
        "serial",
        "to_be_asked",
    )

    def __init__(self, request: EventType, expected: type[BaseEvent], waiter: Waiter[BaseEvent]) -> None:
        self.request = request
        self.done = False
        # Where RequestDeadlines keeps it.
        self.serial = 0
        self._expected = expected
        self._waiter = waiter
        # Who may still answer, by the key under which it was asked.
        self.responders: dict[RequestKey, str] = {}
        # Peers that had no room for the request, and its segments; each has a place in responders already.
        self.to_be_asked: tuple[tuple[Connection, Segments], ...] = ()
        self._failures: tuple[ResponderFailure, ...] = ()
        self._gone: tuple[str, ...] = ()
        self._reason = ""
        # What was wrong with the first answer that is none, while others may still give one.
        self._error: LahjaError | None = None
        # A responder may fail before the next one was even asked: that alone is no end yet.
        self._sealed = False

    def sealed(self) -> None:
        """Every responder has been asked."""
        self._sealed = True
        if not self.responders:
            self._end_if_nobody_is_left()

    def waiting_for(self) -> tuple[str, ...]:
        return tuple(self.responders.values())

    def wait(self) -> Awaitable[BaseEvent]:
        return self._waiter.wait()

    def answer(self, key: RequestKey, event: BaseEvent | None, name: str) -> None:
        """The first response. ``event`` is None for a type that is not bound here; ``name`` is its name."""
        if self.done:
            return
        if event is not None and type(event) is self._expected:
            self.responders.pop(key, None)
            self.done = True
            self._waiter.wake(event)
            return
        endpoint = self.responders.get(key, "")
        wanted = self._expected.__qualname__
        self.unusable(
            key,
            UnexpectedResponse(
                f"{endpoint!r} answered {self.request.name} with {name}; {self.request.name} expects {wanted} "
                "(its expected_response_type). Correct the responder, or the request's type argument.",
                request=self.request.name,
                wanted=wanted,
                got=name,
                peer=endpoint,
            ),
        )

    def unusable(self, key: RequestKey, error: LahjaError) -> None:
        """What came under ``key`` is no answer. The first ``error`` is raised, if nobody else answers."""
        if self.responders.pop(key, None) is not None:
            self._error = self._error or error
            self._end_if_nobody_is_left()

    def responder_failed(self, key: RequestKey, failure: ResponderFailure) -> None:
        if self.responders.pop(key, None) is not None:
            self._failures += (failure,)
            self._end_if_nobody_is_left()

    def responder_gone(self, key: RequestKey, reason: str) -> None:
        endpoint = self.responders.pop(key, None)
        if endpoint is not None:
            self._gone += (endpoint,)
            self._reason = reason
            self._end_if_nobody_is_left()

    def expire(self, timeout_s: float) -> None:
        names = self.waiting_for()
        self.fail(
            RequestTimeout(
                f"{self.request.name}: no response within {timeout_s:g} s (the request's timeout) from "
                f"{', '.join(map(repr, names))}. Give request(..., timeout=) more, or look at the responder.",
                request=self.request.name,
                timeout_s=timeout_s,
                waiting_for=names,
            )
        )

    def fail(self, error: LahjaError) -> None:
        if not self.done:
            self.done = True
            self._waiter.fail(error)

    def _end_if_nobody_is_left(self) -> None:
        if self.responders or not self._sealed:
            return
        if self._error is not None:
            self.fail(self._error)
            return
        if not self._failures:
            peers = ", ".join(map(repr, self._gone))
            self.fail(
                RemoteDisconnected(
                    f"{self.request.name}: {peers} left before answering ({self._reason}). The request was not "
                    "sent again: whether it was carried out is unknown.",
                    peer=", ".join(self._gone),
                    reason=self._reason,
                )
            )
            return
        told = "; ".join(map(str, self._failures))
        left = f"; left before answering: {', '.join(self._gone)}" if self._gone else ""
        self.fail(
            RequestFailed(
                f"{self.request.name} failed at every responder: {told}{left}",
                request=self.request.name,
                failures=self._failures,
            )
        )


class RequestDeadlines:
    """Pending requests by deadline.

    A request that has ended is let go at once, with the response that its waiter still holds. Only its place
    in the heap stays: until its time, or until such places are the greater part.
    """

    __slots__ = ("_heap", "_pending", "_serial")

    def __init__(self) -> None:
        # (deadline, serial, timeout)
        self._heap: list[tuple[float, int, float]] = []
        self._pending: dict[int, PendingRequest] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, pending: PendingRequest, now: float, timeout_s: float) -> float:
        """Returns the deadline."""
        self._serial += 1
        pending.serial = self._serial
        self._pending[self._serial] = pending
        deadline = now + timeout_s
        heapq.heappush(self._heap, (deadline, self._serial, timeout_s))
        return deadline

    def remove(self, pending: PendingRequest) -> None:
        """``pending`` has ended. Idempotent."""
        self._pending.pop(pending.serial, None)
        if len(self._heap) > 2 * len(self._pending) + SPARE_DEADLINES:
            self._heap = [entry for entry in self._heap if entry[1] in self._pending]
            heapq.heapify(self._heap)

    def expire(self, now: float) -> float:
        """Fail what is due; return the next deadline, infinity if there is none."""
        while self._heap:
            deadline, serial, timeout_s = self._heap[0]
            pending = self._pending.get(serial)
            if pending is not None:
                if deadline > now:
                    return deadline
                del self._pending[serial]
                pending.expire(timeout_s)
            heapq.heappop(self._heap)
        return float("inf")


class OpenRequest:
    """One received request while its handlers work on it.

    ``failed`` is reported only when every subscription that got the request is done with it, at least one
    raised or dropped it, none answered, and no stream took it: until then an answer is still possible.
    """

    __slots__ = ("_failure", "_held", "_number", "_report", "_waiting", "answered", "serial")

    def __init__(self, report: Callable[[int, str, str, str], None], number: int, serial: int = 0) -> None:
        # Of the connection that it came on; 0 is this endpoint itself.
        self.serial = serial
        # Called with the number and, as in Failed: code, type name, text.
        self._report = report
        self._number = number
        # One until sealed(): a plain function may raise before the next subscription has got the request.
        self._waiting = 1
        self._held = False
        self._failure: tuple[str, str, str] | None = None
        self.answered = False

    def handed_over(self) -> None:
        """One more subscription got the request."""
        self._waiting += 1

    def sealed(self) -> None:
        """Every subscription has got it."""
        if not self.answered:
            self._done_with_one()

    def taken_by_stream(self) -> None:
        """A stream's consumer has it: nobody can know when it gives up, so the request stays open."""
        self._held = True
        self._done_with_one()

    def handler_ended(self, error: BaseException | None, code: str = "handlerRaised") -> None:
        if error is not None and self._failure is None:
            self._failure = (code, type(error).__qualname__, str(error))
        if not self.answered:
            self._done_with_one()

    def dropped(self) -> None:
        """A subscription's policy dropped the request."""
        self._not_handled("overloaded", "the responder's subscription was full and dropped the request")

    def unsubscribed(self) -> None:
        """A subscription ended before the request was handled."""
        self._not_handled("noHandler", "the responder's subscription ended before it handled the request")

    def _not_handled(self, code: str, text: str) -> None:
        if self._failure is None:
            self._failure = (code, "", text)
        self._done_with_one()

    def _done_with_one(self) -> None:
        self._waiting -= 1
        if self._waiting == 0 and self._failure is not None and not self._held and not self.answered:
            self.answered = True
            self._report(self._number, *self._failure)

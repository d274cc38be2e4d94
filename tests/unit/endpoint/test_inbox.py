"""Inboxes as values: policies, credit, and their end, for streams and for handlers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lahja_capn import Policy
from lahja_capn.endpoint.handlers import CONCURRENT_REQUESTS, IDLE_WORKERS, HandlerInbox, is_async_handler
from lahja_capn.endpoint.inbox import Grant, Inbox, InboxCounters
from lahja_capn.endpoint.streams import EventStream, StreamInbox
from lahja_capn.endpoint.subscription import Subscription
from tests.unit.endpoint.fake import FakeRuntime, Task


class Event:
    def __init__(self, number: int) -> None:
        self.number = number

    def get_origin(self) -> str:
        return "peer"


class Made:
    """An inbox with everything around it, which only writes down what it is told."""

    def __init__(
        self, policy: Policy = Policy.WAIT, limit: int = 3, handler: Any = None, is_request: bool = False
    ) -> None:
        self.runtime = FakeRuntime()
        self.closed: list[Any] = []
        self.disconnected: list[int] = []
        self.returned: list[int] = []
        self.spawned: list[Task] = []
        # Workers that no turn of the loop has started yet; see later().
        self.waiting: list[Any] = []
        kind = SimpleNamespace(name="Count", event_class=Event, is_request=is_request)
        arguments: tuple[Any, ...] = (
            self.runtime,
            kind,
            policy,
            limit,
            self.closed.append,
            lambda event, event_type: self.disconnected.append(event.number),
        )
        self.inbox: Any
        if handler is None:
            self.inbox = StreamInbox(*arguments)
        else:
            self.inbox = HandlerInbox(
                *arguments,
                handler=handler,
                hook=None,
                spawn=lambda function, *args: self.spawned.append(Task(function(*args))),
            )

    def put(self, *numbers: int) -> None:
        """Events from a peer; each has its number as the size of its frame."""
        for number in numbers:
            self.inbox.put(Event(number), Grant(self.returned.append, number, 1), None)

    def queued(self) -> list[int]:
        return [item.event.number for item in self.inbox._queue]

    def take(self) -> Any:
        event = Task(self.inbox.next()).result()
        return None if event is None else event.number

    def figures(self) -> tuple[int, int, int]:
        counters = self.inbox.counters()
        return counters.delivered, counters.dropped, counters.queued


# --- Grant --------------------------------------------------------------------------------------------------


def test_credit_goes_back_when_the_last_subscription_has_taken_the_event() -> None:
    returned: list[int] = []
    grant = Grant(returned.append, 40, 3)
    grant.taken()
    grant.taken()
    assert returned == []
    grant.taken()
    assert returned == [40]


# --- policies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "queued", "returned", "disconnected"),
    [
        (Policy.WAIT, [1, 2, 3, 4, 5], [], []),
        (Policy.DROP_NEWEST, [1, 2, 3], [4, 5], []),
        (Policy.DROP_OLDEST, [3, 4, 5], [1, 2], []),
        (Policy.NEWEST_ONLY, [5], [1, 2, 3, 4], []),
        (Policy.DISCONNECT, [1, 2, 3], [4, 5], [4, 5]),
    ],
)
def test_full_queue_keeps_drops_and_gives_credit_back(
    policy: Policy, queued: list[int], returned: list[int], disconnected: list[int]
) -> None:
    made = Made(policy)
    made.put(1, 2, 3, 4, 5)
    assert made.queued() == queued
    assert made.returned == returned
    assert made.disconnected == disconnected
    assert made.figures() == (0, len(returned), len(queued))


def test_local_event_is_not_blamed_on_a_peer() -> None:
    made = Made(Policy.DISCONNECT, limit=1)
    for number in (1, 2):
        made.inbox.put(Event(number), None, None)
    assert made.disconnected == []
    assert made.figures() == (0, 1, 1)


def test_event_that_nobody_waits_for_is_dropped_by_a_full_queue_that_waits() -> None:
    made = Made(Policy.WAIT)
    for number in range(5):
        made.inbox.put_nowait(Event(number))
    assert made.queued() == [0, 1, 2]
    assert made.figures() == (0, 2, 3)


@pytest.mark.parametrize("policy", list(Policy))
def test_only_a_full_queue_that_waits_has_no_room(policy: Policy) -> None:
    made = Made(policy)
    made.put(1, 2)
    assert made.inbox.has_room
    made.put(3)
    assert made.inbox.has_room == (policy is not Policy.WAIT)


def test_room_returns_when_one_event_was_taken_or_at_the_end() -> None:
    for end in (False, True):
        made = Made(limit=2)
        made.put(1, 2)
        waits = Task(made.inbox.room())
        assert not waits.step()
        if end:
            made.inbox.close()
        else:
            made.take()
        assert waits.step()


def test_room_waits_on_while_a_queue_over_its_limit_is_still_full() -> None:
    made = Made(limit=2)
    made.put(1, 2, 3)
    waits = Task(made.inbox.room())
    made.take()
    assert not waits.step()
    made.take()
    assert waits.step()


# --- end ----------------------------------------------------------------------------------------------------


def test_close_gives_the_credit_of_what_is_queued_back_once() -> None:
    made = Made()
    made.put(1, 2)
    made.inbox.close()
    made.inbox.close()
    assert made.returned == [1, 2]
    assert made.closed == [made.inbox]
    assert made.take() is None


def test_close_without_discard_leaves_the_queue_to_the_consumer() -> None:
    made = Made()
    made.put(1, 2)
    made.inbox.close(discard=False)
    assert [made.take(), made.take(), made.take()] == [1, 2, None]
    assert made.returned == [1, 2]


@pytest.mark.parametrize("handler", [None, lambda event: None], ids=["stream", "handler"])
def test_event_after_the_end_is_given_back_and_not_counted(handler: Any) -> None:
    made = Made(handler=handler)
    made.inbox.close()
    asked = SimpleNamespace(told=[])
    asked.handed_over = lambda: asked.told.append("handed over")
    asked.unsubscribed = lambda: asked.told.append("unsubscribed")
    made.inbox.put(Event(1), Grant(made.returned.append, 40, 1), asked)
    assert made.returned == [40]
    assert asked.told == ["handed over", "unsubscribed"]
    assert made.figures() == (0, 0, 0)


def test_base_inbox_takes_nothing() -> None:
    inbox = Inbox(None, None, Policy.WAIT, 1, lambda inbox: None, lambda *args: None)  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError):
        inbox.put(None, None, None)  # type: ignore[arg-type]


# --- streams ------------------------------------------------------------------------------------------------


def test_consumers_are_woken_in_the_order_they_came() -> None:
    made = Made()
    first, second = Task(made.inbox.next()), Task(made.inbox.next())
    made.put(1)
    assert not second.step()
    assert first.result().number == 1
    made.put(2)
    assert second.result().number == 2


def test_consumer_that_is_cancelled_after_it_was_woken_wakes_the_next() -> None:
    made = Made()
    first, second = Task(made.inbox.next()), Task(made.inbox.next())
    made.put(1)
    first.cancel()
    assert second.result().number == 1
    assert made.inbox._waiters == []


def test_consumer_that_is_cancelled_before_is_forgotten() -> None:
    made = Made()
    first, second = Task(made.inbox.next()), Task(made.inbox.next())
    first.cancel()
    made.put(1)
    assert second.result().number == 1


def test_stream_dropped_by_its_user_closes_its_inbox() -> None:
    made = Made()
    stream: EventStream[Any] | None = EventStream(made.inbox, None)
    assert stream is not None
    made.put(1)
    del stream
    assert made.inbox.closed
    assert made.returned == [1]


def test_stream_whose_making_failed_can_be_dropped() -> None:
    stream: Any = EventStream.__new__(EventStream)
    del stream


# --- handlers -----------------------------------------------------------------------------------------------


def test_async_handlers_are_recognized() -> None:
    import functools

    def plain(event: Any) -> None: ...

    async def coroutine(event: Any) -> None: ...

    class Plain:
        def __call__(self, event: Any) -> None: ...

    class Async:
        async def __call__(self, event: Any) -> None: ...

        async def method(self, event: Any) -> None: ...

    for handler in (coroutine, functools.partial(coroutine), Async(), Async().method):
        assert is_async_handler(handler)
    for handler in (plain, functools.partial(plain), Plain(), lambda event: coroutine(event), print):
        assert not is_async_handler(handler)


def test_plain_handler_runs_inside_put_and_costs_no_task() -> None:
    got = []
    made = Made(handler=lambda event: got.append(event.number))
    made.put(1, 2)
    assert got == [1, 2]
    assert made.returned == [1, 2]
    assert made.spawned == []
    assert made.runtime.waiters == []


def test_credit_goes_back_before_the_handler_runs() -> None:
    seen = []
    made = Made(handler=lambda event: seen.append(list(made.returned)))
    made.put(1)
    assert seen == [[1]]


def test_worker_is_started_once_and_reused() -> None:
    got = []

    async def handle(event: Any) -> None:
        got.append(event.number)

    made = Made(handler=handle)
    for number in range(5):
        made.put(number)
        made.spawned[0].step()
    assert got == [0, 1, 2, 3, 4]
    assert len(made.spawned) == 1


def later(made: Made) -> None:
    """Let spawned workers wait for their turn, as an event loop does."""
    made.inbox._spawn = lambda function, *args: made.waiting.append(function(*args))


def turn(made: Made) -> None:
    """One turn of that loop: what waits now runs."""
    waiting, made.waiting = made.waiting, []
    made.spawned += [Task(coroutine) for coroutine in waiting]


def test_burst_for_handlers_that_never_wait_is_handled_by_one_worker() -> None:
    got = []

    async def handle(event: Any) -> None:
        got.append(event.number)

    made = Made(handler=handle, is_request=True, limit=1000)
    later(made)
    made.put(*range(64))
    assert len(made.waiting) == 1
    turn(made)
    assert got == list(range(64))
    # Two were woken in vain, while it could not be known that no handler waits.
    assert len(made.waiting) == 2
    turn(made)
    assert made.waiting == []
    made.inbox.close()
    assert all(task.step() for task in made.spawned)


def test_burst_for_handlers_that_wait_puts_twice_as_many_to_work_with_every_turn() -> None:
    waiter = FakeRuntime().new_waiter()

    async def handle(event: Any) -> None:
        await waiter.wait()

    made = Made(handler=handle, is_request=True, limit=1000)
    later(made)
    made.put(*range(64))
    at_work = []
    while made.waiting:
        turn(made)
        at_work.append(made.figures()[0])
    assert at_work == [1, 3, 7, 15, 31, 63, 64]
    made.inbox.close()
    waiter.wake(None)
    assert all(task.step() for task in made.spawned)


def test_request_that_comes_while_a_worker_is_woken_is_not_forgotten() -> None:
    got = []
    waiter = FakeRuntime().new_waiter()

    async def handle(event: Any) -> None:
        got.append(event.number)
        if event.number == 0:
            await waiter.wait()

    made = Made(handler=handle, is_request=True)
    later(made)
    made.put(0)
    turn(made)
    made.put(1)
    made.put(2)
    turn(made)
    assert got == [0, 1, 2]
    made.inbox.close()
    waiter.wake(None)
    for coroutine in made.waiting:
        coroutine.close()


def test_request_workers_beyond_a_few_end_after_a_burst() -> None:
    waiter = FakeRuntime().new_waiter()

    async def handle(event: Any) -> None:
        await waiter.wait()

    made = Made(handler=handle, is_request=True, limit=1000)
    made.put(*range(CONCURRENT_REQUESTS + 20))
    assert len(made.spawned) == CONCURRENT_REQUESTS
    assert made.figures() == (CONCURRENT_REQUESTS, 0, 20)
    waiter.wake(None)
    for task in made.spawned:
        task.step()
    assert sum(not task.done for task in made.spawned) == IDLE_WORKERS
    made.inbox.close()
    assert all(task.step() for task in made.spawned)


# --- what the user sees -------------------------------------------------------------------------------------


def test_subscription_shows_its_figures() -> None:
    made = Made(handler=lambda event: None)
    subscription = Subscription(made.inbox, None)  # type: ignore[arg-type]
    made.put(1)
    assert subscription.event_type is Event
    assert repr(subscription) == (
        "<Subscription to Count: InboxCounters(delivered=1, dropped=0, queued=0, failed=0, abandoned=0)>"
    )
    subscription.unsubscribe()
    assert repr(subscription) == "<Subscription to Count: ended>"


def test_counters_are_a_snapshot() -> None:
    made = Made()
    before = made.inbox.counters()
    made.put(1)
    assert isinstance(before, InboxCounters)
    assert before.queued == 0

"""The two sides of a request as values: what ends a pending one, and when an open one is reported as failed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lahja_capn import (
    LifecycleError,
    RemoteDisconnected,
    RequestFailed,
    RequestTimeout,
    ResponderFailure,
    UnexpectedResponse,
)
from lahja_capn.endpoint.requests import SPARE_DEADLINES, OpenRequest, PendingRequest, RequestDeadlines
from tests.unit.endpoint.fake import FakeWaiter, Task


class Reply:
    pass


class Pending(PendingRequest):
    """One that shows its waiter."""

    __slots__ = ("shown",)

    def __init__(self) -> None:
        self.shown = FakeWaiter()
        super().__init__(SimpleNamespace(name="Question"), Reply, self.shown)  # type: ignore[arg-type]

    @property
    def waits(self) -> bool:
        return self.shown.result is None

    def result(self) -> Any:
        return Task(self.wait()).result()


def failure(endpoint: str) -> ResponderFailure:
    return ResponderFailure(endpoint, "handlerRaised", "KeyError", "'x'")


def asked(*names: str, sealed: bool = True) -> Pending:
    """A request that went to these endpoints, under the keys (1, 1), (2, 2), ..."""
    pending = Pending()
    for number, name in enumerate(names, 1):
        pending.responders[(number, number)] = name
    if sealed:
        pending.sealed()
    return pending


# --- PendingRequest -----------------------------------------------------------------------------------------


def test_first_answer_completes_and_later_ones_do_nothing() -> None:
    pending = asked("a", "b")
    first, second = Reply(), Reply()
    pending.answer((2, 2), first, "Reply")  # type: ignore[arg-type]
    pending.answer((1, 1), second, "Reply")  # type: ignore[arg-type]
    pending.responder_failed((1, 1), failure("a"))
    assert pending.done
    assert pending.result() is first


def test_answer_may_come_before_all_were_asked() -> None:
    pending = asked("a", sealed=False)
    reply = Reply()
    pending.answer((1, 1), reply, "Reply")  # type: ignore[arg-type]
    pending.sealed()
    assert pending.result() is reply


@pytest.mark.parametrize("event", [object(), None])
def test_answer_of_another_class_or_of_an_unknown_one_is_unexpected(event: Any) -> None:
    pending = asked("a")
    pending.answer((1, 1), event, "Other")
    with pytest.raises(UnexpectedResponse) as raised:
        pending.result()
    error = raised.value
    assert (error.request, error.wanted, error.got, error.peer) == ("Question", "Reply", "Other", "a")


def test_answer_of_a_subclass_is_unexpected() -> None:
    class Sub(Reply):
        pass

    pending = asked("a")
    pending.answer((1, 1), Sub(), "Sub")  # type: ignore[arg-type]
    with pytest.raises(UnexpectedResponse):
        pending.result()


def test_wrong_answer_does_not_end_it_while_others_work_on_it() -> None:
    pending = asked("a", "b")
    pending.answer((1, 1), object(), "Other")  # type: ignore[arg-type]
    assert pending.waits
    reply = Reply()
    pending.answer((2, 2), reply, "Reply")  # type: ignore[arg-type]
    assert pending.result() is reply


def test_failure_is_told_on_one_line_and_without_what_a_terminal_obeys() -> None:
    told = ResponderFailure("a", "handlerRaised", "K\x1b[2J", "line\nERROR forged\u202e\x85 \N{SNOWMAN}")
    assert str(told) == "a (handlerRaised) K\\x1b[2J: line\\nERROR forged\\u202e\\x85 \N{SNOWMAN}"
    assert told.text.startswith("line\nERROR"), "the fact is as it came"


def test_answers_that_are_none_end_it_only_together_and_say_more_than_failures() -> None:
    pending = asked("a", "b", "c")
    pending.unusable((2, 2), LifecycleError("unreadable"))
    pending.answer((1, 1), object(), "Other")  # type: ignore[arg-type]
    assert pending.waits
    pending.responder_failed((3, 3), failure("c"))
    with pytest.raises(LifecycleError, match="unreadable"):
        pending.result()


def test_failures_end_it_only_together() -> None:
    pending = asked("a", "b")
    pending.responder_failed((1, 1), failure("a"))
    assert pending.waits
    assert pending.waiting_for() == ("b",)
    pending.responder_failed((2, 2), failure("b"))
    with pytest.raises(RequestFailed) as raised:
        pending.result()
    assert [told.endpoint for told in raised.value.failures] == ["a", "b"]
    assert "a (handlerRaised) KeyError: 'x'; b (handlerRaised) KeyError: 'x'" in str(raised.value)


def test_failure_before_all_were_asked_does_not_end_it() -> None:
    pending = asked("a", sealed=False)
    pending.responder_failed((1, 1), failure("a"))
    assert pending.waits
    pending.responders[(2, 2)] = "b"
    pending.sealed()
    assert pending.waits


def test_same_failure_twice_counts_once() -> None:
    pending = asked("a", "b")
    pending.responder_failed((1, 1), failure("a"))
    pending.responder_failed((1, 1), failure("a"))
    assert pending.waits


def test_all_gone_is_remote_disconnected() -> None:
    pending = asked("a", "b")
    pending.responder_gone((1, 1), "connection reset")
    assert pending.waits
    pending.responder_gone((2, 2), "shutdown")
    with pytest.raises(
        RemoteDisconnected, match=r"Question: 'a', 'b' left before answering \(shutdown\)"
    ) as raised:
        pending.result()
    assert (raised.value.peer, raised.value.reason) == ("a, b", "shutdown")


def test_failed_and_gone_is_failed_and_tells_who_left() -> None:
    pending = asked("a", "b")
    pending.responder_gone((1, 1), "shutdown")
    pending.responder_failed((2, 2), failure("b"))
    with pytest.raises(RequestFailed, match=r"left before answering: a$"):
        pending.result()


def test_gone_after_the_answer_does_nothing() -> None:
    pending = asked("a")
    reply = Reply()
    pending.answer((1, 1), reply, "Reply")  # type: ignore[arg-type]
    pending.responder_gone((1, 1), "shutdown")
    assert pending.result() is reply


def test_keys_of_those_who_have_not_answered() -> None:
    pending = asked("a", "b", "c")
    pending.responder_gone((2, 2), "")
    assert list(pending.responders) == [(1, 1), (3, 3)]


def test_expiry_names_who_has_not_answered() -> None:
    pending = asked("a", "b")
    pending.responder_failed((1, 1), failure("a"))
    pending.expire(2.5)
    with pytest.raises(RequestTimeout, match=r"within 2\.5 s.*from 'b'") as raised:
        pending.result()
    assert (raised.value.timeout_s, raised.value.waiting_for) == (2.5, ("b",))


def test_first_error_stays() -> None:
    pending = asked("a")
    pending.fail(LifecycleError("stopped"))
    pending.expire(1.0)
    with pytest.raises(LifecycleError):
        pending.result()


# --- RequestDeadlines ---------------------------------------------------------------------------------------


def test_no_requests_no_deadline() -> None:
    assert RequestDeadlines().expire(0.0) == float("inf")


def test_next_deadline_is_the_earliest_and_what_is_due_fails() -> None:
    deadlines = RequestDeadlines()
    late, early = asked("a"), asked("a")
    assert deadlines.add(late, 10.0, 5.0) == 15.0
    assert deadlines.add(early, 10.0, 1.0) == 11.0
    assert deadlines.expire(10.5) == 11.0
    assert early.waits
    assert deadlines.expire(11.0) == 15.0
    with pytest.raises(RequestTimeout):
        early.result()
    assert late.waits
    assert len(deadlines) == 1


def test_requests_of_one_deadline_all_fail() -> None:
    deadlines = RequestDeadlines()
    pending = [asked("a") for _ in range(3)]
    for request in pending:
        deadlines.add(request, 0.0, 1.0)
    assert deadlines.expire(1.0) == float("inf")
    assert not any(request.waits for request in pending)


def test_removed_request_does_not_expire_and_is_not_held() -> None:
    deadlines = RequestDeadlines()
    pending = asked("a")
    deadlines.add(pending, 0.0, 1.0)
    deadlines.remove(pending)
    deadlines.remove(pending)
    assert len(deadlines) == 0
    assert deadlines.expire(0.5) == float("inf")
    deadlines.expire(2.0)
    assert pending.waits


def test_heap_does_not_grow_with_requests_that_have_ended() -> None:
    deadlines = RequestDeadlines()
    stays = asked("a")
    deadlines.add(stays, 0.0, 10_000.0)
    # A longer one in front keeps the ended ones from ever coming to the front of the heap.
    first = asked("a")
    deadlines.add(first, 0.0, 1.0)
    for number in range(5 * SPARE_DEADLINES):
        pending = asked("a")
        deadlines.add(pending, float(number), 5000.0)
        deadlines.remove(pending)
        assert len(deadlines._heap) <= SPARE_DEADLINES + 2 * 2 + 1
    assert deadlines.expire(0.5) == 1.0
    assert deadlines.expire(1.0) == 10_000.0


# --- OpenRequest --------------------------------------------------------------------------------------------


class Open(OpenRequest):
    """One that shows its reports."""

    __slots__ = ("reports",)

    def __init__(self, subscriptions: int = 1, sealed: bool = True) -> None:
        self.reports: list[tuple[str, str, str]] = []
        super().__init__(self._reported, 7)
        for _ in range(subscriptions):
            self.handed_over()
        if sealed:
            self.sealed()

    def _reported(self, number: int, code: str, type_name: str, text: str) -> None:
        assert number == 7
        self.reports.append((code, type_name, text))


RAISED = ("handlerRaised", "KeyError", "'x'")


def test_one_that_raises_is_reported() -> None:
    opened = Open()
    opened.handler_ended(KeyError("x"))
    assert opened.reports == [RAISED]
    assert opened.answered


def test_handler_that_ends_without_answer_is_not_a_failure() -> None:
    opened = Open()
    opened.handler_ended(None)
    assert opened.reports == []


def test_report_waits_for_every_subscription_and_names_the_first_failure() -> None:
    opened = Open(3)
    opened.handler_ended(KeyError("x"))
    opened.handler_ended(None)
    assert opened.reports == []
    opened.handler_ended(ValueError("later"))
    assert opened.reports == [RAISED]


def test_report_waits_until_all_have_got_it() -> None:
    opened = Open(1, sealed=False)
    opened.handler_ended(KeyError("x"))
    assert opened.reports == []
    opened.sealed()
    assert opened.reports == [RAISED]


def test_no_report_once_it_is_answered() -> None:
    opened = Open()
    opened.answered = True
    opened.handler_ended(KeyError("x"))
    assert opened.reports == []


def test_no_report_while_a_stream_has_it() -> None:
    opened = Open(2)
    opened.taken_by_stream()
    opened.handler_ended(KeyError("x"))
    assert opened.reports == []


def test_dropped_one_is_overloaded_unless_a_handler_raised() -> None:
    opened = Open()
    opened.dropped()
    assert [report[0] for report in opened.reports] == ["overloaded"]
    opened = Open(2)
    opened.handler_ended(KeyError("x"))
    opened.dropped()
    assert opened.reports == [RAISED]


def test_one_whose_subscription_ended_has_no_handler_unless_another_dropped_it() -> None:
    opened = Open()
    opened.unsubscribed()
    assert [report[0] for report in opened.reports] == ["noHandler"]
    opened = Open(2)
    opened.dropped()
    opened.unsubscribed()
    assert [report[0] for report in opened.reports] == ["overloaded"]

from __future__ import annotations

import pytest

from lahja_capn.errors import RemoteProtocolError
from lahja_capn.session.requests import IncomingRequests, OutgoingRequests


def test_numbers_start_at_1_and_increase() -> None:
    requests = OutgoingRequests()
    assert [requests.new() for _ in range(3)] == [1, 2, 3]


def test_the_first_answer_counts_and_a_second_is_late() -> None:
    requests = OutgoingRequests()
    requests.new()
    assert requests.answered(1, sent_to=1)
    assert not requests.answered(1, sent_to=1)


def test_an_answer_to_a_forgotten_request_is_late() -> None:
    requests = OutgoingRequests()
    requests.new()
    assert requests.forget(1)
    assert not requests.forget(1)
    assert not requests.answered(1, sent_to=1)


@pytest.mark.parametrize("number", [0, 2, 2**64 - 1])
def test_an_answer_to_a_number_never_sent_is_refused(number: int) -> None:
    requests = OutgoingRequests()
    requests.new()
    requests.new()
    with pytest.raises(RemoteProtocolError, match="never sent") as caught:
        requests.answered(number, sent_to=1)
    assert caught.value.code == "unknownCorrelation"


def test_incoming_numbers_must_increase_and_may_skip() -> None:
    requests = IncomingRequests(10)
    requests.arrived(1)
    requests.arrived(5)
    for number in (5, 4):
        with pytest.raises(RemoteProtocolError, match="strictly increase"):
            requests.arrived(number)


def test_a_request_is_answered_once() -> None:
    requests = IncomingRequests(10)
    requests.open.add(3)
    assert 3 in requests.open
    requests.answer(3)
    assert 3 not in requests.open


def test_it_is_full_until_answers_have_left() -> None:
    requests = IncomingRequests(2)
    requests.open.add(1)
    assert not requests.is_full
    requests.open.add(2)
    assert requests.is_full
    requests.answer(1)
    assert requests.is_full
    assert requests.sent(1) == 0
    assert not requests.is_full


def test_a_refused_requests_credit_comes_back_when_the_refusal_has_left() -> None:
    requests = IncomingRequests(2)
    requests.refuse(1, 500, "noHandler", "")
    assert list(requests.take_refusals(1)) == [(1, "noHandler", "")]
    assert requests.sent(1) == 500


def test_refusals_are_taken_some_at_a_time_each_once() -> None:
    requests = IncomingRequests(100)
    for number in range(1, 11):
        requests.refuse(number, number, "noHandler" if number % 3 else "unknownType", "text")
    taken = []
    while some := list(requests.take_refusals(4)):
        assert len(some) <= 4
        taken += some
    assert sorted(taken) == [
        (number, "noHandler" if number % 3 else "unknownType", "text") for number in range(1, 11)
    ]
    assert [requests.sent(number) for number in range(1, 11)] == list(range(1, 11))


def test_refusals_that_wait_fill_the_limit_of_open_requests() -> None:
    requests = IncomingRequests(1)
    requests.refuse(1, 40, "noHandler", "")
    assert requests.is_full
    assert requests.forget_refusals() == 1
    assert list(requests.take_refusals(1)) == []

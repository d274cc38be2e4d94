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
    requests.refuse(1, 500)
    assert requests.sent(1) == 500

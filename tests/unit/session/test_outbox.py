from __future__ import annotations

import time
from collections import deque
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lahja_capn.session import Counters, Offer, Policy
from lahja_capn.session.outbox import Outbox

A, B = 1, 2


def outbox(limit: int = 100, policy: Policy = Policy.WAIT, credit: int = 10**6) -> Outbox:
    box = Outbox(limit, Counters())
    box.set_policy(policy)
    box.event_window.grant(credit)
    box.request_window.grant(credit)
    return box


def event(text: bytes) -> tuple[bytes, ...]:
    return (text,)


def test_events_leave_in_the_order_in_which_they_were_offered() -> None:
    box = outbox()
    for n in range(5):
        assert box.offer_event(A + n % 2, 10, event(b"%d" % n)) is Offer.QUEUED
    assert (box.queued_bytes, box.queued_events, box.queued_frames) == (50, 5, 5)
    assert box.pull(1000) == [b"0", b"1", b"2", b"3", b"4"]
    assert (box.queued_bytes, box.queued_frames) == (0, 0)
    assert (box._counters.sent, box._counters.sent_bytes) == (5, 50)


def test_control_and_answers_leave_first_then_requests_then_events() -> None:
    box = outbox(limit=1000)
    box.offer_event(A, 10, event(b"event"))
    box.put_request(1, 10, event(b"request"))
    box.put_control(event(b"control"))
    box.put_answer(10, event(b"answer"), 7)
    assert box.queued_bytes == 30
    assert box.pull(1000) == [b"control", b"answer", b"request", b"event"]
    assert box.answered == [7]
    assert box.requests_sent_to == 1
    assert box._counters.requests_sent == 1
    assert box.queued_bytes == 0


def test_a_pull_stops_at_about_the_size_asked_for() -> None:
    box = outbox(limit=10**6)
    for _ in range(10):
        box.put_control(event(b"c"))
        box.put_request(1, 50, event(b"r"))
        box.offer_event(A, 50, event(b"e"))
    assert box.pull(100) == [b"c", b"c"]
    assert len(box.pull(64 * 8)) == 8
    assert box.pull(60) == [b"r", b"r"]
    assert box.pull(420) == [b"r"] * 8 + [b"e"]
    assert box.pull(1) == [b"e"]


def test_an_event_goes_while_the_balance_is_above_0_and_is_charged_whole() -> None:
    box = outbox(credit=11, limit=1000)
    for n in range(3):
        box.offer_event(A, 10, event(b"%d" % n))
    assert box.pull(1000) == [b"0", b"1"]
    assert box.event_window.balance == -9
    assert box.pull(1000) == []
    assert box.waits_for_credit
    box.event_window.refill(9)
    assert box.pull(1000) == []
    box.event_window.refill(1)
    assert box.pull(1000) == [b"2"]
    assert not box.waits_for_credit


def test_requests_without_credit_do_not_hold_up_events_nor_the_reverse() -> None:
    box = outbox(limit=1000)
    box.request_window.charge(0)
    box.put_request(1, 10, event(b"r"))
    assert box.waits_for_credit
    box.offer_event(A, 10, event(b"e"))
    assert not box.waits_for_credit
    assert box.pull(1000) == [b"e"]
    box.event_window.charge(0)
    box.request_window.charge(1)
    box.offer_event(A, 10, event(b"e"))
    assert not box.waits_for_credit
    assert box.pull(1000) == [b"r"]
    box.put_control(event(b"c"))
    assert not box.waits_for_credit


def test_there_is_room_until_the_limit_is_reached_and_the_last_frame_may_go_over() -> None:
    box = outbox(limit=100)
    assert box.offer_event(A, 99, event(b"1")) is Offer.QUEUED
    assert box.has_room
    assert box.offer_event(A, 500, event(b"2")) is Offer.QUEUED
    assert not box.has_room
    assert box.offer_event(A, 1, event(b"3")) is Offer.FULL
    assert box.drops == {}
    assert box._counters.dropped == 0
    box.pull(1)
    assert not box.has_room
    box.pull(1)
    assert box.has_room


def test_drop_newest_keeps_what_is_queued() -> None:
    box = outbox(policy=Policy.DROP_NEWEST, limit=20)
    assert [box.offer_event(A, 10, event(b"%d" % n)) for n in range(3)] == [
        Offer.QUEUED,
        Offer.QUEUED,
        Offer.DROPPED,
    ]
    assert box.drops == {A: 1}
    assert box.dropped_by_type == {A: 1}
    assert (box._counters.dropped, box._counters.dropped_bytes) == (1, 10)
    assert box.pull(100) == [b"0", b"1"]


def test_drop_oldest_keeps_what_is_new() -> None:
    box = outbox(policy=Policy.DROP_OLDEST, limit=20)
    for n in range(5):
        assert box.offer_event(A, 10, event(b"%d" % n)) is Offer.QUEUED
    assert box.drops == {A: 3}
    assert box.pull(100) == [b"3", b"4"]


def test_drop_oldest_drops_no_answers_for_an_event() -> None:
    box = outbox(policy=Policy.DROP_OLDEST, limit=20)
    box.put_answer(20, event(b"answer"), 1)
    assert box.offer_event(A, 10, event(b"e")) is Offer.DROPPED
    assert box.pull(100) == [b"answer"]


def test_newest_only_keeps_one_event_per_type_full_or_not() -> None:
    box = outbox(policy=Policy.NEWEST_ONLY)
    for n in range(3):
        assert box.offer_event(A, 10, event(b"a%d" % n)) is Offer.QUEUED
        assert box.offer_event(B, 10, event(b"b%d" % n)) is Offer.QUEUED
    assert box.drops == {A: 2, B: 2}
    assert box.queued_bytes == 20
    assert box.pull(100) == [b"a2", b"b2"]


def test_newest_only_with_no_room_drops_the_oldest_of_other_types() -> None:
    box = outbox(policy=Policy.NEWEST_ONLY, limit=20)
    for type_id in range(3):
        assert box.offer_event(type_id, 10, event(b"%d" % type_id)) is Offer.QUEUED
    assert box.pull(100) == [b"1", b"2"]


def test_newest_only_takes_the_older_ones_place_so_that_it_gets_its_turn() -> None:
    box = outbox(policy=Policy.NEWEST_ONLY)
    for type_id in (A, B):
        box.offer_event(type_id, 10, event(b"old"))
    for n in range(1000):
        box.offer_event(A, 15, event(b"a%d" % n))
    assert (box.queued_bytes, box._counters.dropped_bytes) == (25, 10 + 999 * 15)
    assert box.pull(15) == [b"a999"]
    assert box.offer_event(A, 10, event(b"again")) is Offer.QUEUED
    assert box.pull(100) == [b"old", b"again"]
    assert box.queued_bytes == 0


def test_newest_only_stays_below_the_limit_however_events_grow() -> None:
    box = outbox(policy=Policy.NEWEST_ONLY, limit=100)
    for size in (10, 20, 90, 300, 5):
        for type_id in range(1, 9):
            assert box.offer_event(type_id, size, event(b"%d" % type_id)) is Offer.QUEUED
            assert box.queued_bytes < 100 + size
            assert box.queued_bytes == sum(entry[0] for entry in box.events)
            assert list(box._newest.values()) == list(box.events)
    assert box._counters.dropped == 5 * 8 - box.queued_events


def test_newest_only_set_later_keeps_the_newest_of_each_type() -> None:
    box = outbox()
    for n in range(6):
        box.offer_event((A, B)[n % 2], 10, event(b"%d" % n))
    box.purge({B})
    box.offer_event(B, 10, event(b"b"))
    box.set_policy(Policy.NEWEST_ONLY)
    assert box.drops == {A: 2}
    assert box.queued_bytes == 20
    box.offer_event(A, 10, event(b"a"))
    assert box.pull(100) == [b"a", b"b"]
    # And back: what waits is sent as it is.
    box.offer_event(A, 10, event(b"1"))
    box.set_policy(Policy.WAIT)
    box.offer_event(A, 10, event(b"2"))
    assert box.pull(100) == [b"1", b"2"]


@pytest.mark.parametrize("later", [False, True])
def test_newest_only_queues_a_type_again_that_was_purged(later: bool) -> None:
    box = outbox(policy=Policy.NEWEST_ONLY)
    for type_id in range(1, 9):
        box.offer_event(type_id, 10, event(b"%d" % type_id))
    if later:
        box.purge({99})  # looks through the queue, so that the next one is not done at once
    box.purge({1, 2})
    assert bool(box._purged) is later
    box.offer_event(2, 10, event(b"again"))
    assert box._counters.dropped == 0
    assert box.pull(1000) == [b"3", b"4", b"5", b"6", b"7", b"8", b"again"]
    assert not box._newest


def test_newest_only_costs_the_same_however_many_types_wait() -> None:
    def seconds(types: int) -> float:
        box = outbox(policy=Policy.NEWEST_ONLY, limit=10**9)
        for type_id in range(1, types + 1):
            box.offer_event(type_id, 10, event(b"1"))
        began = time.perf_counter()
        for type_id in range(1, 501):
            box.offer_event(type_id, 10, event(b"2"))
        return time.perf_counter() - began

    few = min(seconds(500) for _ in range(3))
    many = min(seconds(50_000) for _ in range(3))
    assert many < 10 * few


def test_drops_are_counted_by_type_whatever_the_peer_was_told_between_them() -> None:
    box = outbox(policy=Policy.DROP_NEWEST, limit=10)
    for type_id in (A, A, B):
        box.drop(type_id, 10)
    assert box.take_drops() == ((A, 2), (B, 1))
    assert box.drops == {}
    assert box.take_drops() == ()
    box.drop(A, 10)
    for _ in range(2):
        assert box.dropped_by_type == {A: 3, B: 1}
    assert box.take_drops() == ((A, 1),)
    assert box.dropped_by_type == {A: 3, B: 1}


def test_disconnect_asks_for_it_and_counts() -> None:
    box = outbox(policy=Policy.DISCONNECT, limit=10)
    box.offer_event(A, 10, event(b"1"))
    assert box.offer_event(A, 10, event(b"2")) is Offer.DISCONNECT
    assert box._counters.dropped == 1


def test_a_purge_takes_the_types_events_and_does_not_count_them_as_dropped() -> None:
    box = outbox()
    for n in range(4):
        box.offer_event(A + n % 2, 10, event(b"%d" % n))
    box.purge({A})
    assert box.queued_bytes == 20
    assert box._counters.dropped == 0
    assert box.pull(100) == [b"1", b"3"]
    for n in range(4):
        box.offer_event(A + n % 2, 10, event(b"%d" % n))
    box.purge_all_but({A}, (A, B))
    assert box.pull(100) == [b"0", b"2"]


def test_a_request_that_was_not_pulled_can_be_taken_back() -> None:
    box = outbox()
    for number in (1, 2, 3):
        box.put_request(number, 10, event(b"%d" % number))
    assert box.remove_request(2)
    assert not box.remove_request(2)
    assert box.queued_bytes == 20
    assert box.pull(100) == [b"1", b"3"]
    assert box.requests_sent_to == 3


def test_the_end_counts_what_was_not_sent() -> None:
    box = outbox()
    box.offer_event(A, 10, event(b"e"))
    box.offer_event(B, 20, event(b"e"))
    box.put_request(1, 10, event(b"r"))
    box.put_answer(10, event(b"a"), 4)
    box.put_control(event(b"c"))
    box.clear()
    counters = box._counters
    assert (counters.dropped, counters.dropped_bytes, box.dropped_by_type) == (2, 30, {A: 1, B: 1})
    assert (counters.requests_dropped, counters.answers_unsent) == (1, 1)
    assert (box.queued_bytes, box.queued_frames, box.pull(1000), box.drops) == (0, 0, [], {})


# --- many purges --------------------------------------------------------------------------------------


class Watched(deque[Any]):
    """Counts how often the whole queue is looked through."""

    looks = 0

    def __iter__(self) -> Any:
        Watched.looks += 1
        return super().__iter__()


def test_many_purges_of_a_full_queue_look_through_it_once() -> None:
    box = outbox(limit=10**6)
    for n in range(1000):
        box.offer_event(A + n % 2, 10, event(b"%d" % n))
    box.events = Watched(box.events)
    Watched.looks = 0
    with patch("lahja_capn.session.outbox.deque", Watched):
        for _ in range(100):
            box.purge({99})
            box.purge_all_but({A, B}, (A, B, 99))
        first = Watched.looks
        assert first <= 3  # one sweep; it adds up sizes, too
        # It is paid for by new events: once for each quarter of the queue.
        for n in range(250):
            box.offer_event(A, 10, event(b"%d" % n))
            box.purge({99})
        assert Watched.looks <= 2 * first


class Model:
    """The same queue without any cleverness."""

    def __init__(self) -> None:
        self.queue: list[tuple[int, bytes]] = []

    def purge(self, types: set[int]) -> None:
        self.queue = [entry for entry in self.queue if entry[0] not in types]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(1, 4)),
        st.tuples(st.just("purge"), st.frozensets(st.integers(1, 4))),
        st.tuples(st.just("purge all but"), st.frozensets(st.integers(1, 4))),
        st.tuples(st.just("pull"), st.integers(1, 40)),
        st.tuples(st.just("credit"), st.integers(1, 60)),
    ),
    max_size=60,
)


@pytest.mark.parametrize("policy", [Policy.WAIT, Policy.DROP_OLDEST, Policy.NEWEST_ONLY])
@given(steps)
def test_purges_now_or_later_send_what_a_plain_queue_would(policy: Policy, steps: list[Any]) -> None:
    box = outbox(limit=10**6, policy=policy, credit=100)
    model = Model()
    credit = 100
    number = purged = dropped = 0
    for what, value in steps:
        if what == "offer":
            number += 1
            if policy is Policy.NEWEST_ONLY:
                waiting_ones = [at for at, (type_id, _) in enumerate(model.queue) if type_id == value]
                dropped += len(waiting_ones)
                assert len(waiting_ones) <= 1
            assert box.offer_event(value, 10, event(b"%d" % number)) is Offer.QUEUED
            if policy is Policy.NEWEST_ONLY and waiting_ones:
                # In the place of the older one, so that a type with many events gets its turn.
                model.queue[waiting_ones[0]] = (value, b"%d" % number)
            else:
                model.queue.append((value, b"%d" % number))
        elif what == "purge":
            before = len(model.queue)
            model.purge(set(value))
            purged += before - len(model.queue)
            box.purge(value)
        elif what == "purge all but":
            before = len(model.queue)
            model.purge({1, 2, 3, 4} - value)
            purged += before - len(model.queue)
            box.purge_all_but(value, (1, 2, 3, 4))
        elif what == "credit":
            credit += value
            box.event_window.refill(value)
        else:
            expected = []
            while model.queue and credit > 0 and 10 * len(expected) < value:
                credit -= 10
                expected.append(model.queue.pop(0)[1])
            assert box.pull(value) == expected
        assert box.event_window.balance == credit
        assert box.queued_events >= len(model.queue)
    waiting = len(model.queue)
    assert box._counters.dropped == dropped
    assert box._counters.sent == number - dropped - purged - waiting
    assert box._counters.sent_bytes == 10 * box._counters.sent
    box.event_window.refill(10**6)
    assert box.pull(10**6) == [text for _, text in model.queue]
    assert (box.queued_bytes, box.queued_events) == (0, 0)


def test_what_was_purged_is_not_counted_as_dropped_later() -> None:
    for end in ("clear", "drop oldest"):
        box = outbox(limit=60, policy=Policy.DROP_OLDEST)
        for type_id in (A, B, A, B, A, B):
            box.offer_event(type_id, 10, event(b"%d" % type_id))
        box.purge({99})  # looked through now: the next one waits for its turn
        box.purge({A})
        if end == "clear":
            box.clear()
            assert box.dropped_by_type == {B: 3}
        else:
            # The first event makes room by what was purged, the next ones drop what is wanted.
            box.offer_event(B, 10, event(b"new"))
            assert box._counters.dropped == 0
            for _ in range(4):
                box.offer_event(B, 20, event(b"newer"))
            assert A not in box.dropped_by_type
            # It subscribes again: the new ones are no part of what was purged.
            box.offer_event(A, 10, event(b"again"))
            assert box.pull(1000)[-1] == b"again"

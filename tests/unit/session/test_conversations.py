"""Whole random conversations: what both sides saw must agree."""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lahja_capn.binding import EventType
from lahja_capn.session import (
    Arrived,
    Closed,
    FailedArrived,
    Offer,
    PeerHello,
    Policy,
    ResponseArrived,
    Session,
    State,
    WireTable,
)
from lahja_capn.wire import FrameKind, Limits, encode_frame, frame_size
from tests.unit.session.pair import ALPHA, ANSWER, ASK, BETA, endpoint, registry

EVENTS = (ALPHA, BETA)


class Side:
    """One session, its endpoint's book-keeping, and the bytes on their way to it."""

    def __init__(self, name: str, connector: bool, limits: Limits) -> None:
        self.table = WireTable(limits)
        self.local = endpoint(name, limits=limits)
        self.session = Session(
            self.local, self.table, connector=connector, now=0.0, find_event_type=registry().get
        )
        self.inbox = bytearray()
        self.initial: set[int] = {ASK.type_id}
        self.wanted: set[int] = set()
        # By type: numbers of the events queued here, and of those that arrived here.
        self.queued: dict[int, list[int]] = {t.type_id: [] for t in EVENTS}
        self.arrived: dict[int, list[int]] = {t.type_id: [] for t in EVENTS}
        self.untaken: deque[tuple[int, int]] = deque()
        self.to_answer: deque[int] = deque()
        self.asked: set[int] = set()
        self.answers: dict[int, str] = {}
        self.closed: list[Closed] = []

    def see(self) -> None:
        for event in self.session.take_events():
            assert not self.closed, "nothing follows Closed"
            if isinstance(event, Closed):
                self.closed.append(event)
            elif isinstance(event, PeerHello):
                self.wanted |= self.initial
                self.session.accept(sorted(self.initial))
            elif isinstance(event, Arrived):
                assert event.event_type.type_id in self.wanted
                self.untaken.append((event.kind, event.size))
                if event.kind == FrameKind.REQUEST:
                    self.to_answer.append(event.number)
                else:
                    number = int.from_bytes(bytes(event.segments[0][:8]), "little")
                    self.arrived[event.event_type.type_id].append(number)
            elif isinstance(event, (ResponseArrived, FailedArrived)):
                assert event.number not in self.answers, "one answer per request"
                self.answers[event.number] = type(event).__name__


class Conversation:
    def __init__(self, limits: Limits, policy: Policy) -> None:
        self.sides = (Side("left", True, limits), Side("right", False, limits))
        self.now = 0.0
        self.count = 0
        for side in self.sides:
            side.session.policy = policy

    def send(self, who: int, max_bytes: int) -> bool:
        side, other = self.sides[who], self.sides[1 - who]
        data = b"".join(side.session.data_to_send(max_bytes))
        other.inbox += data
        return bool(data)

    def deliver(self, who: int, count: int) -> bool:
        side = self.sides[who]
        data = bytes(side.inbox[:count])
        del side.inbox[:count]
        if data:
            side.session.receive_bytes(data, self.now)
        side.see()
        return bool(data)

    def offer(self, who: int, which: int, words: int) -> None:
        side = self.sides[who]
        event_type = EVENTS[which]
        self.count += 1
        segments = (self.count.to_bytes(8, "little") + bytes(8 * words),)
        buffers = encode_frame(side.table.wire_id(event_type), FrameKind.EVENT, 0, segments)
        if side.session.offer_event(event_type, frame_size(buffers), buffers) is Offer.QUEUED:
            side.queued[event_type.type_id].append(self.count)

    def ask(self, who: int, words: int) -> None:
        side = self.sides[who]
        if side.session.state is State.UP:
            side.table.wire_id(ANSWER)
            side.asked.add(side.session.send_request(ASK, (bytes(8 * words + 8),)))

    def answer(self, who: int, fail: bool) -> None:
        side = self.sides[who]
        if side.to_answer:
            number = side.to_answer.popleft()
            if fail:
                assert side.session.send_failed(number, "handlerRaised", "E", "text")
            else:
                assert side.session.send_response(number, ANSWER, (bytes(16),))
            assert not side.session.send_failed(number, "handlerRaised")

    def take(self, who: int, count: int) -> None:
        side = self.sides[who]
        for _ in range(min(count, len(side.untaken))):
            kind, size = side.untaken.popleft()
            if kind == FrameKind.REQUEST:
                side.session.return_request_credit(size)
            else:
                side.session.return_event_credit(size)

    def subscribe(self, who: int, which: int, on: bool) -> None:
        side = self.sides[who]
        type_id = EVENTS[which].type_id
        if side.session.state is not State.UP:
            return
        if on:
            side.wanted.add(type_id)
            side.session.update_subscriptions([type_id], ack_wanted=True)
        else:
            side.wanted.discard(type_id)
            side.session.update_subscriptions(remove=[type_id], ack_wanted=True)

    def time(self, seconds: float) -> None:
        self.now += seconds
        for who in (0, 1):
            while self.send(1 - who, 1 << 20) or self.deliver(who, 1 << 20):
                pass
        for side in self.sides:
            side.session.handle_time(self.now)

    def settle(self) -> None:
        busy = True
        while busy:
            busy = False
            for who in (0, 1):
                self.take(who, 1 << 20)
                while self.sides[who].to_answer:
                    self.answer(who, False)
                busy |= self.send(who, 1 << 20)
                busy |= self.deliver(1 - who, 1 << 20)


who = st.integers(0, 1)
actions: st.SearchStrategy[tuple[Any, ...]] = st.one_of(
    st.tuples(st.just("offer"), who, st.integers(0, 1), st.integers(0, 30)),
    st.tuples(st.just("offer"), who, st.integers(0, 1), st.integers(0, 3)),
    st.tuples(st.just("send"), who, st.sampled_from([1, 100, 1 << 20])),
    st.tuples(st.just("deliver"), who, st.integers(1, 300)),
    st.tuples(st.just("take"), who, st.integers(1, 5)),
    st.tuples(st.just("ask"), who, st.integers(0, 30)),
    st.tuples(st.just("answer"), who, st.booleans()),
    st.tuples(st.just("subscribe"), who, st.integers(0, 1), st.booleans()),
    st.tuples(st.just("time"), st.sampled_from([0.1, 1.0, 5.0])),
)
limits = st.builds(
    Limits,
    frame_bytes=st.sampled_from([1024, 1 << 20]),
    event_credit_bytes=st.sampled_from([8, 100, 1000, 2**64 - 1]),
    request_credit_bytes=st.sampled_from([8, 100, 1000]),
    queued_per_peer_bytes=st.sampled_from([1, 200, 1 << 20]),
    open_requests=st.sampled_from([1, 100]),
)


def check(conversation: Conversation, kept: list[EventType]) -> None:
    """Everything has settled: both sides' views must agree."""
    for who in (0, 1):
        sender, receiver = conversation.sides[who], conversation.sides[1 - who]
        sent, got = sender.session.counters, receiver.session.counters
        assert not sender.closed
        assert sender.session.queued_bytes == 0
        assert sender.session.queued_frames == 0
        assert sent.sent == got.received + got.skipped
        assert sent.sent_bytes == got.received_bytes + got.skipped_bytes
        assert got.dropped_by_peer <= sent.dropped
        for event_type in EVENTS:
            queued = sender.queued[event_type.type_id]
            arrived = receiver.arrived[event_type.type_id]
            # In order, nothing twice, nothing made up; all of it where the subscription stood throughout.
            there = iter(queued)
            assert all(number in there for number in arrived)
            if event_type in kept and not sent.dropped:
                assert arrived == queued
        assert set(sender.answers) == sender.asked
        assert sent.requests_sent == got.requests_received + got.requests_refused == len(sender.asked)
        assert sent.responses_received == got.responses_sent
        assert sent.failed_received == got.failed_sent
        assert sent.late == 0


@given(
    limits,
    st.sampled_from([Policy.WAIT, Policy.DROP_NEWEST, Policy.DROP_OLDEST, Policy.NEWEST_ONLY]),
    st.lists(actions, max_size=60),
)
def test_random_conversations_lose_nothing_keep_order_and_agree(
    some_limits: Limits, policy: Policy, steps: list[tuple[Any, ...]]
) -> None:
    conversation = Conversation(some_limits, policy)
    # Beta is subscribed from the first moment and never touched; Alpha comes and goes.
    for side in conversation.sides:
        side.initial.add(BETA.type_id)
    conversation.settle()
    for name, *arguments in steps:
        if name == "subscribe":
            arguments[1] = 0
        getattr(conversation, name)(*arguments)
    conversation.settle()
    check(conversation, [BETA])


@given(limits, st.lists(actions, max_size=40), who)
def test_a_goodbye_at_any_moment_ends_both_sides_once(
    some_limits: Limits, steps: list[tuple[Any, ...]], closer: int
) -> None:
    conversation = Conversation(some_limits, Policy.WAIT)
    for name, *arguments in steps:
        getattr(conversation, name)(*arguments)
    side, other = conversation.sides[closer], conversation.sides[1 - closer]
    side.session.close("shutdown", "bye", conversation.now)
    side.see()
    assert side.closed == [Closed("shutdown", "bye", False)]
    for who in (0, 1):
        while conversation.send(who, 1 << 20):
            pass
    for who in (1 - closer, closer):
        while conversation.deliver(who, 1 << 20):
            pass
    other.see()
    assert other.closed == [Closed("shutdown", "bye", True)]
    assert other.session.is_closed
    side.session.receive_eof(conversation.now)
    side.see()
    assert side.session.is_closed
    sent, got = side.session.counters, other.session.counters
    assert sent.sent == got.received + got.skipped
    assert sent.requests_sent == got.requests_received + got.requests_refused

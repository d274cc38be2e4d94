from __future__ import annotations

import tracemalloc

import pytest

from lahja_capn.binding import EventType
from lahja_capn.errors import FrameTooLarge, LocalProtocolError
from lahja_capn.session import Arrived, Closed, FailedArrived, ResponseArrived, Session
from lahja_capn.session.control import Credit, Declare, Failed
from lahja_capn.wire import FrameKind, Limits, Segments
from tests.unit.session.pair import (
    ALPHA,
    ANSWER,
    ASK,
    SEGMENTS,
    SIZE,
    TYPES,
    ConnectionPair,
    RawPeer,
    content,
    endpoint,
    fake_type,
    raw_hello,
    read_all,
    registry,
    up,
)


def ask(pair: ConnectionPair, segments: Segments = SEGMENTS) -> int:
    pair.left_table.wire_id(ANSWER)
    return pair.left.send_request(ASK, segments)


def only(pair: ConnectionPair, session: Session) -> object:
    (event,) = pair.take(session)
    return event


def raw(*, types: dict[int, EventType] | None = None, **limits: int) -> RawPeer:
    """A raw peer that asks us."""
    return RawPeer(limits=Limits(**limits), types=types).up(ASK)


@pytest.mark.parametrize("piece", [1, 1 << 30])
def test_a_request_and_its_response_find_each_other(piece: int) -> None:
    pair = up(right=[ASK], piece=piece)
    numbers = [ask(pair), ask(pair)]
    assert numbers == [1, 2]
    pair.settle()
    requests = pair.take(pair.right)
    assert [(e.kind, e.event_type, e.number) for e in requests if isinstance(e, Arrived)] == [
        (FrameKind.REQUEST, ASK, 1),
        (FrameKind.REQUEST, ASK, 2),
    ]
    reply: Segments = (b"reply..." * 2,)
    assert pair.right.send_response(2, ANSWER, reply)
    pair.settle()
    event = only(pair, pair.left)
    assert isinstance(event, ResponseArrived)
    assert (event.number, event.event_type, event.row.name, event.segments) == (
        2,
        ANSWER,
        ANSWER.row.name,
        reply,
    )
    counters = pair.left.counters
    assert (counters.requests_sent, counters.responses_received) == (2, 1)
    counters = pair.right.counters
    assert (counters.requests_received, counters.responses_sent) == (2, 1)


def test_a_failure_reaches_the_requester() -> None:
    pair = up(right=[ASK])
    ask(pair)
    pair.settle()
    assert pair.right.send_failed(1, "handlerRaised", "ValueError", "no\ud800" + "x" * 20_000)
    pair.settle()
    event = only(pair, pair.left)
    assert isinstance(event, FailedArrived)
    assert (event.number, event.code, event.type_name) == (1, "handlerRaised", "ValueError")
    assert event.text.startswith("no?xxx")
    assert len(event.text) == 16 * 1024
    assert (pair.left.counters.failed_received, pair.right.counters.failed_sent) == (1, 1)


def test_a_request_is_answered_at_most_once() -> None:
    pair = up(right=[ASK])
    ask(pair)
    pair.settle()
    assert pair.right.send_response(1, ANSWER, SEGMENTS)
    assert not pair.right.send_response(1, ANSWER, SEGMENTS)
    assert not pair.right.send_failed(1, "handlerRaised")
    assert not pair.right.send_failed(99, "handlerRaised")
    assert pair.right.counters.answers_unsent == 3
    pair.settle()
    assert len([e for e in pair.take(pair.left) if isinstance(e, ResponseArrived)]) == 1


def test_an_answer_after_the_end_is_counted_and_goes_nowhere() -> None:
    pair = up(right=[ASK])
    ask(pair)
    pair.settle()
    pair.right.close("shutdown", "", pair.now)
    assert not pair.right.send_response(1, ANSWER, SEGMENTS)
    assert not pair.right.send_failed(1, "handlerRaised")
    assert pair.right.counters.answers_unsent == 2


def test_the_response_type_is_declared_before_the_response() -> None:
    peer = raw()
    peer.feed(content(3, 1, 1))
    assert peer.session.send_response(1, ANSWER, SEGMENTS)
    declare, response = read_all(peer.session.data_to_send())
    assert (declare.wire_id, response.kind) == (0, FrameKind.RESPONSE)
    assert peer.table.rows[-1] == (response.wire_id, ANSWER.row)


def test_an_answer_to_a_forgotten_request_is_late_and_counted() -> None:
    pair = up(right=[ASK])
    ask(pair)
    ask(pair)
    pair.settle()
    pair.left.forget_request(1)
    pair.left.forget_request(1)
    pair.right.send_response(1, ANSWER, SEGMENTS)
    pair.right.send_failed(2, "handlerRaised")
    pair.left.forget_request(2)
    pair.settle()
    assert pair.take(pair.left) == []
    assert pair.left.counters.late == 2


def test_a_request_that_is_forgotten_before_it_was_sent_never_is() -> None:
    pair = up(right=[ASK])
    ask(pair)
    number = ask(pair)
    ask(pair)
    pair.left.forget_request(number)
    pair.settle()
    assert [e.number for e in pair.take(pair.right) if isinstance(e, Arrived)] == [1, 3]


def test_a_request_over_the_peers_limit_is_refused_here_and_the_connection_goes_on() -> None:
    pair = (
        ConnectionPair(right=endpoint("right", limits=Limits(frame_bytes=1024))).connect(right=[ASK]).clear()
    )
    with pytest.raises(FrameTooLarge, match=r"Ask.*'right' accepts 1024") as caught:
        ask(pair, (bytes(1008),))
    assert (caught.value.event, caught.value.peer, caught.value.size, caught.value.limit) == (
        "Ask",
        "right",
        1032,
        1024,
    )
    assert pair.left.queued_frames == 0
    assert ask(pair, (bytes(1000),)) == 2
    pair.settle()
    assert len(pair.take(pair.right)) == 1


def test_a_response_over_the_peers_limit_leaves_the_request_open() -> None:
    pair = ConnectionPair(left=endpoint("left", limits=Limits(frame_bytes=1024))).connect(right=[ASK]).clear()
    ask(pair)
    pair.settle()
    with pytest.raises(FrameTooLarge):
        pair.right.send_response(1, ANSWER, (bytes(1008),))
    assert pair.right.send_failed(1, "handlerRaised", "FrameTooLarge", "")


def test_a_request_on_a_connection_that_is_not_up_is_our_own_mistake() -> None:
    peer = RawPeer()
    with pytest.raises(LocalProtocolError, match="handshake"):
        peer.session.send_request(ASK, SEGMENTS)


def test_requests_wait_for_their_own_credit_and_events_pass_them() -> None:
    pair = ConnectionPair(right=endpoint("right", limits=Limits(request_credit_bytes=SIZE)))
    pair.connect(right=[ASK, ALPHA]).clear()
    ask(pair)
    ask(pair)
    pair.offer(pair.left, ALPHA)
    pair.settle()
    kinds = [e.kind for e in pair.take(pair.right) if isinstance(e, Arrived)]
    assert kinds == [FrameKind.REQUEST, FrameKind.EVENT]
    assert pair.right.return_request_credit(SIZE)
    pair.settle()
    assert [e.number for e in pair.take(pair.right) if isinstance(e, Arrived)] == [2]


def test_responses_need_no_credit() -> None:
    limits = Limits(event_credit_bytes=0, request_credit_bytes=SIZE)
    pair = ConnectionPair(left=endpoint("left", limits=limits)).connect(right=[ASK]).clear()
    ask(pair)
    pair.settle()
    pair.right.send_response(1, ANSWER, SEGMENTS)
    pair.settle()
    assert [type(e) for e in pair.take(pair.left)] == [ResponseArrived]


# --- refused by the session itself --------------------------------------------------------------------


@pytest.mark.parametrize("case", ["unknownType", "incompatibleType", "noHandler", "not a request type"])
def test_a_request_that_nobody_here_can_take_fails_at_once(case: str) -> None:
    stranger, other = fake_type(98, "Stranger"), fake_type(3, "Ask", is_request=True, layout=(9,))
    row = {"unknownType": stranger, "incompatibleType": other, "noHandler": ASK}.get(case, ALPHA).row
    peer = RawPeer().up(*(() if case == "noHandler" else (ASK, ALPHA)), hello=raw_hello(rows=((5, row),)))
    peer.feed(content(5, 1, 7))
    (failed,) = [m for m in peer.sent() if isinstance(m, Failed)]
    assert failed.correlation == 7
    assert failed.code == ("noHandler" if case == "not a request type" else case)
    assert failed.text
    assert peer.session.counters.requests_refused == 1
    assert not peer.session.send_failed(7, "handlerRaised")


def test_more_open_requests_than_the_limit_are_answered_overloaded() -> None:
    peer = raw(open_requests=2)
    assert [type(e) for e in peer.feed(*(content(3, 1, n) for n in (1, 2, 3)))] == [Arrived] * 2
    (failed,) = peer.sent()
    assert isinstance(failed, Failed)
    assert (failed.correlation, failed.code) == (3, "overloaded")
    # An answer makes room once it has left.
    peer.session.send_failed(1, "handlerRaised")
    peer.sent()
    assert [type(e) for e in peer.feed(content(3, 1, 4))] == [Arrived]


def test_refusals_that_are_not_read_stop_at_the_request_window() -> None:
    window = 10 * SIZE
    peer = RawPeer(limits=Limits(request_credit_bytes=window)).up()
    peer.feed(*(content(3, 1, n) for n in range(1, 11)))
    closed = peer.closed(content(3, 1, 11))
    assert closed.code == "creditExceeded"
    peer = RawPeer(limits=Limits(request_credit_bytes=window)).up()
    peer.feed(*(content(3, 1, n) for n in range(1, 11)))
    sent = peer.sent()
    assert [type(m) for m in sent] == [Failed] * 10 + [Credit]
    assert sent[-1] == Credit(0, window)


def test_refusals_that_are_not_read_cost_less_than_the_requests() -> None:
    """4 MiB of requests of a type that nobody knows here cost 174 MB."""
    many = 20_000
    peer = RawPeer(limits=Limits(request_credit_bytes=many * SIZE)).up()
    requests = [content(3, 1, n) for n in range(1, many + 1)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for start in range(0, many, 100):
            peer.feed(*requests[start : start + 100])
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held < many * SIZE
    sent = peer.sent()
    assert sorted(m.correlation for m in sent if isinstance(m, Failed)) == list(range(1, many + 1))
    assert sum(m.requests for m in sent if isinstance(m, Credit)) == many * SIZE


def test_refusals_that_were_not_sent_are_counted_at_the_end() -> None:
    peer = RawPeer().up()
    peer.feed(*(content(3, 1, n) for n in range(1, 11)))
    peer.session.connection_lost(peer.now, "gone")
    assert peer.session.counters.answers_unsent == 10
    assert peer.sent() == []


def test_failed_answers_that_wait_count_as_queued() -> None:
    peer = raw()
    peer.feed(content(3, 1, 1))
    assert peer.session.send_failed(1, "handlerRaised", "KeyError", "x" * 1000)
    assert peer.session.queued_bytes > 1000
    peer.sent()
    assert peer.session.queued_bytes == 0


# --- the peer's mistakes ------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [(1, 1), (5, 4), (2**64 - 1, 1)])
def test_request_numbers_that_do_not_increase_are_refused(numbers: tuple[int, int]) -> None:
    peer = raw()
    peer.feed(content(3, 1, numbers[0]))
    assert peer.closed(content(3, 1, numbers[1])).code == "protocolError"


@pytest.mark.parametrize("number", [2, 2**64 - 1])
def test_answers_to_requests_never_sent_are_refused(number: int) -> None:
    for answer in (
        content(4, 2, number),
        Failed(number, "noHandler", "", ""),
        Failed(0, "noHandler", "", ""),
    ):
        peer = RawPeer().up(wants=[ASK])
        peer.table.wire_id(ANSWER)
        peer.session.send_request(ASK, SEGMENTS)
        peer.sent()
        assert peer.closed(answer).code == "unknownCorrelation"


def test_an_answer_to_a_request_still_in_the_queue_is_refused() -> None:
    peer = RawPeer().up(wants=[ASK])
    peer.session.send_request(ASK, SEGMENTS)
    assert peer.closed(content(4, 2, 1)).code == "unknownCorrelation"


# --- odd responses ------------------------------------------------------------------------------------


def answered(*rows: EventType, types: dict[int, EventType] | None = None) -> list[object]:
    """What our endpoint sees when its request is answered with wire id 9."""
    peer = RawPeer(types=types).up(wants=[ASK])
    peer.session.send_request(ASK, SEGMENTS)
    peer.sent()
    return [*peer.feed(Declare(tuple((9, t.row) for t in rows)), content(9, 2, 1))]


def test_a_response_of_an_unknown_type_is_handed_over_with_its_row() -> None:
    stranger = fake_type(97, "Stranger")
    (event,) = answered(stranger)
    assert isinstance(event, ResponseArrived)
    assert event.event_type is None
    assert (event.row.type_id, event.row.name) == (stranger.type_id, stranger.row.name)


def test_a_response_of_another_known_type_is_handed_over_too() -> None:
    other = fake_type(96, "Other")
    (event,) = answered(other, types=registry(*TYPES, other))
    assert isinstance(event, ResponseArrived)
    assert event.event_type is other


def test_a_response_that_we_read_differently_is_a_failure() -> None:
    theirs, ours = fake_type(95, "Odd"), fake_type(95, "Odd", layout=(9,))
    events = answered(theirs, types=registry(*TYPES, ours))
    failed = events[-1]
    assert isinstance(failed, FailedArrived)
    assert (failed.number, failed.code) == (1, "incompatibleType")
    assert "ordinal 0" in failed.text


def test_a_response_that_the_peer_reads_differently_is_answered_failed_instead() -> None:
    other = fake_type(4, "Answer", layout=(9,))
    pair = up(right=[ASK], left_types=registry(ALPHA, ASK, other))
    pair.left_table.wire_id(other)
    pair.left.send_request(ASK, SEGMENTS)
    pair.settle()
    pair.clear()
    assert pair.right.send_response(1, ANSWER, SEGMENTS)
    assert (pair.right.counters.responses_sent, pair.right.counters.failed_sent) == (0, 1)
    pair.settle()
    failed = [e for e in pair.take(pair.left) if isinstance(e, FailedArrived)]
    assert [f.code for f in failed] == ["incompatibleType"]


def test_a_response_is_sent_though_the_requester_has_not_declared_its_type() -> None:
    peer = RawPeer().up(ASK, hello=raw_hello(rows=((5, ASK.row),)))
    peer.feed(content(5, 1, 7))
    assert peer.session.send_response(7, ANSWER, SEGMENTS)
    assert peer.session.counters.responses_sent == 1


def test_a_peer_that_wants_all_is_asked_and_one_that_takes_all_is_handed_requests() -> None:
    pair = ConnectionPair()
    pair.settle()
    pair.right.accept((), all=True)
    pair.settle()
    pair.left.accept()
    pair.settle()
    pair.clear()
    assert pair.left.wants(ASK)
    ask(pair)
    pair.settle()
    assert [type(e) for e in pair.take(pair.right)] == [Arrived]


def test_unsent_requests_and_answers_are_counted_at_the_end() -> None:
    pair = up(right=[ASK], left=[ASK])
    ask(pair)
    pair.right.send_request(ASK, SEGMENTS)
    pair.pass_on(pair.right)
    pair.left.send_response(1, ANSWER, SEGMENTS)
    pair.left.close("shutdown", "", pair.now)
    assert (pair.left.counters.requests_dropped, pair.left.counters.answers_unsent) == (1, 1)
    assert [type(e) for e in pair.take(pair.left)][-1] is Closed

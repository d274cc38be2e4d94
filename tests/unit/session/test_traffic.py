from __future__ import annotations

import pytest

from lahja_capn.binding import EventType
from lahja_capn.session import (
    Arrivals,
    Arrived,
    Closed,
    Offer,
    PeerDropped,
    Policy,
    Session,
    State,
    SubscriptionsApplied,
    SubscriptionsChanged,
    TypeDisabled,
)
from lahja_capn.session.control import (
    Credit,
    Declare,
    Dropped,
    Subscriptions,
    SubscriptionsAck,
    decode_control,
)
from lahja_capn.wire import UNLIMITED, FrameKind, Limits, encode_frame
from lahja_capn.wire.limits import CREDIT_REST_S
from tests.unit.session.pair import (
    ALPHA,
    ANSWER,
    ASK,
    BETA,
    SEGMENTS,
    SIZE,
    TYPES,
    ConnectionPair,
    RawPeer,
    content,
    control,
    endpoint,
    fake_type,
    raw_hello,
    read_all,
    registry,
    rows_of,
    struct_row,
    up,
)


def arrived(pair: ConnectionPair, session: Session) -> list[bytes]:
    return [bytes(e.segments[0]) for e in pair.take(session) if isinstance(e, Arrived)]


# --- events -------------------------------------------------------------------------------------------


def test_rows_of_events_end_where_something_else_comes_between_them() -> None:
    raw = RawPeer().up(ALPHA, BETA, ASK, hello=raw_hello(rows=rows_of(ALPHA, BETA, ASK)))
    raw.session.receive_bytes(
        b"".join(
            [
                *(content(1), content(1), content(2)),
                *(content(1), content(3, FrameKind.REQUEST, 1), content(1)),
                *(control(Subscriptions(2, (ALPHA.type_id,), (), False, False)), content(1)),
            ]
        ),
        raw.now,
    )
    found = [
        (item.event_type.name, len(item.frames)) if isinstance(item, Arrivals) else type(item).__name__
        for item in raw.session.take_news()
    ]
    assert found == [
        *(
            ("Alpha", 2),
            ("Beta", 1),
            ("Alpha", 1),
            "Arrived",
            ("Alpha", 1),
            "SubscriptionsChanged",
            ("Alpha", 1),
        ),
    ]


@pytest.mark.parametrize("piece", [1, 13, 1 << 30])
def test_an_event_arrives_as_it_was_sent_with_its_type_translated(piece: int) -> None:
    # The two sides number their types differently.
    pair = up(left=[BETA], right=[ALPHA, BETA], piece=piece)
    segments = (b"first" + bytes(3), b"", b"second" + bytes(10))
    assert pair.offer(pair.left, BETA, segments) is Offer.QUEUED
    assert pair.left.queued_frames == 1
    pair.settle()
    (event,) = pair.take(pair.right)
    assert isinstance(event, Arrived)
    assert (event.kind, event.event_type, event.segments, event.number) == (
        FrameKind.EVENT,
        BETA,
        segments,
        0,
    )
    assert event.size == 16 + 16 + 24
    assert repr(event) == "<Arrived Beta kind=0 number=0 56 bytes>"
    assert (pair.left.counters.sent, pair.left.counters.sent_bytes) == (1, event.size)
    assert (pair.right.counters.received, pair.right.counters.received_bytes) == (1, event.size)


def test_events_arrive_in_order() -> None:
    pair = up(right=[ALPHA, BETA])
    sent = [n.to_bytes(8, "big") for n in range(500)]
    for n, data in enumerate(sent):
        pair.offer(pair.left, (ALPHA, BETA)[n % 2], (data,))
    pair.settle()
    assert arrived(pair, pair.right) == sent


def test_a_large_event_passes_in_several_reads() -> None:
    pair = up(right=[ALPHA], piece=100_000)
    data = bytes(range(256)) * 4096
    pair.offer(pair.left, ALPHA, (data,))
    pair.settle()
    assert arrived(pair, pair.right) == [data]


def test_only_what_the_peer_wants_is_taken() -> None:
    pair = ConnectionPair()
    assert pair.offer(pair.left, ALPHA) is Offer.CLOSED
    pair.connect(right=[ALPHA])
    assert pair.offer(pair.left, ALPHA) is Offer.QUEUED
    assert pair.offer(pair.left, BETA) is Offer.NOT_SUBSCRIBED
    assert not pair.left.wants(BETA)
    pair.left.close("shutdown", "", pair.now)
    assert pair.offer(pair.left, ALPHA) is Offer.CLOSED
    assert not pair.left.wants(BETA)


def test_a_type_that_the_two_sides_read_differently_is_not_taken_and_not_delivered() -> None:
    other = fake_type(1, "Alpha", layout=(9,))
    pair = up(right=[other, BETA], right_types=registry(other, BETA))
    assert pair.offer(pair.left, ALPHA) is Offer.INCOMPATIBLE
    raw = RawPeer().up(ALPHA, hello=raw_hello(rows=((1, other.row),)), wants=[other])
    assert raw.feed(content(1)) == []
    assert (raw.session.counters.skipped, raw.session.counters.skipped_bytes) == (1, SIZE)


def test_an_event_over_the_peers_frame_limit_is_counted_for_it() -> None:
    small = endpoint("right", limits=Limits(frame_bytes=1024))
    pair = ConnectionPair(right=small).connect(right=[ALPHA])
    assert pair.left.peer_frame_limit == 1024
    assert pair.offer(pair.left, ALPHA, (bytes(1000),)) is Offer.QUEUED
    assert pair.offer(pair.left, ALPHA, (bytes(1008),)) is Offer.TOO_LARGE
    assert pair.left.counters.dropped == 1


def test_unknown_and_unsubscribed_events_are_skipped_counted_and_paid_back() -> None:
    stranger = fake_type(99, "Stranger")
    peer = RawPeer(limits=Limits(event_credit_bytes=100)).up(
        BETA, hello=raw_hello(rows=((1, ALPHA.row), (2, BETA.row), (3, stranger.row)))
    )
    assert [type(e) for e in peer.feed(content(1), content(3), content(2))] == [Arrived]
    assert (peer.session.counters.skipped, peer.session.counters.skipped_bytes) == (2, 2 * SIZE)
    assert peer.sent() == [Credit(2 * SIZE, 0)]


def test_a_class_that_is_bound_later_is_found() -> None:
    late = fake_type(99, "Late")
    peer = RawPeer().up(hello=raw_hello(rows=((9, late.row),)))
    assert peer.feed(content(9)) == []
    peer.types[late.type_id] = late
    peer.session.update_subscriptions([late.type_id])
    (event,) = peer.feed(content(9))
    assert isinstance(event, Arrived)
    again = fake_type(99, "Late")
    peer.types[late.type_id] = again
    (event,) = peer.feed(content(9))
    assert isinstance(event, Arrived)
    assert event.event_type is again


def test_a_subscription_to_all_takes_every_type_that_is_known() -> None:
    peer = RawPeer().up()
    peer.session.update_subscriptions(all=True)
    assert [type(e) for e in peer.feed(*(content(n) for n in range(1, 5)))] == [Arrived] * 4
    peer.session.update_subscriptions(all=False)
    assert peer.feed(content(1)) == []


# --- late declarations --------------------------------------------------------------------------------


def test_a_type_declared_late_is_usable_in_the_same_read() -> None:
    late = fake_type(50, "Late")
    peer = RawPeer(types=registry(*TYPES, late)).up(late)
    (event,) = peer.feed(Declare(((9, late.row),)), content(9))
    assert isinstance(event, Arrived)
    assert event.event_type is late


def test_a_late_declaration_that_is_incompatible_disables_the_type_at_once() -> None:
    inner = struct_row(1, (1, 2))
    outer = fake_type(60, "Outer", reachable=(inner,))
    peer = RawPeer(types=registry(outer)).up(outer, hello=raw_hello(rows=((1, outer.row),)), wants=[outer])
    buffers = encode_frame(peer.table.wire_id(outer), FrameKind.EVENT, 0, SEGMENTS)
    assert peer.session.offer_event(outer, SIZE, buffers) is Offer.QUEUED
    assert [type(e) for e in peer.feed(content(1))] == [Arrived]
    # In one read: an event that is fine, the row that changes the verdict, an event that is not.
    events = peer.feed(content(1), Declare(((0, struct_row(1, (1, 3))),)), content(1))
    assert [type(e) for e in events] == [Arrived, TypeDisabled]
    assert not peer.session.wants(outer)
    assert peer.session.offer_event(outer, SIZE, buffers) is Offer.INCOMPATIBLE
    assert peer.session.queued_frames == 0
    assert peer.session.counters.dropped == 0


def test_a_late_declaration_counts_for_a_class_that_is_not_bound_any_more_too() -> None:
    outer = fake_type(60, "Outer", reachable=(struct_row(1, (1, 2)),))
    peer = RawPeer().up(hello=raw_hello(rows=((1, outer.row),)), wants=[outer])
    assert peer.session.wants(outer)
    peer.feed(Declare(((0, struct_row(1, (1, 3))),)))
    assert not peer.session.wants(outer)


# --- subscriptions ------------------------------------------------------------------------------------


def test_changes_of_subscriptions_are_told_and_acknowledged_once_applied() -> None:
    pair = up(right=[ALPHA])
    sequence = pair.right.update_subscriptions([BETA.type_id, ALPHA.type_id], ack_wanted=True)
    assert sequence == 2
    pair.settle()
    assert pair.take(pair.left) == [SubscriptionsChanged(frozenset({BETA.type_id}), frozenset(), False)]
    assert pair.take(pair.right) == [SubscriptionsApplied(2)]
    assert pair.left.wants(BETA)
    assert pair.left.wants(ALPHA)
    assert pair.right.update_subscriptions(remove=[ALPHA.type_id, ANSWER.type_id]) == 3
    pair.settle()
    assert pair.take(pair.left) == [SubscriptionsChanged(frozenset(), frozenset({ALPHA.type_id}), False)]
    assert pair.take(pair.right) == []
    assert not pair.left.wants(ALPHA)


def test_adding_what_is_there_and_removing_what_is_not_changes_nothing() -> None:
    pair = up(right=[ALPHA])
    pair.right.update_subscriptions([ALPHA.type_id], [BETA.type_id])
    pair.settle()
    assert pair.take(pair.left) == []


def test_an_id_in_both_add_and_remove_is_subscribed() -> None:
    pair = up(right=[ALPHA])
    pair.right.update_subscriptions([ALPHA.type_id, BETA.type_id], [ALPHA.type_id, BETA.type_id])
    pair.settle()
    assert pair.left.remote_subscriptions == {ALPHA.type_id, BETA.type_id}
    pair.offer(pair.left, BETA)
    pair.settle()
    assert len(arrived(pair, pair.right)) == 1


def test_no_event_of_a_removed_type_follows_the_acknowledgement() -> None:
    pair = up(right=[ALPHA, BETA])
    for event_type in (ALPHA, BETA, ALPHA):
        pair.offer(pair.left, event_type)
    pair.right.update_subscriptions(remove=[ALPHA.type_id], ack_wanted=True)
    pair.pass_on(pair.right)
    frames = read_all(pair.left.data_to_send())
    assert [f.wire_id for f in frames] == [0, 0, pair.left_table.wire_id(BETA)]
    assert isinstance(decode_control(frames[0].segments), Declare)
    assert decode_control(frames[1].segments) == SubscriptionsAck(2)
    assert pair.left.counters.dropped == 0
    assert pair.left.queued_bytes == 0


def test_subscribing_to_all_and_no_longer() -> None:
    pair = up(right=[ALPHA])
    pair.right.update_subscriptions(all=True, ack_wanted=True)
    pair.settle()
    assert pair.take(pair.left) == [SubscriptionsChanged(frozenset(), frozenset(), True)]
    assert pair.left.remote_all
    assert pair.left.wants(BETA)
    pair.offer(pair.left, BETA)
    pair.offer(pair.left, ALPHA)
    pair.right.update_subscriptions([ASK.type_id], all=False)
    pair.pass_on(pair.right)
    assert not pair.left.wants(BETA)
    assert pair.left.queued_bytes == SIZE
    pair.settle()
    assert [e.event_type for e in pair.take(pair.right) if isinstance(e, Arrived)] == [ALPHA]


def test_a_removal_while_all_is_subscribed_purges_nothing() -> None:
    pair = up(right=[ALPHA])
    pair.right.update_subscriptions(all=True)
    pair.settle()
    pair.offer(pair.left, ALPHA)
    pair.right.update_subscriptions(remove=[ALPHA.type_id])
    pair.settle()
    assert len(arrived(pair, pair.right)) == 1


def test_one_acknowledgement_answers_several_subscriptions() -> None:
    peer = RawPeer().up()
    for sequence in (2, 3, 4):
        peer.feed(Subscriptions(sequence, (), (), False, sequence < 4))
    assert peer.sent() == [SubscriptionsAck(3)]


def test_more_ids_than_one_message_holds_are_split() -> None:
    peer = RawPeer().up(ALPHA)
    peer.session.update_subscriptions([BETA.type_id], range(1, 120_001), ack_wanted=True)
    _, first, second = peer.sent()
    assert isinstance(first, Subscriptions)
    assert isinstance(second, Subscriptions)
    assert (first.sequence, len(first.remove), first.add, first.ack_wanted) == (2, 120_000, (), False)
    assert (second.sequence, second.remove, second.add, second.ack_wanted) == (3, (), (BETA.type_id,), True)


def test_changes_after_the_end_are_ignored() -> None:
    peer = RawPeer().up(ALPHA)
    peer.session.close("shutdown", "", peer.now)
    assert peer.session.update_subscriptions([BETA.type_id]) == 1


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (Subscriptions(1, (), (), False, False), "protocolError"),
        (Subscriptions(3, (), (), False, False), "protocolError"),
        (Subscriptions(2, (0xFEED,), (), False, False), "unknownId"),
        (SubscriptionsAck(0), "protocolError"),
        (SubscriptionsAck(2), "protocolError"),
    ],
)
def test_subscriptions_out_of_order_and_acknowledgements_of_nothing_are_refused(
    message: Subscriptions | SubscriptionsAck, code: str
) -> None:
    assert RawPeer().up().closed(message).code == code


def test_acknowledgements_may_repeat_but_not_go_back() -> None:
    peer = RawPeer().up()
    peer.session.update_subscriptions([ALPHA.type_id], ack_wanted=True)
    assert peer.feed(SubscriptionsAck(2)) == [SubscriptionsApplied(2)]
    assert peer.feed(SubscriptionsAck(2)) == []
    assert peer.closed(SubscriptionsAck(1)).code == "protocolError"


def test_removing_a_type_that_was_never_declared_changes_nothing() -> None:
    peer = RawPeer().up(wants=[ALPHA])
    assert peer.feed(Subscriptions(2, (), (0xFEED, 0), False, False)) == []
    assert peer.session.remote_subscriptions == {ALPHA.type_id}


def test_a_struct_without_a_wire_id_cannot_be_subscribed_to() -> None:
    peer = RawPeer().up(hello=raw_hello(rows=((0, ALPHA.row),)))
    assert peer.closed(Subscriptions(2, (ALPHA.type_id,), (), False, False)).code == "unknownId"


# --- unknown ids --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_content_of_an_id_never_declared_is_refused(kind: int) -> None:
    closed = RawPeer().up().closed(content(77, kind, 1 if kind else 0))
    assert closed.code == "unknownId"
    assert "77" in closed.text


# --- credit -------------------------------------------------------------------------------------------


def test_a_sender_without_credit_waits_and_goes_on_when_it_comes_back() -> None:
    pair = ConnectionPair(right=endpoint("right", limits=Limits(event_credit_bytes=2 * SIZE)))
    pair.connect(right=[ALPHA]).clear()
    for n in range(5):
        pair.offer(pair.left, ALPHA, (bytes([n] * 16),))
    pair.settle()
    taken = [e for e in pair.take(pair.right) if isinstance(e, Arrived)]
    assert [e.segments[0][0] for e in taken] == [0, 1]
    assert pair.left.waits_for_credit
    assert pair.right.return_event_credit(SIZE)
    pair.settle()
    assert [e.segments[0][0] for e in pair.take(pair.right) if isinstance(e, Arrived)] == [2]
    assert not pair.right.return_event_credit(SIZE // 2)
    pair.settle()
    assert pair.take(pair.right) == []


def test_an_event_larger_than_the_window_passes_alone() -> None:
    pair = ConnectionPair(right=endpoint("right", limits=Limits(event_credit_bytes=8)))
    pair.connect(right=[ALPHA]).clear()
    for _ in range(2):
        pair.offer(pair.left, ALPHA)
    pair.settle()
    assert len(arrived(pair, pair.right)) == 1
    assert pair.right.return_event_credit(SIZE)
    pair.settle()
    assert len(arrived(pair, pair.right)) == 1


@pytest.mark.parametrize("kind", [FrameKind.EVENT, FrameKind.REQUEST])
def test_a_sender_whose_credit_is_used_up_gets_little_by_little_what_comes_back(kind: FrameKind) -> None:
    """A slow consumer would else look dead: it takes long until half of a window has come back."""
    limits = Limits(event_credit_bytes=10 * SIZE, request_credit_bytes=10 * SIZE)
    pair = ConnectionPair(right=endpoint("right", limits=limits)).connect(right=[ALPHA, ASK]).clear()
    right = pair.right
    give_back = right.return_event_credit if kind is FrameKind.EVENT else right.return_request_credit
    for _ in range(12):
        if kind is FrameKind.EVENT:
            pair.offer(pair.left, ALPHA)
        else:
            pair.left.send_request(ASK, SEGMENTS)
    pair.settle()
    assert len(pair.take(right)) == 10
    assert right.sender_waits
    look_at = right.next_deadline()
    assert look_at == pair.now + CREDIT_REST_S

    # Nothing is owed: nothing is said, and it looks again.
    right.handle_time(look_at)
    assert not right.has_output
    assert not give_back(SIZE)
    assert right.next_deadline() == look_at + CREDIT_REST_S
    right.handle_time(look_at + CREDIT_REST_S)
    pair.settle()
    assert len(pair.take(right)) == 1

    # Once the balance is above zero the sender need not hear of every byte.
    assert give_back(5 * SIZE)
    pair.settle()
    assert len(pair.take(right)) == 1
    give_back(SIZE)
    right.handle_time(look_at + 2 * CREDIT_REST_S)
    assert not right.has_output
    assert not right.sender_waits
    assert right.next_deadline() is None


@pytest.mark.parametrize("kind", [FrameKind.EVENT, FrameKind.REQUEST])
def test_a_frame_without_credit_is_refused(kind: FrameKind) -> None:
    limits = Limits(event_credit_bytes=SIZE + 1, request_credit_bytes=SIZE + 1)
    peer = RawPeer(limits=limits).up(ALPHA, ASK)
    frames = [content(3, kind, n if kind else 0) for n in (1, 2, 3)]
    assert [type(e) for e in peer.feed(*frames[:2])] == [Arrived] * 2
    closed = peer.closed(frames[2])
    assert closed.code == "creditExceeded"
    assert str(SIZE + 1) in closed.text


def test_a_row_without_any_credit_is_no_row() -> None:
    peer = RawPeer(limits=Limits(event_credit_bytes=0)).up(ALPHA)
    peer.session.receive_bytes(content(1) * 2, peer.now)
    assert [type(item) for item in peer.session.take_news()] == [Closed]


@pytest.mark.parametrize("covered", [1, 2, 19, 20])
def test_events_of_a_row_arrive_as_far_as_the_credit_goes(covered: int) -> None:
    # One byte of credit covers a whole event.
    peer = RawPeer(limits=Limits(event_credit_bytes=(covered - 1) * SIZE + 1)).up(ALPHA)
    (*arrived, closed) = peer.feed(content(1) * 20, content(1, segments=(bytes(800),)))
    assert [(type(event), event.size) for event in arrived] == [(Arrived, SIZE)] * covered  # type: ignore[union-attr]
    assert isinstance(closed, Closed)
    assert closed.code == "creditExceeded"
    assert f"an event of {SIZE if covered < 20 else 824} bytes without credit" in closed.text
    counters = peer.session.counters
    assert (counters.received, counters.received_bytes) == (covered, covered * SIZE)


def test_events_of_a_row_that_nobody_wants_are_counted_and_their_credit_goes_back() -> None:
    peer = RawPeer(limits=Limits(event_credit_bytes=10 * SIZE)).up(BETA)
    assert peer.feed(content(1) * 9) == []
    counters = peer.session.counters
    assert (counters.skipped, counters.skipped_bytes, counters.received) == (9, 9 * SIZE, 0)
    assert peer.sent() == [Credit(9 * SIZE, 0)]


@pytest.mark.parametrize("kind", [FrameKind.EVENT, FrameKind.REQUEST])
@pytest.mark.parametrize("before", [0, 1])
def test_a_balance_of_exactly_0_allows_nothing(kind: FrameKind, before: int) -> None:
    window = before * SIZE
    peer = RawPeer(limits=Limits(event_credit_bytes=window, request_credit_bytes=window)).up(ALPHA, ASK)
    for number in range(before):
        peer.feed(content(3, kind, number + 1 if kind else 0))
    assert peer.closed(content(3, kind, 9 if kind else 0)).code == "creditExceeded"


def test_under_newest_only_an_event_takes_the_place_of_the_older_one() -> None:
    pair = up(right=[ALPHA, BETA])
    pair.left.policy = Policy.NEWEST_ONLY
    for number in (b"1", b"2", b"3"):
        for event_type in (ALPHA, BETA):
            assert pair.offer(pair.left, event_type, (8 * number,)) is Offer.QUEUED
    pair.settle()
    assert arrived(pair, pair.right) == [8 * b"3"] * 2


def test_an_event_does_not_go_before_one_that_waits_for_room() -> None:
    pair = up(right=[ALPHA])
    for _ in range(2):
        pair.left.join_line()
    for _ in range(2):
        assert pair.offer(pair.left, ALPHA, SEGMENTS) is Offer.FULL
        pair.left.leave_line()
    assert pair.offer(pair.left, ALPHA, SEGMENTS) is Offer.QUEUED


def test_credit_may_be_used_once_it_was_sent() -> None:
    peer = RawPeer(limits=Limits(event_credit_bytes=SIZE)).up(ALPHA)
    peer.feed(content(1))
    peer.session.return_event_credit(SIZE)
    assert peer.sent() == [Credit(SIZE, 0)]
    assert [type(e) for e in peer.feed(content(1))] == [Arrived]


def test_an_unlimited_window_needs_no_credit_messages() -> None:
    pair = ConnectionPair(right=endpoint("right", limits=Limits(event_credit_bytes=UNLIMITED)))
    pair.connect(right=[ALPHA]).clear()
    for _ in range(100):
        pair.offer(pair.left, ALPHA)
        pair.settle()
        assert not pair.right.return_event_credit(SIZE)
    assert len(arrived(pair, pair.right)) == 100


@pytest.mark.parametrize("credit", [Credit(2**63 - 1, 0), Credit(0, 2**63 - 1), Credit(2**64 - 1, 0)])
def test_credit_that_overflows_is_refused(credit: Credit) -> None:
    assert RawPeer().up().closed(credit).code == "protocolError"


def test_credit_of_nothing_is_harmless() -> None:
    assert RawPeer().up().feed(Credit(0, 0)) == []


def test_after_the_end_returned_credit_asks_for_nothing() -> None:
    peer = RawPeer(limits=Limits(event_credit_bytes=SIZE, request_credit_bytes=SIZE)).up(ALPHA)
    peer.session.close("shutdown", "", peer.now)
    assert not peer.session.return_event_credit(SIZE)
    assert not peer.session.return_request_credit(SIZE)


# --- full queues --------------------------------------------------------------------------------------


def test_a_full_queue_follows_the_policy_and_the_peer_is_told_once_per_second() -> None:
    pair = ConnectionPair(
        left=endpoint("left", limits=Limits(queued_per_peer_bytes=2 * SIZE)),
    )
    pair.connect(right=[ALPHA, BETA]).clear()
    left = pair.left
    assert left.policy is Policy.WAIT
    assert [pair.offer(left, ALPHA) for _ in range(3)] == [Offer.QUEUED, Offer.QUEUED, Offer.FULL]
    assert not left.has_room
    assert left.next_deadline() is None
    left.policy = Policy.DROP_NEWEST
    assert pair.offer(left, BETA) is Offer.DROPPED
    left.count_dropped(ALPHA, SIZE)
    snapshot = left.snapshot()
    assert (snapshot.dropped, snapshot.queued, snapshot.queued_bytes) == (2, 2, 2 * SIZE)
    assert snapshot.dropped_by_type == {ALPHA.type_id: 1, BETA.type_id: 1}
    assert left.next_deadline() == pair.now
    left.handle_time(pair.now)
    pair.settle()
    told = [e for e in pair.take(pair.right) if isinstance(e, PeerDropped)]
    assert told == [PeerDropped({ALPHA.type_id: 1, BETA.type_id: 1})]
    assert pair.right.counters.dropped_by_peer == 2
    # Within a second nothing more is said.
    left.count_dropped(ALPHA, SIZE)
    assert left.next_deadline() == pair.now + 1
    left.handle_time(pair.now + 0.9)
    pair.settle()
    assert pair.take(pair.right) == []
    left.handle_time(pair.now + 1)
    pair.settle()
    assert pair.take(pair.right) == [PeerDropped({ALPHA.type_id: 1})]
    assert left.next_deadline() is None


def test_drops_are_told_beside_keepalive() -> None:
    pair = ConnectionPair(left=endpoint("left", keepalive_s=10)).connect(right=[ALPHA])
    assert pair.left.next_deadline() == pair.now + 10
    pair.left.count_dropped(ALPHA, SIZE)
    assert pair.left.next_deadline() == pair.now


def test_drops_of_very_many_types_are_told_in_several_messages() -> None:
    peer = RawPeer().up()
    for number in range(60_001):
        peer.session._outbox.drop(number + 1, 8)
    peer.session.handle_time(peer.now)
    sent = peer.sent()
    assert [len(m.counts) for m in sent if isinstance(m, Dropped)] == [60_000, 1]


def test_a_peer_that_does_not_read_finds_one_notice_of_all_that_was_dropped() -> None:
    """There was one more in its queue for each second."""
    peer = RawPeer().up()
    for second in range(10):
        peer.session._outbox.drop(ALPHA.type_id, 8)
        peer.session.handle_time(peer.now + second)
    assert peer.session.next_deadline() is None
    assert peer.sent() == [Dropped(((ALPHA.type_id, 10),))]
    peer.session._outbox.drop(ALPHA.type_id, 8)
    assert peer.session.next_deadline() == peer.now + 1


def test_counts_of_one_type_add_up() -> None:
    assert RawPeer().up().feed(Dropped(((5, 1), (5, 2)))) == [PeerDropped({5: 3})]


def test_nothing_is_counted_as_dropped_on_a_connection_that_is_not_up() -> None:
    peer = RawPeer()
    peer.session.count_dropped(ALPHA, SIZE)
    assert peer.session.counters.dropped == 0
    assert peer.session.state is State.HANDSHAKE


def test_wants_is_true_for_exactly_the_class_that_was_judged() -> None:
    pair = up(right=[ALPHA])
    assert pair.left.wants(ALPHA)
    assert pair.left.wants(ALPHA)
    broken: EventType = fake_type(1, "Alpha", layout=(9,))
    assert not pair.left.wants(broken)
    assert pair.left.wants(ALPHA)

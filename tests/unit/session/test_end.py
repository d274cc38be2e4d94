from __future__ import annotations

import pytest

from lahja_capn.errors import RemoteProtocolError
from lahja_capn.session import Arrived, Closed, State
from lahja_capn.session.control import Goodbye, Hello, Ping, Pong, Subscriptions
from lahja_capn.wire import Limits
from tests.unit.session.pair import (
    ALPHA,
    SEGMENTS,
    SIZE,
    ConnectionPair,
    RawPeer,
    content,
    control,
    endpoint,
    raw_control,
    raw_hello,
    up,
)

# --- saying goodbye -----------------------------------------------------------------------------------


def test_goodbye_ends_both_sides_each_with_one_event() -> None:
    pair = up(right=[ALPHA])
    pair.left.close("shutdown", "done for today", pair.now)
    assert pair.left.state is State.CLOSING
    assert not pair.left.send_finished
    pair.settle()
    assert pair.take(pair.left) == [Closed("shutdown", "done for today", False)]
    assert pair.take(pair.right) == [Closed("shutdown", "done for today", True)]
    assert pair.left.is_closed
    assert pair.right.is_closed
    # The receiver of a goodbye says none itself.
    assert pair.right.send_finished
    assert pair.right.data_to_send() == []


def test_events_before_a_goodbye_are_delivered_and_nothing_after_it_is_looked_at() -> None:
    peer = RawPeer().up(ALPHA)
    events = peer.feed(content(1), Goodbye("shutdown", ""), content(1), b"\xff" * 100)
    assert [type(e) for e in events] == [Arrived, Closed]
    assert peer.session.is_closed
    assert peer.feed(b"more") == []


def test_goodbye_is_the_last_frame_and_queued_events_are_counted_as_dropped() -> None:
    pair = up(right=[ALPHA])
    for _ in range(3):
        pair.offer(pair.left, ALPHA)
    pair.left.close("tooSlow", "", pair.now)
    (goodbye,) = pair.left.data_to_send()
    assert bytes(goodbye) == control(Goodbye("tooSlow", ""))
    assert pair.left.send_finished
    assert pair.left.data_to_send() == []
    assert (pair.left.counters.dropped, pair.left.counters.dropped_bytes) == (3, 3 * SIZE)
    assert pair.left.queued_bytes == 0


def test_a_peers_goodbye_counts_what_was_queued_for_it() -> None:
    pair = up(right=[ALPHA])
    pair.offer(pair.left, ALPHA)
    pair.right.close("shutdown", "", pair.now)
    pair.pass_on(pair.right)
    assert pair.left.counters.dropped == 1
    assert pair.left.data_to_send() == []


def test_a_second_close_changes_nothing() -> None:
    peer = RawPeer().up()
    peer.session.close("shutdown", "first", peer.now)
    peer.session.close("tooSlow", "second", peer.now)
    assert peer.session.take_events() == [Closed("shutdown", "first", False)]


def test_after_goodbye_bytes_are_read_and_discarded_until_the_end_of_the_stream() -> None:
    peer = RawPeer().up(ALPHA)
    peer.session.close("shutdown", "", peer.now)
    peer.session.take_events()
    assert peer.feed(content(1) * 1000, b"\xff" * 300_000, Goodbye("shutdown", "")) == []
    assert peer.session.counters.received == 0
    assert not peer.session.is_closed
    peer.session.receive_eof(peer.now)
    assert peer.session.is_closed
    assert peer.session.take_events() == []


def test_a_peer_that_does_not_end_its_stream_is_left_after_the_close_timeout() -> None:
    peer = RawPeer(limits=Limits(close_timeout_s=3)).up()
    assert peer.session.next_deadline() is None
    peer.session.close("shutdown", "", peer.now)
    assert peer.session.next_deadline() == peer.now + 3
    peer.session.handle_time(peer.now + 2.9)
    assert not peer.session.is_closed
    peer.session.handle_time(peer.now + 3)
    assert peer.session.is_closed
    assert peer.session.next_deadline() is None
    peer.session.handle_time(peer.now + 9)
    assert [type(e) for e in peer.session.take_events()] == [Closed]


def test_goodbyes_that_cross_end_both_sides() -> None:
    pair = up()
    pair.left.close("duplicate", "l", pair.now)
    pair.right.close("replaced", "r", pair.now)
    pair.settle()
    assert pair.take(pair.left) == [Closed("duplicate", "l", False)]
    assert pair.take(pair.right) == [Closed("replaced", "r", False)]
    assert pair.left.is_closed
    assert pair.right.is_closed


def test_an_acceptor_may_answer_hello_with_goodbye_and_then_sends_no_hello() -> None:
    peer = RawPeer()
    peer.feed(raw_hello())
    peer.session.close("nameInUse", "taken", peer.now)
    assert peer.sent() == [Goodbye("nameInUse", "taken")]


def test_a_connector_that_changes_its_mind_says_goodbye_alone() -> None:
    pair = ConnectionPair()
    pair.left.close("shutdown", "", pair.now)
    pair.settle()
    assert pair.log[pair.left] == control(Goodbye("shutdown", ""))
    assert pair.take(pair.right) == [Closed("shutdown", "", True)]


def test_a_peers_goodbye_says_nothing_that_a_terminal_obeys() -> None:
    closed = RawPeer().up().closed(Goodbye("shutdown", "a\x1b[2Jb\r\nERROR forged"))
    assert closed.text == "a\\x1b[2Jb\\r\\nERROR forged"


def test_a_long_goodbye_text_is_cut() -> None:
    pair = up()
    pair.left.close("internalError", "x" * 5000, pair.now)
    pair.settle()
    (closed,) = pair.take(pair.right)
    assert isinstance(closed, Closed)
    assert closed.text == "x" * 1021 + "..."


def test_a_goodbye_code_of_a_newer_peer_is_an_end_like_any_other() -> None:
    data = bytearray(control(Goodbye("shutdown", "")))
    assert data[48:50] == b"\0\0"
    data[48] = 200
    (closed,) = RawPeer().up().feed(bytes(data))
    assert isinstance(closed, Closed)
    assert (closed.code, closed.by_peer) == ("unknown(200)", True)


@pytest.mark.parametrize("introduced", [False, True])
def test_an_unreadable_goodbye_is_not_answered(introduced: bool) -> None:
    peer = RawPeer()
    if introduced:
        peer.feed(raw_hello())
    data = control(Goodbye("wrongName", "text")).replace(b"text", b"\xfftxt")
    assert peer.feed(data) == [Closed("wrongName", "its reason cannot be read", True)]
    assert peer.sent() == []
    assert peer.session.is_closed


# --- lost ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rest", "said"), [(b"", "without goodbye"), (content(1)[:-1], "inside a frame")])
def test_the_end_of_the_stream_without_goodbye_is_a_loss(rest: bytes, said: str) -> None:
    peer = RawPeer().up(ALPHA)
    assert peer.feed(rest) == []
    peer.session.receive_eof(peer.now)
    (closed,) = peer.session.take_events()
    assert isinstance(closed, Closed)
    assert (closed.code, closed.by_peer, closed.error) == ("", True, None)
    assert said in closed.text
    assert peer.session.is_closed
    assert peer.session.send_finished
    peer.session.connection_lost(peer.now, "again")
    assert peer.session.take_events() == []


def test_a_reset_is_a_loss_and_drops_a_goodbye_that_was_not_sent() -> None:
    peer = RawPeer().up()
    peer.session.connection_lost(peer.now, "Connection reset by peer")
    assert peer.session.take_events() == [Closed("", "Connection reset by peer", True)]
    peer = RawPeer().up()
    peer.session.close("shutdown", "", peer.now)
    peer.session.take_events()
    peer.session.connection_lost(peer.now, "Broken pipe")
    assert peer.session.is_closed
    assert peer.session.data_to_send() == []
    assert peer.session.take_events() == []


def test_the_end_of_the_stream_in_the_handshake_is_a_loss() -> None:
    pair = ConnectionPair()
    pair.left.receive_eof(pair.now)
    (closed,) = pair.take(pair.left)
    assert isinstance(closed, Closed)
    assert closed.by_peer
    assert pair.left.data_to_send() == []


# --- bad bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff" * 40, "protocolError"),
        ((1 << 27).to_bytes(4, "little")[:3] + b"\x08", "protocolError"),
        ((2**31 - 4).to_bytes(4, "little"), "frameTooLarge"),
        (raw_control(77), "unknownControl"),
        (raw_control(8, b"\xff" * 8), "protocolError"),
    ],
)
def test_bad_bytes_never_raise_but_end_the_connection_with_their_code(data: bytes, code: str) -> None:
    peer = RawPeer().up(ALPHA)
    events = peer.feed(content(1), data)
    assert [type(e) for e in events] == [Arrived, Closed]
    closed = events[1]
    assert isinstance(closed, Closed)
    assert (closed.code, closed.by_peer) == (code, False)
    assert isinstance(closed.error, RemoteProtocolError)
    assert closed.error.peer == "raw"
    assert peer.sent() == [Goodbye(code, closed.text)]
    assert peer.feed(content(1)) == []


# --- keepalive ----------------------------------------------------------------------------------------


def test_a_silent_peer_is_pinged_and_then_given_up() -> None:
    peer = RawPeer(keepalive_s=5).up()
    begin = peer.now
    assert peer.session.next_deadline() == begin + 5
    peer.session.handle_time(begin + 4.9)
    assert peer.sent() == []
    for turn in (1, 2):
        peer.session.handle_time(begin + 5 * turn)
        assert peer.sent() == [Ping()]
        assert peer.session.next_deadline() == begin + 5 * turn + 5
    peer.session.handle_time(begin + 15)
    (closed,) = peer.session.take_events()
    assert isinstance(closed, Closed)
    assert closed.code == "keepaliveTimeout"
    assert "15 s" in closed.text
    assert peer.sent() == [Goodbye("keepaliveTimeout", closed.text)]


def test_any_byte_is_life_even_half_a_frame() -> None:
    peer = RawPeer(keepalive_s=5).up()
    peer.now += 12
    peer.session.handle_time(peer.now)
    peer.feed(content(1)[:1])
    assert peer.session.last_received == peer.now
    assert peer.session.next_deadline() == peer.now + 5


def test_two_sessions_keep_each_other_alive() -> None:
    pair = ConnectionPair(endpoint("left", keepalive_s=5), endpoint("right")).connect().clear()
    for _ in range(20):
        pair.now += 5
        pair.left.handle_time(pair.now)
        pair.right.handle_time(pair.now)
        pair.settle()
    assert pair.left.state is State.UP
    assert pair.right.state is State.UP
    assert pair.take(pair.left) == pair.take(pair.right) == []


def test_a_flood_of_pings_is_answered_by_one_pong() -> None:
    peer = RawPeer().up()
    peer.feed(control(Ping()) * 10_000)
    assert peer.session.queued_frames <= 1
    assert peer.sent() == [Pong()]
    peer.feed(Ping())
    assert peer.sent() == [Pong()]


def test_pong_unasked_means_nothing() -> None:
    assert RawPeer().up().feed(Pong()) == []


def test_a_ping_on_request_goes_out_once_in_the_handshake_too_but_not_after_the_end() -> None:
    peer = RawPeer().up()
    peer.session.ping(peer.now)
    peer.session.ping(peer.now)
    assert peer.sent() == [Ping()]
    peer = RawPeer()
    peer.feed(raw_hello())
    peer.session.ping(peer.now)
    assert peer.sent() == []
    peer.session.accept()
    assert [type(m) for m in peer.sent()] == [Hello, Subscriptions, Ping]
    peer.session.close("shutdown", "", peer.now)
    peer.session.ping(peer.now)
    assert peer.sent() == [Goodbye("shutdown", "")]


def test_receive_bytes_takes_more_than_one_buffer_holds() -> None:
    peer = RawPeer().up(ALPHA)
    events = peer.feed(content(1) * 20_000)
    assert len(events) == 20_000
    assert all(isinstance(e, Arrived) and e.segments == SEGMENTS for e in events)

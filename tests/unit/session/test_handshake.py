from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lahja_capn.binding import TypeRow
from lahja_capn.errors import (
    ConfigError,
    DuplicateConnection,
    HandshakeError,
    HandshakeTimeout,
    InvalidEndpointName,
    LahjaError,
    LocalProtocolError,
    NotAPeer,
    UnsupportedVersion,
    WrongName,
)
from lahja_capn.session import (
    Closed,
    LocalEndpoint,
    PeerHello,
    PeerUp,
    State,
    SubscriptionsApplied,
    TypeDisabled,
)
from lahja_capn.session.control import (
    Credit,
    Declare,
    Goodbye,
    Hello,
    Ping,
    Pong,
    Subscriptions,
    SubscriptionsAck,
)
from lahja_capn.session.handshake import cut, encode_control_frame, goodbye_code, make_declares, take_rows
from lahja_capn.wire import Limits
from lahja_capn.wire.limits import CONTROL_FRAME_BYTES, UNLIMITED
from tests.unit.session.pair import (
    ALPHA,
    ASK,
    BETA,
    TYPES,
    ConnectionPair,
    RawPeer,
    content,
    control,
    endpoint,
    fake_type,
    first_subscriptions,
    messages,
    raw_hello,
    rows_of,
    struct_row,
)

# --- two sessions -------------------------------------------------------------------------------------


def test_two_sessions_come_up_and_know_each_other() -> None:
    pair = ConnectionPair(
        endpoint("left", keepalive_s=7.5, version="1.2", features=("shm",), limits=Limits(frame_bytes=2048))
    )
    pair.connect(left=[ALPHA], right=[BETA, ASK])
    left, right = pair.left, pair.right
    assert (left.state, right.state) == (State.UP, State.UP)
    assert right.peer is not None
    assert (right.peer.name, right.peer.instance) == ("left", b"left............")
    assert (right.peer.implementation, right.peer.version) == ("lahja_capn", "1.2")
    assert (right.peer.frame_limit, right.peer_frame_limit, right.peer.keepalive_s) == (2048, 2048, 7.5)
    assert right.peer.features == {"shm"}
    assert left.remote_subscriptions == {BETA.type_id, ASK.type_id}
    assert right.remote_subscriptions == {ALPHA.type_id}
    for session in (left, right):
        seen = pair.take(session)
        assert [type(event) for event in seen] == [PeerHello, PeerUp, SubscriptionsApplied]


@pytest.mark.parametrize("piece", [1, 7, 33])
def test_the_handshake_survives_any_pieces(piece: int) -> None:
    pair = ConnectionPair(piece=piece).connect(left=[ALPHA], right=[BETA])
    assert pair.left.wants(BETA)
    assert pair.right.wants(ALPHA)


def test_every_split_of_the_connectors_bytes_gives_the_same_events() -> None:
    data = (
        control(raw_hello())
        + control(Declare(rows_of(fake_type(9, "Late"), start=9)))
        + control(first_subscriptions(ALPHA.type_id))
    )
    expected = RawPeer().feed(data)
    assert [type(event) for event in expected] == [PeerHello]
    for at in range(len(data) + 1):
        peer = RawPeer()
        assert peer.feed(data[:at]) + peer.feed(data[at:]) == expected
        peer.session.accept()
        assert peer.session.state is State.UP


def test_the_connector_says_hello_at_once_and_the_acceptor_nothing_before_it_has_decided() -> None:
    pair = ConnectionPair()
    assert [type(m) for m in messages(pair.left)] == [Hello]
    assert pair.right.data_to_send() == []
    peer = RawPeer()
    peer.feed(raw_hello(), Ping())
    assert peer.sent() == []
    peer.session.accept()
    assert [type(m) for m in peer.sent()] == [Hello, Subscriptions, Pong]


def test_the_connector_waits_for_its_endpoints_decision_too() -> None:
    peer = RawPeer(connector=True)
    (hello,) = peer.sent()
    assert isinstance(hello, Hello)
    assert hello.name == "us"
    assert [type(e) for e in peer.feed(raw_hello(), first_subscriptions())] == [PeerHello]
    assert peer.session.state is State.HANDSHAKE
    peer.session.accept([ALPHA.type_id])
    assert [type(e) for e in peer.session.take_events()] == [PeerUp]
    assert [type(m) for m in peer.sent()] == [Declare, Subscriptions]


def test_a_connector_may_send_everything_behind_its_hello() -> None:
    peer = RawPeer()
    peer.feed(raw_hello(), first_subscriptions(ALPHA.type_id))
    peer.session.accept()
    assert [type(e) for e in peer.session.take_events()] == [PeerUp]
    assert peer.session.wants(ALPHA)


def test_an_acknowledgement_that_is_owed_early_follows_our_first_subscriptions() -> None:
    peer = RawPeer()
    peer.feed(raw_hello(), Ping(), Pong(), Subscriptions(1, (), (), False, True))
    assert peer.sent() == []
    peer.session.accept()
    assert [type(m) for m in peer.sent()] == [Hello, Subscriptions, Pong, SubscriptionsAck]


def test_hello_says_what_we_grant() -> None:
    limits = Limits(frame_bytes=4096, event_credit_bytes=UNLIMITED, request_credit_bytes=0)
    (hello,) = messages(ConnectionPair(endpoint("left", limits=limits, keepalive_s=0.25)).left)
    assert isinstance(hello, Hello)
    assert (hello.protocol_version, hello.frame_limit, hello.keepalive_ms) == (1, 4096, 250)
    assert (hello.event_credit, hello.request_credit) == (UNLIMITED, 0)


def test_accept_after_the_peer_has_gone_does_nothing() -> None:
    peer = RawPeer()
    peer.feed(raw_hello(), Goodbye("shutdown", ""))
    peer.session.accept([ALPHA.type_id])
    assert peer.sent() == []


def test_accept_out_of_turn_is_our_own_mistake() -> None:
    peer = RawPeer()
    with pytest.raises(LocalProtocolError, match="after PeerHello"):
        peer.session.accept()
    peer.feed(raw_hello())
    with pytest.raises(LocalProtocolError, match="before accept"):
        peer.session.update_subscriptions([ALPHA.type_id])
    with pytest.raises(LocalProtocolError, match="no class is bound"):
        peer.session.accept([12345])
    peer.session.accept()
    with pytest.raises(LocalProtocolError, match="once"):
        peer.session.accept()
    peer.feed(first_subscriptions())
    with pytest.raises(LocalProtocolError, match="already"):
        peer.session.accept()


# --- id tables in the handshake -----------------------------------------------------------------------


def test_types_used_before_hello_stand_in_it_and_later_ones_are_declared_before_their_use() -> None:
    peer = RawPeer()
    peer.table.wire_id(BETA)
    peer.feed(raw_hello(), first_subscriptions(BETA.type_id, ALPHA.type_id))
    peer.session.accept()
    hello, subscriptions = peer.sent()
    assert isinstance(hello, Hello)
    assert hello.rows == ((1, BETA.row),)
    assert isinstance(subscriptions, Subscriptions)
    assert subscriptions == Subscriptions(1, (), (), False, True)
    peer.session.update_subscriptions([ASK.type_id])
    declare, subscriptions = peer.sent()
    assert declare == Declare(((2, ASK.row),))
    assert isinstance(subscriptions, Subscriptions)
    assert subscriptions.add == (ASK.type_id,)


def test_a_table_larger_than_one_message_is_split_into_frames_of_at_most_1_mib() -> None:
    many = [
        fake_type(n, f"Type{n}", layout=tuple(range(n % 50)), reachable=(struct_row(n % 1000),))
        for n in range(1, 15_000)
    ]
    pair = ConnectionPair(left_types={t.type_id: t for t in many}, right_types={})
    # A hello that is made when the connection is: none of them are in it.
    for event_type in many:
        pair.left_table.wire_id(event_type)
    pair.connect()
    assert pair.right.state is State.UP
    assert len(pair.right._peer_table.routes) == len(many)
    again = ConnectionPair(left_types={t.type_id: t for t in many}, right_types={})
    # This one has them from the start: as many as fit are in hello.
    rows, end = take_rows(pair.left_table.rows, 0)
    assert 0 < end < len(pair.left_table.rows)
    sizes = [sum(map(len, encode_control_frame(m))) for m in make_declares(pair.left_table.rows, 0)]
    assert len(sizes) > 2
    assert max(sizes) <= CONTROL_FRAME_BYTES
    assert sizes[0] > CONTROL_FRAME_BYTES // 2
    assert rows == tuple(pair.left_table.rows[:end])
    assert again.left.state is State.HANDSHAKE


def test_one_enormous_row_has_a_message_of_its_own() -> None:
    row = TypeRow(1, "struct", "huge", tuple(range(65_535)))
    small = TypeRow(2, "struct", "small", ())
    rows = [(1, row), (2, row), (3, row), (4, row), (5, small)]
    assert [len(m.rows) for m in make_declares(rows, 0)] == [3, 2]


def test_incompatible_types_are_reported_when_the_connection_is_up() -> None:
    other = fake_type(1, "Alpha", layout=(1, 9))
    pair = ConnectionPair(right_types={other.type_id: other, BETA.type_id: BETA})
    pair.connect(left=[ALPHA, BETA], right=[other, BETA])
    for session in (pair.left, pair.right):
        seen = pair.take(session)
        (disabled,) = [event for event in seen if isinstance(event, TypeDisabled)]
        assert [type(event) for event in seen[:3]] == [PeerHello, PeerUp, TypeDisabled]
        assert disabled.incompatibility.ordinal == 1
        assert not session.wants(ALPHA if session is pair.left else other)
        assert session.wants(BETA)
        assert session.incompatible(ALPHA.type_id) == disabled.incompatibility
        assert session.incompatible(BETA.type_id) is None
        assert session.incompatible(99) is None
        assert session.take_events() == []


# --- refusals -----------------------------------------------------------------------------------------


def refused(changes: dict[str, Any], connector: bool = False) -> tuple[Closed, Exception]:
    """Answer a hello that must be refused; the goodbye that is sent says the same as the event."""
    peer = RawPeer(connector=connector)
    if connector:
        peer.sent()
    closed = peer.closed(raw_hello(**changes))
    assert not closed.by_peer
    (goodbye,) = peer.sent()
    assert goodbye == Goodbye(closed.code, cut(closed.text, 1024))
    assert closed.error is not None
    return closed, closed.error


@pytest.mark.parametrize("version", [0, 2, 65535])
def test_another_protocol_version_is_refused_with_both_numbers(version: int) -> None:
    closed, error = refused({"protocol_version": version})
    assert closed.code == "unsupportedVersion"
    assert isinstance(error, UnsupportedVersion)
    assert (error.theirs, error.ours) == (version, 1)
    assert f"version {version}" in closed.text
    assert "speaks 1" in closed.text


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a/b", "a b", "ü", "x" * 101, "name\n"])
def test_an_invalid_name_is_refused(name: str) -> None:
    closed, error = refused({"name": name})
    assert closed.code == "invalidName"
    assert isinstance(error, HandshakeError)


@pytest.mark.parametrize("name", ["a", "0", "A.b_c-D", "x" * 100])
def test_a_valid_name_is_taken(name: str) -> None:
    assert [type(e) for e in RawPeer().feed(raw_hello(name=name))] == [PeerHello]


@pytest.mark.parametrize("instance", [b"", b"x" * 15, b"x" * 17])
def test_an_instance_id_of_another_length_is_refused(instance: bytes) -> None:
    assert refused({"instance": instance})[0].code == "protocolError"


@pytest.mark.parametrize("limit", [0, 1023, 2**31 - 7, 2**32 - 1])
def test_a_frame_limit_outside_its_range_is_refused(limit: int) -> None:
    closed, error = refused({"frame_limit": limit})
    assert closed.code == "protocolError"
    assert isinstance(error, HandshakeError)
    assert str(limit) in str(error)


@pytest.mark.parametrize("limit", [1024, 2**31 - 8])
def test_a_frame_limit_at_the_end_of_its_range_is_taken(limit: int) -> None:
    peer = RawPeer()
    peer.feed(raw_hello(frame_limit=limit))
    assert peer.session.peer_frame_limit == limit


@pytest.mark.parametrize("field", ["implementation", "version"])
def test_texts_about_the_implementation_have_a_limit(field: str) -> None:
    assert refused({field: "x" * 1025})[0].code == "protocolError"
    assert [type(e) for e in RawPeer().feed(raw_hello(**{field: "x" * 1024}))] == [PeerHello]


def test_our_own_instance_id_is_a_connection_to_ourselves() -> None:
    closed, error = refused({"instance": endpoint("us").instance})
    assert closed.code == "duplicate"
    assert isinstance(error, DuplicateConnection)


def test_the_connector_refuses_an_endpoint_of_another_name() -> None:
    closed, error = refused({"name": "other"}, connector=True)
    assert closed.code == "wrongName"
    assert isinstance(error, WrongName)
    assert (error.wanted, error.got) == ("raw", "other")


def test_a_table_that_contradicts_itself_is_refused_in_hello_and_in_declare() -> None:
    rows = ((1, ALPHA.row), (1, BETA.row))
    assert refused({"rows": rows})[0].code == "invalidTable"
    peer = RawPeer()
    peer.feed(raw_hello(rows=rows[:1]))
    assert peer.closed(Declare(rows[1:])).code == "invalidTable"


@pytest.mark.parametrize("field", ["event_credit", "request_credit"])
def test_a_credit_window_that_is_too_large_is_refused(field: str) -> None:
    assert refused({field: 2**63})[0].code == "protocolError"
    assert [type(e) for e in RawPeer().feed(raw_hello(**{field: UNLIMITED}))] == [PeerHello]


@pytest.mark.parametrize(
    "first", [Declare(()), first_subscriptions(), Ping(), Pong(), Credit(1, 1), SubscriptionsAck(1)]
)
def test_anything_but_hello_first_is_refused(first: Any) -> None:
    closed = RawPeer().closed(first)
    assert closed.code == "protocolError"
    assert isinstance(closed.error, HandshakeError)


@pytest.mark.parametrize("second", [raw_hello(), Credit(1, 1), SubscriptionsAck(1)])
def test_a_second_hello_and_what_needs_a_connection_are_refused_before_the_first_subscriptions(
    second: Any,
) -> None:
    assert RawPeer().closed(raw_hello(), second).code == "protocolError"


def test_a_hello_on_a_connection_that_is_up_is_refused() -> None:
    closed = RawPeer().up().closed(raw_hello())
    assert closed.code == "protocolError"
    assert not isinstance(closed.error, HandshakeError)
    assert getattr(closed.error, "peer", "") == "raw"


@pytest.mark.parametrize("sequence", [0, 2])
def test_first_subscriptions_with_another_sequence_than_1_are_refused(sequence: int) -> None:
    message = Subscriptions(sequence, (), (), False, False)
    assert RawPeer().closed(raw_hello(), message).code == "protocolError"


def test_content_before_the_connection_is_up_is_refused() -> None:
    peer = RawPeer()
    assert peer.closed(raw_hello(), content(1)).code == "protocolError"
    peer = RawPeer()
    peer.feed(raw_hello(), first_subscriptions())
    # It cannot have our subscriptions yet.
    assert peer.closed(content(1)).code == "protocolError"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"protocol_version": 2, "name": "", "features": ("f",) * 257}, "unsupportedVersion"),
        ({"features": ("f",) * 257, "name": ""}, "protocolError"),
        ({"name": "", "instance": b""}, "invalidName"),
        ({"instance": endpoint("us").instance, "frame_limit": 1}, "protocolError"),
        ({"instance": endpoint("us").instance, "name": "other"}, "duplicate"),
        ({"name": "other", "rows": ((1, ALPHA.row), (1, BETA.row))}, "wrongName"),
        ({"rows": ((1, ALPHA.row), (1, BETA.row)), "event_credit": 2**63}, "invalidTable"),
    ],
)
def test_of_several_faults_of_a_hello_the_first_in_the_documented_order_is_named(
    changes: dict[str, Any], code: str
) -> None:
    assert refused(changes, connector=True)[0].code == code


@pytest.mark.parametrize("introduced", [False, True])
def test_a_frame_that_is_too_large_is_called_so_unless_it_is_the_first(introduced: bool) -> None:
    peer = RawPeer()
    if introduced:
        peer.feed(raw_hello())
    closed = peer.closed((CONTROL_FRAME_BYTES + 4).to_bytes(4, "little") + bytes(12))
    assert closed.code == ("frameTooLarge" if introduced else "protocolError")


def test_a_stranger_is_told_goodbye_and_reported_as_no_peer() -> None:
    peer = RawPeer()
    closed = peer.closed(b"GET / HTTP/1.1\r\n")
    assert isinstance(closed.error, NotAPeer)
    assert "HTTP" in closed.text
    assert [type(m) for m in peer.sent()] == [Goodbye]


# --- time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fed", "accepts", "waits_for"),
    [
        ([], False, "has not said hello"),
        ([raw_hello()], False, "has not accepted"),
        ([raw_hello()], True, "has not said what it subscribes to"),
        ([raw_hello(), first_subscriptions()], False, "has not accepted"),
    ],
)
def test_a_handshake_that_does_not_end_in_time_is_ended(
    fed: list[Any], accepts: bool, waits_for: str
) -> None:
    peer = RawPeer(limits=Limits(handshake_timeout_s=4))
    peer.feed(*fed)
    if accepts:
        peer.session.accept()
    assert peer.session.next_deadline() == peer.now + 4
    peer.session.handle_time(peer.now + 3.9)
    assert not [e for e in peer.session.take_events() if isinstance(e, Closed)]
    peer.session.handle_time(peer.now + 4)
    (closed,) = peer.session.take_events()
    assert isinstance(closed, Closed)
    assert closed.code == "handshakeTimeout"
    assert isinstance(closed.error, HandshakeTimeout)
    assert closed.error.timeout_s == 4
    assert waits_for in closed.text
    assert Goodbye(closed.code, closed.text) in peer.sent()


def test_once_up_the_handshake_deadline_is_gone() -> None:
    peer = RawPeer().up()
    assert peer.session.next_deadline() is None
    peer.session.handle_time(peer.now + 1000)
    assert peer.session.state is State.UP


# --- small parts --------------------------------------------------------------------------------------


def test_an_endpoint_that_no_peer_would_accept_is_refused_at_home() -> None:
    good = endpoint("fine")
    with pytest.raises(InvalidEndpointName):
        endpoint("not/fine")
    with pytest.raises(ConfigError, match="16 bytes"):
        LocalEndpoint(name="x", instance=b"short")
    with pytest.raises(ConfigError, match="256 features"):
        dataclasses.replace(good, features=("f",) * 257)
    with pytest.raises(ConfigError, match="keepalive"):
        dataclasses.replace(good, keepalive_s=-1)


@pytest.mark.parametrize(
    ("text", "limit", "result"),
    [
        ("short", 10, "short"),
        ("x" * 10, 10, "x" * 10),
        ("x" * 11, 10, "xxxxxxx..."),
        ("üüüüüü", 10, "üüü..."),
        ("\ud800", 10, "?"),
    ],
)
def test_text_is_cut_at_a_whole_character(text: str, limit: int, result: str) -> None:
    assert cut(text, limit) == result


def test_an_error_without_a_code_of_its_own_is_a_protocol_error() -> None:
    assert goodbye_code(LahjaError("?")) == "protocolError"


def test_all_fake_types_have_distinct_ids() -> None:
    assert len({t.type_id for t in TYPES}) == len(TYPES)

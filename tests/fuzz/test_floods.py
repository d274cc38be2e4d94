"""What a peer can make a session remember: measured at its worst, before the peer was even accepted."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from lahja_capn.binding import TypeRow
from lahja_capn.session import Session, State, WireTable
from lahja_capn.session.control import Credit, Declare, Dropped, Ping, Pong, Subscriptions
from lahja_capn.session.handshake import encode_control_frame, make_declares
from lahja_capn.wire import Limits, encode_frame
from lahja_capn.wire.limits import LEFT_CONNECTION_BYTES, TABLE_BYTES
from lahja_capn.wire.memory import forget_memory
from tests.unit.session.pair import ALPHA, ASK, BETA, endpoint, raw_hello, registry

MIB = 1 << 20
# The first arena; see lahja_capn/wire/decoder.py.
ARENA_BYTES = 16 * 1024


def frame(message: object) -> bytes:
    return b"".join(encode_control_frame(message))  # type: ignore[arg-type]


def session(**limits: int) -> Session:
    """A session that has accepted nobody yet."""
    return Session(
        endpoint("right", limits=Limits(**limits)),
        WireTable(),
        connector=False,
        now=0.0,
        find_event_type=registry().get,
    )


def up(**limits: int) -> Session:
    """A session that is up, with a peer that declared some types and subscribes to none."""
    found = session(**limits)
    rows = ((1, ALPHA.row), (2, BETA.row), (3, ASK.row), (4, TypeRow(99, "struct", "x.capnp:Unknown", ())))
    found.receive_bytes(frame(raw_hello(rows=rows)), 0.0)
    found.accept([ALPHA.type_id])
    found.receive_bytes(frame(Subscriptions(1, (), (), False, False)), 0.0)
    found.take_events()
    found.data_to_send()
    assert found.state is State.UP
    return found


def grown(act: Callable[[], object]) -> tuple[int, int]:
    """Return (bytes that are held afterwards, bytes at the peak)."""
    gc.collect()
    tracemalloc.start(1)
    try:
        act()
        # The process keeps one buffer for the next large frame, whatever the flood.
        forget_memory()
        gc.collect()
        return tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


def feed(found: Session, data: bytes, times: int = 1) -> None:
    """Let bytes arrive again and again; the endpoint takes events as it does after every read, but nothing is sent."""
    for _ in range(times):
        found.receive_bytes(data, 0.0)
        found.take_events()


# --- declares -----------------------------------------------------------------------------------------------


def rows(kind: str) -> Iterator[TypeRow]:
    """Yield rows that take much and count little, without end."""
    for number in itertools.count(1):
        if kind == "short rows":
            yield TypeRow(number, "struct", "", ())
        elif kind == "long names":
            yield TypeRow(number, "struct", f"{number:01024}", ())
        elif kind == "long layouts":
            yield TypeRow(number, "struct", "", tuple(range(number * 60_000, number * 60_000 + 60_000)))
        else:
            yield TypeRow(number, "struct", "", tuple(range(number * 20, number * 20 + 20)))


@pytest.mark.parametrize(
    ("kind", "count", "each"),
    # A table is full after 131,070 short ones, 15,900 with long names, 69 with long layouts.
    [
        ("short rows", 5_000, 360),
        ("long names", 3_000, 1500),
        ("long layouts", 12, 250_000),
        ("short layouts", 5_000, 500),
    ],
)
def test_a_flood_of_declares_takes_at_most_four_times_what_a_table_may_count(
    kind: str, count: int, each: int
) -> None:
    own = [(number, row) for number, row in enumerate(itertools.islice(rows(kind), count), 1)]
    messages = [frame(declare) for declare in make_declares(own, 0)]
    found = session()
    found.receive_bytes(frame(raw_hello(rows=())), 0.0)

    def act() -> None:
        for message in messages:
            found.receive_bytes(message, 0.0)
            found.take_events()

    held, peak = grown(act)
    assert found.state is State.HANDSHAKE
    assert held <= each * count, f"{held / count:.0f} bytes for each of {count}"
    full = min(131_070, TABLE_BYTES // (found._peer_table._bytes // count)) * held // count
    assert full <= 64 * MIB, f"a full table takes {full / MIB:.1f} MiB"
    print(f"{kind}: {held / count:.0f} bytes each, a full table takes {full / MIB:.1f} MiB")
    # Besides, one control message while it is read.
    assert peak <= held + 12 * MIB, f"{peak / MIB:.1f} MiB at the peak"
    # What was there may be said again as often as one likes.
    assert grown(lambda: feed(found, messages[0], 2))[0] < MIB


def test_a_table_over_16_mib_is_refused_however_it_is_filled() -> None:
    found = session()
    found.receive_bytes(frame(raw_hello(rows=())), 0.0)
    layout = tuple(range(240_000))
    for number in range(1, 16 * MIB // (4 * len(layout)) + 1):
        found.receive_bytes(frame(Declare(((0, TypeRow(number, "struct", "", layout)),))), 0.0)
    assert found.state is State.HANDSHAKE
    found.receive_bytes(frame(Declare(((0, TypeRow(1 << 40, "struct", "", layout)),))), 0.0)
    *_, closed = found.take_events()
    assert closed.code == "invalidTable"  # type: ignore[union-attr]


def test_a_session_that_has_ended_holds_nothing_of_its_peer() -> None:
    """Events that wait for a slow consumer hold on to their connection, however long its peer has gone."""
    own = [(number, row) for number, row in enumerate(itertools.islice(rows("short layouts"), 5_000), 1)]
    messages = [frame(declare) for declare in make_declares(own, 0)]
    kept: list[Session] = []

    def act() -> None:
        found = session()
        kept.append(found)
        found.receive_bytes(frame(raw_hello(rows=())), 0.0)
        for message in messages:
            found.receive_bytes(message, 0.0)
            found.take_events()
        found.receive_bytes(
            frame(Subscriptions(1, tuple(row.type_id for _, row in own), (), False, False)), 0.0
        )
        found.take_events()
        assert len(found.remote_subscriptions) == 5_000
        found.connection_lost(0.0, "gone")
        found.release()

    held, peak = grown(act)
    assert peak > 2 * MIB
    assert held < LEFT_CONNECTION_BYTES, f"{held / 1024:.0f} KiB are held"


# --- other messages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["ping", "pong", "ack", "credit", "dropped", "subscriptions"])
def test_a_flood_of_messages_leaves_nothing_behind_but_one_answer(what: str) -> None:
    found = up()
    if what == "subscriptions":
        data = [
            frame(Subscriptions(n, (ALPHA.type_id, BETA.type_id), (BETA.type_id, 5, 6), bool(n % 2), True))
            for n in range(2, 5002)
        ]
        held, _ = grown(lambda: [feed(found, one) for one in data])
    else:
        message = {
            "ping": Ping(),
            "pong": Pong(),
            "ack": Subscriptions(2, (), (), False, True),
            "credit": Credit(1, 1),
            "dropped": Dropped(tuple((n, 1) for n in range(8))),
        }[what]
        if what == "ack":
            feed(found, frame(message))
            message = Ping()
        # So much at a time makes the arena grow.
        feed(found, frame(message) * 100)
        held, _ = grown(lambda: feed(found, frame(message) * 100, 50))
    assert found.state is State.UP
    assert held < 64 * 1024, f"{held} bytes are left of 5,000 messages"
    assert found.queued_frames == 0
    assert len(b"".join(found.data_to_send())) <= 200
    assert found.data_to_send() == []


def test_a_flood_of_requests_that_are_refused_is_bounded_by_their_window() -> None:
    window = MIB
    found = up(request_credit_bytes=window)
    size = 32
    requests = [b"".join(encode_frame(4, 1, number, (bytes(8),))) for number in range(1, window // size + 1)]
    assert len(requests[0]) == size
    data = b"".join(requests)
    held, peak = grown(lambda: feed(found, data))
    assert found.state is State.UP
    # 32,768 requests of a type that is unknown here, none of whose answers has left.
    assert held < 2 * window, f"{held / MIB:.1f} MiB"
    assert peak < held + 4 * MIB
    print(f"{held / window:.1f} times the window is held")
    feed(found, b"".join(encode_frame(4, 1, 1 << 40, (bytes(8),))))
    assert found.state is State.CLOSING


def test_a_peer_that_reads_few_of_its_refusals_gets_credit_for_few() -> None:
    size, window = 32, 64 * 1024
    found = up(request_credit_bytes=window)
    asked = 0

    def ask_as_much_as_is_allowed() -> None:
        nonlocal asked
        while found._request_window.balance > 0:
            asked += 1
            feed(found, b"".join(encode_frame(4, 1, asked, (bytes(8),))))

    ask_as_much_as_is_allowed()
    assert asked == window // size
    for _ in range(300):
        found.data_to_send(1000)
        ask_as_much_as_is_allowed()
    assert found.state is State.UP
    assert asked > 1.1 * window / size
    # Those whose refusal has not left.
    assert found._incoming._unsent <= window // size


def test_a_flood_of_events_that_nobody_wants_leaves_nothing_behind() -> None:
    found = up()
    data = b"".join(b"".join(encode_frame(2, 0, 0, (bytes(40),))) for _ in range(1000))

    # So much at a time makes the arena grow.
    feed(found, data)
    held, _ = grown(lambda: feed(found, data, 50))
    assert found.counters.skipped == 51_000
    assert held < 64 * 1024
    # Their credit comes back in one message, however late the peer reads it.
    assert len(b"".join(found.data_to_send())) <= 100


# --- handshakes that do not end ---------------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["nothing", "a part of hello", "a header of 1 MiB", "hello"])
def test_half_open_handshakes_cost_an_arena_each_and_what_they_have_announced(said: str) -> None:
    hello = frame(raw_hello())
    opening = {
        "nothing": b"",
        "a part of hello": hello[:-8],
        "a header of 1 MiB": (MIB - 4).to_bytes(4, "little") + bytes(60),
        "hello": hello,
    }[said]
    kept: list[Session] = []

    def act() -> None:
        for _ in range(40):
            kept.append(session())
            kept[-1].receive_bytes(opening, 0.0)

    held, _ = grown(act)
    each = held / 40
    announced = MIB if said == "a header of 1 MiB" else 0
    assert ARENA_BYTES <= each <= ARENA_BYTES + announced + 16 * 1024, f"{each / 1024:.0f} KiB each"
    for one in kept:
        one.handle_time(10.0)
        assert one.state is State.CLOSING
        one.handle_time(13.0)
        assert one.is_closed

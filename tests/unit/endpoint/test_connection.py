"""Between a session and a socket: joining small buffers, going on after a send that took only some, a broken pipe."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lahja_capn.endpoint.connection import LEFT_BYTES, LEFT_READS, MIN_READ_BYTES, TURN_S, Connection
from lahja_capn.endpoint.writing import JOIN_BELOW_BYTES, _advance, _joined
from lahja_capn.session import Arrivals, LocalEndpoint, Session, WireTable
from lahja_capn.session.control import Goodbye, Ping, Subscriptions
from lahja_capn.wire import UNLIMITED, Limits
from lahja_capn.wire.decoder import ARENA_BYTES
from tests.unit.endpoint.fake import FakeRuntime, Task
from tests.unit.session.pair import ALPHA, control, raw_hello, registry
from tests.unit.session.pair import content as content_frame

LARGE = bytes(JOIN_BELOW_BYTES)


def content(buffers: list[Any]) -> bytes:
    return b"".join(bytes(buffer) for buffer in buffers)


@pytest.mark.parametrize(
    ("buffers", "lengths"),
    [
        ([], []),
        ([b"abc"], [3]),
        ([b"ab", b"cd"], [4]),
        ([LARGE, LARGE], [len(LARGE)] * 2),
        ([b"ab", b"cd", LARGE, b"e", b"f"], [4, len(LARGE), 2]),
        ([LARGE[:-1], b"a"], [len(LARGE)]),
    ],
)
def test_small_neighbours_are_joined(buffers: list[Any], lengths: list[int]) -> None:
    before = content(buffers)
    joined = _joined(buffers)
    assert [len(buffer) for buffer in joined] == lengths
    assert content(joined) == before


def test_large_buffers_are_not_copied() -> None:
    large = memoryview(LARGE)
    joined = _joined([b"head", large, b"tail"])
    assert joined[1] is large


@pytest.mark.parametrize(
    ("sent", "left"),
    [(0, [b"abc", b"de"]), (2, [b"c", b"de"]), (3, [b"de"]), (4, [b"e"]), (5, [])],
)
def test_what_was_sent_is_taken_off_the_front(sent: int, left: list[bytes]) -> None:
    buffers: list[Any] = [b"abc", b"de"]
    _advance(buffers, sent)
    assert [bytes(buffer) for buffer in buffers] == left


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=6), st.lists(st.integers(0, 30), max_size=12))
def test_any_row_of_partial_sends_sends_everything_once(pieces: list[bytes], counts: list[int]) -> None:
    buffers: list[Any] = list(pieces)
    sent = b""
    for wanted in counts:
        left = content(buffers)
        count = min(wanted, len(left))
        sent += left[:count]
        _advance(buffers, count)
    assert sent + content(buffers) == b"".join(pieces)


# --- a broken pipe ------------------------------------------------------------------------------------


class HalfClosed:
    """A channel whose other side takes nothing any more and still writes: ``last`` after ``many`` times ``first``."""

    def __init__(self, first: bytes, many: int, last: bytes) -> None:
        self._first = first
        self._many = many
        self._last = last
        self.reads = self.taken = 0

    def fileno(self) -> int:
        return -1

    def receive_into(self, buffer: memoryview) -> int:
        self.reads += 1
        data = self._first if self.reads <= self._many else self._last
        buffer[: len(data)] = data
        self.taken += len(data)
        return len(data)

    def send(self, buffer: Any) -> int:
        raise BrokenPipeError("broken pipe")

    def send_many(self, buffers: Any) -> int:
        raise BrokenPipeError("broken pipe")

    def close_write(self) -> None: ...

    def close(self) -> None: ...


class FullOf(HalfClosed):
    """The same, of a side that has always as much to read as is asked for: ``frame`` without end."""

    def __init__(self, frame: bytes) -> None:
        super().__init__(b"", 0, b"")
        self._frame = frame

    def receive_into(self, buffer: memoryview) -> int:
        start = self.taken % len(self._frame)
        many = self._frame * (len(buffer) // len(self._frame) + 2)
        buffer[:] = many[start : start + len(buffer)]
        self.reads += 1
        self.taken += len(buffer)
        return len(buffer)


def half_closed(channel: HalfClosed) -> Connection:
    """A connection that is up, whose channel is broken from now on."""
    limits = Limits()
    local = LocalEndpoint(name="us", instance=b"1234567812345678", limits=limits)
    session = Session(local, WireTable(limits), connector=False, now=time.monotonic())
    session.receive_bytes(control(raw_hello()) + control(Subscriptions(1, (), (), False, False)), 0.0)
    session.accept()
    session.take_events()
    return Connection(FakeRuntime(), Mock(), Mock(), channel, session, 1, False)  # type: ignore[arg-type]


def test_goodbye_that_lies_behind_a_broken_pipe_is_read() -> None:
    connection = half_closed(HalfClosed(control(Ping()), 2, control(Goodbye("notPermitted", "not you"))))
    connection.flush()
    assert connection.closed is not None
    assert (connection.closed.code, connection.closed.text) == ("notPermitted", "not you")


def test_peer_that_goes_on_writing_after_a_broken_pipe_is_left() -> None:
    """However little it writes at a time, or however much."""
    little, much = HalfClosed(control(Ping()), 1_000_000, b""), FullOf(control(Ping()))
    for channel, reads, size in (
        (little, LEFT_READS, len(control(Ping())) * LEFT_READS),
        (much, LEFT_READS // 2, LEFT_BYTES + ARENA_BYTES),
    ):
        connection = half_closed(channel)
        connection.flush()
        assert connection.closed is not None
        assert connection.closed.text == "broken pipe"
        assert channel.reads <= reads
        assert channel.taken <= size


# --- turns of reading -----------------------------------------------------------------------------------


class Flood:
    """A channel on which there is always something to read: the same frame again and again."""

    def __init__(self, frame: bytes, decrypted: bool = False) -> None:
        self._decrypted = decrypted
        self._frame = frame
        self._data = frame * (2 * 1024 * 1024 // len(frame))
        self._at = 0

    def fileno(self) -> int:
        return -1

    def receive_into(self, buffer: memoryview) -> int:
        count = len(buffer)
        buffer[:] = self._data[self._at : self._at + count]
        self._at = (self._at + count) % len(self._frame)
        return count

    def has_more(self) -> bool:
        return self._decrypted

    def send(self, buffer: Any) -> int:
        return len(buffer)

    def send_many(self, buffers: Any) -> int:
        return sum(map(len, buffers))

    def close_write(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize("decrypted", [True, False])
def test_bytes_that_the_descriptor_does_not_show_are_read_in_the_next_turn(decrypted: bool) -> None:
    limits = Limits(event_credit_bytes=UNLIMITED, keepalive_s=0)
    local = LocalEndpoint(name="us", instance=b"1234567812345678", limits=limits)
    session = Session(local, WireTable(limits), connector=False, now=0.0, find_event_type=registry().get)
    session.receive_bytes(control(raw_hello()) + control(Subscriptions(1, (), (), False, False)), 0.0)
    session.accept([ALPHA.type_id])
    session.take_events()
    traffic = Mock()
    channel: Any = Flood(content_frame(1, segments=(bytes(1000),)), decrypted)
    connection = Connection(FakeRuntime(), Mock(), traffic, channel, session, 1, False)  # type: ignore[arg-type]
    writer = Task(connection._write_loop())
    writer.step()
    connection._on_readable()
    before = traffic.on_events.call_count
    assert before > 0
    writer.step()
    assert (traffic.on_events.call_count > before) is decrypted
    writer.cancel()


@pytest.mark.parametrize("event_s", [1e-6, 1e-5, 1e-4, 1e-3])
def test_peer_that_floods_us_gets_a_turn_and_no_more(event_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("lahja_capn.endpoint.connection.time", Mock(monotonic=lambda: clock.now))
    limits = Limits(event_credit_bytes=UNLIMITED, keepalive_s=0)
    local = LocalEndpoint(name="us", instance=b"1234567812345678", limits=limits)
    session = Session(local, WireTable(limits), connector=False, now=0.0, find_event_type=registry().get)
    session.receive_bytes(control(raw_hello()) + control(Subscriptions(1, (), (), False, False)), 0.0)
    session.accept([ALPHA.type_id])
    session.take_events()
    handled = 0

    def handle(_: object, arrivals: Arrivals) -> None:
        nonlocal handled
        handled += len(arrivals.frames)
        clock.now += event_s * len(arrivals.frames)

    traffic = Mock(on_events=handle)
    frame = content_frame(1, segments=(bytes(1000),))
    channel: Any = Flood(frame)
    connection = Connection(FakeRuntime(), Mock(), traffic, channel, session, 1, False)  # type: ignore[arg-type]
    connection._on_readable()  # how long an event takes it does not know yet
    for _ in range(20):
        before, began = handled, clock.now
        connection._on_readable()
        assert handled > before
        # Its own time, and that of one more read.
        assert clock.now - began <= max(2 * TURN_S + 2 * event_s, 2 * event_s * MIN_READ_BYTES / len(frame))
    assert connection.closed is None

    # Where it has become quick again, it reads as much as ever.
    event_s = 0.0
    for _ in range(20):
        connection._on_readable()
    before = handled
    connection._on_readable()
    assert (handled - before) * len(frame) > 4 * 1024 * 1024 - 1024

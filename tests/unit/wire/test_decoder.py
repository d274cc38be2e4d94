from __future__ import annotations

import ctypes
import itertools
import re
import struct
import time
import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lahja_capn.errors import HandshakeError, NotAPeer, RemoteProtocolError
from lahja_capn.wire import Frame, FrameDecoder, FrameKind, Limits, Row, Segments, encode_frame
from lahja_capn.wire.decoder import (
    _BEGIN_BYTES,
    _OFFERED_BYTES,
    _SAME_FRAMES,
    ARENA_BYTES,
    FIRST_ARENA_BYTES,
)
from lahja_capn.wire.frames import LARGE_BYTES
from lahja_capn.wire.limits import CONTROL_FRAME_BYTES
from lahja_capn.wire.memory import KEPT_BYTES, _last, forget_memory, memory_of_last

KIB = 1024
MIB = 1024 * KIB


def event(segments: Segments = (b"x" * 8,), wire_id: int = 1) -> bytes:
    return b"".join(encode_frame(wire_id, FrameKind.EVENT, 0, segments))


def control(segments: Segments = (b"c" * 8,)) -> bytes:
    return b"".join(encode_frame(0, FrameKind.EVENT, 0, segments))


def opened(**limits: int) -> FrameDecoder:
    """A decoder that has passed the handshake."""
    decoder = FrameDecoder(Limits(**limits))
    decoder.open()
    return decoder


def settled(**limits: int) -> FrameDecoder:
    """A decoder that has read a frame: what follows is a peer's mistake, no stranger's."""
    decoder = opened(**limits)
    assert len(feed(decoder, control())) == 1
    return decoder


def feed(decoder: FrameDecoder, data: bytes, piece: int = 1 << 30) -> list[Frame]:
    found: list[Frame] = []
    view = memoryview(data)
    while view:
        place = decoder.receive_buffer()
        assert len(place) > 0
        count = min(len(place), len(view), piece)
        place[:count] = view[:count]
        place.release()
        decoder.bytes_received(count)
        while frames := decoder.frames():
            found += (Frame(*frame) for frame in frames)
        view = view[count:]
    return found


CONVERSATION = (
    control()
    + event((b"a" * 8,))
    + event((b"b" * 16, b"", b"c" * 24), wire_id=65535)
    + b"".join(encode_frame(2, FrameKind.REQUEST, 2**64 - 1, (b"d" * 8, b"e" * 8)))
    + b"".join(encode_frame(3, FrameKind.RESPONSE, 1, (b"f" * 2048,)))
)
FRAMES = feed(opened(), CONVERSATION)


# --- any split of the same bytes gives the same frames -------------------------------------------------


def test_all_bytes_at_once_give_every_frame_in_order() -> None:
    assert [(f.wire_id, f.kind, f.correlation) for f in FRAMES] == [
        (0, 0, 0),
        (1, 0, 0),
        (65535, 0, 0),
        (2, 1, 2**64 - 1),
        (3, 2, 1),
    ]
    assert FRAMES[2].segments == (b"b" * 16, b"", b"c" * 24)
    assert sum(f.size for f in FRAMES) == len(CONVERSATION)


def test_byte_by_byte_no_frame_comes_before_its_last_byte() -> None:
    decoder = opened()
    ends = []
    total = 0
    for frame in FRAMES:
        total += frame.size
        ends.append(total)
    for index, byte in enumerate(CONVERSATION, 1):
        found = feed(decoder, bytes([byte]))
        assert len(found) == (1 if index in ends else 0)
        assert decoder.is_between_frames == (index in ends)


def test_every_split_of_the_same_bytes_yields_the_same_frames() -> None:
    for cut in range(len(CONVERSATION) + 1):
        decoder = opened()
        found = feed(decoder, CONVERSATION[:cut]) + feed(decoder, CONVERSATION[cut:])
        assert found == FRAMES


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 40), min_size=1, max_size=5),
            st.sampled_from([0, 0, 0, LARGE_BYTES // 8, ARENA_BYTES // 8]),
        ),
        max_size=8,
    ),
    st.lists(st.integers(1, 100_000), min_size=1, max_size=20),
)
def test_any_frames_survive_any_split(shapes: list[tuple[list[int], int]], pieces: list[int]) -> None:
    sent = []
    data = b""
    for number, (words, extra) in enumerate(shapes, 1):
        sizes = [words[0] + 1 + extra, *words[1:]]
        segments = tuple(bytes([number]) * (8 * size) for size in sizes)
        buffers = encode_frame(number, FrameKind.REQUEST, number, segments)
        sent.append((number, number, segments))
        data += b"".join(buffers)
    decoder = opened()
    found: list[Frame] = []
    at = turn = 0
    while at < len(data):
        piece = pieces[turn % len(pieces)]
        found += feed(decoder, data[at : at + piece])
        at += piece
        turn += 1
    assert [(f.wire_id, f.correlation, f.segments) for f in found] == sent
    assert decoder.is_between_frames


# --- copies, alignment, memory ------------------------------------------------------------------------


def address(buffer: bytes | memoryview) -> int:
    """Where the buffer's bytes lie in memory."""
    if isinstance(buffer, bytes):
        # The payload of a bytes object starts behind its 32 byte header.
        return id(buffer) + 32
    pointer = ctypes.py_object(buffer)
    # A Py_buffer; its first member is the address.
    raw = (ctypes.c_char * 80).from_buffer(bytearray(80))
    ctypes.pythonapi.PyObject_GetBuffer(pointer, ctypes.byref(raw), 0)
    try:
        return int.from_bytes(bytes(raw)[:8], "little")
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(raw))


@pytest.mark.parametrize("words", [1, 2, 3, 127, 128, 1000, LARGE_BYTES // 8, ARENA_BYTES // 8, MIB // 8])
@pytest.mark.parametrize("more", [0, 1, 2])
def test_every_segment_is_aligned_to_8_bytes(words: int, more: int) -> None:
    segments = (b"s" * (8 * words),) + (b"t" * 8,) * more
    for start in (b"", event((b"y" * 24,))):
        frames = feed(opened(), start + event(segments))
        for segment in frames[-1].segments:
            assert address(segment) % 8 == 0


def test_a_small_segment_is_a_bytes_object_of_its_own() -> None:
    decoder = opened()
    first, second, third = feed(
        decoder, event((b"a" * 8, b"b" * 8)) + event((b"c" * 4096,)) + event((b"d" * 16,))
    )
    assert [type(s) for s in (*first.segments, *second.segments, *third.segments)] == [bytes] * 4
    feed(decoder, event((b"z" * 8, b"z" * 8)) * 50)
    assert first.segments == (b"a" * 8, b"b" * 8)


def test_a_large_frame_is_received_straight_into_a_read_only_buffer_of_its_size() -> None:
    decoder = opened()
    data = event((b"L" * MIB,))
    assert feed(decoder, data[:100]) == []
    place = decoder.receive_buffer()
    assert len(place) == len(data) - 100
    place[:] = data[100:]
    decoder.bytes_received(len(place))
    ((_, _, _, size, segments),) = decoder.frames()
    assert size == len(data)
    assert isinstance(segments[0], memoryview)
    assert segments[0].readonly
    assert segments[0] == b"L" * MIB
    assert memoryview(segments[0].obj).nbytes == size
    # The arena is in use again: at first a little of it, as what comes next may be as large.
    assert len(decoder.receive_buffer()) == _BEGIN_BYTES
    assert feed(decoder, data)[0].segments == segments
    assert len(feed(decoder, event())) == 1
    assert len(decoder.receive_buffer()) == FIRST_ARENA_BYTES


def test_what_is_left_of_a_large_frame_stays_while_others_of_its_size_arrive() -> None:
    """However little is left of it: a view of a view of a segment."""
    decoder, other = opened(), opened()
    kept = []
    for number in range(20):
        (frame,) = feed(decoder if number % 2 else other, event((bytes([number]) * MIB,)))
        (segment,) = frame.segments
        assert isinstance(segment, memoryview)
        assert segment == bytes([number]) * MIB
        if number % 3:
            kept.append((number, segment[100:][:16]))
        del frame, segment
    for number, view in kept:
        assert view == bytes([number]) * 16


def test_two_large_frames_that_arrive_at_the_same_time_do_not_share_memory() -> None:
    data = [event((letter * MIB,)) for letter in (b"1", b"2")]
    decoders = [opened(), opened()]
    found: list[list[Frame]] = [[], []]
    for start in range(0, len(data[0]), 100_000):
        for number in (0, 1):
            found[number] += feed(decoders[number], data[number][start : start + 100_000])
    assert [frame.segments for (frame,) in found] == [(b"1" * MIB,), (b"2" * MIB,)]


def test_the_memory_of_a_large_frame_serves_the_next_one_of_its_size() -> None:
    """Unless it is very large: then it is given back."""
    decoder = opened()
    for size, serves in ((MIB, True), (KEPT_BYTES + 8, False)):
        forget_memory()
        addresses = []
        for _ in range(3):
            (frame,) = feed(decoder, event((bytes(size),)))
            addresses.append(address(frame.segments[0]))
            del frame
        assert len(_last) == serves
        if serves:
            assert len(set(addresses)) == 1
            # One of another size has memory of its own, and takes its place.
            for other in (size // 2, size // 2 + 8, size):
                (frame,) = feed(decoder, event((bytes(other),)))
                assert frame.segments[0].obj.__sizeof__() <= other + KIB
                assert [buffer.getbuffer().nbytes for buffer in _last] == [other + 24]
                del frame
    feed(decoder, event((bytes(MIB),)))
    decoder.release()
    assert _last == []


# --- a stream of large frames --------------------------------------------------------------------------


LARGE_ONE = event((b"one." * (LARGE_BYTES // 4), b"second--"))
LARGE_TWO = event((b"two." * (LARGE_BYTES // 4), b"second--"))
assert len(LARGE_ONE) == len(LARGE_TWO)

# What may come where another large frame is expected.
NEIGHBOURS = {
    "the same": LARGE_TWO,
    "other segments": event((b"three---" * (LARGE_BYTES // 8 + 2),)),
    "larger": event((b"larger--" * (LARGE_BYTES // 8 + 3),)),
    "smaller": event((b"smaller-" * (LARGE_BYTES // 8),)),
    "another event": event((b"one." * (LARGE_BYTES // 4), b"second--"), wire_id=2),
    "a large control message": control((b"one." * (LARGE_BYTES // 4), b"second--")),
    "a large request": b"".join(
        encode_frame(1, FrameKind.REQUEST, 7, (b"one." * (LARGE_BYTES // 4), b"second--"))
    ),
    "small": event(),
    "many small": event((b"little--",)) * 3000,
    "control": control(),
}
assert len(NEIGHBOURS["other segments"]) == len(LARGE_ONE)

# More than fits into an arena.
WIDE = event((b"wide----" * (ARENA_BYTES // 8 + 1000),))

Told = tuple[int, int, int, int, tuple[bytes, ...]]


def told(data: bytes) -> list[Told]:
    """What is in these bytes, by what docs/wire.md says and none of the decoder's code."""
    found = []
    while data:
        length, wire_id, kind, correlation, more = struct.unpack_from("<IHHQI", data)
        words = struct.unpack_from(f"<{more + 1}I", data, 20)
        at = 16 + 8 * ((more + 1) // 2 + 1)
        segments = []
        for count in words:
            segments.append(data[at : at + 8 * count])
            at += 8 * count
        assert at == length + 4
        found.append((wire_id, kind, correlation, at, tuple(segments)))
        data = data[at:]
    return found


def receive(decoder: FrameDecoder, data: bytes, pieces: Iterable[int] = (1 << 30,)) -> list[Told]:
    """The frames in ``data``, of which nobody keeps any; between two pieces there is nothing to be received."""
    found = []
    view = memoryview(data)
    sizes = itertools.cycle(pieces)
    while view:
        place = decoder.receive_buffer()
        count = min(len(place), len(view), next(sizes))
        place[:count] = view[:count]
        place.release()
        decoder.bytes_received(count)
        while frames := decoder.frames():
            found += [(*frame[:4], tuple(bytes(segment) for segment in frame[4])) for frame in frames]
            del frames
        decoder.receive_buffer().release()
        decoder.nothing_received()
        view = view[count:]
    return found


def expecting(large: bytes = LARGE_ONE) -> FrameDecoder:
    """A decoder that has read so many large frames with one header that it expects another."""
    forget_memory()
    decoder = opened()
    for number in range(_SAME_FRAMES + 1):
        # Not before it has seen so many.
        assert len(decoder.receive_buffer()) == (_BEGIN_BYTES if number else FIRST_ARENA_BYTES)
        assert len(receive(decoder, large)) == 1
    return decoder


def test_another_large_frame_is_received_where_it_belongs_after_many_with_its_header() -> None:
    decoder = expecting()
    for large in (LARGE_TWO, LARGE_ONE):
        place = decoder.receive_buffer()
        assert len(place) == len(large)
        place[:] = large
        received = address(place)
        place.release()
        decoder.bytes_received(len(large))
        ((_, _, _, _, segments),) = decoder.frames()
        assert [bytes(segment) for segment in segments] == list(told(large)[0][4])
        assert address(segments[0]) == received + 32
        assert isinstance(segments[0], memoryview)
        assert segments[0].readonly
        if large is LARGE_TWO:
            del segments
    # Somebody has a view of it: it does not serve the next one.
    assert len(decoder.receive_buffer()) == _BEGIN_BYTES


def test_the_memory_for_a_large_frame_that_does_not_come_is_nobodys() -> None:
    decoder, other = expecting(), opened()
    size = len(LARGE_ONE)
    place = decoder.receive_buffer()
    assert len(place) == size
    # While it is offered to one connection, another that receives such a frame has other memory.
    place[:] = bytes(size)
    assert receive(other, LARGE_ONE) == told(LARGE_ONE)
    assert place == bytes(size)
    place.release()
    decoder.nothing_received()
    assert receive(other, LARGE_ONE) == told(LARGE_ONE)
    assert memory_of_last(size) is not None
    # A connection that is only read until its end, or has ended, keeps none either.
    decoder.receive_buffer()[:] = bytes(size)
    decoder.bytes_received(size)
    decoder.discard()
    assert decoder.frames() == []
    assert receive(decoder, LARGE_ONE) == told(LARGE_ONE)
    decoder = expecting()
    decoder.receive_buffer()
    decoder.release()
    assert (decoder._expected, _last) == (None, [])
    receive(other, LARGE_ONE)
    assert len(decoder.receive_buffer()) == 0


@pytest.mark.parametrize("piece", [1 << 30, 100_000, 5000, 24, 16, 15, 3])
@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_whatever_comes_where_a_large_frame_is_expected_is_read(neighbour: str, piece: int) -> None:
    decoder = expecting()
    data = NEIGHBOURS[neighbour] + control() + LARGE_ONE
    found = receive(decoder, data, (piece, 1 << 30))
    assert found == told(data)
    assert decoder.is_between_frames
    # It does not go on to expect what did not come.
    decoder.receive_buffer()
    assert decoder._expected is None


@given(
    st.lists(st.tuples(st.sampled_from(sorted(NEIGHBOURS)), st.integers(1, 12)), min_size=1, max_size=5),
    st.lists(st.integers(1, 300_000), min_size=1, max_size=10),
)
def test_runs_of_large_frames_give_the_same_in_any_pieces(
    runs: list[tuple[str, int]], pieces: list[int]
) -> None:
    data = b"".join(NEIGHBOURS[name] * count for name, count in runs)
    # Not thousands of pieces.
    assert receive(opened(), data, (*pieces, 1 << 20)) == told(data)


def test_nothing_is_expected_during_the_handshake() -> None:
    """What is refused then may be right a moment later: no byte of it may be lost."""
    large = NEIGHBOURS["a large control message"]
    decoder = FrameDecoder(Limits())
    forget_memory()
    for _ in range(2 * _SAME_FRAMES):
        assert receive(decoder, large) == told(large)
        decoder.receive_buffer()
        assert decoder._expected is None
    # The peer's last word of the handshake, and its first events, which come at the same time.
    data = memoryview(control() + event() * 4000)
    found = []
    while data:
        place = decoder.receive_buffer()
        count = min(len(place), len(data))
        place[:count] = data[:count]
        decoder.bytes_received(count)
        data = data[count:]
        while frames := decoder.frames():
            decoder.open()
            found += frames
    assert len(found) == 4001


def test_what_is_read_in_one_go_is_bounded_however_large_the_expected_frame_is() -> None:
    large = event((b"huge----" * (MIB // 2),))
    assert len(large) > _OFFERED_BYTES
    decoder = expecting(large)
    assert len(decoder.receive_buffer()) == _OFFERED_BYTES
    assert receive(decoder, large) == told(large)
    many = event() * 40_000
    assert receive(decoder, many) == told(many)


def test_large_frames_between_which_others_come_are_not_expected() -> None:
    requests = [
        b"".join(encode_frame(1, FrameKind.REQUEST, number, (b"ask-----" * (LARGE_BYTES // 8),)))
        for number in range(1, 20)
    ]
    for frames in (
        [LARGE_ONE, event()] * _SAME_FRAMES,
        [LARGE_ONE, LARGE_TWO, control()] * _SAME_FRAMES,
        [LARGE_ONE, NEIGHBOURS["larger"]] * _SAME_FRAMES,
        requests,
    ):
        decoder = opened()
        for frame in frames:
            assert receive(decoder, frame) == told(frame)
            decoder.receive_buffer()
            assert decoder._expected is None


@pytest.mark.parametrize("good", [0, 1, 3000])
@pytest.mark.parametrize("first", [1 << 30, 16, 3])
@pytest.mark.parametrize(
    "bad",
    {
        "a length": struct.pack("<IHHQ", 29, 1, 0, 0),
        "a length that is too large": struct.pack("<IHHQ", 1 << 30, 1, 0, 0),
        "a kind": struct.pack("<IHHQ", 36, 1, 3, 0),
        "a kind, large": struct.pack("<IHHQ", len(WIDE) - 4, 1, 3, 0) + WIDE[16:],
        "a table": struct.pack("<IHHQIIII", 36, 1, 0, 0, 0, 9, 0, 0) + bytes(8),
        "a table, large": struct.pack("<IHHQII", len(WIDE) - 4, 1, 0, 0, 0, 1) + WIDE[24:],
    }.items(),
    ids=lambda item: item[0],
)
def test_what_is_wrong_where_a_large_frame_is_expected_is_refused_behind_what_is_right(
    bad: tuple[str, bytes], first: int, good: int
) -> None:
    decoder = expecting(WIDE)
    right = event() * good
    data = right + bad[1] + event() * 20_000
    found: list[Any] = []
    error = None
    at = 0
    place = decoder.receive_buffer()
    assert len(place) == len(WIDE)
    place = place[:first]
    while error is None:
        # When all of it has come it has been refused, whatever is behind it.
        assert at < len(right) + len(bad[1])
        count = min(len(place), len(data) - at)
        place[:count] = data[at : at + count]
        at += count
        decoder.bytes_received(count)
        try:
            while frames := decoder.frames():
                found += frames
        except RemoteProtocolError as raised:
            error = raised
        else:
            place = decoder.receive_buffer()
    assert len(found) == good
    # It says so whenever it is asked.
    with pytest.raises(RemoteProtocolError, match=re.escape(str(error))):
        decoder.frames()


def test_a_large_frame_that_is_whole_in_the_arena_is_copied_out_of_it() -> None:
    decoder = grown()
    (frame,) = feed(decoder, event((b"M" * (ARENA_BYTES // 2),)))
    assert type(frame.segments[0]) is bytes


def test_an_announced_frame_takes_no_memory_before_its_length_was_checked() -> None:
    tracemalloc.start()
    try:
        decoder = settled(frame_bytes=MIB)
        before = tracemalloc.get_traced_memory()[0]
        with pytest.raises(RemoteProtocolError):
            feed(decoder, struct.pack("<IHHQ", 512 * MIB - 4, 1, 0, 0))
        assert tracemalloc.get_traced_memory()[1] - before < 100 * KIB
    finally:
        tracemalloc.stop()


def test_byte_by_byte_input_is_not_quadratic() -> None:
    def seconds(words: int) -> float:
        decoder = opened()
        data = event((b"q" * (8 * words),))
        begin = time.perf_counter()
        for offset in range(len(data)):
            feed(decoder, data[offset : offset + 1])
        return (time.perf_counter() - begin) / len(data)

    small = min(seconds(500) for _ in range(3))
    large = min(seconds(8000) for _ in range(2))
    # Quadratic work would make it 16 times as much per byte.
    assert large < 6 * small


def grown() -> FrameDecoder:
    """A decoder whose arena has its full size."""
    decoder = opened()
    one = event((b"g" * 968,))
    feed(decoder, one * (4 * ARENA_BYTES // len(one)))
    assert len(decoder.receive_buffer()) == ARENA_BYTES
    return decoder


def test_the_arena_grows_with_what_arrives_at_a_time() -> None:
    """An idle connection costs little, and one that is busy is read in large pieces."""
    decoder = opened()
    one = event((b"g" * 40,))
    assert 16 * KIB % len(one) == 0  # a read that fills the arena ends with a frame: nothing is left unread
    sizes = []
    for _ in range(5):
        place = decoder.receive_buffer()
        sizes.append(len(place))
        count = len(place) // len(one)
        place[: count * len(one)] = one * count
        decoder.bytes_received(count * len(one))
        assert len(decoder.frames()) == count
    assert sizes == [16 * KIB, 64 * KIB, 256 * KIB, 256 * KIB, 256 * KIB]
    # Little at a time leaves it as it is, however much there is of it.
    decoder = opened()
    for _ in range(1000):
        feed(decoder, one * 100)
    assert len(decoder.receive_buffer()) == 16 * KIB


def test_during_the_handshake_the_arena_grows_no_larger_than_a_frame_in_it() -> None:
    largest = control((bytes(LARGE_BYTES - 24),))
    assert len(largest) == LARGE_BYTES
    decoder = FrameDecoder(Limits())
    for _ in range(3):
        assert len(feed(decoder, largest)) == 1
        assert len(decoder.receive_buffer()) == LARGE_BYTES
    decoder.open()
    assert len(feed(decoder, largest)) == 1
    assert len(decoder.receive_buffer()) == ARENA_BYTES


def test_a_frame_that_begins_near_the_arenas_end_is_moved_to_its_start_once() -> None:
    decoder = grown()
    one = event((b"1" * 1008,))
    many = one * (ARENA_BYTES // len(one))
    rest = ARENA_BYTES - len(many)
    assert rest
    assert len(feed(decoder, many + one[:rest])) == len(many) // len(one)
    assert len(decoder.receive_buffer()) >= ARENA_BYTES // 4
    assert feed(decoder, one[rest:]) == feed(opened(), one)


def test_discarded_bytes_leave_no_trace_and_room_for_more() -> None:
    decoder = settled()
    feed(decoder, event()[:20])
    decoder.discard()
    assert decoder.is_between_frames
    feed(decoder, event((b"L" * MIB,))[:100])
    decoder.discard()
    assert len(decoder.receive_buffer()) == FIRST_ARENA_BYTES
    assert len(feed(decoder, event())) == 1


# --- rows ---------------------------------------------------------------------------------------------


def take_rows(decoder: FrameDecoder, data: bytes) -> list[Row]:
    place = decoder.receive_buffer()
    place[: len(data)] = data
    decoder.bytes_received(len(data))
    return decoder.rows()


def request(number: int, wire_id: int = 1) -> bytes:
    return b"".join(encode_frame(wire_id, FrameKind.REQUEST, number, (b"q" * 8,)))


def test_events_of_one_wire_id_share_a_row_and_nothing_else_does() -> None:
    long = event((b"l" * 16,))
    rows = take_rows(
        opened(),
        event() + long + event(wire_id=2) + event() + control() * 2 + request(1) + request(2) + event(),
    )
    assert [(row[:3], len(row[4])) for row in rows] == [
        *(((1, 0, 0), 2), ((2, 0, 0), 1), ((1, 0, 0), 1), ((0, 0, 0), 1), ((0, 0, 0), 1)),
        *(((1, 1, 1), 1), ((1, 1, 2), 1), ((1, 0, 0), 1)),
    ]
    assert rows[0][4] == [(len(event()), (b"x" * 8,)), (len(long), (b"l" * 16,))]
    for row in rows:
        assert row[3] == sum(size for size, _ in row[4])


# What differs from event() in one place of its first 24 bytes, or in its length.
OTHERS = {
    "another wire id": event(wire_id=2),
    "a request": request(7),
    "control": control(),
    "longer": event((b"x" * 16,)),
    "two segments": event((b"x" * 8, b"y" * 8)),
    "two segments of the same length": event((b"x" * 24, b"")),
    "large": event((b"L" * LARGE_BYTES,)),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize(
    "one",
    [
        *(event(), event((b"o" * 24,)), event((b"o" * 1016,)), event((b"o" * 1024,))),
        *(event((b"o" * 8, b"p" * 8)), event((b"o" * 8, b"", b"p" * 8))),
    ],
)
def test_many_frames_of_one_length_end_where_something_else_comes(one: bytes, other: bytes) -> None:
    """However many there are, and wherever the read ends."""
    (first,), (second,) = feed(opened(), one), feed(opened(), other)
    for count in range(1, 3 * _SAME_FRAMES):
        for end in (b"", one[:20], one[:-1]):
            decoder = opened()
            assert feed(decoder, one * count + other + one * count + end) == [
                *[first] * count,
                second,
                *[first] * count,
            ]
            assert feed(decoder, one[len(end) :]) == [first]


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3 * _SAME_FRAMES)), min_size=1, max_size=8),
    st.lists(st.integers(1, 2000), min_size=1, max_size=8),
)
def test_runs_of_equal_lengths_give_the_same_in_any_pieces(
    runs: list[tuple[int, int]], pieces: list[int]
) -> None:
    kinds = [event(), event(wire_id=2), event((b"l" * 32,)), control(), request(5)]
    data = b"".join(kinds[kind] * count for kind, count in runs)
    wanted = [frame for kind, count in runs for frame in feed(opened(), kinds[kind]) * count]
    assert feed(opened(), data) == wanted
    decoder, found, at = opened(), [], 0
    while at < len(data):
        for piece in pieces:
            found += feed(decoder, data[at : at + piece])
            at += piece
    assert found == wanted


# --- refusals -----------------------------------------------------------------------------------------


def head(length: int, wire_id: int = 1, kind: int = 0, correlation: int = 0) -> bytes:
    return struct.pack("<IHHQ", length, wire_id, kind, correlation)


def message(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


def refused(data: bytes, **limits: int) -> RemoteProtocolError:
    """Feed what must be refused: whole, and byte by byte; behind one or many other frames, and in the same read."""
    errors = []
    for piece in (1 << 30, 1):
        with pytest.raises(RemoteProtocolError) as caught:
            feed(settled(**limits), data, piece)
        errors.append(caught.value)
    for count in (1, 2 * _SAME_FRAMES):
        decoder = opened(**limits)
        place = decoder.receive_buffer()
        good = event() * count
        place[: len(good) + len(data)] = good + data
        decoder.bytes_received(len(good) + len(data))
        assert len(decoder.frames()) == count
        for _ in range(2):
            with pytest.raises(RemoteProtocolError) as caught:
                decoder.frames()
            errors.append(caught.value)
    assert len({error.code for error in errors}) == 1
    assert not any(isinstance(error, NotAPeer) for error in errors)
    return errors[0]


@pytest.mark.parametrize("length", [0, 12, 20, 27, 29, 30, 31, 32, 33, 35, 40])
def test_a_data_length_that_is_not_4_modulo_8_or_below_28_is_refused(length: int) -> None:
    assert refused(head(length) + bytes(64)).code == "protocolError"


@pytest.mark.parametrize("kind", [3, 4, 0x0100, 0x8000, 0xFFFF])
def test_flags_that_do_not_exist_are_refused(kind: int) -> None:
    assert "FLAGS" in str(refused(head(28, kind=kind, correlation=1) + message(0, 1, 0, 0)))


@pytest.mark.parametrize(
    ("wire_id", "kind", "correlation"),
    [(0, 0, 1), (0, 1, 1), (0, 2, 1), (0, 1, 0), (1, 0, 1), (1, 1, 0), (1, 2, 0), (1, 0, 2**63)],
)
def test_header_fields_that_do_not_go_together_are_refused(wire_id: int, kind: int, correlation: int) -> None:
    error = refused(head(28, wire_id, kind, correlation) + message(0, 1, 0, 0))
    assert error.code == "protocolError"


def test_a_bad_header_is_refused_before_the_rest_of_the_frame_comes() -> None:
    for bad in (head(28, kind=3, correlation=1), head(28, correlation=5)):
        with pytest.raises(RemoteProtocolError):
            feed(settled(), bad)


def test_the_largest_allowed_frame_passes_and_the_next_is_refused_with_both_numbers() -> None:
    limit = 4096
    (frame,) = feed(settled(frame_bytes=limit), event((b"x" * (limit - 24),)))
    assert frame.size == limit
    error = refused(event((b"x" * (limit - 16),)), frame_bytes=limit)
    assert error.code == "frameTooLarge"
    assert (error.facts["size"], error.facts["limit"]) == (limit + 8, limit)


def test_a_length_of_4_gib_is_refused_at_its_fourth_byte() -> None:
    with pytest.raises(RemoteProtocolError, match="4294967296") as caught:
        feed(settled(), b"\xfc\xff\xff\xff")
    assert caught.value.code == "frameTooLarge"


def test_control_frames_have_a_limit_of_their_own_whatever_ours_is() -> None:
    largest = control((b"c" * (CONTROL_FRAME_BYTES - 24),))
    assert len(feed(settled(frame_bytes=1024), largest)) == 1
    too_large = head(CONTROL_FRAME_BYTES + 4, 0)
    with pytest.raises(RemoteProtocolError, match="1048576") as caught:
        feed(settled(), too_large)
    assert caught.value.code == "frameTooLarge"


def test_the_first_bytes_of_a_large_frame_are_no_reason_to_refuse_it() -> None:
    data = event((b"L" * (2 * MIB),))
    decoder = settled()
    assert feed(decoder, data[:20], piece=1) == []
    assert len(feed(decoder, data[20:])) == 1


def test_content_during_the_handshake_is_refused() -> None:
    decoder = FrameDecoder(Limits())
    assert len(feed(decoder, control())) == 1
    with pytest.raises(HandshakeError, match="EVENT_ID 1"):
        feed(decoder, event())


def test_content_behind_the_frame_that_opens_the_connection_is_read_in_the_same_round() -> None:
    decoder = FrameDecoder(Limits())
    place = decoder.receive_buffer()
    data = control() + event((b"x" * 2000,))
    place[: len(data)] = data
    decoder.bytes_received(len(data))
    assert len(decoder.frames()) == 1
    decoder.open()
    assert len(decoder.frames()) == 1


def test_during_the_handshake_a_frame_over_1_mib_is_refused_by_its_length_alone() -> None:
    decoder = FrameDecoder(Limits())
    feed(decoder, control())
    with pytest.raises(RemoteProtocolError) as caught:
        feed(decoder, head(2 * MIB + 4)[:4])
    assert caught.value.code == "frameTooLarge"


@pytest.mark.parametrize(
    ("what", "frame"),
    [
        ("no room for its own table", head(28) + message(2, 1, 1, 0)),
        ("more segments than fit", head(36) + message(5, 1, 0, 0, 0, 0)),
        ("2^32 segments", head(28) + message(0xFFFFFFFF, 1, 0, 0)),
        ("an empty first segment", head(28) + message(0, 0, 0, 0)),
        ("an empty first of two", head(36) + message(1, 0, 1, 0, 0, 0)),
        ("a segment too short", head(36) + message(0, 1, 0, 0, 0, 0)),
        ("a segment too long", head(28) + message(0, 2, 0, 0)),
        ("padding that is not zero", head(44) + message(1, 1, 1, 1, 0, 0, 0, 0)),
        ("sizes whose sum overflows 32 bits", head(44) + message(1, 0x80000001, 0x80000001, 0, 0, 0, 0, 0)),
        ("sizes whose sum in bytes overflows 32 bits", head(44) + message(1, 1, 0x20000001, 0, 0, 0, 0, 0)),
    ],
)
def test_a_segment_table_that_does_not_fill_the_frame_exactly_is_refused(what: str, frame: bytes) -> None:
    assert len(frame) == int.from_bytes(frame[:4], "little") + 4
    assert refused(frame).code == "protocolError", what


def test_the_largest_number_of_segments_passes_and_one_more_is_refused() -> None:
    count = 512
    segments = (b"s" * 8,) * count
    assert len(feed(settled(), event(segments))[0].segments) == count
    table = struct.pack(f"<I{count + 1}I", count, *([1] * (count + 1)))
    frame = head(12 + len(table) + 8 * (count + 1)) + table + bytes(8 * (count + 1))
    assert "513 segments" in str(refused(frame))
    assert "2 segments: the limit is 1" in str(refused(event((b"s" * 8, b"t" * 8)), segments=1))


def test_the_table_of_a_large_frame_is_checked_too() -> None:
    data = bytearray(event((b"L" * MIB,)))
    data[20] ^= 1
    with pytest.raises(RemoteProtocolError, match="segments of"):
        feed(settled(), bytes(data))


# --- strangers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP client"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP client"),
        (b"HTTP/1.1 400 Bad Request\r\n", "HTTP server"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(20), "TLS"),
        (b"SSH-2.0-OpenSSH_9.7\r\n", "SSH"),
        (struct.pack("<I", 95) + b"\x80\x04\x95" + bytes(95), "original lahja"),
        (b"hello out there, is anybody here", "text"),
        (b"\xff" * 32, "nothing known"),
        (event(), "nothing known"),
        (head(28, 0, 7) + bytes(16), "nothing known"),
    ],
)
@pytest.mark.parametrize("piece", [1, 1 << 30])
def test_first_bytes_of_a_stranger_are_named_in_the_error(first: bytes, said: str, piece: int) -> None:
    with pytest.raises(NotAPeer, match="no frame of this protocol") as caught:
        feed(FrameDecoder(Limits()), first, piece)
    assert caught.value.got == first[: len(caught.value.got)]
    if piece > 1:
        assert said in str(caught.value)
        assert caught.value.got == first[:16]


def test_http_is_recognised_at_its_fourth_byte() -> None:
    decoder = FrameDecoder(Limits())
    assert feed(decoder, b"GET") == []
    with pytest.raises(NotAPeer, match="HTTP client"):
        feed(decoder, b" ")

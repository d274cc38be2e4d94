from __future__ import annotations

import struct

import pytest

from lahja_capn.errors import LocalProtocolError
from lahja_capn.wire import Frame, FrameDecoder, FrameKind, Limits, encode_frame, frame_size
from lahja_capn.wire.frames import LARGE_BYTES, _head


def decoded(data: bytes) -> list[Frame]:
    decoder = FrameDecoder(Limits())
    decoder.open()
    found: list[Frame] = []
    view = memoryview(data)
    while view:
        place = decoder.receive_buffer()
        count = min(len(place), len(view))
        place[:count] = view[:count]
        decoder.bytes_received(count)
        while frames := decoder.frames():
            found += (Frame(*frame) for frame in frames)
        view = view[count:]
    assert decoder.is_between_frames
    return found


def test_an_event_of_one_segment_is_exactly_these_bytes() -> None:
    buffers = encode_frame(0x0102, FrameKind.EVENT, 0, (b"ABCDEFGH",))
    assert b"".join(buffers) == (
        b"\x1c\0\0\0"  # 28 bytes follow
        b"\x02\x01"  # wire id
        b"\0\0"  # event
        b"\0\0\0\0\0\0\0\0"  # no request number
        b"\0\0\0\0"  # one segment
        b"\x01\0\0\0"  # of one word
        b"ABCDEFGH"
    )
    assert frame_size(buffers) == 32


def test_a_response_of_two_segments_is_exactly_these_bytes() -> None:
    buffers = encode_frame(9, FrameKind.RESPONSE, 0x1122334455667788, (b"A" * 8, b"B" * 16))
    assert b"".join(buffers) == (
        b"\x34\0\0\0" + b"\x09\0" + b"\x02\0" + b"\x88\x77\x66\x55\x44\x33\x22\x11"
        b"\x01\0\0\0" + b"\x01\0\0\0" + b"\x02\0\0\0" + b"\0\0\0\0" + b"A" * 8 + b"B" * 16
    )


@pytest.mark.parametrize("count", [1, 2, 3, 4, 511, 512])
def test_bytes_parse_to_the_frame_and_the_frame_serialises_to_the_bytes(count: int) -> None:
    segments = tuple(bytes([n % 256]) * (8 * (n % 3) or 8 * (n == 0)) for n in range(count))
    buffers = encode_frame(7, FrameKind.REQUEST, 3, segments)
    data = b"".join(buffers)
    assert decoded(data) == [Frame(7, FrameKind.REQUEST, 3, len(data), segments)]
    assert len(data) % 8 == 0


def test_a_small_message_of_memoryviews_is_copied_into_one_buffer() -> None:
    (buffer,) = encode_frame(1, FrameKind.EVENT, 0, (memoryview(b"x" * 8),))
    assert type(buffer) is bytes
    assert buffer[24:] == b"x" * 8


@pytest.mark.parametrize("large", [b"L" * LARGE_BYTES, memoryview(b"L" * LARGE_BYTES)])
def test_a_large_segment_is_passed_on_without_a_copy(large: bytes | memoryview) -> None:
    buffers = encode_frame(1, FrameKind.EVENT, 0, (large,))
    assert len(buffers) == 2
    assert buffers[1] is large
    assert len(buffers[0]) == 24
    assert decoded(b"".join(buffers))[0].segments == (large,)


def test_small_segments_beside_large_ones_are_joined() -> None:
    large = b"L" * LARGE_BYTES
    buffers = encode_frame(1, FrameKind.EVENT, 0, (b"a" * 8, b"b" * 8, large, b"c" * 8, large, large))
    assert [len(buffer) for buffer in buffers] == [16 + 32 + 16, LARGE_BYTES, 8, LARGE_BYTES, LARGE_BYTES]


@pytest.mark.parametrize("count", [0, 513])
def test_a_number_of_segments_that_nobody_accepts_is_refused_here(count: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"{count} segments.*512"):
        encode_frame(1, FrameKind.EVENT, 0, (b"x" * 8,) * count)


def test_a_frame_over_2_to_the_31_is_refused_before_it_is_made() -> None:
    # The same gigabyte twice; only its length is looked at.
    half = memoryview(bytes(2**30))
    with pytest.raises(LocalProtocolError, match="2147483640"):
        encode_frame(1, FrameKind.EVENT, 0, (half, half))


def test_the_head_of_a_large_frame_is_what_the_fast_path_would_write() -> None:
    assert _head(5, 1, 2, (b"x" * 8,)) == struct.pack("<IHHQII", 28, 5, 1, 2, 0, 1)

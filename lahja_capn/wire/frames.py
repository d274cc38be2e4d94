"""Making frames. Reading them is in decoder.py; docs/wire.md section 2 is the definition.

A frame, integers little-endian and unsigned::

    offset  size
    0       4    DATA_LENGTH  u32  bytes that follow this field: 4 modulo 8, at least 28
    4       2    EVENT_ID     u16  the sender's wire id; 0 is a control message
    6       2    FLAGS        u16  0 event, 1 request, 2 response
    8       8    CORRELATION  u64  request number; 0 for an event and for control
    16      4    number of segments - 1
    20      4*n  size of each segment in 8-byte words
            4    zero, only if the number of segments is even
            ...  the segments
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

from ..errors import LocalProtocolError
from .limits import MAX_FRAME_BYTES, MAX_SEGMENTS

Buffer: TypeAlias = bytes | memoryview
# The segments of one Cap'n Proto message. Memoryviews have one-byte items, so len() is a size in bytes.
Segments: TypeAlias = tuple[Buffer, ...]

HEADER_BYTES: Final = 16

# From this size on a segment is handed to the socket as it is; below, one joined buffer is cheaper to send.
LARGE_BYTES: Final = 64 * 1024

# Header and the table of a message of one segment, read and written in one go: the common case by far.
ONE_SEGMENT: Final = struct.Struct("<IHHQII")
HEADER: Final = struct.Struct("<IHHQ")

_pack_one = ONE_SEGMENT.pack


class FrameKind(IntEnum):
    """FLAGS. Nothing else exists."""

    EVENT = 0
    REQUEST = 1
    RESPONSE = 2


class Frame(NamedTuple):
    """What a frame says. ``FrameDecoder.frames`` gives plain tuples of this shape: cheaper to make."""

    wire_id: int
    kind: int
    correlation: int
    # DATA_LENGTH + 4, bytes
    size: int
    segments: Segments


# Frames that were received in a row: wire id, kind, correlation, bytes of all of them, and of each its size
# (DATA_LENGTH + 4, bytes) and its segments. Only events of one wire id share a row; each other frame is one alone.
Row: TypeAlias = tuple[int, int, int, int, list[tuple[int, Segments]]]


def encode_frame(wire_id: int, kind: int, correlation: int, segments: Segments) -> tuple[Buffer, ...]:
    """Return the buffers that, sent one after the other, are the frame.

    A small message becomes one buffer. A large one keeps its large segments as they are, uncopied: they must
    not change until they were sent. The same result may be queued to any number of peers.

    Args:
        wire_id: 0 to 65535; 0 only with ``kind`` EVENT and ``correlation`` 0.
        correlation: request number; 0 if and only if ``kind`` is EVENT.
        segments: each a multiple of 8 bytes, the first at least 8.

    Raises:
        LocalProtocolError: more segments or bytes than the format allows. Nothing was made.

    Source: Cap'n Proto encoding, "Serialization Over a Stream".
    """
    if len(segments) == 1:
        segment = segments[0]
        size = len(segment)
        if size < LARGE_BYTES:
            # A first byte string on the left makes the sum bytes whatever the segment is.
            return (_pack_one(size + 20, wire_id, kind, correlation, 0, size >> 3) + segment,)
    head = _head(wire_id, kind, correlation, segments)
    buffers: list[Buffer] = []
    small: list[Buffer] = [head]
    for segment in segments:
        if len(segment) < LARGE_BYTES:
            small.append(segment)
            continue
        if small:
            buffers.append(b"".join(small))
            small = []
        buffers.append(segment)
    if small:
        buffers.append(b"".join(small))
    return tuple(buffers)


def frame_size(buffers: Sequence[Buffer]) -> int:
    """Bytes of the frame that :func:`encode_frame` returned: what credit and limits count."""
    return sum(map(len, buffers))


def _head(wire_id: int, kind: int, correlation: int, segments: Segments) -> bytes:
    count = len(segments)
    sizes = [len(segment) for segment in segments]
    if not 1 <= count <= MAX_SEGMENTS:
        raise LocalProtocolError(
            f"a message of {count} segments: the format allows 1 to {MAX_SEGMENTS}. Build larger ones.",
            count=count,
            limit=MAX_SEGMENTS,
        )
    table = 8 * (count // 2 + 1)
    total = HEADER_BYTES + table + sum(sizes)
    if total > MAX_FRAME_BYTES:
        raise LocalProtocolError(
            f"a frame of {total} bytes: the format allows {MAX_FRAME_BYTES}. Send less, or in parts.",
            size=total,
            limit=MAX_FRAME_BYTES,
        )
    padding = (0,) if count % 2 == 0 else ()
    words = [size >> 3 for size in sizes]
    return struct.pack(
        f"<IHHQI{count + len(padding)}I", total - 4, wire_id, kind, correlation, count - 1, *words, *padding
    )

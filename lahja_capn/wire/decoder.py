"""Reading frames from bytes that come in any pieces.

Bytes are received into an arena and small frames are copied out of it, once, each segment into its own
``bytes``: an event that is kept then pins its own bytes only. A large frame gets a buffer of its own size as
soon as its header is there; its beginning is moved there once and the rest is received straight into it.

Alignment. Cap'n Proto reads a segment in place only if it starts at a multiple of 8. The payload of a
``bytes`` object starts 32 bytes into a block that the allocator aligns to 16. A frame's header and table are
multiples of 8, so the segments of a large frame, which starts where its buffer starts, are aligned as well.

Memory. A length is compared with its limit before a buffer is made for it, see ``memory``.

A stream of large frames. When so many had the same header, the next is received where it belongs from its first byte
on, into the memory of the one before if that is free: one read instead of two, and nothing is moved. If something else
comes it is moved from there, once, and read as anything is. Who sends frames of changing headers gains nothing by it
and loses nothing: requests, and events of which another kind comes between.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

from ..errors import HandshakeError, NotAPeer, RemoteProtocolError
from .frames import HEADER, HEADER_BYTES, LARGE_BYTES, ONE_SEGMENT, Buffer, Row, Segments
from .limits import CONTROL_FRAME_BYTES, MIN_FRAME_BYTES, Limits
from .memory import forget_memory, memory_for, memory_of_last

# Holds about 2,000 small events: enough that the cost of one receive call is spread thin.
ARENA_BYTES: Final = 256 * 1024

# What an arena begins with: most connections of a large bus say little at a time, and a handshake that never ends
# must cost little. An arena that a read has filled becomes so many times as large, up to ARENA_BYTES; before the
# handshake has ended, up to the largest frame that is received into it.
FIRST_ARENA_BYTES: Final = 16 * 1024
_GROWTH: Final = 4

# Offered at most where another large frame is expected: thousands of small events may come instead, and all that one
# read brings is handled before anybody else gets a turn.
_OFFERED_BYTES: Final = 4 * ARENA_BYTES

# Received at first behind a large frame: enough to see whether the next one is large, too.
_BEGIN_BYTES: Final = 4 * 1024

# The offset, from the frame's start, of the table of segment sizes.
_SIZES_AT: Final = HEADER_BYTES + 4

# Copies n words out of a buffer as bytes, without the memoryview that slicing would make in between.
_COPY_WORDS: Final[list[Callable[[Any, int], tuple[Any, ...]]]] = [
    struct.Struct(f"{8 * words}s").unpack_from for words in range(128)
]
_COPIED_WORDS: Final = len(_COPY_WORDS)

# The same for frames of one segment of n words, one behind the other: each as its first 24 bytes and its segment.
_SAME_WORDS: Final[list[Callable[[Any], Iterator[tuple[Any, ...]]]]] = [
    struct.Struct(f"{HEADER_BYTES + 8}s{8 * words}s").iter_unpack for words in range(_COPIED_WORDS)
]
# After so many events of one length in a row more of them are looked for. To look in vain costs as much as two frames.
# After so many large ones with one header another is received into memory of its size at once (`_expected`).
_SAME_FRAMES: Final = 8


class FrameDecoder:
    """Turns received bytes into frames. Any split of the same bytes gives the same frames.

    ``receive_buffer`` gives a place for the next bytes, ``bytes_received(n)`` says how many were put there,
    then ``frames`` returns what is complete; call it after every ``bytes_received``, until it returns
    nothing. ``nothing_received`` says that no bytes were there to be put.

    Until :meth:`open` only control frames are accepted, up to 1 MiB.
    """

    __slots__ = (
        "_arena",
        "_end",
        "_expected",
        "_fast_limit",
        "_filled",
        "_first",
        "_frame_limit",
        "_large",
        "_large_header",
        "_same_large",
        "_segment_limit",
        "_size",
        "_start",
        "_stray",
        "_view",
        "_was_large",
    )

    def __init__(self, limits: Limits) -> None:
        self._size = FIRST_ARENA_BYTES
        self._arena = bytearray(FIRST_ARENA_BYTES)
        self._view = memoryview(self._arena)
        self._start = 0
        self._end = 0
        # The frame that has a buffer of its own, and how much of it is there.
        self._large: memoryview | None = None
        self._filled = 0
        # The last thing received was a large frame's end, so the arena is empty.
        self._was_large = False
        # The header of the last large frame, and how many with the same one came before it with nothing between them.
        self._large_header = b""
        self._same_large = 0
        # Offered for another such frame, whole; and what was received there and is none.
        self._expected: memoryview | None = None
        self._stray: memoryview | None = None
        self._frame_limit = limits.frame_bytes
        self._segment_limit = limits.segments
        # Every frame larger than this is looked at closer; 0 until open(), so that all are.
        self._fast_limit = 0
        self._first = True

    def open(self) -> None:
        """Accept events, requests and responses from now on, up to the frame limit."""
        self._fast_limit = min(CONTROL_FRAME_BYTES, self._frame_limit)

    @property
    def is_between_frames(self) -> bool:
        """True if the bytes so far end where a frame ends."""
        return self._large is None and self._start == self._end

    def receive_buffer(self) -> memoryview:
        """Return a writable place for the next bytes, never empty. Valid until ``bytes_received``."""
        if self._large is not None:
            return self._large[self._filled :]
        if self._was_large:
            # Not before open(): then what is refused of something else may be right when it is looked at once more.
            if self._same_large >= _SAME_FRAMES and self._fast_limit:
                self._expected = expected = memory_of_last(
                    int.from_bytes(self._large_header[:4], "little") + 4
                )
                if expected is not None:
                    return expected[:_OFFERED_BYTES]
            # Another one may follow: what is received of it here is moved once more.
            return self._view[:_BEGIN_BYTES]
        if self._start and 4 * (self._size - self._end) < self._size:
            # Little room: what is left unread is moved to the start. In an arena of full size that is at most
            # LARGE_BYTES (longer frames have their own buffer), so less than was received meanwhile.
            left = self._end - self._start
            self._view[:left] = self._view[self._start : self._end]
            self._start, self._end = 0, left
        return self._view[self._end :]

    def bytes_received(self, count: int) -> None:
        """Say that ``count`` bytes were put into ``receive_buffer()``."""
        if self._large is not None:
            self._filled += count
        elif self._expected is not None:
            expected, self._expected = self._expected, None
            if count >= HEADER_BYTES and expected[:HEADER_BYTES] == self._large_header:
                # The frames before were looked at: there is nothing to refuse in this header.
                self._large = expected
                self._filled = count
            else:
                self._stray = expected[:count]
        else:
            self._was_large = False
            self._end = end = self._end + count
            if end == self._size and end < ARENA_BYTES:
                self._grow()

    def nothing_received(self) -> None:
        """Say that nothing was put into ``receive_buffer()``: it is not valid any more, and nobody keeps it."""
        self._expected = None

    def _grow(self) -> None:
        """A read has filled the arena, so there may be more where that came from."""
        size = min(_GROWTH * self._size, ARENA_BYTES if self._fast_limit else LARGE_BYTES)
        if size > self._size:
            arena = bytearray(size)
            left = self._end - self._start
            arena[:left] = self._view[self._start : self._end]
            self._start, self._end = 0, left
            self._size, self._arena, self._view = size, arena, memoryview(arena)

    def discard(self) -> None:
        """Forget everything received. For a connection that is only read until its end."""
        self._large = self._expected = self._stray = None
        self._was_large = False
        self._start = self._end = 0

    def release(self) -> None:
        """Nothing is received any more: give the memory back."""
        self.discard()
        forget_memory()
        self._size, self._arena = 0, bytearray()
        self._view = memoryview(self._arena)

    def frames(self) -> list[tuple[int, int, int, int, Segments]]:
        """Return the complete frames, in order, as tuples of the shape of :class:`Frame`; [] if none.

        Raises:
            RemoteProtocolError: the next frame breaks the format. Frames before it were returned by an
            earlier
                call; every later call raises again.
        """
        return [
            (wire_id, kind, correlation, size, segments)
            for wire_id, kind, correlation, _, frames in self.rows()
            for size, segments in frames
        ]

    def rows(self) -> list[Row]:
        """Return the same in rows: events of one wire id that follow each other, or one frame of another kind.

        Raises as :meth:`frames` does.
        """
        if self._large is not None:
            return self._large_frame(self._large)
        if self._stray is not None:
            return self._stray_rows(self._stray)
        found: list[Row] = []
        unpack = ONE_SEGMENT.unpack_from
        arena = self._arena
        copy_words = _COPY_WORDS
        fast_limit = self._fast_limit
        start = self._start
        end = self._end
        # The row of events that goes on: its wire id (-1: none goes on) and where it began; how many of its last frames
        # were of the same length, and of which.
        row_id = -1
        row_start = start
        same = same_length = 0
        frames: list[tuple[int, Segments]] = []
        error: RemoteProtocolError | None = None
        try:
            while end - start >= MIN_FRAME_BYTES:
                length, wire_id, kind, correlation, more, words = unpack(arena, start)
                size = length + 4
                if kind:
                    if not correlation or not wire_id or kind > 2:
                        self._refuse_header(start)
                elif correlation:
                    self._refuse_header(start)
                if size > fast_limit or length & 7 != 4 or length < 28:
                    self._check_size(length, wire_id, start)
                if end - start < size:
                    break
                if more or words << 3 != length - 20:
                    segments: Segments = tuple(
                        [
                            bytes(self._view[a:b])
                            for a, b in _segment_places(arena, start, size, self._segment_limit)
                        ]
                    )
                elif words < _COPIED_WORDS:
                    segments = copy_words[words](arena, start + 24)
                else:
                    segments = (bytes(self._view[start + 24 : start + size]),)
                if kind or wire_id != row_id:
                    if frames:
                        found.append((row_id, 0, 0, start - row_start, frames))
                        frames = []
                    if kind or not wire_id:
                        found.append((wire_id, kind, correlation, size, [(size, segments)]))
                        row_id = -1
                        start += size
                        continue
                    row_id = wire_id
                    row_start = start
                frames.append((size, segments))
                start += size
                if length != same_length:
                    same_length = length
                    same = 1
                    continue
                same += 1
                if same >= _SAME_FRAMES and not more and words < _COPIED_WORDS:
                    start = self._same(start, size, frames)
                    same = 0
            if start != end:
                self._start = start
                self._begin_frame(start, end - start)
            else:
                self._start = self._end = 0
        except RemoteProtocolError as raised:
            self._start = start
            error = raised
        if frames:
            found.append((row_id, 0, 0, start - row_start, frames))
        if found:
            self._first = False
            self._large_header = b""
        elif error is not None:
            raise error
        return found

    def _same(self, start: int, size: int, frames: list[tuple[int, Segments]]) -> int:
        """Take the frames from ``start`` on whose header is that of the frame before; return where they end.

        The header has passed every check, so there is nothing left to look at in those that begin with the same bytes.
        """
        header = bytes(self._view[start - size : start - size + 24])
        end = start + (self._end - start) // size * size
        append = frames.append
        for head, segment in _SAME_WORDS[size - 24 >> 3](self._view[start:end]):
            if head != header:
                break
            append((size, (segment,)))
            start += size
        return start

    def _begin_frame(self, start: int, have: int) -> None:
        """Look at the incomplete frame at ``start``: refuse it early, give it a buffer if it is large."""
        arena = self._arena
        if have < 4:
            return
        length = int.from_bytes(arena[start : start + 4], "little")
        if have < HEADER_BYTES:
            # The length alone tells HTTP, TLS and most other strangers, who may send no more and wait.
            self._check_size(length, None, start)
            return
        length, wire_id, kind, correlation = HEADER.unpack_from(arena, start)
        if kind > 2 or (kind != 0 and not wire_id) or (kind == 0) != (correlation == 0):
            self._refuse_header(start)
        self._check_size(length, wire_id, start)
        size = length + 4
        if size > LARGE_BYTES:
            large = memory_for(size)
            large[:have] = self._view[start : start + have]
            self._large = large
            self._filled = have
            self._start = self._end = 0

    def _large_frame(self, large: memoryview) -> list[Row]:
        size = len(large)
        if self._filled < size:
            return []
        _, wire_id, kind, correlation = HEADER.unpack_from(large)
        places = _segment_places(large, 0, size, self._segment_limit)
        kept = large.toreadonly()
        segments: Segments = tuple([kept[a:b] for a, b in places])
        self._large = None
        self._first = False
        if large[:HEADER_BYTES] == self._large_header:
            self._same_large += 1
        else:
            self._large_header = bytes(large[:HEADER_BYTES])
            self._same_large = 0
        self._was_large = True
        return [(wire_id, kind, correlation, size, [(size, segments)])]

    def _stray_rows(self, stray: memoryview) -> list[Row]:
        """Return the rows of what was received where another large frame was expected: it is received once more."""
        self._stray = None
        found: list[Row] = []
        while stray:
            place = self.receive_buffer()
            count = min(len(place), len(stray))
            place[:count] = stray[:count]
            place.release()
            stray = stray[count:]
            self.bytes_received(count)
            try:
                found += self.rows()
            except RemoteProtocolError:
                # What is wrong stands where the next call begins, and raises again; what comes behind it is lost.
                if not found:
                    raise
                break
        return found

    def _check_size(self, length: int, wire_id: int | None, start: int) -> None:
        """Raise unless a frame of this length may come now; ``wire_id`` is None while it is not known.

        Off the fast path: large frames, the handshake, and the first bytes of a frame.
        """
        if length & 7 != 4 or length < MIN_FRAME_BYTES - 4:
            self._refuse_stranger(start)
            raise RemoteProtocolError(
                f"a frame says DATA_LENGTH {length}: wanted 4 modulo 8 and at least {MIN_FRAME_BYTES - 4}",
                length=length,
            )
        if wire_id and not self._fast_limit:
            self._refuse_stranger(start)
            raise HandshakeError(
                f"a frame with EVENT_ID {wire_id} during the handshake: only control messages may come "
                "before the first subscriptions of both sides",
            )
        size = length + 4
        limit, whose = CONTROL_FRAME_BYTES, "the limit for control messages"
        if wire_id or (wire_id is None and self._fast_limit and self._frame_limit > limit):
            limit, whose = self._frame_limit, "our frame limit"
        if size > limit:
            self._refuse_stranger(start)
            raise RemoteProtocolError(
                f"a frame of {size} bytes: {whose} is {limit}", code="frameTooLarge", size=size, limit=limit
            )

    def _refuse_header(self, start: int) -> None:
        self._refuse_stranger(start)
        _, wire_id, kind, correlation = HEADER.unpack_from(self._arena, start)
        raise RemoteProtocolError(
            f"a frame with EVENT_ID {wire_id}, FLAGS {kind}, CORRELATION {correlation}: wanted 0, 0, "
            "0 (control), an id with 0, 0 (event), or an id with 1 or 2 and a number (request, response)",
        )

    def _refuse_stranger(self, start: int) -> None:
        """Raise NotAPeer if no frame was read yet: then it is not one of us that made a mistake."""
        if self._first and start == 0:
            got = bytes(self._arena[: min(self._end, HEADER_BYTES)])
            raise NotAPeer(
                f"the first bytes are {got!r}, which is no frame of this protocol: {_guess(got)}. Check that "
                "both sides use the same address and that a lahja_capn endpoint is at the other end.",
                got=got,
            )


def _segment_places(buffer: Buffer | bytearray, start: int, size: int, limit: int) -> list[tuple[int, int]]:
    """Return where each segment of the complete frame at ``start`` begins and ends in ``buffer``.

    Raises:
        RemoteProtocolError: a segment table that does not fit the frame exactly.
    """
    count = int.from_bytes(buffer[start + HEADER_BYTES : start + _SIZES_AT], "little") + 1
    if count > limit:
        raise RemoteProtocolError(
            f"a message of {count} segments: the limit is {limit}", count=count, limit=limit
        )
    table = 8 * (count // 2 + 1)
    if HEADER_BYTES + table + 8 > size:
        raise RemoteProtocolError(f"a table of {count} segments does not fit a frame of {size} bytes")
    sizes = struct.unpack_from(f"<{count}I", buffer, start + _SIZES_AT)
    if count % 2 == 0 and any(buffer[start + _SIZES_AT + 4 * count : start + HEADER_BYTES + table]):
        raise RemoteProtocolError("the padding of a segment table is not zero")
    if sizes[0] == 0:
        raise RemoteProtocolError("the first segment is empty: it must hold the root pointer")
    # Python's integers do not overflow; other peers must add in 64 bits.
    if HEADER_BYTES + table + 8 * sum(sizes) != size:
        raise RemoteProtocolError(
            f"segments of {8 * sum(sizes)} bytes in a frame that has room for {size - HEADER_BYTES - table}"
        )
    places = []
    at = start + HEADER_BYTES + table
    for words in sizes:
        places.append((at, at + 8 * words))
        at += 8 * words
    return places


def _guess(got: bytes) -> str:
    """Say what the first bytes look like."""
    if got.startswith(
        (b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"DELE", b"PATC", b"CONN", b"TRAC", b"PRI ")
    ):
        return "it looks like an HTTP client"
    if got.startswith(b"HTTP"):
        return "it looks like an HTTP server"
    if got.startswith(b"\x16\x03"):
        return "it looks like TLS, and this address is served without TLS"
    if got.startswith(b"SSH-"):
        return "it looks like SSH"
    if got[4:5] == b"\x80" and got[5:6] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "it looks like a pickle, as the original lahja sends them"
    if got.isascii() and got.decode("ascii").isprintable():
        return "it looks like text"
    return "it looks like nothing known"

"""The frame decoder, on any bytes in any pieces, against a second decoder written from docs/wire.md.

An input is two bytes of options and the stream::

    0  bit 0  the connection is up from the start
       bit 1  our frame limit is 1,024 bytes
       bit 2  decoder with its real buffers (else with small ones, whose ends a short input reaches)
    1  how the stream is cut into pieces; 0 is byte by byte
"""

from __future__ import annotations

import struct
from random import Random

from lahja_capn.errors import RemoteProtocolError
from lahja_capn.wire import FrameDecoder, FrameKind, Limits, decoder, encode_frame
from tests.fuzz import corpus
from tests.fuzz.mutate import damage_bytes, damage_frames

CONTROL_LIMIT = 1 << 20
FRAME_LIMIT = 4 << 20
SMALL_LIMIT = 1024
_LIMITS = {limit: Limits(frame_bytes=limit) for limit in (FRAME_LIMIT, SMALL_LIMIT)}
# Streams up to so many bytes also come byte by byte.
_BYTEWISE = 300
# Names of numbers in lahja_capn.wire.decoder, and what makes them small.
_SMALL = {"ARENA_BYTES": 1024, "FIRST_ARENA_BYTES": 64, "LARGE_BYTES": 128, "_SAME_FRAMES": 2}
_REAL = {name: getattr(decoder, name) for name in _SMALL}

Frames = list[tuple[int, int, int, int, tuple[bytes, ...]]]


class Decoder:
    name = "decoder"
    # The arena, and the buffer of an announced frame up to the limit; a frame is there whole, and in segments.
    base_bytes = (1 << 20) + FRAME_LIMIT
    bytes_per_byte = 16
    max_bytes = 4096

    def seeds(self) -> list[bytes]:
        found = []
        for folder in ("frames", "conversations", "refusals"):
            for number, vector in enumerate(corpus.vectors(folder)):
                found.append(bytes((number & 7 | (folder == "frames"), number * 37 & 255)) + vector.data)
        # With small buffers: so many large frames with one header that the decoder expects another.
        large = [
            b"".join(encode_frame(1, FrameKind.EVENT, 0, (bytes((number,)) * size,)))
            for number, size in enumerate((160, 160, 160, 160, 160, 168, 8, 160, 160, 160, 160, 160))
        ]
        found += [bytes((1, cut)) + b"".join(large) for cut in (0, 1, 255)]
        return found

    def mutate(self, data: bytes, seed: int) -> bytes:
        rng = Random(seed)
        head, stream = bytearray(data[:2].ljust(2, b"\0")), data[2:]
        if rng.random() < 0.2:
            head[rng.randrange(2)] = rng.randrange(256)
        if rng.random() < 0.9:
            stream = damage_frames(stream, rng, rng.choice(_streams())[2:])
        else:
            stream = damage_bytes(stream, rng)
        return bytes(head) + stream

    def run(self, data: bytes) -> None:
        options, cut = data[:2].ljust(2, b"\0")
        stream = data[2:]
        is_up = bool(options & 1)
        limit = SMALL_LIMIT if options & 2 else FRAME_LIMIT
        wanted, codes, must = decode(stream, is_up, limit)
        numbers = _REAL if options & 4 else _SMALL
        for name, value in numbers.items():
            setattr(decoder, name, value)
        try:
            # Byte by byte takes as long as a hundred other inputs, if there are many.
            for pieces in (None, cut or len(stream) > _BYTEWISE):
                got, code = feed(stream, is_up, limit, pieces)
                assert got == wanted, f"{len(got)} frames, wanted {len(wanted)}"
                if code is not None:
                    assert code in codes, f"refused as {code}, wanted {codes or 'no refusal'}"
                else:
                    assert not must, f"not refused, wanted {codes}"
        finally:
            for name, value in _REAL.items():
                setattr(decoder, name, value)


_all: list[bytes] = []


def _streams() -> list[bytes]:
    if not _all:
        _all.extend(Decoder().seeds())
    return _all


def feed(stream: bytes, is_up: bool, limit: int, cut: int | None) -> tuple[Frames, str | None]:
    """Return what FrameDecoder makes of a stream in pieces: frames, and the code with which it refused the next."""
    under_test = FrameDecoder(_LIMITS[limit])
    if is_up:
        under_test.open()
    rng = Random(cut or 0)
    found: Frames = []
    view = memoryview(stream)
    while view:
        place = under_test.receive_buffer()
        assert len(place), "no room to receive into"
        size = (
            len(view) if cut is None else 1 if cut == 0 else rng.choice((1, 3, 8, 15, 16, 17, 40, 200, 2000))
        )
        count = min(len(place), len(view), size)
        place[:count] = view[:count]
        place.release()
        under_test.bytes_received(count)
        try:
            while frames := under_test.frames():
                # Nobody keeps them: what a large one lay in serves the next.
                found += [(*head, tuple(map(bytes, segments))) for *head, segments in frames]
                del frames
        except RemoteProtocolError as error:
            again: Exception | None = None
            try:
                under_test.frames()
            except RemoteProtocolError as second:
                again = second
            assert again is not None, "refused once only"
            return found, error.code
        view = view[count:]
    return found, None


def decode(stream: bytes, is_up: bool, limit: int) -> tuple[Frames, set[str], bool]:
    """Return what docs/wire.md section 2 makes of a stream: frames, codes that fit what follows, must it be refused.

    Of an unfinished frame, what its first bytes already break may be refused, and must be once the header is there.
    """
    found: Frames = []
    at = 0
    while at < len(stream):
        rest = len(stream) - at
        codes: set[str] = set()
        if rest < 4:
            return found, codes, False
        (length,) = struct.unpack_from("<I", stream, at)
        size = length + 4
        if length % 8 != 4 or length < 28:
            codes.add("protocolError")
        if rest < 16:
            if size > (max(limit, CONTROL_LIMIT) if is_up else CONTROL_LIMIT):
                codes.add("frameTooLarge")
                if at == 0:
                    codes.add("protocolError")
            return found, codes, "protocolError" in codes and length % 8 != 4
        wire_id, kind, correlation = struct.unpack_from("<HHQ", stream, at + 4)
        if size > (limit if wire_id else CONTROL_LIMIT):
            codes.add("frameTooLarge")
        if (wire_id, kind, correlation) != (0, 0, 0) and (
            wire_id == 0 or kind > 2 or (kind == 0) != (correlation == 0)
        ):
            codes.add("protocolError")
        if wire_id and not is_up:
            codes.add("protocolError")
        if codes:
            if not is_up and size > CONTROL_LIMIT:
                # Whichever kind it is, it must be refused: its length may be looked at before its kind is there.
                codes.add("frameTooLarge")
            return found, codes | {"protocolError"} if at == 0 else codes, True
        if rest < size:
            return found, codes, False
        (more,) = struct.unpack_from("<I", stream, at + 16)
        count = more + 1
        table = 8 * (count // 2 + 1)
        segments = []
        fits = count <= 512 and 16 + table <= size
        if fits:
            sizes = struct.unpack_from(f"<{count}I", stream, at + 20)
            fits = sizes[0] > 0 and 16 + table + 8 * sum(sizes) == size
            fits = fits and (count % 2 == 1 or stream[at + 20 + 4 * count : at + 16 + table] == bytes(4))
        if not fits:
            return found, {"protocolError"}, True
        start = at + 16 + table
        for words in sizes:
            segments.append(stream[start : start + 8 * words])
            start += 8 * words
        found.append((wire_id, kind, correlation, size, tuple(segments)))
        at += size
    return found, set(), False

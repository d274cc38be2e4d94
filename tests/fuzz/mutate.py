"""Damage of a kind that a byte flipper rarely finds: to words, pointers, segment tables, headers and order.

Everything here is a function of a ``random.Random``: the same seed gives the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

# Numbers on both sides of what readers compare with.
NUMBERS = [
    0, 1, 2, 3, 4, 7, 8, 9, 12, 16, 20, 24, 27, 28, 29, 31, 32, 36, 63, 64, 65, 127, 128, 255, 256, 257, 511, 512,
    513, 1023, 1024, 1025, 4095, 4096, 8191, 8192, 8193, 65535, 65536, 65537, 2**20 - 4, 2**20, 2**20 + 4, 2**24,
    2**28, 2**29 - 1, 2**29, 2**30 - 1, 2**31 - 8, 2**31 - 1, 2**31, 2**32 - 8, 2**32 - 4, 2**32 - 1, 2**32,
    2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1,
]  # fmt: skip
# Bytes that a Text must not, or only just may, contain.
TEXTS = [
    b"\0",
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xe2\x82",
    b"\xf0\x9f\x90\x90",
    b"a" * 9,
]

MAX_BYTES = 1 << 15


def pointer(rng: Random) -> int:
    """Return a pointer word of any kind, with what it says small, or at an edge."""
    kind = rng.randrange(8)
    near = rng.choice((-3, -2, -1, 0, 0, 0, 1, 2, 3, 5, 8, 13, rng.randrange(-64, 64)))
    offset = (near if rng.random() < 0.9 else rng.choice(NUMBERS)) & 0x3FFFFFFF
    count = rng.randrange(12) if rng.random() < 0.6 else rng.choice(NUMBERS)
    if kind < 2:
        return offset << 2 | (count & 0xFFFF) << 32 | (rng.choice((0, 1, 2, 3, count)) & 0xFFFF) << 48
    if kind < 5:
        return 1 | offset << 2 | rng.randrange(8) << 32 | (count & 0x1FFFFFFF) << 35
    if kind < 7:
        return (
            2
            | rng.choice((0, 0, 4))
            | (offset & 0x1FFFFFFF) << 3
            | (rng.choice((0, 0, 1, 2, count)) & 0xFFFFFFFF) << 32
        )
    return 3 | rng.choice((0, 4, 1 << 3, 1 << 32))


def number(rng: Random) -> int:
    base = rng.choice(NUMBERS)
    return (base + rng.choice((0, 0, 0, -1, 1, -8, 8))) & 2**64 - 1


def damage_words(data: bytes, rng: Random) -> bytes:
    """Damage bytes that are words of a message: their length stays a multiple of 8 if it was one."""
    if len(data) < 8:
        return data + bytes(8)
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        words = len(out) // 8
        at = 8 * rng.randrange(words)
        other = 8 * rng.randrange(words)
        what = rng.randrange(12)
        if what < 3:
            struct.pack_into("<Q", out, at, pointer(rng))
        elif what == 3:
            struct.pack_into("<Q", out, at, number(rng))
        elif what == 4:
            out[at : at + 8] = out[other : other + 8]
        elif what == 5:
            # One of the numbers in a pointer: where to, how large, how many.
            word = int.from_bytes(out[at : at + 8], "little")
            part = rng.choice(((2, 30), (32, 3), (35, 29), (32, 16), (48, 16), (0, 2)))
            mask = ((1 << part[1]) - 1) << part[0]
            step = rng.choice((-2, -1, 1, 2, 8, 1 << part[1] - 1))
            value = ((word & mask) + (step << part[0])) & mask
            struct.pack_into("<Q", out, at, word & ~mask | value)
        elif what == 6:
            out[at + rng.randrange(8)] ^= 1 << rng.randrange(8)
        elif what == 7:
            text = rng.choice(TEXTS)[:8]
            out[at : at + len(text)] = text
        elif what == 8:
            del out[at : at + 8 * rng.choice((1, 1, 2, 4))]
            if len(out) < 8:
                out += bytes(8)
        elif what == 9:
            out[at:at] = out[other : other + 8 * rng.choice((1, 2, 4, 16))]
        elif what == 10:
            out[at:at] = struct.pack("<Q", pointer(rng))
        else:
            size = rng.choice((1, 2, 4))
            out[at : at + size] = (number(rng) & (1 << 8 * size) - 1).to_bytes(size, "little")
    return bytes(out[: MAX_BYTES & ~7])


def damage_bytes(data: bytes, rng: Random) -> bytes:
    """Damage bytes of no known shape."""
    out = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(out))
        what = rng.randrange(6)
        if what == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            out[at] = rng.choice((0, 1, 2, 127, 128, 255))
        elif what == 2:
            del out[at : at + rng.choice((1, 2, 4, 8))]
            out = out or bytearray(b"\0")
        elif what == 3:
            out[at:at] = rng.randbytes(rng.choice((1, 4, 8)))
        elif what == 4:
            size = rng.choice((2, 4, 8))
            out[at : at + size] = (number(rng) & (1 << 8 * size) - 1).to_bytes(size, "little")
        else:
            del out[at:]
            out = out or bytearray(b"\0")
    return bytes(out[:MAX_BYTES])


# --- messages in stream framing -------------------------------------------------------------------------------


def split_message(data: bytes) -> tuple[bytes, ...]:
    """Return the segments of a message in stream framing; of anything else: one segment that holds it all."""
    if len(data) >= 8:
        count = int.from_bytes(data[:4], "little") + 1
        table = 8 * (count // 2 + 1)
        if count <= 512 and table <= len(data):
            sizes = struct.unpack_from(f"<{count}I", data, 4)
            if sizes[0] and table + 8 * sum(sizes) == len(data):
                found = []
                for words in sizes:
                    found.append(data[table : table + 8 * words])
                    table += 8 * words
                return tuple(found)
    return (data + bytes(-len(data) % 8) or bytes(8),)


def join_message(segments: tuple[bytes, ...]) -> bytes:
    """Return a message in stream framing, with its table."""
    count = len(segments)
    sizes = [len(segment) // 8 for segment in segments]
    padding = b"" if count % 2 else bytes(4)
    return struct.pack(f"<{count + 1}I", count - 1, *sizes) + padding + b"".join(segments)


def damage_message(data: bytes, rng: Random) -> bytes:
    """Damage a message inside: its segments stay segments, so that what reads them has something to do."""
    segments = list(split_message(data))
    what = rng.randrange(10)
    at = rng.randrange(len(segments))
    if what == 0 and len(segments) < 8:
        segments.insert(
            rng.randrange(len(segments)) + 1, struct.pack("<Q", pointer(rng)) * rng.randrange(1, 4)
        )
    elif what == 1 and len(segments) > 1:
        other = rng.randrange(len(segments))
        segments[at], segments[other] = segments[other], segments[at]
    elif what == 2 and len(segments) > 1:
        del segments[at]
    elif what == 3 and len(segments[at]) > 16:
        # Far pointers need a second segment: cut one in two.
        cut = 8 * rng.randrange(1, len(segments[at]) // 8)
        segments[at : at + 1] = [segments[at][:cut], segments[at][cut:]]
    else:
        segments[at] = damage_words(segments[at], rng)
    if not segments[0]:
        segments[0] = bytes(8)
    return join_message(tuple(segments))


# --- frames --------------------------------------------------------------------------------------------------


def split_frames(data: bytes) -> list[bytes]:
    """Cut a stream into frames, as far as its lengths can be believed; the rest is the last piece."""
    found = []
    at = 0
    while at + 4 <= len(data):
        size = int.from_bytes(data[at : at + 4], "little") + 4
        if size < 16 or at + size > len(data):
            break
        found.append(data[at : at + size])
        at += size
    if at < len(data):
        found.append(data[at:])
    return found


def frame(wire_id: int, kind: int, correlation: int, message: bytes) -> bytes:
    return struct.pack("<IHHQ", 12 + len(message) & 2**32 - 1, wire_id, kind, correlation) + message


def _header(data: bytes, rng: Random) -> bytes:
    out = bytearray(data.ljust(16, b"\0"))
    at, size = rng.choice(((0, 4), (4, 2), (6, 2), (8, 8), (16, 4), (20, 4)))
    if at + size > len(out):
        at, size = 0, 4
    old = int.from_bytes(out[at : at + size], "little")
    new = rng.choice(
        (number(rng), old + 1, old - 1, old + 8, old - 8, old ^ 1 << rng.randrange(8 * size), 0, 1, 7, 9, 300)
    )
    out[at : at + size] = (new & (1 << 8 * size) - 1).to_bytes(size, "little")
    return bytes(out)


def _inside(data: bytes, rng: Random) -> bytes:
    """Damage the message of a frame and put the length right again."""
    if len(data) < 32:
        return data
    message = damage_message(data[16:], rng)
    _, wire_id, kind, correlation = struct.unpack_from("<IHHQ", data)
    return frame(wire_id, kind, correlation, message)


def _word(data: bytes, rng: Random) -> bytes:
    return data[:16] + damage_words(data[16:], rng) if len(data) >= 24 else data + bytes(8)


_FRAME: list[Callable[[bytes, Random], bytes]] = [
    _header,
    _header,
    _inside,
    _inside,
    _inside,
    _inside,
    _word,
    damage_bytes,
]


def damage_frames(data: bytes, rng: Random, other: bytes = b"") -> bytes:
    """Damage a stream of frames: one of them inside, or which there are and in which order."""
    frames = split_frames(data) or [b""]
    for _ in range(rng.choice((1, 1, 2, 3))):
        # Rather a later one: what comes first must be right for the rest to matter.
        at = max(rng.randrange(len(frames)), rng.randrange(len(frames)))
        what = rng.randrange(12)
        if what < 6:
            frames[at] = rng.choice(_FRAME)(frames[at], rng)
        elif what == 6 and len(frames) > 1:
            del frames[at]
        elif what == 7:
            frames[at:at] = [frames[rng.randrange(len(frames))]] * rng.choice((1, 1, 2, 9))
        elif what == 8:
            to = rng.randrange(len(frames))
            frames[at], frames[to] = frames[to], frames[at]
        elif what == 9 and other:
            frames[at:at] = rng.sample(
                theirs := split_frames(other), min(len(theirs), rng.choice((1, 1, 2, 4)))
            )
        elif what == 10 and other:
            frames[at:] = split_frames(other)[-rng.randrange(1, 5) :]
        else:
            frames[at] = frames[at][: rng.randrange(len(frames[at]) + 1)]
    return b"".join(frames)[:MAX_BYTES]

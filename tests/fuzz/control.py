"""Control messages: whatever the bytes, a value that is complete and small, or RemoteProtocolError.

An input is a message in stream framing; bytes that are none count as one segment.
"""

from __future__ import annotations

import dataclasses
from random import Random
from typing import Any

from lahja_capn.errors import RemoteProtocolError
from lahja_capn.session.control import (
    Declare,
    Dropped,
    Goodbye,
    Hello,
    Subscriptions,
    decode_control,
    encode_control,
)
from tests.fuzz import corpus
from tests.fuzz.mutate import damage_bytes, damage_message, split_frames, split_message


class Control:
    name = "control"
    # Of each byte of a message at most a few objects are made: a list's numbers, a row with its name.
    base_bytes = 256 * 1024
    bytes_per_byte = 64
    max_bytes = 4096

    def seeds(self) -> list[bytes]:
        found: dict[bytes, None] = {}
        for folder in ("frames", "conversations", "refusals"):
            for vector in corpus.vectors(folder):
                for frame in split_frames(vector.data):
                    if frame[4:16] == bytes(12):
                        found[frame[16:]] = None
        return list(found)

    def mutate(self, data: bytes, seed: int) -> bytes:
        rng = Random(seed)
        return damage_message(data, rng) if rng.random() < 0.95 else damage_bytes(data, rng)

    def run(self, data: bytes) -> None:
        segments = split_message(data)
        size = sum(map(len, segments))
        try:
            message = decode_control(segments)
        except RemoteProtocolError as error:
            if error.code in ("protocolError", "unknownControl"):
                return
            raise
        assert self._size(message) <= size, f"{message} read out of {size} bytes"
        if _can_be_written(message):
            again = decode_control(tuple(map(bytes, encode_control(message))))
            assert again == message, f"{again}, written as {message}"

    def _size(self, message: Any) -> int:
        """Return the bytes that a message has at least, as docs/wire.md section 2 counts them.

        A row or a drop count of which nothing stands in its second word may be shorter, down to one byte.
        """
        rows = message.rows if isinstance(message, (Hello, Declare)) else ()
        size = sum(
            16 + len(row.name) + 4 * len(row.layout)
            if wire_id or row.name or row.layout or row.kind != "struct"
            else 1
            for wire_id, row in rows
        )
        if isinstance(message, Hello):
            assert len(message.features) <= 256
            size += sum(8 + len(text) for text in message.features)
        elif isinstance(message, Subscriptions):
            size += 8 * (len(message.add) + len(message.remove))
        elif isinstance(message, Dropped):
            size += sum(16 if count else 1 for _, count in message.counts)
        return size


def _can_be_written(message: Any) -> bool:
    """False for what only a peer of another version says, and for a goodbye that could not be read."""
    if isinstance(message, Hello) and message.protocol_version != 1:
        return False
    if isinstance(message, Goodbye) and message.code == "unknown":
        return False
    return "unknown(" not in str([getattr(message, field.name) for field in dataclasses.fields(message)])

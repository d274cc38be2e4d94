"""Reads messages and frames with lahja_capn's decoder and binding, and writes them again.

A vector that is not met raises AssertionError with what was wanted and what came.
"""

from __future__ import annotations

import tracemalloc
from typing import Any

from lahja_capn import EventFieldError
from lahja_capn.binding import StructCodec
from lahja_capn.session.control import decode_control
from lahja_capn.wire import FrameDecoder, Limits, encode_frame

from . import bound
from .loading import Vector
from .plans import plan_of, wire

# "Not more than a few MB" (README.md): an arena of 256 KiB, and what eight times the message comes to as values.
UNREADABLE_BYTES = 4_000_000

KINDS = ("event", "request", "response")

_control = StructCodec(wire.Control)
_opaque = StructCodec(wire.Opaque)


def read_message(vector: Vector) -> Any:
    """Return the JSON value of a message in stream framing."""
    facts = vector.facts
    (frame,) = decode_frames(_framed(vector.data))
    assert len(frame[4]) == facts["segments"], len(frame[4])
    if facts.get("schema") == "wire":
        assert facts["type"] == "Opaque"
        return {"data": bytes(_opaque.open(frame[4]).data).hex()}
    return bound.read(bound.TYPES[facts["type"]].open(frame[4]))


def run_message(vector: Vector) -> None:
    if vector.facts.get("unreadable"):
        run_unreadable(vector)
        return
    same(read_message(vector), vector.facts["value"])


def run_unreadable(vector: Vector) -> None:
    # What is read of 12 kB that claim to hold 4 MB must not come to 4 MB.
    tracemalloc.start()
    try:
        read_message(vector)
    except EventFieldError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < UNREADABLE_BYTES, f"reading it took {peak:,} bytes"


def run_value(vector: Vector) -> None:
    facts = vector.facts
    event = bound.build(facts["type"], facts["build"])
    segments = bound.TYPES[facts["type"]].encode(event)
    again = bound.TYPES[facts["type"]].open(tuple(map(bytes, segments)))
    same(bound.read(again), facts["value"])


def run_frame(vector: Vector) -> None:
    facts = vector.facts
    flags = 0 if facts["kind"] == "control" else KINDS.index(facts["kind"])
    (frame,) = decode_frames(vector.data)
    wire_id, kind, correlation, size, segments = frame
    same((wire_id, kind, str(correlation)), (facts["wire_id"], flags, facts["correlation"]))
    same((size, len(segments)), (len(vector.data), facts["segments"]))
    if facts["kind"] == "control":
        same(show_control(segments), facts["control"])
        decode_control(segments)
        if facts.get("read_only"):
            return
        written: Any = _control.encode(**_controls(facts["control"]))
    else:
        same(bound.read(bound.TYPES[facts["type"]].open(segments)), facts["value"])
        written = bound.TYPES[facts["type"]].encode(bound.build(facts["type"], facts["value"]))
    data = b"".join(encode_frame(wire_id, flags, correlation, written))
    assert data[4:16] == vector.data[4:16]
    (again,) = decode_frames(data)
    if facts["kind"] == "control":
        same(show_control(again[4]), facts["control"])
    else:
        same(bound.read(bound.TYPES[facts["type"]].open(again[4])), facts["value"])


def show_control(segments: Any) -> dict[str, Any]:
    return bound._read(_control.open(segments), plan_of(wire.Control))


def _controls(value: dict[str, Any]) -> dict[str, Any]:
    return bound._arguments(plan_of(wire.Control), value)


def _framed(body: bytes) -> bytes:
    return (12 + len(body)).to_bytes(4, "little") + b"\1\0\0\0" + bytes(8) + body


def decode_frames(data: bytes) -> list[tuple[int, int, int, int, Any]]:
    decoder = FrameDecoder(Limits())
    decoder.open()
    found = []
    view = memoryview(data)
    while view:
        place = decoder.receive_buffer()
        count = min(len(place), len(view))
        place[:count] = view[:count]
        place.release()
        decoder.bytes_received(count)
        while frames := decoder.frames():
            found += frames
        view = view[count:]
    assert decoder.is_between_frames
    return found


def same(got: Any, wanted: Any, where: str = "") -> None:
    """Compare two JSON values and say where they first differ."""
    if isinstance(got, dict) and isinstance(wanted, dict):
        assert got.keys() == wanted.keys(), f"{where}: fields {list(got)}, wanted {list(wanted)}"
        for name in wanted:
            same(got[name], wanted[name], f"{where}.{name}")
    elif isinstance(got, list) and isinstance(wanted, list):
        assert len(got) == len(wanted), f"{where}: {len(got)} elements, wanted {len(wanted)}: {got}"
        for i, (one, other) in enumerate(zip(got, wanted, strict=True)):
            same(one, other, f"{where}[{i}]")
    else:
        assert type(got) is type(wanted), f"{where}: {got!r}, wanted {wanted!r}"
        assert got == wanted, f"{where}: {str(got)[:200]!r}, wanted {str(wanted)[:200]!r}"

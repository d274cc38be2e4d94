"""Frames on the wire: made, and read from bytes that come in any pieces. Knows no event and no connection."""

from __future__ import annotations

from .decoder import FrameDecoder
from .frames import Buffer, Frame, FrameKind, Row, Segments, encode_frame, frame_size
from .limits import KEEPALIVE_TCP_S, KEEPALIVE_UNIX_S, UNLIMITED, Limits

__all__ = [
    "KEEPALIVE_TCP_S",
    "KEEPALIVE_UNIX_S",
    "UNLIMITED",
    "Buffer",
    "Frame",
    "FrameDecoder",
    "FrameKind",
    "Limits",
    "Row",
    "Segments",
    "encode_frame",
    "frame_size",
]

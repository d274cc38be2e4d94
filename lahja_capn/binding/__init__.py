"""Binds Python classes to Cap'n Proto structs: events, nested structs, the registry, and the codec.

The only layer that touches pycapnp objects. What the layers to its right use of it is ``EventType.encode``
and ``.open``, and ``StructCodec`` for control messages.
"""

from __future__ import annotations

from lahja_capn.binding.annotations import OPTIONAL
from lahja_capn.binding.anypointer import AnyPointer
from lahja_capn.binding.bind import bind
from lahja_capn.binding.codec import StructCodec
from lahja_capn.binding.dataview import DataView
from lahja_capn.binding.enumerant import Enumerant
from lahja_capn.binding.event import BaseEvent, BaseRequestResponseEvent, BroadcastConfig, RequestToken
from lahja_capn.binding.eventtype import EventType, TypeRow
from lahja_capn.binding.pointers import Buffer, Segments
from lahja_capn.binding.record import struct_size
from lahja_capn.binding.registry import BINDINGS, event_type, find_event_type
from lahja_capn.binding.structs import Struct

__all__ = [
    "BINDINGS",
    "OPTIONAL",
    "AnyPointer",
    "BaseEvent",
    "BaseRequestResponseEvent",
    "BroadcastConfig",
    "Buffer",
    "DataView",
    "Enumerant",
    "EventType",
    "RequestToken",
    "Segments",
    "Struct",
    "StructCodec",
    "TypeRow",
    "bind",
    "event_type",
    "find_event_type",
    "struct_size",
]

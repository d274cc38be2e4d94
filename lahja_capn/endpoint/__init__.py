"""Endpoints: the public API, written once for every runtime."""

from __future__ import annotations

from .api import EndpointAPI
from .config import TLS, ConnectionConfig
from .endpoint import Endpoint
from .inbox import InboxCounters
from .keeping import Backoff, KeptConnections
from .streams import EventStream
from .subscription import Subscription

__all__ = [
    "TLS",
    "Backoff",
    "ConnectionConfig",
    "Endpoint",
    "EndpointAPI",
    "EventStream",
    "InboxCounters",
    "KeptConnections",
    "Subscription",
]

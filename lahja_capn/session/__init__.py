"""One connection as a value: bytes in, events out, bytes to send, next deadline; no socket, loop or clock."""

from __future__ import annotations

from .counters import Counters
from .events import (
    Arrivals,
    Arrived,
    Closed,
    FailedArrived,
    PeerDropped,
    PeerHello,
    PeerUp,
    ResponseArrived,
    SessionEvent,
    SessionNews,
    SubscriptionsApplied,
    SubscriptionsChanged,
    TypeDisabled,
)
from .local import LocalEndpoint, PeerInfo
from .outbox import Offer, Policy
from .session import Session
from .state import State
from .tables import Incompatibility, WireTable

__all__ = [
    "Arrivals",
    "Arrived",
    "Closed",
    "Counters",
    "FailedArrived",
    "Incompatibility",
    "LocalEndpoint",
    "Offer",
    "PeerDropped",
    "PeerHello",
    "PeerInfo",
    "PeerUp",
    "Policy",
    "ResponseArrived",
    "Session",
    "SessionEvent",
    "SessionNews",
    "State",
    "SubscriptionsApplied",
    "SubscriptionsChanged",
    "TypeDisabled",
    "WireTable",
]

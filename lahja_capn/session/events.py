"""What a session tells its endpoint, in the order it happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ..binding import EventType, TypeRow
from ..wire import Segments
from .local import PeerInfo
from .tables import Incompatibility


@dataclass(frozen=True, slots=True)
class PeerHello:
    """The peer's hello is valid. The endpoint now calls ``accept`` or ``close``."""

    info: PeerInfo


@dataclass(frozen=True, slots=True)
class PeerUp:
    """Both sides have said what they subscribe to: events may flow."""


@dataclass(frozen=True, slots=True)
class SubscriptionsChanged:
    """The peer subscribes to other types than before: what really changed (type ids), and whether to all."""

    added: frozenset[int]
    removed: frozenset[int]
    all: bool


@dataclass(frozen=True, slots=True)
class SubscriptionsApplied:
    """The peer has applied our subscriptions up to this sequence: every event from now on obeys them."""

    sequence: int


class Arrivals:
    """Events of one type that came one behind the other: each is known, compatible and subscribed here.

    ``frames`` as the decoder made them: of each its size, to give back as credit once the event was taken, and its
    segments. Nothing is made for each event of a stream on its way through a session.
    """

    __slots__ = ("event_type", "frames")

    def __init__(self, event_type: EventType, frames: list[tuple[int, Segments]]) -> None:
        self.event_type = event_type
        self.frames = frames

    def __repr__(self) -> str:
        return f"<Arrivals {len(self.frames)} {self.event_type.name}>"


class Arrived:
    """An event or a request whose type is known, compatible and subscribed here. One per frame: small.

    ``kind`` is a ``FrameKind``, ``size`` the frame size to give back as credit once the event was taken,
    ``number`` the request's (0 for an event).
    """

    __slots__ = ("event_type", "kind", "number", "segments", "size")

    def __init__(self, kind: int, event_type: EventType, segments: Segments, size: int, number: int) -> None:
        self.kind = kind
        self.event_type = event_type
        self.segments = segments
        self.size = size
        self.number = number

    def __repr__(self) -> str:
        return f"<Arrived {self.event_type.name} kind={self.kind} number={self.number} {self.size} bytes>"


class ResponseArrived:
    """The answer to our open request ``number``. ``event_type`` is None if its type is not known here.

    ``row`` is what the peer declared, but for its layout.

    One per request, so it is a plain class: a frozen dataclass takes three times as long to make.
    """

    __slots__ = ("event_type", "number", "row", "segments", "size")

    def __init__(
        self, number: int, event_type: EventType | None, row: TypeRow, segments: Segments, size: int
    ) -> None:
        self.number = number
        self.event_type = event_type
        self.row = row
        self.segments = segments
        self.size = size

    def __repr__(self) -> str:
        return f"<ResponseArrived {self.row.name} number={self.number} {self.size} bytes>"


@dataclass(frozen=True, slots=True)
class FailedArrived:
    """Our open request ``number`` failed at the peer: ``code`` is a ``FailedCode``."""

    number: int
    code: str
    type_name: str
    text: str


@dataclass(frozen=True, slots=True)
class TypeDisabled:
    """A type cannot pass between these two endpoints. Once per type and binding."""

    incompatibility: Incompatibility


@dataclass(frozen=True, slots=True)
class PeerDropped:
    """The peer dropped so many events for us since it last said so, by type id."""

    counts: dict[int, int]


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection has ended; exactly once, and nothing follows.

    ``code`` is a ``GoodbyeCode``, the peer's or ours; "" if the peer was lost without one. ``error`` is what
    went wrong, if it was the peer's bytes or silence.
    """

    code: str
    text: str
    by_peer: bool
    error: Exception | None = None


SessionEvent: TypeAlias = (
    PeerHello
    | PeerUp
    | SubscriptionsChanged
    | SubscriptionsApplied
    | Arrived
    | ResponseArrived
    | FailedArrived
    | TypeDisabled
    | PeerDropped
    | Closed
)

# The same with events in rows: what the endpoint takes.
SessionNews: TypeAlias = SessionEvent | Arrivals

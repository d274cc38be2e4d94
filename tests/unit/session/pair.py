"""Helpers: event types without classes, two sessions joined back to back, and a peer made of raw frames."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, cast

from lahja_capn.binding import EventType, TypeRow
from lahja_capn.session import Closed, LocalEndpoint, Offer, Session, SessionEvent, WireTable
from lahja_capn.session.control import ControlMessage, Hello, Subscriptions, TableRow, decode_control
from lahja_capn.session.handshake import encode_control_frame
from lahja_capn.wire import Buffer, Frame, FrameDecoder, FrameKind, Limits, Segments, encode_frame, frame_size


class FakeType:
    """What a session looks at in an EventType."""

    def __init__(
        self,
        type_id: int,
        name: str,
        *,
        is_request: bool = False,
        layout: tuple[int, ...] = (1, 2, 3),
        reachable: tuple[TypeRow, ...] = (),
        kind: str = "struct",
    ) -> None:
        self.type_id = type_id
        self.name = name
        self.is_request = is_request
        self.row = TypeRow(type_id, kind, f"events.capnp:{name}", layout)
        self.reachable = reachable


def fake_type(number: int, name: str, **facts: Any) -> EventType:
    return cast(EventType, FakeType(0x9000_0000_0000_0000 + number, name, **facts))


def struct_row(number: int, layout: tuple[int, ...] = (7, 8)) -> TypeRow:
    return TypeRow(0xA000_0000_0000_0000 + number, "struct", f"events.capnp:Inner{number}", layout)


ALPHA = fake_type(1, "Alpha")
BETA = fake_type(2, "Beta")
ASK = fake_type(3, "Ask", is_request=True)
ANSWER = fake_type(4, "Answer")
TYPES = (ALPHA, BETA, ASK, ANSWER)

SEGMENTS: Segments = (b"\0" * 16,)
SIZE = 40


def registry(*types: EventType) -> dict[int, EventType]:
    return {event_type.type_id: event_type for event_type in types or TYPES}


def endpoint(name: str, **facts: Any) -> LocalEndpoint:
    limits = facts.pop("limits", None) or Limits()
    return LocalEndpoint(name=name, instance=name.encode().ljust(16, b"."), limits=limits, **facts)


class ConnectionPair:
    """Two sessions, "left" (the connector) and "right", and the bytes between them.

    ``piece`` is how many bytes are handed over at a time. What each side's endpoint would see is collected in
    ``seen``.
    """

    def __init__(
        self,
        left: LocalEndpoint | None = None,
        right: LocalEndpoint | None = None,
        *,
        left_types: dict[int, EventType] | None = None,
        right_types: dict[int, EventType] | None = None,
        piece: int = 1 << 30,
    ) -> None:
        self.now = 100.0
        self.piece = piece
        self.left_types = registry() if left_types is None else left_types
        self.right_types = registry() if right_types is None else right_types
        self.left_local = left or endpoint("left")
        self.right_local = right or endpoint("right")
        self.left_table = WireTable(self.left_local.limits)
        self.right_table = WireTable(self.right_local.limits)
        self.left = Session(
            self.left_local,
            self.left_table,
            connector=True,
            now=self.now,
            expected_peer=self.right_local.name,
            find_event_type=self.left_types.get,
        )
        self.right = Session(
            self.right_local,
            self.right_table,
            connector=False,
            now=self.now,
            find_event_type=self.right_types.get,
        )
        self.seen: dict[Session, list[SessionEvent]] = {self.left: [], self.right: []}
        # All bytes that passed, by sender.
        self.log: dict[Session, bytearray] = {self.left: bytearray(), self.right: bytearray()}
        self._ended: set[Session] = set()

    def other(self, session: Session) -> Session:
        return self.right if session is self.left else self.left

    def table(self, session: Session) -> WireTable:
        return self.left_table if session is self.left else self.right_table

    def pass_on(self, sender: Session, max_bytes: int = 1 << 20) -> bool:
        """Hand over what one side has to send. False if there was nothing."""
        receiver = self.other(sender)
        data = b"".join(sender.data_to_send(max_bytes))
        self.log[sender] += data
        for start in range(0, len(data), self.piece):
            receiver.receive_bytes(data[start : start + self.piece], self.now)
        ends = (sender.send_finished or sender.is_closed) and sender not in self._ended
        if ends:
            self._ended.add(sender)
            receiver.receive_eof(self.now)
        self.collect()
        return bool(data) or ends

    def collect(self) -> None:
        for session in (self.left, self.right):
            self.seen[session] += session.take_events()

    def settle(self) -> None:
        """Pass bytes in both directions until nobody has anything to say."""
        while self.pass_on(self.left) | self.pass_on(self.right):
            pass

    def connect(self, left: Iterable[EventType] = (), right: Iterable[EventType] = ()) -> ConnectionPair:
        """Bring the connection up, each side subscribed to the given types."""
        self.settle()
        self.right.accept([t.type_id for t in right])
        self.settle()
        self.left.accept([t.type_id for t in left])
        self.settle()
        return self

    def take(self, session: Session) -> list[SessionEvent]:
        """What the session's endpoint has seen since the last call."""
        self.collect()
        seen, self.seen[session] = self.seen[session], []
        return seen

    def clear(self) -> ConnectionPair:
        self.take(self.left)
        self.take(self.right)
        return self

    def offer(self, sender: Session, event_type: EventType, segments: Segments = SEGMENTS) -> Offer:
        buffers = encode_frame(self.table(sender).wire_id(event_type), FrameKind.EVENT, 0, segments)
        return sender.offer_event(event_type, frame_size(buffers), buffers)


def up(left: Iterable[EventType] = (), right: Iterable[EventType] = (), **facts: Any) -> ConnectionPair:
    """A pair that is up, with nothing left to see."""
    return ConnectionPair(**facts).connect(left, right).clear()


# --- a peer made of raw frames ------------------------------------------------------------------------


def raw_hello(**changes: Any) -> Hello:
    facts: dict[str, Any] = {
        "protocol_version": 1,
        "name": "raw",
        "instance": b"raw peer instance"[:16],
        "implementation": "test",
        "version": "0",
        "frame_limit": 1 << 20,
        "keepalive_ms": 0,
        "event_credit": 1 << 20,
        "request_credit": 1 << 20,
        "features": (),
        "rows": tuple((number, t.row) for number, t in enumerate(TYPES, 1)),
    }
    return Hello(**(facts | changes))


def first_subscriptions(*add: int) -> Subscriptions:
    return Subscriptions(1, add, (), False, False)


def control(message: ControlMessage) -> bytes:
    return b"".join(encode_control_frame(message))


def raw_control(discriminant: int, pointers: bytes = b"\0" * 8) -> bytes:
    """A control frame of one data word and one pointer, made by hand."""
    words = struct.pack("<IIHHI", 0, 1 << 16 | 1, discriminant, 0, 0) + pointers
    return b"".join(encode_frame(0, FrameKind.EVENT, 0, (words,)))


def content(wire_id: int, kind: int = 0, number: int = 0, segments: Segments = SEGMENTS) -> bytes:
    return b"".join(encode_frame(wire_id, kind, number, segments))


def read_all(buffers: Iterable[Buffer] | bytes) -> list[Frame]:
    """The frames in what a session sends."""
    data = buffers if isinstance(buffers, (bytes, bytearray)) else b"".join(buffers)
    decoder = FrameDecoder(Limits())
    decoder.open()
    found: list[Frame] = []
    view = memoryview(data)
    while view:
        place = decoder.receive_buffer()
        count = min(len(place), len(view))
        place[:count] = view[:count]
        place.release()
        decoder.bytes_received(count)
        while frames := decoder.frames():
            found += (Frame(*frame) for frame in frames)
        view = view[count:]
    assert decoder.is_between_frames
    return found


def messages(session: Session) -> list[ControlMessage]:
    """Pull everything a session has to send and return its control messages."""
    found = []
    while buffers := session.data_to_send():
        found += [decode_control(f.segments) for f in read_all(buffers) if f.wire_id == 0]
    return found


class RawPeer:
    """A session and, at the other end, whatever bytes the test makes up. The session is the acceptor."""

    def __init__(
        self, *, connector: bool = False, types: dict[int, EventType] | None = None, **facts: Any
    ) -> None:
        self.now = 10.0
        self.local = endpoint("us", **facts)
        self.table = WireTable(self.local.limits)
        self.types = registry() if types is None else types
        self.session = Session(
            self.local,
            self.table,
            connector=connector,
            now=self.now,
            expected_peer="raw" if connector else None,
            find_event_type=self.types.get,
        )

    def feed(self, *data: bytes | ControlMessage) -> list[SessionEvent]:
        self.session.receive_bytes(
            b"".join(part if isinstance(part, bytes) else control(part) for part in data), self.now
        )
        return self.session.take_events()

    def up(
        self, *subscribed: EventType, hello: Hello | None = None, wants: Iterable[EventType] = ()
    ) -> RawPeer:
        """Bring it up: we subscribe to ``subscribed``, the raw peer wants ``wants``. Bytes so far are gone."""
        self.feed(hello or raw_hello(), first_subscriptions(*(t.type_id for t in wants)))
        self.session.accept([t.type_id for t in subscribed])
        self.session.take_events()
        while self.session.data_to_send():
            pass
        return self

    def sent(self) -> list[ControlMessage]:
        return messages(self.session)

    def closed(self, *data: bytes | ControlMessage) -> Closed:
        """Feed what must end the connection; return how it did."""
        events = self.feed(*data)
        closed = [event for event in events if isinstance(event, Closed)]
        assert len(closed) == 1, events
        assert events[-1] is closed[0]
        return closed[0]


def rows_of(*types: EventType, start: int = 1) -> tuple[TableRow, ...]:
    return tuple((number, t.row) for number, t in enumerate(types, start))

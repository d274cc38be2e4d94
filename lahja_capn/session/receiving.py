"""What arrives on a connection: frames to events, control messages to state."""

from __future__ import annotations

from ..binding import BINDINGS
from ..errors import HandshakeError, LahjaError, LocalProtocolError, RemoteProtocolError, printable
from ..wire import FrameKind, Row, Segments
from ..wire.limits import CREDIT_REST_S
from .control import (
    ControlMessage,
    Credit,
    Declare,
    Dropped,
    Failed,
    Goodbye,
    Hello,
    Ping,
    Subscriptions,
    SubscriptionsAck,
    decode_control,
)
from .core import SessionCore
from .events import (
    Arrivals,
    Arrived,
    Closed,
    FailedArrived,
    PeerDropped,
    PeerHello,
    ResponseArrived,
    SubscriptionsApplied,
    SubscriptionsChanged,
)
from .handshake import check_hello
from .state import Half, State, advance
from .tables import Route

_REQUEST = int(FrameKind.REQUEST)


class ReceivingSession(SessionCore):
    """The receiving half of a session."""

    __slots__ = ()

    # --- bytes in -------------------------------------------------------------------------------------

    def bytes_received(self, count: int, now: float) -> None:
        """Say that ``count`` bytes (at least one) were put into ``receive_buffer()``."""
        self._keepalive.received(now)
        if self._bindings_seen != BINDINGS.changes:
            if self._bindings_seen is not None:
                self._bindings_seen = BINDINGS.changes
            self._round += 1
        decoder = self._decoder
        decoder.bytes_received(count)
        try:
            while (before := self._state) is State.UP or before is State.HANDSHAKE:
                rows = decoder.rows()
                if not rows:
                    return
                self._take(rows)
                if before is self._state is State.UP and decoder.is_between_frames:
                    # Nothing is left that a state reached meanwhile would allow to be read: spare the look.
                    return
        except LahjaError as error:
            self._fail(error, now)
        decoder.discard()

    def receive_bytes(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """Take ``data``, of any size: for tests, and for owners that have the bytes already."""
        view = memoryview(data)
        while view:
            place = self.receive_buffer()
            count = min(len(place), len(view))
            place[:count] = view[:count]
            place.release()
            self.bytes_received(count, now)
            view = view[count:]

    def receive_eof(self, now: float) -> None:
        """The peer's stream has ended. There is no half-open mode: the connection is closed."""
        whole = self._decoder.is_between_frames
        self.connection_lost(
            now, "end of stream without goodbye" if whole else "end of stream inside a frame"
        )

    def connection_lost(self, now: float, reason: str) -> None:
        """The connection is gone: nothing can be read or sent any more."""
        self._end(Closed("", reason, True))

    # --- frames ---------------------------------------------------------------------------------------

    def _take(self, rows: list[Row]) -> None:
        """Act on frames, in order. Events are looked at a row at a time: nothing is done here for each of them."""
        events = self._events
        window = self._event_window
        balance = window.balance
        routes = self._peer_table.routes
        this_round = self._round
        received = received_bytes = 0
        try:
            for wire_id, kind, number, size, frames in rows:
                if not wire_id:
                    self._control(decode_control(frames[0][1]))
                    if self._theirs is Half.ENDED:
                        return
                    this_round = self._round
                    continue
                route = routes.get(wire_id)
                if route is None:
                    raise RemoteProtocolError(
                        f"a frame with EVENT_ID {wire_id}, never declared", code="unknownId"
                    )
                if route.round != this_round:
                    self._look_up(route)
                if kind:
                    segments = frames[0][1]
                    if kind == _REQUEST:
                        self._request(route, number, size, segments)
                    else:
                        self._response(route, number, size, segments)
                    continue
                uncovered = 0
                # A frame may be sent while there is any credit: the last one may exceed it.
                if balance + frames[-1][0] <= size:
                    frames, size, uncovered = _covered(frames, balance)
                balance -= size
                event_type = route.event_type
                if event_type is None:
                    self.counters.skipped += len(frames)
                    self.counters.skipped_bytes += size
                    if window.give_back(size):
                        self._credit_due = self._due = True
                elif frames:
                    events.append(Arrivals(event_type, frames))
                    received += len(frames)
                    received_bytes += size
                if uncovered:
                    raise RemoteProtocolError(
                        f"an event of {uncovered} bytes without credit: the window is {window.window} bytes",
                        code="creditExceeded",
                    )
        finally:
            if balance <= 0 < window.balance:
                self._credit_used_up()
            window.charge(balance)
            self.counters.received += received
            self.counters.received_bytes += received_bytes

    def _credit_used_up(self) -> None:
        """The peer may send nothing more of a kind: look after a while whether it is owed some credit."""
        if not self.sender_waits:
            self.sender_waits = True
            self._credit_look_at = self._keepalive.last_received + CREDIT_REST_S

    def _look_up(self, route: Route) -> None:
        """Find out what is bound to a route's type and whether it may pass and is wanted, for this round."""
        route.round = self._round
        known = route.known = self._find(route.row.type_id)
        if known is not None and not (self._subscribed_all or known.type_id in self._subscribed):
            known = None
        if known is not None and self.find_incompatibility(known) is not None:
            known = None
        route.event_type = known

    def _request(self, route: Route, number: int, size: int, segments: Segments) -> None:
        window = self._request_window
        if window.balance <= 0:
            raise RemoteProtocolError(
                f"a request of {size} bytes without credit: the window is {window.window} bytes",
                code="creditExceeded",
            )
        window.charge(window.balance - size)
        if window.balance <= 0:
            self._credit_used_up()
        incoming = self._incoming
        incoming.arrived(number)
        event_type = route.event_type
        if event_type is None or not event_type.is_request:
            known = route.known
            if known is None:
                self._refuse(number, size, "unknownType", f"{printable(route.row.name)} is not known here")
            elif (found := self.find_incompatibility(known)) is not None:
                self._refuse(number, size, "incompatibleType", str(found))
            else:
                self._refuse(number, size, "noHandler", f"nobody subscribes to {known.name} here")
        elif incoming.is_full:
            self._refuse(
                number, size, "overloaded", f"{self._local.limits.open_requests} requests are open already"
            )
        else:
            incoming.open.add(number)
            self.counters.requests_received += 1
            self._events.append(Arrived(_REQUEST, event_type, segments, size, number))

    def _refuse(self, number: int, size: int, code: str, text: str) -> None:
        self._incoming.refuse(number, size, code, text)
        self.counters.requests_refused += 1
        self._due = True

    def _response(self, route: Route, number: int, size: int, segments: Segments) -> None:
        outgoing = self._outgoing.open
        if number in outgoing and number <= self._outbox.requests_sent_to:
            # What _is_open does, without three calls.
            outgoing.remove(number)
        elif not self._is_open(number):
            return
        self.counters.responses_received += 1
        known = route.known
        if (
            known is not None
            and known not in self._passing
            and (found := self.find_incompatibility(known)) is not None
        ):
            self._events.append(FailedArrived(number, "incompatibleType", "", str(found)))
            return
        self._events.append(ResponseArrived(number, known, route.row, segments, size))

    def _is_open(self, number: int) -> bool:
        """An answer has come: whether its request still waits for it."""
        if self._outgoing.answered(number, self._outbox.requests_sent_to):
            return True
        self.counters.late += 1
        return False

    # --- control messages -----------------------------------------------------------------------------

    def _control(self, message: ControlMessage) -> None:
        before = self._theirs
        try:
            self._theirs = advance(before, message.message)
        except LocalProtocolError as error:
            # The table does not know whose half it judges; here it is the peer's.
            kind = RemoteProtocolError if before is Half.ACTIVE else HandshakeError
            raise kind(f"the peer sent {error}") from None
        match message:
            case Hello():
                self._on_hello(message)
            case Declare():
                self._declare(message)
            case Subscriptions():
                self._on_subscriptions(message)
                self._check_up()
            case SubscriptionsAck():
                self._on_ack(message.sequence)
            case Credit():
                self._outbox.event_window.refill(message.events)
                self._outbox.request_window.refill(message.requests)
            case Failed():
                if self._is_open(message.correlation):
                    self.counters.failed_received += 1
                    self._events.append(
                        FailedArrived(message.correlation, message.code, message.type_name, message.text)
                    )
            case Ping():
                self._pong_due = self._due = True
            case Dropped():
                self._on_dropped(message)
            case Goodbye():
                self._end(Closed(message.code, printable(message.text), True))

    def _on_hello(self, hello: Hello) -> None:
        info = check_hello(hello, self._local, self._expected_peer)
        self.peer = info
        self.peer_frame_limit = info.frame_limit
        self._peer_table.add(hello.rows)
        self._outbox.event_window.grant(hello.event_credit)
        self._outbox.request_window.grant(hello.request_credit)
        self._events.append(PeerHello(info))

    def _declare(self, declare: Declare) -> None:
        affected = self._peer_table.add(declare.rows)
        self._wanted.clear()
        self._passing.clear()
        self._round += 1
        if self._state is State.UP:
            self._look_at_types(affected)

    def _on_subscriptions(self, message: Subscriptions) -> None:
        if message.sequence != self._remote_sequence + 1:
            raise RemoteProtocolError(
                f"subscriptions {message.sequence} after {self._remote_sequence}: wanted the next"
            )
        self._remote_sequence = message.sequence
        current = self.remote_subscriptions
        for type_id in message.add:
            if type_id not in self._peer_table:
                raise RemoteProtocolError(
                    f"a subscription to type {type_id:#018x}, which stands in no row with a wire id",
                    code="unknownId",
                )
        added = frozenset(message.add) - current
        removed = (frozenset(message.remove) & current) - frozenset(message.add)
        was_all, self.remote_all = self.remote_all, message.all
        current |= added
        current -= removed
        if removed or was_all != message.all:
            self._wanted.clear()
        if not message.all:
            # What is queued and no longer wanted goes before the acknowledgement does.
            if was_all:
                self._outbox.purge_all_but(current, self._table.type_ids)
            elif removed:
                self._outbox.purge(removed)
        if message.ack_wanted:
            self._ack_due = message.sequence
            self._due = True
        if self._state is State.UP and (added or removed or was_all != message.all):
            self._events.append(SubscriptionsChanged(added, removed, message.all))

    def _on_ack(self, sequence: int) -> None:
        if not self._last_acked <= sequence <= self._sequence or sequence == 0:
            raise RemoteProtocolError(
                f"subscriptionsAck {sequence}: wanted {max(1, self._last_acked)} to {self._sequence}"
            )
        if sequence > self._last_acked:
            self._last_acked = sequence
            self._events.append(SubscriptionsApplied(sequence))

    def _on_dropped(self, message: Dropped) -> None:
        counts: dict[int, int] = {}
        for type_id, count in message.counts:
            counts[type_id] = counts.get(type_id, 0) + count
            self.counters.dropped_by_peer += count
        self._events.append(PeerDropped(counts))


def _covered(frames: list[tuple[int, Segments]], balance: int) -> tuple[list[tuple[int, Segments]], int, int]:
    """Return those of a row of events that came within the credit, their bytes, and the size of the next one."""
    size = 0
    for count, (frame_size, _) in enumerate(frames):
        if balance - size <= 0:
            return frames[:count], size, frame_size
        size += frame_size
    return frames, size, 0

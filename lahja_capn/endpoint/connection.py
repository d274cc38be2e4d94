"""One connection: drives a session over a channel. The only place that reads and writes.

Two tasks for each connection. The reader waits until the channel is readable, hands all that is there to the
session, and passes on what the session makes of it; it never stops reading, whatever the user's code does, so
that credit, responses and goodbyes always get through. The writer is woken at most once for all that one turn
of the loop has queued; what it finds leaves in one send.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

import anyio

from ..binding import EventType
from ..session import (
    Arrived,
    Closed,
    FailedArrived,
    PeerDropped,
    PeerHello,
    PeerUp,
    ResponseArrived,
    Session,
    SubscriptionsApplied,
    SubscriptionsChanged,
    TypeDisabled,
)
from ..wire import Buffer
from .needs import Channel, Runtime, Waiter
from .requests import OpenRequest, PendingRequest

logger = logging.getLogger("lahja_capn.endpoint")

# Queued bytes after which the publisher itself sends, in the middle of its turn: enough for one send to carry
# hundreds of small events, small enough that a consumer does not wait for a long burst to end.
FLUSH_BYTES = 64 * 1024

# Reads of one turn before other tasks get theirs; a read takes up to a whole receive buffer.
READS_PER_TURN = 16

# A turn of reading ends after the read with which it has taken so long, and the next read takes no more than was
# handled in this time. Several peers that flood us would else keep the loop for seconds between them.
TURN_S = 0.005
# But no less than this: some hundred small events.
MIN_READ_BYTES = 16 * 1024

# Buffers from this size on are sent from where they lie; smaller ones are joined (design.md, figures).
JOIN_BELOW_BYTES = 64 * 1024

INFINITY = float("inf")


class Traffic(Protocol):
    """Where a connection hands what it received."""

    def on_arrived(self, connection: Connection, arrived: Arrived) -> None: ...

    def on_request(self, connection: Connection, arrived: Arrived) -> None: ...

    def on_response(self, connection: Connection, response: ResponseArrived) -> None: ...

    def on_failed(self, connection: Connection, failed: FailedArrived) -> None: ...


class Owner(Protocol):
    """What a connection tells its endpoint about itself."""

    def on_hello(self, connection: Connection) -> None: ...

    def on_up(self, connection: Connection) -> None: ...

    def on_subscriptions(self, connection: Connection) -> None: ...

    def on_type_disabled(self, connection: Connection, disabled: TypeDisabled) -> None: ...

    def on_dropped(self, connection: Connection, dropped: PeerDropped) -> None: ...

    def on_closed(self, connection: Connection, closed: Closed) -> None: ...

    def on_taken_late(self, connection: Connection, size: int) -> None: ...

    def on_deadline(self, deadline: float) -> None: ...


class Connection:
    """A session, its channel, and what the endpoint keeps for it.

    ``serial`` names the connection inside its endpoint (never reused): reply addresses refer to it, so that an
    answer can never reach another connection of the same peer.
    """

    __slots__ = (
        "_blocked",
        "_channel",
        "_drops",
        "_ended",
        "_event_parts",
        "_events_before",
        "_flush_wanted",
        "_flushing",
        "_heard_waiters",
        "_more_to_read",
        "_out",
        "_owner",
        "_pending_add",
        "_pending_remove",
        "_pending_version",
        "_read_limit",
        "_room_waiters",
        "_runtime",
        "_scope",
        "_sequence_versions",
        "_traffic",
        "_unflushed",
        "_write_closed",
        "_writer",
        "accepted",
        "applied_version",
        "closed",
        "dialed",
        "drops_unlogged",
        "is_up",
        "line",
        "log_drops_at",
        "name",
        "open_requests",
        "pending",
        "serial",
        "session",
        "withheld",
    )

    def __init__(
        self,
        runtime: Runtime,
        owner: Owner,
        traffic: Traffic,
        channel: Channel,
        session: Session,
        serial: int,
        dialed: bool,
    ) -> None:
        self.serial = serial
        # The peer's name, "" before its hello.
        self.name = ""
        self.session = session
        self._drops = session.drops
        self.dialed = dialed
        self.accepted = False
        self.is_up = False
        self.closed: Closed | None = None
        # Requests that wait for an answer from here, and requests from here that wait for ours, by number.
        self.pending: dict[int, PendingRequest] = {}
        self.open_requests: dict[int, OpenRequest] = {}
        # Events that the peer dropped for us and the log does not tell yet, and when the next one may be logged.
        self.drops_unlogged = 0
        self.log_drops_at = 0.0
        # Broadcasts that found the queue full, in the order of their calls: the first one waits for room, each other
        # one until it is the first.
        self.line: deque[Waiter[None]] = deque()
        # Event credit that the peer does not get yet, because what its former connections sent still lies here.
        self.withheld = 0
        # The endpoint's subscription version that this peer has confirmed; -1 before its first confirmation.
        self.applied_version = -1
        self._runtime = runtime
        self._owner = owner
        self._traffic = traffic
        self._channel = channel
        self._scope: anyio.CancelScope | None = None
        self._out: list[Buffer] = []
        # Events that were pulled before what `_out` holds; and how often a part of `_out` has left that has events
        # in it, or that events with credit wait behind: of a large frame that is all there is to see for long.
        self._events_before = 0
        self._event_parts = 0
        # Bytes that the next read takes at most.
        self._read_limit = sys.maxsize
        self._blocked = False
        self._flushing = False
        self._more_to_read = False
        self._flush_wanted = False
        self._unflushed = 0
        self._write_closed = False
        self._ended = False
        self._writer: Waiter[None] | None = None
        self._room_waiters: list[Waiter[None]] = []
        self._heard_waiters: list[Waiter[None]] = []
        self._pending_add: set[int] = set()
        self._pending_remove: set[int] = set()
        self._pending_version = 0
        self._sequence_versions: dict[int, int] = {}

    def __repr__(self) -> str:
        return (
            f"<Connection {self.serial} {'to' if self.dialed else 'from'} {self.name!r} {self.session.state}>"
        )

    # --- tasks ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until both sides have said goodbye, or the connection is lost. Never raises but on cancel."""
        try:
            async with anyio.create_task_group() as tasks:
                self._scope = tasks.cancel_scope
                tasks.start_soon(self._write_loop)
                await self._read_loop()
                tasks.cancel_scope.cancel()
        finally:
            self._scope = None
            self._end("the endpoint stopped")

    async def _read_loop(self) -> None:
        self._after_input()
        if not self.session.is_closed:
            await self._runtime.call_when_readable(self._channel.fileno(), self._on_readable)

    def _on_readable(self) -> bool:
        self.read(TURN_S)
        if self.session.is_closed:
            self.stop()
            return False
        return not self._ended

    async def _write_loop(self) -> None:
        descriptor = self._channel.fileno()
        while True:
            if self._blocked:
                await self._runtime.wait_writable(descriptor)
                self._blocked = False
            elif not self._flush_wanted:
                self._writer = waiter = self._runtime.new_waiter()
                await waiter.wait()
                self._writer = None
            if self._more_to_read:
                self._more_to_read = False
                self._on_readable()
            self.flush()

    def _end(self, reason: str) -> None:
        if self._ended:
            return
        self._ended = True
        self._channel.close()
        if self.closed is None:
            self.session.connection_lost(time.monotonic(), reason)
            self._dispatch()
        self._wake_all_waiters()

    # --- in -------------------------------------------------------------------------------------------

    def read(self, turn_s: float = INFINITY) -> None:
        """Hand what has arrived to the session, and on to the endpoint: for about ``turn_s``, and READS_PER_TURN reads.

        At least one, so a peer that has sent anything is never taken for silent.
        """
        session = self.session
        receive_into = self._channel.receive_into
        control = full = False
        for _ in range(READS_PER_TURN):
            if session.is_closed or self._ended:
                break
            buffer = session.receive_buffer()
            if len(buffer) > self._read_limit:
                whole, buffer = buffer, buffer[: self._read_limit]
                whole.release()
            try:
                count = receive_into(buffer)
            except BlockingIOError:
                break
            except OSError as error:
                session.connection_lost(time.monotonic(), error.strerror or str(error))
                control = True
                break
            if count == 0:
                session.receive_eof(time.monotonic())
                control = True
                break
            full = count == len(buffer)
            # The view pins the session's buffer: release it before the session may move what lies there.
            buffer.release()
            began = time.monotonic()
            session.bytes_received(count, began)
            if self._dispatch():
                control = True
            if self._heard_waiters:
                self._heard_waiters = _wake_all(self._heard_waiters)
            if not full and count <= MIN_READ_BYTES:
                break
            spent = time.monotonic() - began
            if spent > TURN_S:
                self._read_limit = max(MIN_READ_BYTES, int(count * TURN_S / spent))
            elif spent < TURN_S / 4 and self._read_limit < sys.maxsize:
                self._read_limit *= 2
            turn_s -= spent
            if turn_s <= 0 or not full:
                break
        if full and self._channel.has_more():
            # Its descriptor does not show it (TLS has decrypted it already), so nobody would call again.
            self._more_to_read = True
            self.wake_writer()
        if control:
            self._after_input()
        else:
            if session.has_output:
                self.flush()
            if session.sender_waits:
                # Nothing else that events and responses do brings a deadline nearer.
                self.check_deadline()

    async def heard(self) -> None:
        """Wait until the next byte from the peer, or the end of the connection."""
        if self.closed is None:
            waiter = self._runtime.new_waiter()
            self._heard_waiters.append(waiter)
            await waiter.wait()

    def _after_input(self) -> None:
        self._dispatch()
        self.flush()
        self.check_deadline()

    def check_deadline(self) -> None:
        """The session may want to be called earlier than before."""
        deadline = self.session.next_deadline()
        if deadline is not None:
            self._owner.on_deadline(deadline)

    def _dispatch(self) -> bool:
        """Pass on what the session made of the input. True if that was more than events and responses."""
        owner = self._owner
        traffic = self._traffic
        control = False
        for event in self.session.take_events():
            kind = type(event)
            if kind is Arrived:
                # The exact type, tested above; only a request has a number.
                if event.number:  # type: ignore[union-attr]
                    traffic.on_request(self, event)  # type: ignore[arg-type]
                else:
                    traffic.on_arrived(self, event)  # type: ignore[arg-type]
                continue
            if kind is ResponseArrived:
                traffic.on_response(self, event)  # type: ignore[arg-type]
                continue
            control = True
            if isinstance(event, FailedArrived):
                traffic.on_failed(self, event)
            elif isinstance(event, SubscriptionsApplied):
                version = self._sequence_versions.pop(event.sequence, 0)
                for sequence in [s for s in self._sequence_versions if s < event.sequence]:
                    version = max(version, self._sequence_versions.pop(sequence))
                self.applied_version = max(self.applied_version, version)
                owner.on_subscriptions(self)
            elif isinstance(event, SubscriptionsChanged):
                owner.on_subscriptions(self)
            elif isinstance(event, PeerHello):
                self.name = event.info.name
                owner.on_hello(self)
            elif isinstance(event, PeerUp):
                self.is_up = True
                owner.on_up(self)
            elif isinstance(event, TypeDisabled):
                owner.on_type_disabled(self, event)
            elif isinstance(event, PeerDropped):
                owner.on_dropped(self, event)
            elif isinstance(event, Closed):
                self.closed = event
                self.is_up = False
                owner.on_closed(self, event)
                self._wake_all_waiters()
        return control

    def handle_time(self, now: float) -> float:
        """Act on deadlines that are due; return the next one, infinity if there is none."""
        deadline = self.session.next_deadline()
        if deadline is not None and deadline <= now and not self._ended:
            # This process may be the one that was stopped: what the peer sent meanwhile counts.
            self.read()
            if not self._ended:
                self.session.handle_time(now)
                self._dispatch()
                self.flush()
                if self.session.is_closed:
                    self.stop()
            deadline = self.session.next_deadline()
        return float("inf") if deadline is None else deadline

    # --- out ------------------------------------------------------------------------------------------

    def wake_writer(self) -> None:
        """Send what the session has, in this turn of the loop at the latest once for all that is queued."""
        if not self._flush_wanted:
            self._flush_wanted = True
            if self._writer is not None:
                self._writer.wake(None)

    def queued(self, size: int) -> bool:
        """``size`` bytes were queued: send soon. True if they were many, and the caller should let others run."""
        self._unflushed = unflushed = self._unflushed + size
        if unflushed < FLUSH_BYTES:
            if not self._flush_wanted:
                self.wake_writer()
            return False
        self.flush()
        return True

    def send_now_or_soon(self, alone: bool) -> None:
        """Send at once if nothing else is under way, else together with it.

        One request or response at a time is a conversation: waiting for the end of the turn would only delay
        it. Many at a time are cheaper in one send.
        """
        if alone:
            self.flush()
        else:
            self.wake_writer()

    def flush(self) -> None:
        """Send what may be sent now; never waits."""
        self._flush_wanted = False
        self._unflushed = 0
        if self._flushing or self._blocked or self._ended:
            return
        self._flushing = True
        try:
            self._flush()
        except BlockingIOError:
            self._blocked = True
            if self._writer is not None:
                self._writer.wake(None)
        except OSError as error:
            # The other side may have said goodbye before it went: that is still to be read.
            self._out = []
            self._flushing = False
            self._read_what_is_left(error)
        finally:
            self._flushing = False
        if self._drops:
            # Something was dropped, maybe for an event that was queued: the peer is told, some time.
            self.check_deadline()
        if self._room_waiters:
            self._room_waiters = _wake_all(self._room_waiters)

    def _flush(self) -> None:
        session = self.session
        channel = self._channel
        if self._pending_add or self._pending_remove:
            self._send_subscriptions()
        out = self._out
        # Behind what is left of an earlier pull more may have been queued since.
        look_again = bool(out)
        while True:
            if not out:
                self._events_before = session.counters.sent
                out = session.data_to_send()
                if not out:
                    break
                if len(out) > 1:
                    out = _joined(out)
                self._out = out
            if len(out) == 1:
                # By far the usual case: everything joined into one buffer, all of it taken.
                (buffer,) = out
                sent = channel.send(buffer)
                if sent == len(buffer):
                    self._out = out = []
                else:
                    out[0] = memoryview(buffer)[sent:]
            else:
                _advance(out, channel.send_many(out))
            if out and (session.counters.sent != self._events_before or session.event_credit > 0):
                self._event_parts += 1
            if not out:
                if not (look_again or session.more_to_send):
                    break
                look_again = False
        if session.send_finished and not self._write_closed:
            self._write_closed = True
            channel.close_write()

    def _read_what_is_left(self, error: OSError) -> None:
        session = self.session
        try:
            # What the kernel holds for us, not what a peer that only writes goes on to send.
            for _ in range(READS_PER_TURN):
                if session.is_closed or self.closed is not None:
                    break
                buffer = session.receive_buffer()
                count = self._channel.receive_into(buffer)
                buffer.release()
                if count == 0:
                    break
                session.bytes_received(count, time.monotonic())
                self._dispatch()
        except OSError:
            pass
        session.connection_lost(time.monotonic(), error.strerror or str(error))
        self._dispatch()
        self.stop()

    def return_event_credit(self, size: int) -> None:
        """A received event of ``size`` bytes has been taken: the peer may send as much again."""
        if self.closed is not None:
            self._owner.on_taken_late(self, size)
        elif self.session.return_event_credit(size):
            self.wake_writer()

    def give_withheld(self, left: int) -> None:
        """Only ``left`` bytes of the peer's former connections still lie here: withhold no more credit than that."""
        if self.withheld > left:
            size, self.withheld = self.withheld - left, left
            self.return_event_credit(size)

    def fail_request(self, number: int, code: str, type_name: str, text: str) -> None:
        """Answer the peer's request with ``failed``: nobody here can answer it any more."""
        self.open_requests.pop(number, None)
        self.session.send_failed(number, code, type_name, text)
        self.wake_writer()

    def return_request_credit(self, size: int) -> None:
        if self.session.return_request_credit(size):
            self.wake_writer()

    def change_subscriptions(self, add: Iterable[int], remove: Iterable[int], version: int) -> None:
        """Tell the peer, together with all other changes of this turn."""
        for type_id in add:
            self._pending_remove.discard(type_id)
            self._pending_add.add(type_id)
        for type_id in remove:
            self._pending_add.discard(type_id)
            self._pending_remove.add(type_id)
        self._pending_version = version
        self.wake_writer()

    def _send_subscriptions(self) -> None:
        if not self.accepted or self.closed is not None:
            return
        sequence = self.session.update_subscriptions(self._pending_add, self._pending_remove, ack_wanted=True)
        self._sequence_versions[sequence] = self._pending_version
        self._pending_add = set()
        self._pending_remove = set()

    def accept(self, subscriptions: set[int], version: int, left: int) -> None:
        """Answer the peer's hello: the endpoint has nothing against it.

        ``left`` bytes of events of the peer's former connections lie here: they count against its new window.
        """
        self.accepted = True
        # The first subscriptions have the sequence 1, and the session asks for their acknowledgement.
        self._sequence_versions[1] = version
        self._pending_add = set()
        self._pending_remove = set()
        if not self.dialed:
            self.withheld = left
        self.session.accept(subscriptions, False, left)
        self.wake_writer()

    async def room(self, too_slow_s: float) -> None:
        """Wait until another event can be queued, or the connection has ended.

        A peer that takes no event for ``too_slow_s`` is disconnected: it must not hold its publisher for ever,
        whatever else it reads and writes. One that is slow paces the publisher.
        """
        session = self.session
        await self._wait_to_send(lambda: session.has_room, self._events_taken, too_slow_s)

    async def room_for_request(self, too_slow_s: float) -> None:
        """Wait until a request can be queued, or the connection has ended; ``too_slow_s`` as in ``room``.

        Requests have a credit window and room of their own, and overtake events. Events that wait for the
        peer's handlers must not hold them back: those handlers may be waiting for a request to us.
        """
        session = self.session
        await self._wait_to_send(
            lambda: session.has_request_room,
            lambda: (session.requests_taken, self._event_parts),
            too_slow_s,
        )

    async def less_queued(self, too_slow_s: float) -> None:
        """Wait until less is queued than now, or the connection has ended; ``too_slow_s`` as in ``room``.

        Answers come and go beside the events, so it is the events that are looked at while there are any.
        """
        session = self.session
        counters = session.counters
        sent, queued_events, queued_bytes = counters.sent, session.queued_events, session.queued_bytes

        def is_less() -> bool:
            if session.queued_events:
                return counters.sent != sent or session.queued_events < queued_events
            return queued_events > 0 or session.queued_bytes < queued_bytes

        await self._wait_to_send(is_less, self._events_taken, too_slow_s)

    def _events_taken(self) -> object:
        """Changes whenever the peer takes events; if only answers and requests wait, whatever it takes."""
        session = self.session
        if session.queued_events:
            return session.events_taken, self._event_parts
        return session.queued_bytes, sum(map(len, self._out))

    async def _wait_to_send(
        self, enough: Callable[[], bool], progress: Callable[[], object], too_slow_s: float
    ) -> None:
        # A peer from which nobody wanted anything did not fail to take it: the time counts from here.
        taken, since = progress(), time.monotonic()
        while self.closed is None and not enough():
            if (now_taken := progress()) != taken:
                taken, since = now_taken, time.monotonic()
            patience = since + too_slow_s - time.monotonic()
            if patience <= 0:
                # This loop may be the one that was busy.
                self._catch_up()
                if enough() or progress() != taken or self._is_closed():
                    continue
                self.say_goodbye(
                    "tooSlow",
                    f"took nothing of what waits for it for {too_slow_s:g} s (Limits.too_slow_s) while "
                    f"{self.session.queued_bytes} bytes were queued",
                )
                return
            waiter = self._runtime.new_waiter()
            self._room_waiters.append(waiter)
            with anyio.move_on_after(patience):
                await waiter.wait()

    def _is_closed(self) -> bool:
        return self.closed is not None

    def _catch_up(self) -> None:
        """Read what has arrived and send what now goes, whatever the loop has not got round to."""
        self.read()
        if not self.session.is_closed:
            self._blocked = False
            self.flush()
        if self.session.is_closed:
            self.stop()

    async def drained(self) -> None:
        """Wait until all that was queued has been sent, or the connection has ended."""
        # Once: each flush wakes us, so asking for one each time would spin while the peer gives no credit.
        self.wake_writer()
        while self.closed is None and (self._out or self.session.queued_bytes):
            waiter = self._runtime.new_waiter()
            self._room_waiters.append(waiter)
            await waiter.wait()

    def _wake_all_waiters(self) -> None:
        self._room_waiters = _wake_all(self._room_waiters)
        self._heard_waiters = _wake_all(self._heard_waiters)

    # --- end ------------------------------------------------------------------------------------------

    def say_goodbye(self, code: str, text: str) -> None:
        """Close from our side: the peer is told why, what is queued is dropped and counted."""
        self.session.close(code, text, time.monotonic())
        self._after_input()

    def stop(self) -> None:
        """End the tasks; what can still be sent has been."""
        if self._scope is not None:
            self._scope.cancel()

    def wants(self, event_type: EventType) -> bool:
        """True if the peer subscribes to the type, and both sides read it the same way."""
        return self.is_up and self.session.wants(event_type)


def _wake_all(waiters: list[Waiter[None]]) -> list[Waiter[None]]:
    """Wake every waiter; returns the list that takes its place."""
    for waiter in waiters:
        waiter.wake(None)
    return []


def _joined(buffers: list[Buffer]) -> list[Buffer]:
    """Small buffers joined into one, large ones left where they lie."""
    if len(buffers) < 2:
        return buffers
    joined: list[Buffer] = []
    small: list[Buffer] = []
    for buffer in buffers:
        if len(buffer) < JOIN_BELOW_BYTES:
            small.append(buffer)
        else:
            if small:
                joined.append(b"".join(small))
                small = []
            joined.append(buffer)
    if small:
        joined.append(b"".join(small))
    return joined


def _advance(buffers: list[Buffer], sent: int) -> None:
    """Take ``sent`` bytes off the front of ``buffers``."""
    done = 0
    for buffer in buffers:
        size = len(buffer)
        if sent < size:
            break
        sent -= size
        done += 1
    del buffers[:done]
    if sent:
        buffers[0] = memoryview(buffers[0])[sent:]

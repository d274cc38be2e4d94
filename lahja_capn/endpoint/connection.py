"""One connection: drives a session over a channel. The only place that reads and writes.

Two tasks for each connection. The reader waits until the channel is readable, hands all that is there to the
session, and passes on what the session makes of it; it never stops reading, whatever the user's code does, so
that credit, responses and goodbyes always get through. The writer is woken at most once for all that one turn
of the loop has queued; what it finds leaves in one send. Writing is in ``writing``, waits for room are in
``waiting``.
"""

from __future__ import annotations

import sys
import time

import anyio

from ..session import (
    Arrivals,
    Arrived,
    Closed,
    FailedArrived,
    PeerDropped,
    PeerHello,
    PeerUp,
    ResponseArrived,
    SessionNews,
    SubscriptionsApplied,
    SubscriptionsChanged,
    TypeDisabled,
)
from .core import wake_all
from .waiting import WaitingConnection

# Reads of one turn before other tasks get theirs; a read takes up to a whole receive buffer.
READS_PER_TURN = 16

# A turn of reading ends after the read with which it has taken so long, and the next read takes no more than was
# handled in this time. Several peers that flood us would else keep the loop for seconds between them.
TURN_S = 0.005
# But no less than this: some hundred small events.
MIN_READ_BYTES = 16 * 1024

# Read of a peer that nothing can be written to any more: all that kernels hold for us, and not what a peer that only
# writes goes on to send. Of frames just above 64 KiB it takes two reads each.
LEFT_BYTES = 16 * 1024 * 1024
LEFT_READS = 2 * LEFT_BYTES // (64 * 1024)

INFINITY = float("inf")


class Connection(WaitingConnection):
    """A session, its channel, and what the endpoint keeps for it.

    ``serial`` names the connection inside its endpoint (never reused): reply addresses refer to it, so that an
    answer can never reach another connection of the same peer.
    """

    __slots__ = ()

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
            elif not self.flush_wanted:
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
                session.nothing_received()
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
                self._heard_waiters = wake_all(self._heard_waiters)
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

    def _after_input(self) -> None:
        self._dispatch()
        self.flush()
        self.check_deadline()

    def _dispatch(self) -> bool:
        """Pass on what the session made of the input. True if that was more than events and responses."""
        nested, self._dispatching = self._dispatching, True
        try:
            control = self._pass_on(self.session.take_news())
        finally:
            self._dispatching = nested
        if self._broken is not None and not nested:
            error, self._broken = self._broken, None
            self._read_what_is_left(error)
            control = True
        return control

    def _pass_on(self, news: list[SessionNews]) -> bool:
        owner = self._owner
        traffic = self._traffic
        control = False
        for event in news:
            kind = type(event)  # of each of these the exact type: quicker than isinstance
            if kind is Arrivals:
                traffic.on_events(self, event)  # type: ignore[arg-type]
                continue
            if kind is Arrived:
                traffic.on_request(self, event)  # type: ignore[arg-type]
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

    def _read_what_is_left(self, error: OSError) -> None:
        if self._dispatching:
            # A handler sends: what came before has to be passed on before what is left.
            self._broken = error
            return
        session = self.session
        try:
            left = LEFT_BYTES
            for _ in range(LEFT_READS):
                if left <= 0 or session.is_closed or self.closed is not None:
                    break
                buffer = session.receive_buffer()
                count = self._channel.receive_into(buffer)
                buffer.release()
                if count == 0:
                    break
                left -= count
                session.bytes_received(count, time.monotonic())
                self._dispatch()
        except OSError:
            pass
        session.connection_lost(time.monotonic(), error.strerror or str(error))
        self._dispatch()
        self.stop()

    # --- end ------------------------------------------------------------------------------------------

    def say_goodbye(self, code: str, text: str) -> None:
        """Close from our side: the peer is told why, what is queued is dropped and counted."""
        self.session.close(code, text, time.monotonic())
        self._after_input()

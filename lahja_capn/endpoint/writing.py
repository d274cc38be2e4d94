"""How one connection writes: what is queued in one turn of the loop leaves in one send."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

from ..wire import Buffer
from .core import ConnectionCore, wake_all

# Queued bytes after which the publisher itself sends, in the middle of its turn: enough for one send to carry
# hundreds of small events, small enough that a consumer does not wait for a long burst to end.
FLUSH_BYTES = 64 * 1024

# Requests or answers after which they are sent in the middle of a turn: so the other side works on the first of many
# while this one makes the others. With one send for all of a turn the two took turns, each on a core of its own.
FLUSH_CALLS = 16

# Buffers from this size on are sent from where they lie; smaller ones are joined (design.md, figures).
JOIN_BELOW_BYTES = 64 * 1024


class WritingConnection(ConnectionCore):
    """The writing half of a connection."""

    __slots__ = ()

    def wake_writer(self) -> None:
        """Send what the session has, in this turn of the loop at the latest once for all that is queued."""
        if not self.flush_wanted:
            self.flush_wanted = True
            if self._writer is not None:
                self._writer.wake(None)

    def queued(self, size: int) -> bool:
        """``size`` bytes were queued: send soon. True if they were many, and the caller should let others run."""
        self.unflushed = unflushed = self.unflushed + size
        if unflushed < FLUSH_BYTES:
            if not self.flush_wanted:
                self.wake_writer()
            return False
        self.flush()
        return True

    def send_now_or_soon(self, alone: bool) -> None:
        """Send at once if nothing else is under way, else together with it.

        One request or response at a time is a conversation: waiting for the end of the turn would only delay
        it. Many at a time are cheaper in one send, up to FLUSH_CALLS.
        """
        self._unflushed_calls += 1
        if alone or self._unflushed_calls >= FLUSH_CALLS:
            self.flush()
        else:
            self.wake_writer()

    def flush(self) -> None:
        """Send what may be sent now; never waits."""
        self.flush_wanted = False
        self.unflushed = self._unflushed_calls = 0
        if self._flushing or self._blocked or self._ended or self._broken is not None:
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
            self._room_waiters = wake_all(self._room_waiters)

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

    @abstractmethod
    def _read_what_is_left(self, error: OSError) -> None:
        """Nothing can be written any more, because of ``error``: read what the peer said before."""

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

    def withdraw(self, version: int) -> None:
        """Tell the peer that nothing is wanted here any more; what is on its way is still taken."""
        if self.accepted and self.closed is None:
            self._send_subscriptions()
            self._sequence_versions[self.session.withdraw()] = version
            self.wake_writer()

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


def _joined(buffers: list[Buffer]) -> list[Buffer]:
    """Small buffers joined into one, large ones left where they lie."""
    if len(buffers) < 2:
        return buffers
    if max(map(len, buffers)) < JOIN_BELOW_BYTES:
        return [b"".join(buffers)]
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

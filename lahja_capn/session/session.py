"""One connection as a value. docs/wire.md is what it obeys.

The owner drives it with three verbs: it puts received bytes in, takes events out, and takes bytes to send;
and it says what time it is, in seconds of a clock that never goes back. Nothing here waits or reads a clock.

Turn of an owner::

    n = socket.recv_into(session.receive_buffer());  session.bytes_received(n, now)    or nothing_received()
    for event in session.take_events(): ...
    while buffers := session.data_to_send(): socket.sendmsg(buffers)
    if session.send_finished: socket.shutdown(SHUT_WR)
    if session.is_closed: socket.close()
    sleep until session.next_deadline(), read everything readable, then session.handle_time(now)

Bad bytes never raise out of ``bytes_received``: the peer is told goodbye, and ``Closed`` has the error.

``close``, ``accept``, ``update_subscriptions`` and all ``send_*`` only queue: call ``data_to_send`` after
them. ``return_*_credit`` say with True that there is something to send now. ``next_deadline`` may be earlier
after any call.

How long a full peer took nothing is the owner's to measure: only it sees bytes leave. ``events_taken`` and
``requests_taken`` change with what the peer takes. After input, ``sender_waits`` tells that ``next_deadline`` has
come nearer although nothing but events and requests arrived. Taking a type into ``WireTable`` before it is sent, or
expected as a response, is the owner's part too; types in subscriptions are looked up here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from ..binding import EventType
from ..errors import FrameTooLarge, HandshakeTimeout, LahjaError, LocalProtocolError, RemoteProtocolError
from ..wire import Buffer, FrameKind, Segments, encode_frame, frame_size
from ..wire.limits import CREDIT_REST_S, DROP_NOTICE_S
from .control import Credit, Dropped, Ping, Pong, Subscriptions, SubscriptionsAck
from .counters import Counters
from .events import Closed
from .handshake import encode_control_frame, make_declares
from .keepalive import INFINITY
from .outbox import EventEntry, Offer, Policy
from .receiving import ReceivingSession
from .state import Half, State
from .tables import Incompatibility

MIB = 1024 * 1024

# An attribute of an enum costs several times a global.
_REQUEST = int(FrameKind.REQUEST)
_RESPONSE = int(FrameKind.RESPONSE)
_QUEUED = Offer.QUEUED

# Type ids in one subscriptions message: its frame stays below 1 MiB.
_IDS_PER_MESSAGE = 120_000
# Types in one dropped message, for the same reason.
_COUNTS_PER_MESSAGE = 60_000
# Answers to refused requests that are made at a time: they lie here as frames until the socket takes them.
_REFUSALS_AT_ONCE = 1_000


class Session(ReceivingSession):
    """One connection between this endpoint and a peer; arguments as in ``SessionCore``."""

    __slots__ = ()

    # --- time -----------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return when ``handle_time`` has something to do, or None if never."""
        if self._state is State.UP:
            deadline = self._keepalive.deadline
            if self._outbox.drops and not self._drops_due:
                deadline = min(deadline, self._drop_notice_at)
            if self.sender_waits:
                deadline = min(deadline, self._credit_look_at)
            return None if deadline == INFINITY else deadline
        if self._state is State.HANDSHAKE:
            return self._handshake_deadline
        return self._close_deadline if self._state is State.CLOSING else None

    def handle_time(self, now: float) -> None:
        """Act on what is due. Call it with everything readable read: we may be the one that was stopped."""
        if self._state is State.UP:
            if now >= self._keepalive.deadline:
                if self._keepalive.ask(now):
                    self._ping_due = self._due = True
                else:
                    self._fail(
                        RemoteProtocolError(self._keepalive.describe(now), code="keepaliveTimeout"), now
                    )
                    return
            if self._outbox.drops and not self._drops_due and now >= self._drop_notice_at:
                # Made when it can be sent, with what is dropped until then: a peer that does not read finds one.
                self._drops_due = self._due = True
                self._drop_notice_at = now + DROP_NOTICE_S
            if self.sender_waits and now >= self._credit_look_at:
                self._look_at_credit(now)
        elif self._state is State.HANDSHAKE:
            if now >= self._handshake_deadline:
                timeout_s = self._local.limits.handshake_timeout_s
                self._fail(
                    HandshakeTimeout(
                        f"the handshake did not end within {timeout_s:g} s: {self._missing} "
                        "(Limits.handshake_timeout_s)",
                        code="handshakeTimeout",
                        timeout_s=timeout_s,
                    ),
                    now,
                )
        elif self._state is State.CLOSING and now >= self._close_deadline:
            self._state = State.CLOSED

    def ping(self, now: float) -> None:
        """Ask the peer for a sign of life; any byte is one, see ``last_received``.

        In the handshake as well: the ping follows our hello.
        """
        self._ping_due = self._state in (State.UP, State.HANDSHAKE)
        self._due = True

    @property
    def last_received(self) -> float:
        """When the last byte came."""
        return self._keepalive.last_received

    # --- bytes out ------------------------------------------------------------------------------------

    @property
    def has_output(self) -> bool:
        """False if ``data_to_send`` would return nothing: a look that costs a fraction of the call.

        True does not promise anything: what is queued may wait for credit.
        """
        return self._due or not self._outbox.is_empty or self._declared != len(self._table.rows)

    def data_to_send(self, max_bytes: int = MIB) -> list[Buffer]:
        """Return the next buffers, to be sent in order; [] if nothing may be sent now.

        Their credit is charged and they count as sent. About ``max_bytes``: the last frame may go over.
        """
        outbox = self._outbox
        head: list[Buffer] | None = None
        if self._due or self._declared != len(self._table.rows):
            if self._goodbye is not None:
                goodbye, self._goodbye = self._goodbye, None
                self.send_finished = True
                return list(goodbye)
            if self._ours is Half.OPENING or self.send_finished:
                self.more_to_send = False
                return []
            head = self._due_messages()
        data = outbox.pull(max_bytes)
        if outbox.answered:
            for number in outbox.answered:
                held_back = self._incoming.sent(number)
                if held_back:
                    self.return_request_credit(held_back)
            outbox.answered.clear()
        self.more_to_send = outbox.cut_short or self._due
        return head + data if head else data

    def _due_messages(self) -> list[Buffer]:
        """Return what goes before all that is queued; queue what goes behind other control messages."""
        head: list[Buffer] = []
        if self._hello is not None:
            head += self._hello
            self._hello = None
        if self._declared < len(self._table.rows):
            # Before all that is queued: some of it may need these rows.
            declares = make_declares(self._table.rows, self._declared)
            self._declared = len(self._table.rows)
            for declare in declares:
                head += encode_control_frame(declare)
        if self._pong_due:
            self._pong_due = False
            self._send(Pong())
        if self._ping_due:
            self._ping_due = False
            self._send(Ping())
        if self._ack_due and self._ours is Half.ACTIVE:
            self._send(SubscriptionsAck(self._ack_due))
            self._ack_due = 0
        if self._credit_due:
            self._credit_due = False
            self._send(Credit(self._event_window.take_pending(), self._request_window.take_pending()))
        if self._drops_due:
            self._drops_due = False
            self._tell_drops()
        if self._incoming.refusals:
            for number, code, text in self._incoming.take_refusals(_REFUSALS_AT_ONCE):
                self._queue_failed(number, code, "", text)
        # An acknowledgement owed before our first subscriptions waits for them.
        self._due = self._ack_due > 0 or bool(self._incoming.refusals)
        return head

    # --- decisions of the endpoint --------------------------------------------------------------------

    def accept(self, subscriptions: Iterable[int] = (), all: bool = False, withheld: int = 0) -> None:
        """Answer the peer's hello, on either side: declare our table and say what we subscribe to (type ids).

        ``withheld`` as in the constructor, where the connector has said it already.

        This first subscriptions message has sequence 1 and asks for its acknowledgement. Does nothing if the
        peer has gone meanwhile.

        Raises:
            LocalProtocolError: before ``PeerHello``, a second time, or for a type that is not bound here.
        """
        if self._state is not State.HANDSHAKE:
            if self._state is State.UP:
                raise LocalProtocolError("accept() was called already: use update_subscriptions()")
            return
        if self.peer is None or self._ours is Half.ACTIVE:
            raise LocalProtocolError("accept() is called once, after PeerHello")
        wanted = tuple(dict.fromkeys(subscriptions))
        self._tabulate(wanted)
        if self._ours is Half.OPENING:
            self._say_hello(withheld)
        self._subscribed.update(wanted)
        self._subscribed_all = all
        self._round += 1
        self._sequence = 1
        self._send(Subscriptions(1, wanted, (), all, True))
        self._check_up()

    def update_subscriptions(
        self,
        add: Iterable[int] = (),
        remove: Iterable[int] = (),
        *,
        all: bool | None = None,
        ack_wanted: bool = False,
    ) -> int:
        """Change what we subscribe to; return the sequence that ``SubscriptionsApplied`` will name.

        Takes effect here at once: what comes of a removed type is skipped. ``all=None`` leaves it as it is.

        Raises:
            LocalProtocolError: before ``accept``, or a type that is not bound here.
        """
        if self._state in (State.CLOSING, State.CLOSED):
            return self._sequence
        if self._ours is not Half.ACTIVE:
            raise LocalProtocolError("update_subscriptions() before accept(), which takes the first ones")
        added, removed = tuple(dict.fromkeys(add)), tuple(dict.fromkeys(remove))
        self._tabulate(added)
        self._subscribed.difference_update(removed)
        self._subscribed.update(added)
        if all is not None:
            self._subscribed_all = all
        self._round += 1
        if len(added) + len(removed) > _IDS_PER_MESSAGE:
            self._sequence += 1
            self._send(Subscriptions(self._sequence, (), removed, self._subscribed_all, False))
            removed = ()
        self._sequence += 1
        self._send(Subscriptions(self._sequence, added, removed, self._subscribed_all, ack_wanted))
        return self._sequence

    def withdraw(self) -> int:
        """Subscribe to nothing any more, but take what is on its way; returns the sequence as ``update_subscriptions``.

        Raises:
            LocalProtocolError: before ``accept``.
        """
        if self._state in (State.CLOSING, State.CLOSED):
            return self._sequence
        if self._ours is not Half.ACTIVE:
            raise LocalProtocolError("withdraw() before accept()")
        removed = tuple(self._subscribed)
        self._round += 1
        # At least one, for its acknowledgement.
        for start in range(0, len(removed) or 1, _IDS_PER_MESSAGE):
            end = start + _IDS_PER_MESSAGE
            self._sequence += 1
            self._send(Subscriptions(self._sequence, (), removed[start:end], False, end >= len(removed)))
        return self._sequence

    def offer_event(
        self, event_type: EventType, size: int, buffers: tuple[Buffer, ...], in_line: bool = False
    ) -> Offer:
        """Queue an event's frame (``encode_frame`` with our wire id, ``size`` its frame size) if it may go.

        Under policy WAIT a full queue answers FULL and nothing happens; every other loss is counted here. A caller
        that waits then for room joins the line, so that no later event goes before its own, offers the event again
        ``in_line`` when it is its turn and there is room, and leaves the line.
        """
        return self.offer_entry(event_type, (size, event_type.type_id, buffers), in_line)

    def offer_entry(self, event_type: EventType, entry: EventEntry, in_line: bool = False) -> Offer:
        """The same, with what is queued made by the caller: once for all peers that the event is offered to."""
        size, type_id, buffers = entry
        is_wanted = self._wanted.get(type_id) is event_type
        outbox = self._outbox
        if is_wanted and size <= self.peer_frame_limit and outbox.queued_bytes < outbox.full_at:
            # Nearly always, so it is done here at once.
            outbox.events.append(entry)
            outbox.queued_bytes += size
            return _QUEUED
        if not is_wanted and not self.wants(event_type):
            if self._state is not State.UP:
                return Offer.CLOSED
            subscribed = self.remote_all or type_id in self.remote_subscriptions
            return Offer.INCOMPATIBLE if subscribed else Offer.NOT_SUBSCRIBED
        if size > self.peer_frame_limit:
            outbox.drop(type_id, size)
            return Offer.TOO_LARGE
        return outbox.offer_event(type_id, size, buffers, in_line)

    def join_line(self) -> None:
        self._outbox.join_line()

    def leave_line(self) -> None:
        self._outbox.leave_line()

    def count_dropped(self, event_type: EventType, size: int) -> None:
        """Count an event that the endpoint itself did not offer; the peer is told about it."""
        if self._state is State.UP:
            self._outbox.drop(event_type.type_id, size)

    def send_request(self, event_type: EventType, segments: Segments) -> int:
        """Queue a request and return its number.

        The type expected as a response must stand in the table before: ``table.wire_id(response_type)``.

        Raises:
            FrameTooLarge: over the peer's limit; LocalProtocolError: the connection is not up. Nothing was
            queued.
        """
        if self._state is not State.UP:
            raise LocalProtocolError(f"a request on a connection that is {self._state.value}")
        wire_id = self._passing.get(event_type) or self._wire_id(event_type)
        number = self._outgoing.new()
        try:
            buffers = encode_frame(wire_id, _REQUEST, number, segments)
            size = self._checked_size(event_type, buffers)
        except LahjaError:
            self._outgoing.forget(number)
            raise
        self._outbox.put_request(number, size, buffers)
        return number

    def forget_request(self, number: int) -> None:
        """The requester gave up: a later answer is counted as late. Not sent yet, it never will be."""
        if self._outgoing.forget(number):
            self._outbox.remove_request(number)

    def send_response(self, number: int, event_type: EventType, segments: Segments) -> bool:
        """Answer the peer's request ``number``. False, and counted, if it was answered or the peer is gone.

        A type that the two sides read differently is answered ``incompatibleType`` instead.

        Raises:
            FrameTooLarge: over the peer's limit. Nothing was queued, the request is still open.
        """
        incoming = self._incoming
        if number not in incoming.open or self._state is not State.UP:
            self.counters.answers_unsent += 1
            return False
        wire_id = self._passing.get(event_type)
        if wire_id is None:
            found = self.find_incompatibility(event_type)
            if found is not None:
                return self.send_failed(number, "incompatibleType", "", str(found))
            wire_id = self._wire_id(event_type)
        buffers = encode_frame(wire_id, _RESPONSE, number, segments)
        size = self._checked_size(event_type, buffers)
        incoming.answer(number)
        self._outbox.put_answer(size, buffers, number)
        self.counters.responses_sent += 1
        return True

    def send_failed(self, number: int, code: str, type_name: str = "", text: str = "") -> bool:
        """Answer the peer's request ``number`` with a ``FailedCode``. False as in :meth:`send_response`."""
        if self._state is not State.UP or number not in self._incoming.open:
            self.counters.answers_unsent += 1
            return False
        self._incoming.answer(number)
        self._queue_failed(number, code, type_name, text)
        return True

    def return_event_credit(self, size: int) -> bool:
        """Events of ``size`` bytes of frames were taken. True: there is a credit message to send now."""
        if self._event_window.give_back(size) and self._state is State.UP:
            self._credit_due = self._due = True
        return self._credit_due

    def return_request_credit(self, size: int) -> bool:
        """Requests of ``size`` bytes of frames were taken. True: there is a credit message to send now."""
        if self._request_window.give_back(size) and self._state is State.UP:
            self._credit_due = self._due = True
        return self._credit_due

    @property
    def granted_event_credit(self) -> int:
        """What the peer may still send of events, and what it is owed: of the window the part that is not in use."""
        return self._event_window.unused

    def close(self, code: str, text: str, now: float) -> None:
        """Say goodbye with a ``GoodbyeCode``. What is queued is dropped and counted; ``Closed`` follows."""
        if self._state is State.UP or self._state is State.HANDSHAKE:
            self._close(Closed(code, text, False), now)

    # --- knowledge ------------------------------------------------------------------------------------

    @property
    def policy(self) -> Policy:
        """What happens to an event when the queue is full."""
        return self._outbox.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self._outbox.set_policy(policy)

    @property
    def queued_bytes(self) -> int:
        """Bytes of events, requests and responses that wait to be pulled."""
        return self._outbox.queued_bytes

    @property
    def queued_frames(self) -> int:
        return self._outbox.queued_frames

    @property
    def has_request_room(self) -> bool:
        """True if the next request would be queued within the limit, which counts requests alone."""
        # For every request, so without the outbox's own property.
        outbox = self._outbox
        return outbox.queued_request_bytes < outbox.limit

    @property
    def has_room(self) -> bool:
        """True if the next event would be queued whatever the policy."""
        return self._outbox.has_room

    @property
    def event_credit(self) -> int:
        """Bytes of events that the peer allows us to send now; 0 or less: it takes none."""
        return self._outbox.event_window.balance

    @property
    def events_taken(self) -> tuple[int, int]:
        """Changes whenever an event leaves the queue to be sent, or the peer returns the credit of one."""
        return self.counters.sent, self._outbox.event_window.balance

    @property
    def requests_taken(self) -> tuple[int, int]:
        """The same of requests."""
        return self.counters.requests_sent, self._outbox.request_window.balance

    @property
    def queued_events(self) -> int:
        return self._outbox.queued_events

    @property
    def waits_for_credit(self) -> bool:
        """True if what is queued waits for the peer's handlers: a full socket is not to blame."""
        return self._outbox.waits_for_credit

    def wants(self, event_type: EventType) -> bool:
        """True if the peer subscribes to the type and both sides read it the same way."""
        type_id = event_type.type_id
        if self._wanted.get(type_id) is event_type:
            return True
        if self._state is not State.UP or not (self.remote_all or type_id in self.remote_subscriptions):
            return False
        if self.find_incompatibility(event_type) is not None:
            return False
        self._wanted[type_id] = event_type
        return True

    def incompatible(self, type_id: int) -> Incompatibility | None:
        """Return why the type that is bound here under this id cannot pass, or None."""
        event_type = self._find(type_id)
        return None if event_type is None else self.find_incompatibility(event_type)

    def snapshot(self) -> Counters:
        """Return a copy of the counters, with what is queued now."""
        return dataclasses.replace(
            self.counters,
            queued=self._outbox.queued_events,
            queued_bytes=self._outbox.queued_bytes,
            dropped_by_type=self._outbox.dropped_by_type,
        )

    # --- helpers --------------------------------------------------------------------------------------

    def _look_at_credit(self, now: float) -> None:
        """Give a sender that waits what is owed to it, however little."""
        self._credit_look_at = now + CREDIT_REST_S
        waiting = [window for window in (self._event_window, self._request_window) if window.balance <= 0]
        self.sender_waits = bool(waiting)
        if any(window.pending for window in waiting):
            self._credit_due = self._due = True

    def _tell_drops(self) -> None:
        counts = self._outbox.take_drops()
        for start in range(0, len(counts), _COUNTS_PER_MESSAGE):
            self._send(Dropped(counts[start : start + _COUNTS_PER_MESSAGE]))

    def _wire_id(self, event_type: EventType) -> int:
        """Return our wire id of a type, and remember it if both sides read the type alike."""
        wire_id = self._table.wire_id(event_type)
        if self.find_incompatibility(event_type) is None:
            self._passing[event_type] = wire_id
        return wire_id

    def _checked_size(self, event_type: EventType, buffers: tuple[Buffer, ...]) -> int:
        """Return the frame size of a request or response. Raises FrameTooLarge if the peer would refuse it."""
        size = len(buffers[0]) if len(buffers) == 1 else frame_size(buffers)
        if size > self.peer_frame_limit:
            peer = self.peer.name if self.peer is not None else ""
            raise FrameTooLarge(
                f"{event_type.name} encodes to {size} bytes but {peer!r} accepts {self.peer_frame_limit} per"
                " frame (told in the handshake). Send less, or raise Limits.frame_bytes there.",
                event=event_type.name,
                peer=peer,
                size=size,
                limit=self.peer_frame_limit,
            )
        return size

    def _tabulate(self, type_ids: Iterable[int]) -> None:
        """Put types that we are about to subscribe to into our table."""
        for type_id in type_ids:
            if type_id not in self._table:
                event_type = self._find(type_id)
                if event_type is None:
                    raise LocalProtocolError(
                        f"a subscription to type {type_id:#018x}, to which no class is bound"
                    )
                self._table.wire_id(event_type)

    @property
    def _missing(self) -> str:
        """What the handshake waits for."""
        if self._theirs is Half.OPENING:
            return "the peer has not said hello"
        if self._ours is not Half.ACTIVE:
            return "this endpoint has not accepted the peer"
        return "the peer has not said what it subscribes to"

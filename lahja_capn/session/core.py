"""What one connection knows and how it ends: the part of a session that receiving and sending share."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..binding import BINDINGS, EventType
from ..binding import find_event_type as find_bound_type
from ..errors import LahjaError
from ..wire import Buffer, FrameDecoder, FrameKind, frame_size
from ..wire.limits import FAILED_TEXT_BYTES, GOODBYE_TEXT_BYTES, NAME_TEXT_BYTES
from .control import ControlMessage, Failed, Goodbye
from .counters import Counters
from .credit import ReceiveWindow
from .events import Arrivals, Arrived, Closed, PeerUp, SessionEvent, SessionNews, TypeDisabled
from .handshake import cut, encode_control_frame, goodbye_code, make_hello, take_rows
from .keepalive import INFINITY, Keepalive
from .local import LocalEndpoint, PeerInfo
from .outbox import Outbox
from .requests import IncomingRequests, OutgoingRequests
from .state import Half, Message, State, advance
from .tables import Incompatibility, PeerTable, WireTable

# An attribute of an enum costs several times a global.
_EVENT = int(FrameKind.EVENT)


class SessionCore:
    """State of one connection. :class:`~lahja_capn.session.session.Session` is the class to use.

    Args:
        local: who we are, and our limits.
        table: the endpoint's id table, shared by its sessions.
        connector: True on the side that opened the connection: it says hello first.
        now: the time at which the connection was made; the handshake deadline counts from here.
        withheld: so much less than ``limits.event_credit_bytes`` is granted at first; ``return_event_credit`` gives
            it later. On the side that was connected to ``accept`` says it.
        expected_peer: the name that the peer must have; None on the side that was connected to.
        find_event_type: looks up what is bound to a type id here.
    """

    __slots__ = (
        "_ack_due",
        "_bindings_seen",
        "_close_deadline",
        "_credit_due",
        "_credit_look_at",
        "_declared",
        "_decoder",
        "_drop_notice_at",
        "_drops_due",
        "_due",
        "_event_window",
        "_events",
        "_expected_peer",
        "_find",
        "_goodbye",
        "_handshake_deadline",
        "_hello",
        "_incoming",
        "_keepalive",
        "_last_acked",
        "_local",
        "_ours",
        "_outbox",
        "_outgoing",
        "_passing",
        "_peer_table",
        "_ping_due",
        "_pong_due",
        "_remote_sequence",
        "_request_window",
        "_round",
        "_sequence",
        "_state",
        "_subscribed",
        "_subscribed_all",
        "_table",
        "_theirs",
        "_wanted",
        "counters",
        "drops",
        "more_to_send",
        "nothing_received",
        "peer",
        "peer_frame_limit",
        "receive_buffer",
        "remote_all",
        "remote_subscriptions",
        "send_finished",
        "sender_waits",
    )

    def __init__(
        self,
        local: LocalEndpoint,
        table: WireTable,
        *,
        connector: bool,
        now: float,
        withheld: int = 0,
        expected_peer: str | None = None,
        find_event_type: Callable[[int], EventType | None] = find_bound_type,
    ) -> None:
        limits = local.limits
        self.peer: PeerInfo | None = None
        self.counters = Counters()
        # The largest frame that the peer accepts, bytes; 0 before its hello.
        self.peer_frame_limit = 0
        # What the peer subscribes to, as type ids; and whether it wants every type.
        self.remote_subscriptions: set[int] = set()
        self.remote_all = False
        # True once our last byte was pulled: shut down writing when it is written.
        self.send_finished = False
        # True if another data_to_send may return something: the last one stopped at its limit of bytes.
        self.more_to_send = False
        # True if the peer has used up a window: next_deadline() has come nearer, see CREDIT_REST_S.
        self.sender_waits = False

        self._local = local
        self._table = table
        self._expected_peer = expected_peer
        self._find = find_event_type
        self._state = State.HANDSHAKE
        self._ours = Half.OPENING
        self._theirs = Half.OPENING
        self._events: list[SessionNews] = []
        self._decoder = FrameDecoder(limits)
        # A writable place for the next bytes, never empty; valid until ``bytes_received``, or until the owner says that
        # nothing is there to be received. The decoder's own methods: they are called for every read.
        self.receive_buffer: Callable[[], memoryview] = self._decoder.receive_buffer
        self.nothing_received: Callable[[], None] = self._decoder.nothing_received
        self._outbox = Outbox(limits.queued_per_peer_bytes, self.counters)
        # Events dropped since the peer was last told, by type id: always this same dict.
        self.drops = self._outbox.drops
        self._peer_table = PeerTable(limits)
        self._event_window = ReceiveWindow(limits.event_credit_bytes)
        self._request_window = ReceiveWindow(limits.request_credit_bytes)
        self._outgoing = OutgoingRequests()
        self._incoming = IncomingRequests(limits.open_requests)
        self._keepalive = Keepalive(local.keepalive_s, limits.keepalive_misses, now)
        # What we told the peer that we want.
        self._subscribed: set[int] = set()
        self._subscribed_all = False
        # Types that the peer is known to want and to read as we do: a cache, cleared when either may change.
        self._wanted: dict[int, EventType] = {}
        # Types that both sides read alike, and our wire ids of them: a cache, cleared with each declare.
        self._passing: dict[EventType, int] = {}
        # Routes looked up in an earlier round are looked up again. A new one begins with each change of what
        # they depend on: our subscriptions, the peer's table, and the classes bound here.
        self._round = 1
        self._bindings_seen = BINDINGS.changes if find_event_type is find_bound_type else None

        # Rows of our table that are declared to the peer.
        self._declared = 0
        # Sequences of subscriptions messages: our last, the last of ours that was acknowledged, the peer's
        # last.
        self._sequence = 0
        self._last_acked = 0
        self._remote_sequence = 0
        self._hello: tuple[Buffer, ...] | None = None
        self._goodbye: tuple[Buffer, ...] | None = None
        # Due messages, of which one stands for many: they are made when they are pulled, so that no peer can
        # make them pile up. `_due` is True if there may be any, also hello and goodbye.
        self._due = True
        self._ack_due = 0
        self._credit_due = False
        self._ping_due = False
        self._pong_due = False
        self._handshake_deadline = now + limits.handshake_timeout_s
        self._close_deadline = INFINITY
        self._drop_notice_at = now
        self._drops_due = False
        self._credit_look_at = INFINITY
        if connector:
            self._say_hello(withheld)

    @property
    def state(self) -> State:
        return self._state

    @property
    def is_closed(self) -> bool:
        """True if there is nothing more to read or to send: close the socket."""
        return self._state is State.CLOSED

    def take_news(self) -> list[SessionNews]:
        """Return everything that happened since the last call, in order; events that follow each other in a row."""
        news, self._events = self._events, []
        return news

    def take_events(self) -> list[SessionEvent]:
        """Return the same one by one."""
        events: list[SessionEvent] = []
        for item in self.take_news():
            if isinstance(item, Arrivals):
                events += [
                    Arrived(_EVENT, item.event_type, segments, size, 0) for size, segments in item.frames
                ]
            else:
                events.append(item)
        return events

    def find_incompatibility(self, event_type: EventType) -> Incompatibility | None:
        """Return why the type cannot pass between the two sides, or None. A new finding is also an event."""
        found, is_new = self._peer_table.verdict(event_type)
        if is_new and found is not None:
            self._wanted.pop(event_type.type_id, None)
            self._passing.pop(event_type, None)
            self._outbox.purge((event_type.type_id,))
            self._events.append(TypeDisabled(found))
        return found

    # --- sending --------------------------------------------------------------------------------------

    def _send(self, message: ControlMessage) -> None:
        self._ours = advance(self._ours, message.message)
        self._outbox.put_control(encode_control_frame(message))

    def _say_hello(self, withheld: int) -> None:
        """Queue our hello, with as much of our table as fits, and open the windows that it names."""
        self._event_window.reduce(withheld)
        rows, self._declared = take_rows(self._table.rows, 0)
        self._ours = advance(self._ours, Message.HELLO)
        self._hello = encode_control_frame(make_hello(self._local, rows, self._event_window.window))
        self._due = True
        self._event_window.open()
        self._request_window.open()

    def _queue_failed(self, number: int, code: str, type_name: str, text: str) -> None:
        self._ours = advance(self._ours, Message.FAILED)
        message = Failed(number, code, cut(type_name, NAME_TEXT_BYTES), cut(text, FAILED_TEXT_BYTES))
        buffers = encode_control_frame(message)
        # It counts as queued, as a response does.
        self._outbox.put_answer(frame_size(buffers), buffers, number)
        self.counters.failed_sent += 1

    # --- up -------------------------------------------------------------------------------------------

    def _check_up(self) -> None:
        """Both sides' first subscriptions have passed: the connection is up."""
        if self._state is State.HANDSHAKE and self._ours is Half.ACTIVE and self._theirs is Half.ACTIVE:
            self._state = State.UP
            self._decoder.open()
            self._events.append(PeerUp())
            self._look_at_types(self._peer_table.type_ids)

    def _look_at_types(self, type_ids: Iterable[int]) -> None:
        """Find out now, and loudly, which types of the peer's table cannot pass."""
        for type_id in type_ids:
            event_type = self._find(type_id)
            if event_type is not None:
                self.find_incompatibility(event_type)

    # --- end ------------------------------------------------------------------------------------------

    def _fail(self, error: LahjaError, now: float) -> None:
        """The peer broke the protocol, or is silent: say goodbye and why."""
        if self.peer is not None and not getattr(error, "peer", ""):
            error.peer = self.peer.name  # type: ignore[attr-defined]  # those of the handshake have it
        self._close(Closed(goodbye_code(error), str(error), False, error), now)

    def _close(self, closed: Closed, now: float) -> None:
        """End from our side: goodbye is the last frame, then only the peer's end of stream is awaited."""
        self._goodbye = encode_control_frame(Goodbye(closed.code, cut(closed.text, GOODBYE_TEXT_BYTES)))
        self._due = True
        self._ours = advance(self._ours, Message.GOODBYE)
        self._drop_queues()
        self._wanted.clear()
        self._state = State.CLOSING
        self._close_deadline = now + self._local.limits.close_timeout_s
        self._events.append(closed)

    def release(self) -> None:
        """Nothing is read or sent any more: let go what the peer made us remember.

        Events that were not taken yet hold on to their connection, to give their credit back.
        """
        self._decoder.release()
        self._peer_table = PeerTable(self._local.limits)
        self.remote_subscriptions = set()
        self._wanted.clear()
        self._passing.clear()

    def _drop_queues(self) -> None:
        self._outbox.clear()
        self.counters.answers_unsent += self._incoming.forget_refusals()

    def _end(self, closed: Closed) -> None:
        """The peer has ended the connection, or it is lost: nothing is sent any more."""
        if self._state is State.CLOSED:
            return
        if self._state is not State.CLOSING:
            self._drop_queues()
            self._wanted.clear()
            self._events.append(closed)
        self._goodbye = None
        self._due = True
        self._state = State.CLOSED
        self._ours = self._theirs = Half.ENDED
        self.send_finished = True

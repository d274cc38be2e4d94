"""A session in any state, as acceptor and as connector, with a peer that says anything and a user who does anything.

An input is two bytes of options and a list of steps, each a byte that says what, and what belongs to it::

    0  bit 0  we are the connector              bit 4  a frame limit of 1,024 bytes
       bit 1  our user answers requests         bit 5  no subscriptions, `all` instead
       bit 2  bytes arrive in small pieces      bit 6  keepalive
       bit 3  small windows of credit           bit 7  nothing is sent until the end (the peer does not read)
    1  reserved for more
    step 0   u16 n, n bytes: they arrive
    step 1   u8: our user does one of ACTIONS
    step 2   u8: so many quarters of a second pass
    step 3   the peer's stream ends
    step 4   the connection is lost
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random
from typing import Any

from lahja_capn import EventFieldError, LahjaError
from lahja_capn.session import (
    Arrived,
    Closed,
    LocalEndpoint,
    PeerDropped,
    PeerHello,
    PeerUp,
    Policy,
    ResponseArrived,
    Session,
    WireTable,
)
from lahja_capn.wire import FrameKind, Limits, encode_frame, frame_size
from tests.fuzz import corpus
from tests.fuzz.mutate import damage_bytes, damage_frames
from tests.fuzz.sent import Sent
from tests.vectors import bound, peer
from tests.vectors.loading import Vector

CONNECTOR, SERVES, PIECES, SMALL_WINDOWS, SMALL_FRAMES, ALL, KEEPALIVE, MUTE = (1 << n for n in range(8))
BYTES, DO, TIME, EOF, LOST = range(5)

_KNOWN = ("Everything", "Count", "Blob", "Evolving", "Ask", "Answer")
_SUBSCRIBED = ("Everything", "Count", "Blob", "Ask", "Evolving")
_ENCODED = {
    "Count": bound.TYPES["Count"].encode(bound.build("Count", {"number": "5"})),
    "Blob": bound.TYPES["Blob"].encode(bound.build("Blob", {"data": "ab" * 3000})),
    "Everything": bound.TYPES["Everything"].encode(bound.build("Everything", {"text": "t"})),
    "Ask": bound.TYPES["Ask"].encode(bound.build("Ask", {"number": "1"})),
    "Answer": bound.TYPES["Answer"].encode(bound.build("Answer", {"number": "2"})),
}
_PIECE = 61

Step = tuple[int, Any]


def _limits(options: int) -> Limits:
    small = bool(options & SMALL_WINDOWS)
    return Limits(
        frame_bytes=1024 if options & SMALL_FRAMES else 1 << 20,
        event_credit_bytes=2000 if small else 1 << 20,
        request_credit_bytes=500 if small else 1 << 20,
        queued_per_peer_bytes=20_000 if small else 1 << 20,
        open_requests=4 if small else 16384,
    )


_LIMITS = {
    options: _limits(options) for options in (0, SMALL_WINDOWS, SMALL_FRAMES, SMALL_WINDOWS | SMALL_FRAMES)
}
_TABLE = WireTable(_LIMITS[0])
for _name in _KNOWN:
    _TABLE.wire_id(bound.TYPES[_name])


class User:
    """One session and who uses it: checks what the session tells and sends."""

    def __init__(self, options: int) -> None:
        limits = _LIMITS[options & (SMALL_WINDOWS | SMALL_FRAMES)]
        self.options = options
        self.now = 1.0
        connector = bool(options & CONNECTOR)
        local = LocalEndpoint(
            name="consumer",
            instance=bytes(range(192, 208)),
            limits=limits,
            keepalive_s=5.0 if options & KEEPALIVE else 0,
        )
        self.session = Session(
            local,
            _TABLE,
            connector=connector,
            now=self.now,
            expected_peer="vector" if connector else None,
            find_event_type=bound.BY_ID.get,
        )
        self.sent = Sent()
        self.is_mute = bool(options & MUTE)
        self.met = self.up = False
        self.closed: Closed | None = None
        self.held: list[Arrived] | None = None
        self.open: list[int] = []
        self.asked: list[int] = []

    # --- steps --------------------------------------------------------------------------------------------

    def do(self, step: Step) -> None:
        what, content = step
        session = self.session
        if session.is_closed:
            assert self.closed is not None
        elif what == BYTES:
            piece = _PIECE if self.options & PIECES else len(content) or 1
            for start in range(0, len(content), piece):
                if self.session.is_closed:
                    break
                session.receive_bytes(content[start : start + piece], self.now)
                self.settle()
            return
        elif what == DO:
            ACTIONS[content % len(ACTIONS)](self)
        elif what == TIME:
            self.now += content / 4
            due = session.next_deadline()
            session.handle_time(self.now)
            later = session.next_deadline()
            if due is not None and due <= self.now and later is not None:
                assert later > due, "a deadline that passes again and again"
        elif what == EOF:
            session.receive_eof(self.now)
        else:
            session.connection_lost(self.now, "reset")
        self.settle()

    def settle(self) -> None:
        """Take events and send, until nothing happens."""
        while True:
            events = self.session.take_events()
            for event in events:
                self.see(event)
            if not self.pull() and not events:
                return

    def pull(self) -> bool:
        if self.is_mute:
            return False
        data = b"".join(self.session.data_to_send())
        if data:
            assert self.sent.state != "ended", "sent something after goodbye"
            self.sent.take(data, self.session, self.now)
            assert self.met or self.options & CONNECTOR or self.sent.state == "ended", (
                "the acceptor spoke first"
            )
        return bool(data)

    def see(self, event: Any) -> None:
        assert self.closed is None, f"{event} after Closed"
        session = self.session
        if isinstance(event, PeerHello):
            assert not self.met, "a second hello was accepted"
            self.met = True
            wanted = () if self.options & ALL else _SUBSCRIBED
            session.accept([bound.TYPES[name].type_id for name in wanted], all=bool(self.options & ALL))
        elif isinstance(event, PeerUp):
            assert self.met
            assert not self.up
            self.up = True
        elif isinstance(event, Closed):
            self.closed = event
        elif not isinstance(event, PeerDropped):
            # (A peer may tell of drops as soon as it has said what it subscribes to: docs/wire.md section 4.)
            assert self.up, f"{event} before the connection was up"
            if isinstance(event, Arrived):
                if self.held is None:
                    self.take(event)
                else:
                    self.held.append(event)
            elif isinstance(event, ResponseArrived) and event.event_type is not None:
                _look_at(event.event_type, event.segments)

    def take(self, arrived: Arrived) -> None:
        session = self.session
        _look_at(arrived.event_type, arrived.segments)
        if arrived.kind == FrameKind.EVENT:
            session.return_event_credit(arrived.size)
            return
        session.return_request_credit(arrived.size)
        if self.options & SERVES:
            if arrived.number % 3:
                answer = bound.TYPES["Answer"]
                session.send_response(arrived.number, answer, _ENCODED["Answer"])
            else:
                session.send_failed(
                    arrived.number, "handlerRaised", "ValueError" * 200, "asked to fail" * 2000
                )
        else:
            self.open.append(arrived.number)

    # --- the end ------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """The input is over: the stream ends, and the session must have ended too, in the way of docs/wire.md."""
        session = self.session
        self.settle()
        if self.closed is not None and not self.closed.by_peer:
            before = self.is_mute
            self.is_mute = False
            self.pull()
            self.is_mute = before
            if not session.is_closed:
                assert self.sent.goodbye is not None, "ended without goodbye"
                assert str(self.sent.goodbye.code) == self.closed.code, self.closed
                assert session.send_finished
        elif self.is_mute:
            # The peer reads at last: what has piled up must be little.
            self.is_mute = False
            self.settle()
        session.receive_eof(self.now)
        self.settle()
        assert session.is_closed
        assert self.closed is not None
        assert session.queued_bytes == 0
        assert session.queued_frames == 0
        assert session.data_to_send() == []
        assert session.next_deadline() is None
        counters = session.counters
        window = _LIMITS[0].event_credit_bytes
        assert self.sent.credit[0] <= counters.received_bytes + counters.skipped_bytes, (
            "more credit than was used"
        )
        # What the peer makes us send that costs it nothing is one of each; answers cost it credit.
        assert self.sent.size <= 4 * window + 100_000, f"sent {self.sent.size} bytes"


def _look_at(kind: Any, segments: Any) -> None:
    try:
        repr(kind.open(segments))
    except EventFieldError:
        raise AssertionError("repr raised") from None


# --- what the user does -------------------------------------------------------------------------------------


def _broadcast(name: str) -> Callable[[User], None]:
    def act(user: User) -> None:
        kind = bound.TYPES[name]
        buffers = encode_frame(_TABLE.wire_id(kind), FrameKind.EVENT, 0, _ENCODED[name])
        user.session.offer_event(kind, frame_size(buffers), buffers)

    return act


def _request(user: User) -> None:
    try:
        user.asked.append(user.session.send_request(bound.TYPES["Ask"], _ENCODED["Ask"]))
    except LahjaError:
        assert not user.up or user.closed is not None or user.session.peer_frame_limit < 1024


def _forget(user: User) -> None:
    if user.asked:
        user.session.forget_request(user.asked.pop())


def _subscribe(add: bool) -> Callable[[User], None]:
    def act(user: User) -> None:
        ids = [bound.TYPES["Count"].type_id]
        if user.sent.state == "active" or user.closed is not None:
            if add:
                user.session.update_subscriptions(add=ids, ack_wanted=True)
            else:
                user.session.update_subscriptions(remove=ids, ack_wanted=True)

    return act


def _hold(user: User) -> None:
    if user.held is None:
        user.held = []


def _resume(user: User) -> None:
    held, user.held = user.held, None
    for arrived in held or ():
        user.take(arrived)


def _answer(user: User) -> None:
    if user.open:
        number = user.open.pop(0)
        answer = bound.TYPES["Answer"]
        user.session.send_response(number, answer, _ENCODED["Answer"])
        assert not user.session.send_response(number, answer, _ENCODED["Answer"]), "answered twice"


def _policy(user: User) -> None:
    order = list(Policy)
    user.session.policy = order[(order.index(user.session.policy) + 1) % len(order)]


def _stop(user: User) -> None:
    user.session.close("shutdown", "asked to", user.now)


def _mute(user: User) -> None:
    user.is_mute = not user.is_mute


ACTIONS: list[Callable[[User], None]] = [
    _broadcast("Count"),
    _broadcast("Blob"),
    _broadcast("Everything"),
    _request,
    _forget,
    _subscribe(True),
    _subscribe(False),
    _hold,
    _resume,
    _answer,
    _policy,
    _mute,
    lambda user: user.session.ping(user.now),
    _stop,
]
_VECTOR_ACTIONS = {
    "request": 3,
    "forget": 4,
    "subscribe": 5,
    "unsubscribe": 6,
    "hold": 7,
    "resume": 8,
    "stop": 13,
}
_BROADCASTS = {"Count": 0, "Blob": 1, "Everything": 2}


# --- the input's bytes --------------------------------------------------------------------------------------


def unpack(data: bytes) -> tuple[int, list[Step]]:
    """Return options and steps; whatever the bytes are, they mean something."""
    options = data[0] if data else 0
    steps: list[Step] = []
    at = 2
    while at < len(data):
        what = data[at] % 5
        at += 1
        if what == BYTES:
            size = int.from_bytes(data[at : at + 2], "little")
            steps.append((BYTES, data[at + 2 : at + 2 + size]))
            at += 2 + size
        elif what in (DO, TIME):
            steps.append((what, data[at] if at < len(data) else 0))
            at += 1
        else:
            steps.append((what, None))
    return options, steps


def pack(options: int, steps: list[Step]) -> bytes:
    found = [bytes((options, 0))]
    for what, content in steps:
        if what == BYTES:
            for start in range(0, len(content) or 1, 65535):
                part = content[start : start + 65535]
                found.append(struct.pack("<BH", BYTES, len(part)) + part)
        elif content is None:
            found.append(bytes((what,)))
        else:
            found.append(bytes((what, content)))
    return b"".join(found)


def of_vector(vector: Vector) -> bytes:
    """Return a conversation or refusal as an input."""
    facts = vector.facts
    setup = facts.get("setup", {})
    options = CONNECTOR if facts["role"] == "connector" else 0
    options |= SERVES if setup.get("serve") else 0
    options |= ALL if setup.get("all") else 0
    options |= SMALL_FRAMES if setup.get("frame_limit", 1 << 20) <= 1024 else 0
    options |= SMALL_WINDOWS if setup.get("event_credit") or setup.get("request_credit") else 0
    steps: list[Step] = []
    at = 0
    sequence = 1
    for step in facts["script"]:
        if "send" in step:
            content = bytearray(vector.data[at : at + step["send"]])
            at += len(content)
            for patch in step.get("patch", ()):
                number = patch.get("request", sequence)
                content[patch["at"] : patch["at"] + 8] = (number + patch.get("plus", 0)).to_bytes(8, "little")
            steps.append((BYTES, bytes(content)))
        elif "do" in step:
            action = step["do"]
            sequence += "subscribe" in action
            steps.append((DO, _VECTOR_ACTIONS.get(action, _BROADCASTS.get(step.get("type", ""), 0))))
        elif "eof" in step:
            steps.append((EOF, None))
    return pack(options, steps)


def _arriving(frames: list[bytes]) -> list[Step]:
    return [(BYTES, frame) for frame in frames]


def rich() -> list[bytes]:
    """Return connections that come up and then say and do a little of everything: where most states can be reached."""
    names = (*_KNOWN, "Late")
    up = (BYTES, peer.hello(*names) + peer.subscriptions(*_KNOWN, ackWanted=True))
    content = [
        peer.event("Count", {"number": "7"}),
        peer.event("Blob", {"id": 1, "data": "ab" * 100}),
        peer.event("Everything", {"text": "t", "u8s": [1, 2, 3], "inner": {"number": 1}}),
        peer.event("Evolving", {"number": 1, "text": "t", "choice": {"right": "r"}}),
        peer.event("Late", {"text": "late"}),
        peer.request(3, {"number": "1"}),
        peer.request(5, {"number": "2", "mode": "fail"}),
        peer.request(9, {"number": "1"}, "Count", peer.WIRE_IDS["Count"]),
    ]
    control = [
        peer.control(ping=None),
        peer.control(pong=None),
        peer.control(subscriptionsAck={"sequence": "1"}),
        peer.control(credit={"events": "500", "requests": "600"}),
        peer.control(dropped={"counts": [{"typeId": str(peer.type_id("Count")), "count": "3"}]}),
        peer.subscriptions(sequence=2, remove=[str(peer.type_id("Count"))], ackWanted=True),
        peer.subscriptions("Count", sequence=3, all=True),
        peer.control(declare={"types": peer.rows("Late")}),
    ]
    answers = [
        peer.response(1, {"number": "2", "text": "twice 1"}),
        peer.control(failed={"correlation": "2", "code": "handlerRaised", "typeName": "E", "text": "t"}),
        peer.response(3, {"number": "2"}, "Count"),
    ]
    ask = [(DO, 3), (DO, 3), (DO, 3), (DO, 3)]
    broadcast = [(DO, 0), (DO, 1), (DO, 2)]
    found = []
    for options in (0, CONNECTOR):
        for more in (
            SERVES,
            SERVES | SMALL_WINDOWS,
            ALL | KEEPALIVE,
            MUTE | SERVES,
            SMALL_FRAMES | PIECES | SERVES,
        ):
            steps: list[Step] = [
                up,
                *broadcast,
                (BYTES, b"".join(content)),
                *ask,
                (BYTES, b"".join(control + answers)),
            ]
            found.append(
                pack(
                    options | more, [*steps, (TIME, 8), *broadcast, (BYTES, b"".join(content[:5])), (DO, 13)]
                )
            )
            held = [
                up,
                (DO, 7),
                (BYTES, b"".join(content)),
                *ask,
                (DO, 5),
                (DO, 6),
                (BYTES, b"".join(control)),
            ]
            found.append(
                pack(options | more, [*held, (DO, 8), (DO, 9), (BYTES, b"".join(answers)), (EOF, None)])
            )
            # The peer does not read, so the queue fills, and by policy events are dropped.
            full = [(DO, 11), *[(DO, 1)] * 9, (DO, 11)]
            drops = [(DO, 10), *full, (TIME, 1), *_arriving(control), *full, (TIME, 1), *full, (TIME, 4)]
            found.append(pack(options | more | SMALL_WINDOWS, [up, *drops]))
            one = [(BYTES, part) for part in (*content, *control, *answers)]
            found.append(pack(options | more, [up, (DO, 3), (DO, 3), *one, (TIME, 30), (LOST, None)]))
    return found


# --- the target ---------------------------------------------------------------------------------------------


class Neighbours:
    """An honest connection of the same endpoint, which must not feel what the hostile one does."""

    def __init__(self) -> None:
        self.ours = self._session("consumer", True)
        self.theirs = self._session("honest", False)
        self.got: list[Any] = []
        self._exchange()
        self.exchanged = 0

    def _session(self, name: str, connector: bool) -> Session:
        local = LocalEndpoint(
            name=name, instance=name.encode().ljust(16, b"."), limits=_LIMITS[0], keepalive_s=0
        )
        table = _TABLE if connector else WireTable(_LIMITS[0])
        return Session(local, table, connector=connector, now=1.0, find_event_type=bound.BY_ID.get)

    def _exchange(self) -> None:
        while True:
            moved = False
            for one, other in ((self.ours, self.theirs), (self.theirs, self.ours)):
                for event in one.take_events():
                    moved = True
                    if isinstance(event, PeerHello):
                        one.accept([bound.TYPES[name].type_id for name in _SUBSCRIBED])
                    elif isinstance(event, Arrived):
                        self.got.append(event)
                        one.return_event_credit(event.size)
                    assert not isinstance(event, Closed), event
                for buffer in one.data_to_send():
                    moved = True
                    other.receive_bytes(buffer, 1.0)
            if not moved:
                return

    def check(self) -> None:
        """Send an event each way."""
        self.exchanged += 1
        kind = bound.TYPES["Count"]
        for session in (self.ours, self.theirs):
            buffers = encode_frame(session._table.wire_id(kind), FrameKind.EVENT, 0, _ENCODED["Count"])
            session.offer_event(kind, frame_size(buffers), buffers)
            self._exchange()
            (arrived,) = self.got
            self.got.clear()
            assert arrived.event_type is kind
            assert tuple(map(bytes, arrived.segments)) == tuple(map(bytes, _ENCODED["Count"]))


class Sessions:
    name = "sessions"
    # The arena, our frame limit, and the queues; what the peer says is kept as rows, subscriptions and events.
    base_bytes = 6 << 20
    bytes_per_byte = 128
    max_bytes = 16384

    def __init__(self) -> None:
        self._neighbours = Neighbours()
        self._runs = 0
        self._seeds: list[bytes] = []

    def seeds(self) -> list[bytes]:
        if not self._seeds:
            for folder in ("conversations", "refusals"):
                self._seeds += [of_vector(vector) for vector in corpus.vectors(folder)]
            # As many as of the others: most of those end early.
            self._seeds += rich() * 15
        return self._seeds

    def mutate(self, data: bytes, seed: int) -> bytes:
        rng = Random(seed)
        if rng.random() < 0.03:
            return damage_bytes(data, rng)
        options, steps = unpack(data)
        if rng.random() < 0.1:
            options ^= 1 << rng.randrange(8)
        if not steps:
            steps = [(BYTES, b"")]
        at = rng.randrange(len(steps))
        what = rng.randrange(12)
        if what < 8:
            speaking = [i for i, step in enumerate(steps) if step[0] == BYTES] or [at]
            at = max(rng.choice(speaking), rng.choice(speaking))
            if steps[at][0] == BYTES:
                _, others = unpack(rng.choice(self.seeds()))
                other = b"".join(content for kind, content in others if kind == BYTES)
                steps[at] = (BYTES, damage_frames(steps[at][1], rng, other))
        elif what == 8:
            new = rng.choice(
                (
                    (DO, rng.randrange(len(ACTIONS) - 1)),
                    (DO, rng.randrange(len(ACTIONS))),
                    (TIME, rng.randrange(64)),
                )
            )
            steps.insert(rng.randrange(len(steps) + 1), new)
        elif what == 9:
            # Bytes that end in the middle of a frame, with something between them and the rest.
            kind, content = steps[at]
            if kind == BYTES and content:
                cut = rng.randrange(len(content))
                between = rng.choice(
                    ((DO, rng.randrange(len(ACTIONS))), (TIME, 2), (TIME, 50), (EOF, None), (LOST, None))
                )
                steps[at : at + 1] = [(BYTES, content[:cut]), between, (BYTES, content[cut:])]
        elif what == 10 and len(steps) > 1:
            del steps[at]
        else:
            to = rng.randrange(len(steps))
            steps[at], steps[to] = steps[to], steps[at]
        return pack(options, steps[:40])[: self.max_bytes]

    def run(self, data: bytes) -> None:
        options, steps = unpack(data)
        user = User(options)
        user.settle()
        for step in steps:
            user.do(step)
        user.finish()
        self._runs += 1
        if self._runs % 16 == 0:
            self._neighbours.check()

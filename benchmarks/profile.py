"""Where the time of one event and of one request goes: ``python -m benchmarks.profile``.

Every piece alone, in one process and without waiting: µs per event, the median and the lowest of several passes. The
sum is what the processor does; a real event also waits for processes to wake, which the benchmarks show.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.processes import ROOT
from benchmarks.report import commit, machine
from benchmarks.systems.lahja_capn_system import Answer, Ask, Large, Small
from benchmarks.workload import Job, small_values
from lahja_capn import AsyncioEndpoint, BaseEvent, BroadcastConfig, Limits
from lahja_capn.binding import RequestToken, event_type
from lahja_capn.session import Arrived, LocalEndpoint, Offer, PeerHello, ResponseArrived, Session, WireTable
from lahja_capn.wire.decoder import FrameDecoder
from lahja_capn.wire.frames import encode_frame, frame_size

# Events in a pass: few enough that all fit into the credit and the queue.
EVENTS = 2000
PASSES = 15


class Piece(NamedTuple):
    """One row of the result; times in µs per event."""

    part: str
    name: str
    median: float
    lowest: float


class Profile:
    """Collects pieces."""

    def __init__(self, passes: int, events: int) -> None:
        self._passes = passes
        self.events = events
        self.pieces: list[Piece] = []
        self.part = ""

    def piece(self, name: str, run: Callable[[Any], Any], prepare: Callable[[], Any] = lambda: None) -> None:
        """Time ``run(prepare())``, which does something for each of ``events`` events."""
        times = []
        for _ in range(self._passes):
            prepared = prepare()
            began = time.perf_counter()
            run(prepared)
            times.append((time.perf_counter() - began) / self.events * 1e6)
        self.pieces.append(Piece(self.part, name, statistics.median(times), min(times)))


class Pair:
    """Two sessions that are up, joined by a socket pair."""

    def __init__(self, *subscriptions: type[BaseEvent]) -> None:
        limits = Limits()
        self.tables = [WireTable(limits), WireTable(limits)]
        self.sessions = [
            Session(
                LocalEndpoint(name=name, instance=os.urandom(16), limits=limits, keepalive_s=0),
                table,
                connector=name == "sender",
                now=0.0,
            )
            for name, table in zip(("sender", "receiver"), self.tables, strict=True)
        ]
        self.sockets = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        wanted = [event_type(cls).type_id for cls in subscriptions]
        for _ in range(20):
            for mine, theirs in ((0, 1), (1, 0)):
                for _event in self.move(mine, theirs):
                    if isinstance(_event, PeerHello):
                        self.sessions[theirs].accept(wanted)
        if any(session.state.name != "UP" for session in self.sessions):
            raise SystemExit("the sessions do not come up")

    def write(self, mine: int) -> int:
        """Send what may be sent; returns how many bytes."""
        # No more than the socket takes at once: nobody reads meanwhile.
        data = b"".join(self.sessions[mine].data_to_send(64 * 1024))
        if data:
            self.sockets[mine].sendall(data)
        return len(data)

    def read(self, theirs: int, count: int) -> None:
        session = self.sessions[theirs]
        while count:
            buffer = session.receive_buffer()
            got = self.sockets[theirs].recv_into(buffer[:count])
            session.bytes_received(got, 0.0)
            count -= got

    def move(self, mine: int, theirs: int) -> Sequence[Any]:
        """Everything that waits, through the socket; what the other session says of it."""
        while count := self.write(mine):
            self.read(theirs, count)
        return self.sessions[theirs].take_events()


def small(number: int, values: Sequence[Any]) -> Small:
    value, data, text, flag = values[number % len(values)]
    return Small(number=number, value=value, payload=data, text=text, flag=flag)


def profile_event(profile: Profile) -> None:
    count = profile.events
    numbers = range(count)
    values = small_values(Job("small", "", count, 1))
    kind = event_type(Small)
    profile.part = "64 B event, sender"
    profile.piece("construct", lambda _: [small(number, values) for number in numbers])
    events = [small(number, values) for number in numbers]
    profile.piece("encode", lambda _: [kind.encode(event) for event in events])
    messages = [kind.encode(event) for event in events]
    profile.piece("frame", lambda _: [encode_frame(1, 0, 0, message) for message in messages])

    pair = Pair(Small)
    sender, receiver = pair.sessions
    wire_id = pair.tables[0].wire_id(kind)
    frames = [encode_frame(wire_id, 0, 0, message) for message in messages]
    sizes = [frame_size(frame) for frame in frames]

    def queue(_: Any) -> None:
        for frame, size in zip(frames, sizes, strict=True):
            if sender.offer_event(kind, size, frame) is not Offer.QUEUED:
                raise SystemExit("the event was not queued")

    def drain() -> None:
        for event in pair.move(0, 1):
            if isinstance(event, Arrived):
                receiver.return_event_credit(event.size)
        pair.move(1, 0)

    queue(None)
    drain()
    profile.piece("queue (one peer)", queue, drain)
    drain()
    profile.piece("take from the queue, join", lambda _: pull(sender), lambda: queue(None))
    # What was pulled never arrived: start again.
    pair = Pair(Small)
    left, right = pair.sockets
    joined = b"".join(b"".join(frame) for frame in frames)
    # As much as goes into the socket's buffer at once, so that neither side waits.
    share = joined[: 64 * 1024]
    scale = len(joined) / len(share)
    rounds = max(1, round(scale))
    place = memoryview(bytearray(len(share)))
    sending: list[float] = []
    receiving: list[float] = []
    for _ in range(PASSES):
        took = [0.0, 0.0]
        for _ in range(rounds):
            began = time.perf_counter()
            left.sendall(share)
            sent = time.perf_counter()
            got = 0
            while got < len(share):
                got += right.recv_into(place[got:])
            took[0] += sent - began
            took[1] += time.perf_counter() - sent
        sending.append(took[0] / (rounds * len(share) / len(joined)) / count * 1e6)
        receiving.append(took[1] / (rounds * len(share) / len(joined)) / count * 1e6)
    profile.pieces.append(
        Piece(profile.part, "send (64 KiB at a time)", statistics.median(sending), min(sending))
    )
    profile.part = "64 B event, receiver"
    profile.pieces.append(
        Piece(profile.part, "receive (64 KiB at a time)", statistics.median(receiving), min(receiving))
    )
    profile.piece("decode: frames out of bytes", lambda _: decode(joined))
    profile.piece(
        "decode, translate, check, count (the session)",
        lambda sent: receive(*sent),
        lambda: arriving(frames, kind),
    )
    profile.piece("open", lambda _: [kind.open(message, "sender") for message in messages])

    def opened() -> list[BaseEvent]:
        return [kind.open(message, "sender") for message in messages]

    def once_read() -> list[BaseEvent]:
        events = opened()
        for event in events:
            _ = event.number  # type: ignore[attr-defined]
        return events

    profile.piece(
        "first field: open the message, read number", lambda these: [event.number for event in these], opened
    )
    profile.piece("number again", lambda these: [event.number for event in these], once_read)
    profile.piece("value", lambda these: [event.value for event in these], once_read)
    profile.piece("payload", lambda these: [event.payload for event in these], once_read)
    profile.piece("text", lambda these: [event.text for event in these], once_read)
    profile.piece("flag", lambda these: [event.flag for event in these], once_read)
    asyncio.run(dispatch(profile, events))


def pull(session: Session) -> None:
    while buffers := session.data_to_send():
        b"".join(buffers)


def decode(data: bytes) -> None:
    decoder = FrameDecoder(Limits())
    decoder.open()
    decoder._first = False  # the first frame would have to be a hello
    view = memoryview(data)
    while view:
        buffer = decoder.receive_buffer()
        part = min(len(buffer), len(view))
        buffer[:part] = view[:part]
        decoder.bytes_received(part)
        decoder.frames()
        view = view[part:]


def arriving(frames: Sequence[Any], kind: Any) -> tuple[Session, bytes]:
    """A session that is up, and the bytes of events which its peer sends it."""
    pair = Pair(Small)
    pair.tables[0].wire_id(kind)
    for frame in frames:
        pair.sessions[0].offer_event(kind, frame_size(frame), frame)
    data = []
    while buffers := pair.sessions[0].data_to_send():
        data.append(b"".join(buffers))
    return pair.sessions[1], b"".join(data)


def receive(session: Session, data: bytes) -> None:
    session.receive_bytes(data, 0.0)
    session.take_events()


async def dispatch(profile: Profile, events: list[Small]) -> None:
    """An event that is there already, from broadcast to a handler of the same endpoint."""
    done = asyncio.Event()
    seen = 0

    def handle(event: Small) -> None:
        nonlocal seen
        seen += 1
        if seen % len(events) == 0:
            done.set()

    internal = BroadcastConfig(internal=True)
    async with AsyncioEndpoint("alone").run() as bus:
        bus.subscribe(Small, handle)
        times = []
        for _ in range(PASSES):
            done.clear()
            began = time.perf_counter()
            for event in events:
                await bus.broadcast(event, internal)
            await done.wait()
            times.append((time.perf_counter() - began) / len(events) * 1e6)
    name = "dispatch: broadcast to an inbox, handler called"
    profile.pieces.append(Piece("local", name, statistics.median(times), min(times)))


def profile_one_field(profile: Profile) -> None:
    """What one field of a large event costs once it was received: as much as of a small one."""
    profile.part = "one field, by size of the event"
    for size in (100, 1_000_000):
        event = Large(number=1, payload=bytes(size))
        kind = event_type(Large)
        # As the decoder gives them: each segment its own bytes.
        message = tuple(bytes(segment) for segment in kind.encode(event))
        profile.piece(
            f"open and read number, {size:,} bytes",
            lambda _, kind=kind, message=message: [  # type: ignore[misc]
                kind.open(message, "sender").number for _ in range(profile.events)
            ],
        )
        profile.piece(
            f"construct and encode, {size:,} bytes",
            lambda _, kind=kind, payload=event.payload: [  # type: ignore[misc]
                kind.encode(Large(number=1, payload=payload)) for _ in range(profile.events)
            ],
        )


def profile_request(profile: Profile) -> None:
    count = profile.events
    payload = bytes(64)
    asked, answered = event_type(Ask), event_type(Answer)
    profile.part = "request, asking side"
    profile.piece(
        "construct and encode", lambda _: [asked.encode(Ask(number=n, payload=payload)) for n in range(count)]
    )
    request = asked.encode(Ask(number=1, payload=payload))
    answer = answered.encode(Answer(number=1, payload=payload))

    def up() -> Pair:
        return Pair(Ask)

    def ask_all(pair: Pair) -> Pair:
        for _ in range(count):
            pair.sessions[0].send_request(asked, request)
        return pair

    def arrived(pair: Pair) -> tuple[Pair, list[Arrived]]:
        return pair, [event for event in pair.move(0, 1) if isinstance(event, Arrived)]

    def answer_all(state: tuple[Pair, list[Arrived]]) -> Pair:
        pair, requests = state
        if len(requests) != count:
            raise SystemExit(f"{len(requests)} of {count} requests arrived")
        for one in requests:
            pair.sessions[1].send_response(one.number, answered, answer)
        return pair

    def answers_arrive(pair: Pair) -> None:
        got = sum(isinstance(event, ResponseArrived) for event in pair.move(1, 0))
        if got != count:
            raise SystemExit(f"{got} of {count} answers arrived")

    profile.piece("frame and queue the request", ask_all, up)
    profile.piece("send, receive and decode it (in batches)", arrived, lambda: ask_all(up()))
    profile.part = "request, answering side"
    token = RequestToken(1, 1)
    profile.piece(
        "open, read both fields",
        lambda _: [read_both(asked.open(request, "asker", token)) for _ in range(count)],
    )
    profile.piece(
        "construct and encode the answer",
        lambda _: [answered.encode(Answer(number=n, payload=payload)) for n in range(count)],
    )
    profile.piece("frame and queue the answer", answer_all, lambda: arrived(ask_all(up())))
    profile.part = "request, asking side"
    profile.piece(
        "send, receive and decode the answer (in batches)",
        answers_arrive,
        lambda: answer_all(arrived(ask_all(up()))),
    )
    profile.piece(
        "open, read both fields",
        lambda _: [read_both(answered.open(answer, "answerer", None)) for _ in range(count)],
    )
    profile.part = "asyncio"
    with asyncio.Runner() as runner:
        profile.piece("wake a coroutine through a future", lambda _: runner.run(futures(count)))


def read_both(event: Any) -> None:
    _ = event.number, event.payload


async def futures(count: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(count):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--passes", type=int, default=PASSES, help="(%(default)s)")
    parser.add_argument("--events", type=int, default=EVENTS, help="per pass (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the result there, too")
    options = parser.parse_args(arguments)
    profile = Profile(options.passes, options.events)
    profile_event(profile)
    profile_one_field(profile)
    profile_request(profile)
    facts = machine()
    print(
        f"{facts['processor']}, {facts['cores']} cores, {facts['system']}; commit {commit(ROOT) or 'unknown'}\n"
    )
    print("| part | piece | µs, median | µs, lowest |\n| --- | --- | ---: | ---: |")
    for piece in profile.pieces:
        print(f"| {piece.part} | {piece.name} | {piece.median:.2f} | {piece.lowest:.2f} |")
    if options.json:
        pieces = [piece._asdict() for piece in profile.pieces]
        options.json.write_text(
            json.dumps({"commit": commit(ROOT), "machine": facts, "pieces": pieces}, indent=1) + "\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""One process of a soak run: publishes, receives and asks as fast as it is told, and writes everything down.

``python -m tests.soak.worker '{...}'``; the argument is a :class:`Setup` as JSON. Commands come as lines on stdin, what
happens goes out as lines of JSON on stdout, and nothing ever goes to stderr.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import random
import signal
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from lahja_capn import (
    Backoff,
    BaseEvent,
    BroadcastConfig,
    ConnectionConfig,
    Limits,
    NoSubscribers,
    RemoteDisconnected,
    RequestFailed,
    RequestTimeout,
)
from tests.soak import sabotage
from tests.soak.events import Answer, Ask, Churned, Large, Small, Streamed, Targeted
from tests.soak.ledger import TYPES, Ledger

SMALL, LARGE, TARGETED, STREAMED = range(len(TYPES))
CLASSES: tuple[type[BaseEvent], ...] = (Small, Large, Targeted, Streamed)

# Far above what a healthy peer needs, so that only one that was stopped meets it; short, so that it does.
LIMITS = Limits(
    too_slow_s=4,
    keepalive_s=2,
    queued_per_peer_bytes=2_000_000,
    event_credit_bytes=2_000_000,
    close_timeout_s=20,
    handshake_timeout_s=20,
)
REQUEST_TIMEOUT_S = 30.0
DRAIN_S = 60.0


@dataclass
class Setup:
    """Names and addresses are lists of ``[name, path, url]``; it serves at the first, and connects to the others."""

    runtime: str
    ledger: str
    seed: str
    pace: float
    own: list[str]
    others: list[list[str]]
    sabotage: str = ""


class Deliberate(Exception):
    """What a handler raises that was told to."""


_say_lock = threading.Lock()


def say(what: str, **facts: Any) -> None:
    with _say_lock:
        print(json.dumps({"what": what, **facts}), flush=True)


class SayingHandler(logging.Handler):
    """Log records go to the run, which knows which of them are expected."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        say(
            "log",
            level=record.levelname,
            text=record.getMessage(),
            template=str(record.msg),
            error=type(error).__name__ if error is not None else "",
            trace="".join(traceback.format_exception(error)) if error is not None else "",
        )


def config_of(address: list[str]) -> ConnectionConfig:
    name, path, url = address
    if url:
        return ConnectionConfig.from_url(name, url, plaintext=True)
    return ConnectionConfig(name, Path(path))


class Worker:
    def __init__(self, setup: Setup, bus: Any) -> None:
        self.setup = setup
        self.bus = bus
        self.run = int.from_bytes(bus._local.instance[:8], "big")
        self.rng = random.Random(setup.seed)
        self.ledger = Ledger(Path(setup.ledger))
        # Faults that the handlers play: until when, how long for each event, how many errors.
        self.slow_until = 0.0
        self.block_s = 0.0
        self.raises = 0
        self.seqs = [0] * len(TYPES)
        self.targeted_seqs: dict[str, int] = {}
        self.churned_seq = 0
        self.churn_last: dict[int, int] = {}
        # By (publisher, connection serial), once the subscription is acknowledged: the number that comes next.
        self.churn_next: dict[tuple[int, int], int] | None = None
        self.asked = 0
        self.counts = {"asked": 0, "answered": 0, "refused": 0, "left": 0, "churned": 0}
        self.going = anyio.Event()
        self.busy = 0
        self.idle = anyio.Event()
        self.large = self.rng.randbytes(2_000_000)

    # --- in -----------------------------------------------------------------------------------------------

    def wrong(self, text: str) -> None:
        say("wrong", text=text)

    def got(self, kind: int, event: Any) -> None:
        problem = self.ledger.gets(kind, event.run, event.seq)
        if problem:
            self.wrong(problem)
        if self.raises:
            self.raises -= 1
            raise Deliberate(f"told to fail on {TYPES[kind]} {event.seq}")

    def take_small(self, event: Small) -> None:
        if self.block_s:
            block_s, self.block_s = self.block_s, 0.0
            time.sleep(block_s)
        self.got(SMALL, event)

    async def take_large(self, event: Large) -> None:
        if zlib.crc32(event.data) != event.crc:
            self.wrong(f"large {event.seq} of {event.run:016x} has other bytes than were sent")
        self.got(LARGE, event)
        await self.rest()

    async def take_targeted(self, event: Targeted) -> None:
        if event.to != self.bus.name:
            self.wrong(f"targeted event to {event.to} came")
        self.got(TARGETED, event)
        await self.rest()

    async def rest(self) -> None:
        if time.monotonic() < self.slow_until:
            await anyio.sleep(0.02)

    async def read_stream(self) -> None:
        async with self.bus.stream(Streamed) as events:
            async for event in events:
                with contextlib.suppress(Deliberate):
                    self.got(STREAMED, event)

    async def answer(self, ask: Ask) -> None:
        if ask.fail:
            raise Deliberate("told to fail by the asker")
        await self.rest()
        await self.bus.respond(ask, Answer(number=ask.number, by=self.run))

    def take_churned(self, event: Churned) -> None:
        if event.seq <= self.churn_last.get(event.run, 0):
            self.wrong(f"churned {event.seq} of {event.run:016x} came after {self.churn_last[event.run]}")
        self.churn_last[event.run] = event.seq
        self.counts["churned"] += 1
        if self.churn_next is None:
            return
        # A plain handler runs where the event arrives, so this is the connection it came on.
        here = event.run == self.run
        key = (event.run, 0 if here else self.bus._peers.up[event.get_origin()].serial)
        wanted = self.churn_next.get(key, event.seq)
        if event.seq != wanted:
            self.wrong(f"churned {event.seq} of {event.run:016x} came instead of {wanted}")
        self.churn_next[key] = event.seq + 1

    async def churn(self) -> None:
        """Subscribe and unsubscribe. From the acknowledgement to the end nothing may be missing."""
        while True:
            self.churn_next = None
            subscription = self.bus.subscribe(Churned, self.take_churned)
            await subscription.acknowledged()
            self.churn_next = {}
            await anyio.sleep(self.rng.random())
            subscription.unsubscribe()
            await anyio.sleep(self.rng.random() / 5)

    # --- out ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def under_way(self) -> Iterator[None]:
        """What `pause` waits for."""
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1
            if not self.busy:
                self.idle.set()
                self.idle = anyio.Event()

    def note(self, kind: int, seq: int, only: str | None = None) -> None:
        """Write down to whom the event goes that is broadcast now: nothing comes between."""
        bound = CLASSES[kind]._event_type
        for connection in self.bus._peers.up.values():
            if (only is None or connection.name == only) and connection.wants(bound):
                receiver = int.from_bytes(connection.session.peer.instance[:8], "big")
                self.ledger.sends(kind, connection.serial, receiver, seq)

    async def send(self, kind: int) -> None:
        config = None
        if kind == TARGETED:
            if not self.bus._peers.up:
                return
            to = self.rng.choice(list(self.bus._peers.up))
            seq = self.targeted_seqs[to] = self.targeted_seqs.get(to, 0) + 1
            event: Any = Targeted(run=self.run, seq=seq, to=to)
            config = BroadcastConfig(filter_endpoint=to)
        else:
            to = None
            seq = self.seqs[kind] = self.seqs[kind] + 1
            if kind == LARGE:
                start = self.rng.randrange(1_000_000)
                size = self.rng.choice((1_000, 70_000, 300_000, 1_000_000))
                data = self.large[start : start + size]
                event = Large(run=self.run, seq=seq, crc=zlib.crc32(data), data=data)
            else:
                event = CLASSES[kind](run=self.run, seq=seq)
        self.note(kind, seq, to)
        with contextlib.suppress(NoSubscribers):
            await self.bus.broadcast(event, config)

    async def until_going(self) -> None:
        while not self.going.is_set():
            await self.going.wait()

    async def publish(self, kind: int, burst: int, rest_s: float) -> None:
        while True:
            await self.until_going()
            with self.under_way():
                for _ in range(self.rng.randrange(1, 2 * burst)):
                    await self.send(kind)
            await anyio.sleep(self.rng.random() * 2 * rest_s / self.setup.pace)

    async def publish_churned(self) -> None:
        while True:
            await self.until_going()
            with self.under_way():
                for _ in range(10):
                    self.churned_seq += 1
                    with contextlib.suppress(NoSubscribers):
                        await self.bus.broadcast(Churned(run=self.run, seq=self.churned_seq))
            await anyio.sleep(0.05 / self.setup.pace)

    async def ask(self) -> None:
        while True:
            await anyio.sleep(self.rng.random() * 0.1 / self.setup.pace)
            await self.until_going()
            others = [name for name in self.bus._peers.up if self.bus.is_endpoint_subscribed_to(name, Ask)]
            if not others:
                continue
            with self.under_way():
                await self.ask_one(self.rng.choice(others))

    async def ask_one(self, to: str) -> None:
        self.asked += 1
        question = Ask(number=self.asked, fail=self.rng.random() < 0.1, data=bytes(self.rng.randrange(3000)))
        self.counts["asked"] += 1
        try:
            answer = await self.bus.request(
                question, BroadcastConfig(filter_endpoint=to), timeout=REQUEST_TIMEOUT_S
            )
        except RequestFailed as error:
            (failure,) = error.failures
            if not (question.fail and failure.type_name == "Deliberate"):
                self.wrong(f"request {question.number} to {to} failed: {error}")
            self.counts["refused"] += 1
        except (RemoteDisconnected, NoSubscribers):
            self.counts["left"] += 1
        except RequestTimeout:
            say("timeout", to=to)
        else:
            if answer.number != question.number or question.fail:
                self.wrong(f"request {question.number} to {to} was answered with {answer.number}")
            self.counts["answered"] += 1

    # --- commands -----------------------------------------------------------------------------------------

    async def obey(self) -> None:
        while True:
            line = await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
            if not line:
                return
            command, *arguments = line.split()
            if command == "go":
                self.going.set()
            elif command == "pause":
                await self.pause()
            elif command == "sample":
                say("sample", **self.sample())
            elif command == "slow":
                self.slow_until = time.monotonic() + float(arguments[0])
            elif command == "block":
                self.block_s = float(arguments[0])
            elif command == "raise":
                self.raises = int(arguments[0])
            elif command == "stop":
                await self.pause()
                with anyio.move_on_after(DRAIN_S) as scope:
                    await self.bus.drain()
                if scope.cancelled_caught:
                    self.wrong(f"drain() took longer than {DRAIN_S:g} s: {self.what_waits()}")
                return

    async def pause(self) -> None:
        if self.going.is_set():
            self.going = anyio.Event()
        while self.busy:
            await self.idle.wait()
        self.slow_until = 0.0
        peers = self.bus._peers
        up = {name: [c.serial, self.peer_run(c)] for name, c in peers.up.items()}
        say("paused", up=up, connections=len(peers.all))

    def what_waits(self) -> str:
        bus = self.bus._bus
        return repr(
            {
                "version": bus.version,
                "inboxes": {
                    f"{inbox!r}": (inbox.event_type.name, inbox.counters(), inbox.is_idle)
                    for inboxes in bus.subscriptions.values()
                    for inbox in inboxes
                },
                "connections": [
                    (
                        connection,
                        connection.accepted,
                        connection.applied_version,
                        connection.session.queued_events,
                        connection.session.queued_bytes,
                        connection.session.event_credit,
                        connection.withheld,
                        connection._blocked,
                    )
                    for connection in self.bus._peers.all.values()
                ],
            }
        )

    @staticmethod
    def peer_run(connection: Any) -> int:
        return int.from_bytes(connection.session.peer.instance[:8], "big")

    def sample(self) -> dict[str, Any]:
        """What must not grow."""
        gc.collect()
        if self.setup.runtime == "trio":
            import trio

            tasks = trio.lowlevel.current_statistics().tasks_living
        else:
            tasks = len(asyncio.all_tasks())
        with open("/proc/self/statm") as statm:
            _, resident, shared, *_ = statm.read().split()
        bus = self.bus._bus
        peers = self.bus._peers
        objects = gc.get_objects()
        # Up to four for a subscription to requests stay for the next request: that is no growth.
        workers = sum(
            getattr(inbox, "_workers", 0) for inboxes in bus.subscriptions.values() for inbox in inboxes
        )
        return {
            # Without the ledger, which is shared memory.
            "rss": (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE"),
            "fds": len(os.listdir("/proc/self/fd")),
            "tasks": tasks - workers,
            "threads": threading.active_count(),
            "objects": len(objects),
            "events": sum(isinstance(item, BaseEvent) for item in objects),
            # Entries that belong to something that is over by now.
            "entries": len(peers.all)
            + len(peers._holders)
            + len(peers._dialing)
            + len(bus._local_pending)
            + len(bus._local_open)
            + sum(len(c.pending) + len(c.open_requests) for c in peers.all.values()),
            # Everything has been taken, so no former connection counts against a window any more, and nothing waits.
            "left": sum(peers._left.values()) + sum(c.session.queued_bytes for c in peers.up.values()),
            "peers": sorted(peers.up),
            "received": self.ledger.received,
            "counts": self.counts,
        }

    async def main(self) -> None:
        bus = self.bus
        bus.subscribe(Small, self.take_small)
        bus.subscribe(Large, self.take_large)
        bus.subscribe(Targeted, self.take_targeted)
        bus.subscribe(Ask, self.answer)
        say("serving", run=self.run, url=bus.serving_at.url)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.read_stream)
            tasks.start_soon(self.churn)
            bus.keep_connected(
                *map(config_of, self.setup.others), backoff=Backoff(max_s=1, seed=self.setup.seed)
            )
            # Two tasks that publish the same type: the order of their calls is the order of arrival.
            for _ in range(2):
                tasks.start_soon(self.publish, SMALL, 40, 0.2)
            tasks.start_soon(self.publish, LARGE, 2, 0.3)
            tasks.start_soon(self.publish, TARGETED, 20, 0.2)
            tasks.start_soon(self.publish, STREAMED, 20, 0.2)
            tasks.start_soon(self.publish_churned)
            for _ in range(3):
                tasks.start_soon(self.ask)
            sabotage.start(self.setup.sabotage, self, tasks)
            await self.obey()
            tasks.cancel_scope.cancel()


def endpoint_class(runtime: str) -> Any:
    if runtime == "trio":
        from lahja_capn import TrioEndpoint as Base
    else:
        from lahja_capn import AsyncioEndpoint as Base  # type: ignore[assignment]

    class SoakEndpoint(Base):
        """Says how each connection ended."""

        def on_closed(self, connection: Any, closed: Any) -> None:
            peer = connection.session.peer
            say(
                "closed",
                peer=connection.name,
                serial=connection.serial,
                peer_run=0 if peer is None else int.from_bytes(peer.instance[:8], "big"),
                code=closed.code,
                text=closed.text,
                by_peer=closed.by_peer,
                error=str(closed.error or ""),
            )
            super().on_closed(connection, closed)

    return SoakEndpoint


async def work(setup: Setup) -> None:
    sabotage.damage(setup.sabotage)
    async with endpoint_class(setup.runtime).serve(
        config_of(setup.own), limits=LIMITS, connect_timeout_s=3600
    ) as bus:
        await Worker(setup, bus).main()


def run(runtime: str, main: Callable[[], Awaitable[None]]) -> None:
    if runtime == "trio":
        import trio

        trio.run(main)
        return
    loop_factory = None
    if runtime == "asyncio+uvloop":
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())  # type: ignore[arg-type]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    setup = Setup(**json.loads(sys.argv[1]))
    logging.getLogger("lahja_capn").setLevel(logging.INFO)
    logging.getLogger().addHandler(SayingHandler())
    logging.getLogger().setLevel(logging.WARNING)
    run(setup.runtime, lambda: work(setup))
    say("ended")

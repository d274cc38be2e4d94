"""Every call of the public API, cancelled at each of its await points: nothing stays behind, and all goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from lahja_capn import (
    Backoff,
    BroadcastConfig,
    ConnectionAttemptRejected,
    EndpointAPI,
    LifecycleError,
    Limits,
)
from lahja_capn.session import Arrived
from tests.conftest import RUNTIMES, Runtime
from tests.scenario.cancelling import cancelled_everywhere
from tests.scenario.events import Blob, Count, Other, Question, Reply
from tests.scenario.support import Collector, at, eventually, join, raw_peer, turns

# Frame size of a Count: header 16, segment table 8, root pointer 8, data 8.
COUNT_BYTES = 40
SMALL = Limits(event_credit_bytes=10 * COUNT_BYTES, queued_per_peer_bytes=10 * COUNT_BYTES)

WAYS = [
    (name, how) for name in RUNTIMES for how in ("scope", "late", "task") if (name, how) != ("trio", "task")
]

every_way = pytest.mark.parametrize(
    ("runtime", "how"), [(Runtime(name), how) for name, how in WAYS], ids=[f"{n}-{h}" for n, h in WAYS]
)


def tasks_of(runtime: Runtime) -> int:
    if runtime.name == "trio":
        import trio

        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())


# A question that nobody answers.
NEVER = 4_000_000


class Bench:
    """Two connected endpoints: what must be as before after each cancelled call."""

    def __init__(self, runtime: Runtime, server: EndpointAPI, client: EndpointAPI) -> None:
        self.runtime = runtime
        self.server = server
        self.client = client
        self.got = Collector()
        self.rounds = 0
        self.tasks = 0

    async def begin(self) -> None:
        async def answer(question: Question) -> None:
            if question.number != NEVER:
                await self.server.respond(question, Reply(number=question.number))

        await self.server.subscribe(Question, answer).acknowledged()
        await self.server.subscribe(Other, self.got).acknowledged()
        # The worker of the request handler stays.
        await self.works()
        self.tasks = self.count_tasks()

    def count_tasks(self) -> int:
        """Tasks but for the workers of request handlers: some of them stay for the next request."""
        workers = sum(
            getattr(inbox, "_workers", 0)
            for endpoint in (self.server, self.client)
            for inboxes in endpoint._bus.subscriptions.values()
            for inbox in inboxes
        )
        return tasks_of(self.runtime) - workers

    async def works(self) -> None:
        self.rounds += 1
        with anyio.fail_after(5):
            assert (await self.client.request(Question(number=self.rounds))).number == self.rounds
            await self.client.broadcast(Other(number=self.rounds))
            await eventually(lambda: self.got.numbers[-1:] == [self.rounds])

    def left_behind(self) -> dict[str, Any]:
        left: dict[str, Any] = {}
        for endpoint in (self.server, self.client):
            bus, peers = endpoint._bus, endpoint._peers
            found = {
                "connecting": endpoint._connecting,
                "connections": list(peers.all)[1:],
                "pending": bus._local_pending,
                "deadlines": len(bus.deadlines),
                "types": set(bus.subscriptions) - {Question._event_type, Other._event_type, Blob._event_type},
            }
            for connection in peers.all.values():
                found[f"pending of {connection.name}"] = connection.pending
                # A request that its handler does not answer stays open where it is asked: somebody may answer later.
                if endpoint is self.client:
                    found[f"open of {connection.name}"] = connection.open_requests
                found[f"line of {connection.name}"] = connection.line
            left.update({f"{endpoint.name}: {what}": value for what, value in found.items() if value})
        return left

    async def check(self) -> None:
        await self.works()
        await eventually(lambda: not self.left_behind())
        await eventually(lambda: self.count_tasks() <= self.tasks)


@contextlib.asynccontextmanager
async def bench(runtime: Runtime, folder: Path, **options: Any) -> AsyncIterator[Bench]:
    config = at(folder, "server")
    async with (
        runtime.endpoint_class.serve(config, **options) as server,
        runtime.endpoint_class("client", **options).run() as client,
    ):
        await join(client, server, config)
        made = Bench(runtime, server, client)
        await made.begin()
        yield made


CALLS: dict[str, Callable[[Bench], Callable[[], Awaitable[Any]]]] = {
    "broadcast to a peer": lambda b: lambda: b.client.broadcast(Other(number=0)),
    "large broadcast": lambda b: lambda: b.server.broadcast(Blob(data=bytes(300_000))),
    "request": lambda b: lambda: b.client.request(Question(number=1)),
    "request with a timeout": lambda b: lambda: b.client.request(Question(number=1), timeout=5),
    "request without an answer": lambda b: lambda: without_an_answer(b.client, "server"),
    "local request without an answer": lambda b: lambda: without_an_answer(b.server, "server"),
    "local request": lambda b: (
        lambda: b.server.request(Question(number=1), BroadcastConfig(filter_endpoint="server"))
    ),
    "acknowledged": lambda b: lambda: acknowledged(b),
    "wait_for": lambda b: lambda: beside(b, b.client.wait_for(Count), lambda: b.server.broadcast(Count())),
    "stream": lambda b: lambda: beside(b, one_of_a_stream(b), lambda: b.server.broadcast(Count())),
    "wait_until_endpoint_subscribed_to": lambda b: (
        lambda: subscribed_meanwhile(b, b.server.wait_until_endpoint_subscribed_to("client", Count))
    ),
    "wait_until_any_endpoint_subscribed_to": lambda b: (
        lambda: subscribed_meanwhile(b, b.server.wait_until_any_endpoint_subscribed_to(Count))
    ),
    "wait_until_all_endpoints_subscribed_to": lambda b: (
        lambda: subscribed_meanwhile(
            b, b.server.wait_until_all_endpoints_subscribed_to(Count, include_self=False)
        )
    ),
    "wait_until_endpoint_subscriptions_change": lambda b: (
        lambda: subscribed_meanwhile(b, b.server.wait_until_endpoint_subscriptions_change())
    ),
    "wait_started": lambda b: b.client.wait_started,
}


async def without_an_answer(asker: EndpointAPI, to: str) -> None:
    with anyio.move_on_after(0.05):
        await asker.request(Question(number=NEVER), BroadcastConfig(filter_endpoint=to))


async def acknowledged(b: Bench) -> None:
    subscription = b.client.subscribe(Count, lambda event: None)
    try:
        await subscription.acknowledged()
    finally:
        subscription.unsubscribe()


async def one_of_a_stream(b: Bench) -> None:
    async with b.client.stream(Count) as events:
        await anext(events)


async def beside(b: Bench, wait: Awaitable[None], act: Callable[[], Awaitable[None]]) -> None:
    """Await ``wait``, for which a task of its own provides."""

    async def provide() -> None:
        await b.server.wait_until_endpoint_subscribed_to("client", Count)
        await act()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(provide)
        await wait
        tasks.cancel_scope.cancel()


async def subscribed_meanwhile(b: Bench, wait: Awaitable[None]) -> None:
    subscription = b.client.subscribe(Count, lambda event: None)
    try:
        await wait
    finally:
        subscription.unsubscribe()


@pytest.mark.parametrize("name", CALLS)
@every_way
def test_cancelled_call_leaves_nothing_behind(
    runtime: Runtime, how: str, name: str, short_tmp_path: Path
) -> None:
    async def main() -> None:
        async with bench(runtime, short_tmp_path) as b:
            b.client.subscribe(Blob, lambda event: None)
            await b.server.wait_until_endpoint_subscribed_to("client", Blob)
            call = CALLS[name](b)
            points = 0
            async for _ in cancelled_everywhere(call, how=how):
                points += 1
                await b.check()
            assert points or name in ("broadcast to a peer", "wait_started")
            await b.check()

    runtime.run(main)


@every_way
def test_cancelled_broadcast_to_a_full_peer_leaves_no_gap_but_its_own_event(
    runtime: Runtime, how: str, short_tmp_path: Path
) -> None:
    async def main() -> None:
        async with runtime.endpoint_class.serve(at(short_tmp_path, "server"), limits=SMALL) as server:
            async with raw_peer(server, Count, limits=SMALL) as peer:
                connection = server._peers.up["raw"]
                peer.gives_credit = False
                for _ in range(2):  # the peer's window, then the queue
                    for _ in range(10):
                        await server.broadcast(Count(number=0))
                    await turns()
                number = 0

                async def publish() -> None:
                    nonlocal number
                    number += 1
                    await server.broadcast(Count(number=number))

                points = 0
                with anyio.move_on_after(0.5):  # nobody makes room: the call after the last point waits
                    async for _, cancelled in cancelled_everywhere(publish, how=how):
                        points += 1
                        assert cancelled
                        assert not connection.line
                assert points
                assert not connection.line
                # Or every later broadcast would take the long way round.
                assert connection.session._outbox._line == 0
                peer.gives_credit = True
                for event in peer.of(Arrived):
                    peer.session.return_event_credit(event.size)
                await peer.read(lambda: len(peer.numbers) == 20)
                await server.broadcast(Count(number=1000))
                await peer.read(lambda: peer.numbers[20:] == [1000])

    runtime.run(main)


@every_way
def test_cancelled_request_to_a_full_peer_is_forgotten(
    runtime: Runtime, how: str, short_tmp_path: Path
) -> None:
    async def main() -> None:
        limits = Limits(request_credit_bytes=64, queued_per_peer_bytes=64)
        async with runtime.endpoint_class.serve(at(short_tmp_path, "server"), limits=limits) as server:
            async with raw_peer(server, Question, limits=limits), anyio.create_task_group() as tasks:
                connection = server._peers.up["raw"]
                for number in range(4):
                    tasks.start_soon(server.request, Question(number=number))
                await eventually(lambda: not connection.session.has_request_room)
                before = len(server._bus.deadlines)
                points = 0
                with anyio.move_on_after(0.5):
                    async for _ in cancelled_everywhere(lambda: server.request(Question(number=9)), how=how):
                        points += 1
                        await turns()
                        assert len(server._bus.deadlines) == before
                assert points
                await turns()
                assert len(server._bus.deadlines) == before
                tasks.cancel_scope.cancel()
            assert len(server._bus.deadlines) == 0
            assert connection.pending == {}

    runtime.run(main)


@every_way
def test_cancelled_reader_of_a_stream_loses_no_event(
    runtime: Runtime, how: str, short_tmp_path: Path
) -> None:
    async def main() -> None:
        async with bench(runtime, short_tmp_path) as b:
            async with b.client.stream(Count) as events:
                await b.server.wait_until_endpoint_subscribed_to("client", Count)
                sent = 0
                got: list[int] = []

                async def read() -> None:
                    nonlocal sent
                    sent += 1
                    await b.server.broadcast(Count(number=sent))
                    # No await between the event and the list: what was taken is there.
                    got.append((await anext(events)).number)

                async for _ in cancelled_everywhere(read, how=how):
                    while len(got) < sent:
                        with anyio.fail_after(5):
                            got.append((await anext(events)).number)
                    assert got == list(range(1, sent + 1))
                assert sent >= 2

    runtime.run(main)


@every_way
def test_cancelled_local_broadcast_into_a_full_subscription_goes_on_later(runtime: Runtime, how: str) -> None:
    async def main() -> None:
        async with runtime.endpoint_class("alone").run() as alone:
            async with alone.stream(Count, queue=2) as events:
                number = 0

                async def publish() -> None:
                    nonlocal number
                    number += 1
                    await alone.broadcast(Count(number=number))

                for _ in range(1):
                    await publish()
                points = 0
                with anyio.move_on_after(0.5):
                    async for _ in cancelled_everywhere(publish, how=how):
                        points += 1
                assert points
                # Each was delivered before its call waited.
                assert [(await anext(events)).number for _ in range(number)] == list(range(1, number + 1))
                with anyio.fail_after(5):
                    await publish()

    runtime.run(main)


@pytest.mark.parametrize("what", ["connect", "several", "kept", "ended"])
@every_way
def test_cancelled_connecting_can_be_repeated(
    runtime: Runtime, how: str, what: str, short_tmp_path: Path
) -> None:
    async def main() -> None:
        one, two = at(short_tmp_path, "one"), at(short_tmp_path, "two")
        async with (
            runtime.endpoint_class.serve(one) as first,
            runtime.endpoint_class.serve(two) as second,
            runtime.endpoint_class("client").run() as client,
        ):
            tasks = tasks_of(runtime)

            async def connect() -> None:
                if what == "connect":
                    await client.connect_to_endpoints(one)
                elif what == "several":
                    await client.connect_to_endpoints(one, two)
                else:
                    kept = client.keep_connected(one, two, backoff=Backoff(first_s=0.001, max_s=0.01))
                    try:
                        if what == "kept":
                            await kept.connected()
                        else:
                            with anyio.move_on_after(0.02):
                                await kept.ended()
                    finally:
                        kept.stop()

            async def disconnect() -> None:
                await turns()
                for connection in tuple(client._peers.all.values()):
                    connection.say_goodbye("shutdown", "again")
                await eventually(lambda: not (client._peers.all or first._peers.all or second._peers.all))
                await eventually(lambda: not client._connecting and not client._keeping)
                await eventually(lambda: tasks_of(runtime) <= tasks)

            points = 0
            async for _, cancelled in cancelled_everywhere(connect, how=how):
                points += 1
                if what == "connect" and cancelled:
                    await eventually(lambda: not (client._peers.all or first._peers.all))
                await disconnect()
            assert points
            await disconnect()
            await client.connect_to_endpoints(one, two)
            assert client.is_connected_to("one")
            assert client.is_connected_to("two")

    runtime.run(main)


@every_way
def test_endpoint_that_is_cancelled_anywhere_in_its_life_leaves_nothing(
    runtime: Runtime, how: str, short_tmp_path: Path
) -> None:
    async def main() -> None:
        config, other = at(short_tmp_path, "server"), at(short_tmp_path, "other")
        made: list[EndpointAPI] = []
        async with runtime.endpoint_class.serve(other) as peer:
            tasks = tasks_of(runtime)

            async def live() -> None:
                try:
                    await live_on()
                except (ConnectionAttemptRejected, LifecycleError):
                    # The cancellation may reach the endpoint's own tasks first; then they say why.
                    if made and made[-1].is_running:
                        raise

            async def live_on() -> None:
                async with runtime.endpoint_class.serve(config) as server:
                    made.append(server)
                    server.subscribe(Count, lambda event: anyio.sleep_forever())
                    await server.connect_to_endpoints(other)
                    await peer.wait_until_endpoint_subscribed_to("server", Count)
                    await peer.broadcast(Count(number=1))
                    await server.wait_for(Other)

            async def feed() -> None:
                while True:
                    await peer.wait_until_endpoint_subscribed_to("server", Other)
                    await peer.broadcast(Other(number=1), BroadcastConfig(require_subscriber=False))
                    await anyio.sleep(0.001)

            async with anyio.create_task_group() as group:
                group.start_soon(feed)
                points = 0
                async for _ in cancelled_everywhere(live, how=how):
                    points += 1
                    assert all(endpoint.is_stopped for endpoint in made)
                    assert not config.path.exists()
                    await eventually(lambda: not peer._peers.all)
                    await eventually(lambda: tasks_of(runtime) <= tasks + 1)
                assert points >= 5
                group.cancel_scope.cancel()
            assert all(endpoint.is_stopped for endpoint in made)
            assert not config.path.exists()

    runtime.run(main)

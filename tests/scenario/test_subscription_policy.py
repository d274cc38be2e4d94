"""A subscription that is too slow: each policy of the receiver does what it says, with exact counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from lahja_capn import EndpointAPI, Limits, Policy
from tests.conftest import Runtime
from tests.scenario.events import Count, Question
from tests.scenario.support import Collector, eventually, pair, scenario, turns

MANY = 10


class Blocked:
    """An async handler that holds its first event until it is released."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.release = anyio.Event()

    async def __call__(self, event: Any) -> None:
        self.numbers.append(event.number)
        await self.release.wait()


def figures(subscription: Any) -> tuple[int, int, int]:
    counters = subscription.counters()
    return counters.delivered, counters.dropped, counters.queued


# What the handler gets of events 0 to 9 with a queue of three, while it holds event 0.
POLICIES = {
    Policy.DROP_NEWEST: ([0, 1, 2, 3], 6),
    Policy.DROP_OLDEST: ([0, 7, 8, 9], 6),
    Policy.NEWEST_ONLY: ([0, 9], 8),
}


@pytest.mark.parametrize("where", ["local", "remote"])
@pytest.mark.parametrize("policy", POLICIES)
@scenario
async def test_policy_that_drops_keeps_and_counts_exactly(
    runtime: Runtime, short_tmp_path: Path, policy: Policy, where: str
) -> None:
    expected, dropped = POLICIES[policy]
    async with pair(runtime, short_tmp_path) as (server, client):
        receiver = client if where == "local" else server
        handler, all_of_them = Blocked(), Collector()
        subscription = receiver.subscribe(Count, handler, policy=policy, queue=3)
        await receiver.subscribe(Count, all_of_them).acknowledged()
        await client.broadcast(Count(number=0))
        await eventually(lambda: handler.numbers)
        for number in range(1, MANY):
            await client.broadcast(Count(number=number))
        await all_of_them.until(MANY)
        assert figures(subscription) == (1, dropped, len(expected) - 1)
        handler.release.set()
        await eventually(lambda: len(handler.numbers) == len(expected))
        assert handler.numbers == expected
        assert figures(subscription) == (len(expected), dropped, 0)
        # Others are not affected.
        assert all_of_them.numbers == list(range(MANY))


@pytest.mark.parametrize("policy", POLICIES)
@scenario
async def test_policy_of_a_stream(runtime: Runtime, policy: Policy) -> None:
    expected = {
        Policy.DROP_NEWEST: [0, 1, 2],
        Policy.DROP_OLDEST: [7, 8, 9],
        Policy.NEWEST_ONLY: [9],
    }[policy]
    async with runtime.endpoint_class("alone").run() as endpoint:
        stream = endpoint.stream(Count, num_events=len(expected), policy=policy, queue=3)
        for number in range(MANY):
            await endpoint.broadcast(Count(number=number))
        assert figures(stream) == (0, MANY - len(expected), len(expected))
        assert [event.number async for event in stream] == expected


@pytest.mark.parametrize("policy", POLICIES)
@scenario
async def test_dropped_events_give_their_credit_back(
    runtime: Runtime, short_tmp_path: Path, policy: Policy
) -> None:
    # Far fewer than are sent: without the credit of the dropped ones the publisher would stop.
    limits = Limits(event_credit_bytes=400)
    async with pair(runtime, short_tmp_path, server={"limits": limits}) as (server, client):
        handler = Blocked()
        subscription = server.subscribe(Count, handler, policy=policy, queue=3)
        await subscription.acknowledged()
        for number in range(200):
            await client.broadcast(Count(number=number))
        await eventually(lambda: sum(figures(subscription)) == 200)
        handler.release.set()


@scenario
async def test_wait_holds_a_local_publisher_and_loses_nothing(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint, anyio.create_task_group() as tasks:
        handler = Blocked()
        subscription = endpoint.subscribe(Count, handler, queue=3)
        done = []

        async def publish() -> None:
            for number in range(MANY):
                await endpoint.broadcast(Count(number=number))
                done.append(number)

        await endpoint.broadcast(Count(number=100))
        await eventually(lambda: handler.numbers)
        tasks.start_soon(publish)
        await eventually(lambda: subscription.counters().queued == 3)
        await turns()
        assert done == [0, 1]
        handler.release.set()
        await eventually(lambda: len(handler.numbers) == MANY + 1)
        assert handler.numbers == [100, *range(MANY)]
        await eventually(lambda: len(done) == MANY)
        assert figures(subscription) == (MANY + 1, 0, 0)


@scenario
async def test_wait_drops_what_a_local_publisher_does_not_wait_for(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        handler = Blocked()
        subscription = endpoint.subscribe(Count, handler, queue=3)
        await endpoint.broadcast(Count(number=100))
        await eventually(lambda: handler.numbers)
        for number in range(MANY):
            endpoint.broadcast_nowait(Count(number=number))
        assert figures(subscription) == (1, MANY - 3, 3)
        handler.release.set()
        await eventually(lambda: handler.numbers == [100, 0, 1, 2])


@scenario
async def test_wait_holds_a_remote_publisher_through_its_credit_and_loses_nothing(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with (
        pair(
            runtime,
            short_tmp_path,
            server={"limits": Limits(event_credit_bytes=400)},
            client={"limits": Limits(queued_per_peer_bytes=400)},
        ) as (server, client),
        anyio.create_task_group() as tasks,
    ):
        handler = Blocked()
        await server.subscribe(Count, handler, queue=3).acknowledged()
        done = []

        async def publish() -> None:
            for number in range(200):
                await client.broadcast(Count(number=number))
                done.append(number)

        tasks.start_soon(publish)
        await eventually(lambda: client._peers.up["server"]._room_waiters)
        await turns()
        # The window and the queue together, and the one that the handler holds.
        assert len(done) < 30
        handler.release.set()
        await eventually(lambda: len(handler.numbers) == 200)
        assert handler.numbers == list(range(200))
        assert client.get_peer_counters()["server"].dropped == 0


@pytest.mark.parametrize("how", ["unsubscribe", "stop"])
@scenario
async def test_publisher_that_waits_goes_on_when_the_subscription_ends(runtime: Runtime, how: str) -> None:
    done = []

    async def publish(endpoint: EndpointAPI) -> None:
        for number in range(3):
            await endpoint.broadcast(Count(number=number))
        done.append(True)

    async with anyio.create_task_group() as tasks:
        async with runtime.endpoint_class("alone").run() as endpoint:
            handler = Blocked()
            subscription = endpoint.subscribe(Count, handler, queue=2)
            tasks.start_soon(publish, endpoint)
            await eventually(lambda: subscription.counters().queued == 2)
            await turns()
            assert done == []
            if how == "unsubscribe":
                subscription.unsubscribe()
                await eventually(lambda: done)
        await eventually(lambda: done)


@scenario
async def test_disconnect_ends_the_connection_of_the_publisher(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        handler = Blocked()
        subscription = server.subscribe(Count, handler, policy=Policy.DISCONNECT, queue=3)
        await subscription.acknowledged()
        closed: list[Any] = []
        connection = client._peers.up["server"]
        await client.broadcast(Count(number=0))
        await eventually(lambda: handler.numbers)
        for number in range(1, 5):
            await client.broadcast(Count(number=number))
        await eventually(lambda: not client.is_connected_to("server"))
        closed.append(connection.closed)
        assert closed[0].code == "tooSlow"
        assert closed[0].text == "a subscription to Count is full and its policy is disconnect"
        assert not server.is_connected_to("client")
        assert figures(subscription) == (1, 1, 3)
        handler.release.set()
        await eventually(lambda: handler.numbers == [0, 1, 2, 3])


@scenario
async def test_disconnect_of_a_local_publisher_only_drops(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        handler = Blocked()
        subscription = client.subscribe(Count, handler, policy=Policy.DISCONNECT, queue=3)
        await client.broadcast(Count(number=0))
        await eventually(lambda: handler.numbers)
        for number in range(1, 6):
            await client.broadcast(Count(number=number))
        assert figures(subscription) == (1, 2, 3)
        assert client.is_connected_to("server")
        assert server.is_connected_to("client")
        handler.release.set()


@scenario
async def test_sending_on_a_peers_event_here_does_not_disconnect_that_peer(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        received = server.stream(Count)
        await client.wait_until_endpoint_subscribed_to("server", Count)
        await client.broadcast(Count(number=1))
        event = await received.__anext__()
        await received.aclose()
        # Its origin is the client, but it is the server that publishes it now, again and again.
        handler = Blocked()
        subscription = server.subscribe(Count, handler, policy=Policy.DISCONNECT, queue=1)
        for _ in range(5):
            await server.broadcast(event)
        assert subscription.counters().dropped > 0
        assert server.is_connected_to("client")
        handler.release.set()


@scenario
async def test_request_dropped_by_the_policy_fails_as_overloaded(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    from lahja_capn import RequestFailed

    async with pair(runtime, short_tmp_path) as (server, client):
        stream = server.stream(Question, policy=Policy.DROP_NEWEST, queue=1)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        outcomes: list[Any] = []

        async def ask(number: int) -> None:
            try:
                await client.request(Question(number=number), timeout=0.2)
            except (RequestFailed, TimeoutError) as error:
                outcomes.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, 1)
            await eventually(lambda: stream.counters().queued == 1)
            tasks.start_soon(ask, 2)
            await eventually(lambda: outcomes)
            tasks.cancel_scope.cancel()
        assert isinstance(outcomes[0], RequestFailed)
        [failure] = outcomes[0].failures
        assert (failure.endpoint, failure.code) == ("server", "overloaded")
        await stream.aclose()

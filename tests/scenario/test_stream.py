"""stream and wait_for: how they begin, end, and what they never lose."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import anyio
import pytest

from lahja_capn import EndpointAPI, LifecycleError
from tests.conftest import Runtime
from tests.scenario.events import Count, Other
from tests.scenario.support import at, eventually, join, pair, scenario, turns


async def numbers_of(stream: Any) -> list[int]:
    return [event.number async for event in stream]


@pytest.mark.parametrize("count", [0, 1, 3])
@scenario
async def test_stream_ends_after_num_events(runtime: Runtime, count: int) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        stream = endpoint.stream(Count, num_events=count)
        assert endpoint.get_subscribed_events() == ({Count} if count else set())
        endpoint.stream(Count)
        keep = endpoint.stream(Count)
        for number in range(5):
            await endpoint.broadcast(Count(number=number))
        assert await numbers_of(stream) == list(range(count))
        # It stays at its end.
        assert await numbers_of(stream) == []
        await keep.aclose()
        assert endpoint.get_subscribed_events() == set()


@scenario
async def test_stream_without_num_events_goes_on(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        stream = endpoint.stream(Count)
        for number in range(200):
            await endpoint.broadcast(Count(number=number))
            assert (await stream.__anext__()).number == number
        assert await stream.asend(None) is not None if stream.counters().queued else True
        await stream.aclose()


@scenario
async def test_stream_gets_events_from_its_creation_on_in_order(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        stream = server.stream(Count, num_events=100)
        await client.wait_until_endpoint_subscribed_to("server", Count)
        for number in range(100):
            await client.broadcast(Count(number=number))
        assert await numbers_of(stream) == list(range(100))
        assert stream.counters().delivered == 100


@scenario
async def test_stream_of_one_type_gets_no_other(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        stream, other = endpoint.stream(Count), endpoint.stream(Other)
        await endpoint.broadcast(Other(number=1))
        await endpoint.broadcast(Count(number=2))
        assert (await stream.__anext__()).number == 2
        assert (await other.asend(None)).number == 1
        await stream.aclose()
        await other.aclose()


@scenario
async def test_break_out_of_a_stream_unsubscribes(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        async with anyio.create_task_group() as tasks:
            done = []

            async def consume() -> None:
                async for event in server.stream(Count):
                    done.append(event.number)
                    break

            tasks.start_soon(consume)
            await client.wait_until_endpoint_subscribed_to("server", Count)
            await client.broadcast(Count(number=1))
        gc.collect()
        assert done == [1]
        assert server.get_subscribed_events() == set()
        await eventually(lambda: not client.is_endpoint_subscribed_to("server", Count))


@scenario
async def test_abandoned_stream_unsubscribes_and_its_events_are_given_back(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    from lahja_capn import Limits

    limits = Limits(event_credit_bytes=1000)
    async with pair(runtime, short_tmp_path, server={"limits": limits}) as (server, client):
        stream = server.stream(Count)
        keep = server.stream(Count)
        await client.wait_until_endpoint_subscribed_to("server", Count)
        for number in range(10):
            await client.broadcast(Count(number=number))
            await keep.__anext__()
        assert stream.counters().queued == 10
        del stream
        gc.collect()
        assert server.get_subscribed_events() == {Count}
        # Far more than the window: only possible if the abandoned stream's share came back.
        for number in range(100):
            await client.broadcast(Count(number=number))
            assert (await keep.__anext__()).number == number


@scenario
async def test_aclose_ends_a_stream_that_somebody_waits_on(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint, anyio.create_task_group() as tasks:
        stream = endpoint.stream(Count)
        ended: list[Any] = []

        async def consume() -> None:
            ended.append(await numbers_of(stream))

        tasks.start_soon(consume)
        await turns()
        await stream.aclose()
        await stream.aclose()
        await eventually(lambda: ended)
        assert ended == [[]]


@scenario
async def test_aclose_discards_what_is_queued(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        stream = endpoint.stream(Count)
        await endpoint.broadcast(Count(number=1))
        await stream.aclose()
        assert await numbers_of(stream) == []


@scenario
async def test_stream_as_context_is_closed_at_its_end(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        with pytest.raises(KeyError):  # noqa: PT012 - the error passes through it
            async with endpoint.stream(Count):
                assert endpoint.get_subscribed_events() == {Count}
                raise KeyError
        assert endpoint.get_subscribed_events() == set()


@scenario
async def test_stop_of_the_endpoint_ends_a_stream_after_what_was_queued(runtime: Runtime) -> None:
    got: list[int] = []

    async def consume(stream: Any) -> None:
        async for event in stream:
            got.append(event.number)
            await turns()
        got.append(-1)

    async with anyio.create_task_group() as tasks:
        async with runtime.endpoint_class("alone").run() as endpoint:
            stream = endpoint.stream(Count)
            waiting = endpoint.stream(Other)
            tasks.start_soon(consume, stream)
            tasks.start_soon(consume, waiting)
            for number in range(5):
                await endpoint.broadcast(Count(number=number))
    assert sorted(got) == [-1, -1, 0, 1, 2, 3, 4]
    assert got.index(4) < max(index for index, number in enumerate(got) if number == -1)


@scenario
async def test_two_consumers_of_one_stream_share_its_events(runtime: Runtime) -> None:
    got: dict[str, list[int]] = {"a": [], "b": []}

    async def consume(name: str, stream: Any) -> None:
        async for event in stream:
            got[name].append(event.number)
            await anyio.lowlevel.checkpoint()

    async with runtime.endpoint_class("alone").run() as endpoint:
        stream = endpoint.stream(Count)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume, "a", stream)
            tasks.start_soon(consume, "b", stream)
            await turns()
            for number in range(50):
                await endpoint.broadcast(Count(number=number))
                await turns(2)
            await eventually(lambda: len(got["a"]) + len(got["b"]) == 50)
            await stream.aclose()
        assert sorted(got["a"] + got["b"]) == list(range(50))
        assert got["a"]
        assert got["b"]


@scenario
async def test_num_events_is_shared_by_two_consumers(runtime: Runtime) -> None:
    got: list[int] = []

    async def consume(stream: Any) -> None:
        async for event in stream:
            got.append(event.number)

    async with runtime.endpoint_class("alone").run() as endpoint:
        stream = endpoint.stream(Count, num_events=3)
        keep = endpoint.stream(Count)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(consume, stream)
            tasks.start_soon(consume, stream)
            await turns()
            for number in range(5):
                await endpoint.broadcast(Count(number=number))
        assert got == [0, 1, 2]
        await keep.aclose()


@scenario
async def test_consumer_cancelled_as_its_event_arrives_does_not_lose_it(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        stream = endpoint.stream(Count)
        first = anyio.CancelScope()
        got: list[tuple[str, int]] = []

        async def take(name: str) -> None:
            got.append((name, (await stream.__anext__()).number))

        async def cancelled() -> None:
            with first:
                await take("cancelled")

        async with anyio.create_task_group() as tasks:
            # The one that is woken is the one that waits longest.
            tasks.start_soon(cancelled)
            await turns()
            tasks.start_soon(take, "other")
            await turns()
            # In one turn: the event arrives, which wakes the first, and that one is cancelled.
            endpoint.broadcast_nowait(Count(number=1))
            first.cancel()
            await eventually(lambda: got)
            if got == [("cancelled", 1)]:  # woken is woken, on trio
                endpoint.broadcast_nowait(Count(number=2))
        assert got in ([("other", 1)], [("cancelled", 1), ("other", 2)])
        await stream.aclose()


def test_consumer_cancelled_by_asyncio_as_its_event_arrives_passes_it_on(asyncio_runtime: Runtime) -> None:
    import asyncio

    async def main() -> None:
        async with asyncio_runtime.endpoint_class("alone").run() as endpoint:
            stream = endpoint.stream(Count)
            first = asyncio.ensure_future(stream.__anext__())
            await turns()
            second = asyncio.ensure_future(stream.__anext__())
            await turns()
            endpoint.broadcast_nowait(Count(number=1))
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            async with asyncio.timeout(2):
                assert (await second).number == 1
            await stream.aclose()

    asyncio_runtime.run(main)


@scenario
async def test_consumer_cancelled_while_it_waits_leaves_the_stream_usable(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        stream = endpoint.stream(Count)
        with anyio.move_on_after(0.01) as scope:
            await stream.__anext__()
        assert scope.cancelled_caught
        await endpoint.broadcast(Count(number=1))
        assert (await stream.__anext__()).number == 1
        assert stream._inbox._waiters == []
        await stream.aclose()


@scenario
async def test_consumer_of_a_full_stream_lets_other_tasks_run(runtime: Runtime) -> None:
    ran = []

    async def other() -> None:
        while True:
            ran.append(1)
            await anyio.lowlevel.checkpoint()

    async with runtime.endpoint_class("alone").run() as endpoint, anyio.create_task_group() as tasks:
        stream = endpoint.stream(Count, num_events=500)
        for number in range(500):
            endpoint.broadcast_nowait(Count(number=number))
        tasks.start_soon(other)
        await turns()
        ran.clear()
        assert len(await numbers_of(stream)) == 500
        assert ran
        tasks.cancel_scope.cancel()


@scenario
async def test_wait_for_returns_the_next_event_and_unsubscribes(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client), anyio.create_task_group() as tasks:
        got = []

        async def wait() -> None:
            got.append((await server.wait_for(Count)).number)

        tasks.start_soon(wait)
        await client.wait_until_endpoint_subscribed_to("server", Count)
        await client.broadcast(Count(number=1))
        await client.broadcast(Count(number=2))
        await eventually(lambda: got)
        assert got == [1]
        assert server.get_subscribed_events() == set()


@scenario
async def test_cancelled_wait_for_leaves_no_subscription(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        with anyio.move_on_after(0.01):
            await endpoint.wait_for(Count)
        assert endpoint.get_subscribed_events() == set()


@scenario
async def test_wait_for_when_the_endpoint_stops_says_so(runtime: Runtime) -> None:
    outcome = []

    async def wait(endpoint: EndpointAPI) -> None:
        try:
            await endpoint.wait_for(Count)
        except LifecycleError as error:
            outcome.append(str(error))

    async with anyio.create_task_group() as tasks:
        async with runtime.endpoint_class("alone").run() as endpoint:
            tasks.start_soon(wait, endpoint)
            await turns()
    assert outcome == ["The endpoint stopped while wait_for(Count) was waiting"]


@scenario
async def test_stream_of_an_endpoint_whose_peer_goes_simply_waits(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config) as server:
        stream = server.stream(Count)
        for number in range(2):
            async with runtime.endpoint_class("client").run() as client:
                await join(client, server, config)
                await client.broadcast(Count(number=number))
            assert (await stream.__anext__()).number == number
            await eventually(lambda: not server.is_connected_to("client"))
        await stream.aclose()

"""lahja 0.17's defects in streams, handlers and the events they get: L5, L6, L13, L20. None may come back.

Each test is named after the failure that lahja's users met. Tests of two endpoints run on every pair of
runtimes, each endpoint in a thread and an event loop of its own.
"""

from __future__ import annotations

import gc
import logging
from pathlib import Path
from typing import Any

import anyio
import pytest

from lahja_capn import (
    BroadcastConfig,
    FrameTooLarge,
    Limits,
    NoSubscribers,
)
from tests.conftest import Runtime
from tests.scenario.events import Blob, Count, Other
from tests.scenario.mixed import Meeting, Pair, every_pair
from tests.scenario.support import Collector, at, eventually, scenario, turns
from tests.scenario.support import pair as connected_pair

# --- L5: an abandoned stream blocked its endpoint for ever --------------------------------------------------

# Room for a few dozen small events: an abandoned stream that kept its events would use it up at once.
NARROW = Limits(event_credit_bytes=4096, queued_per_peer_bytes=4096)


@every_pair
@pytest.mark.parametrize("how", ["broken out of", "dropped", "num_events", "wait_for"])
def test_L5_abandoned_stream_does_not_block_its_endpoint(pair: Pair, short_tmp_path: Path, how: str) -> None:
    config = at(short_tmp_path, "server")

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        got, counts = Collector(), Collector()
        async with runtime.endpoint_class.serve(config, limits=NARROW) as server:
            await server.wait_until_connected_to("client")
            await server.subscribe(Other, got).acknowledged()
            # Keeps the type subscribed, so that its events go on coming.
            await server.subscribe(Count, counts).acknowledged()
            meeting.tell("go")
            if how == "broken out of":
                async for _ in server.stream(Count):
                    break
            elif how == "dropped":
                server.stream(Count)
            elif how == "num_events":
                kept = server.stream(Count, num_events=1)
                assert [event.number async for event in kept] == [0]
            else:
                await server.wait_for(Count)
            meeting.tell("abandoned")
            assert await got.until(1) == [7]
            assert await counts.until(1000) == list(range(1000))

    async def publish(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class("client").run() as client:
            await client.connect_to_endpoints(config)
            await meeting.told("go")
            await client.broadcast(Count(number=0))
            await meeting.told("abandoned")
            for number in range(1, 1000):
                await client.broadcast(Count(number=number))
            await client.broadcast(Other(number=7))

    pair.run(serve, publish)


@scenario
async def test_L5_cancelled_wait_for_and_stream_leave_no_subscription(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:

        async def take(stream: Any) -> None:
            async for _ in stream:
                pass

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(endpoint.wait_for, Count)
            tasks.start_soon(take, endpoint.stream(Other))
            await eventually(lambda: endpoint.get_subscribed_events() == {Count, Other})
            tasks.cancel_scope.cancel()
        # A cancelled anext() leaves its stream usable; this one went with its task. Python may keep that until
        # it next collects garbage.
        gc.collect()
        assert endpoint.get_subscribed_events() == set()


# --- L6: unsubscribe() told nobody -------------------------------------------------------------------------


@every_pair
def test_L6_unsubscribe_is_seen_here_and_told_to_peers(pair: Pair, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        got = Collector()
        async with runtime.endpoint_class.serve(config) as server:
            await server.wait_until_connected_to("client")
            subscription = server.subscribe(Count, got)
            await meeting.told("seen")
            subscription.unsubscribe()
            assert server.get_subscribed_events() == set()
            await meeting.told("done")
        assert got.numbers == []

    async def look(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class("client").run() as client:
            await client.connect_to_endpoints(config)
            await client.wait_until_endpoint_subscribed_to("server", Count)
            seen = client.subscriptions_version
            meeting.tell("seen")
            while client.is_endpoint_subscribed_to("server", Count):
                seen = await client.wait_until_endpoint_subscriptions_change(seen)
            with pytest.raises(NoSubscribers):
                await client.broadcast(Count(number=1))
            meeting.tell("done")

    pair.run(serve, look)


# --- L13: handler errors and those of broadcast_nowait vanished ---------------------------------------------


@every_pair
def test_L13_handler_errors_are_logged_as_errors_and_reach_the_hook(
    pair: Pair, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = at(short_tmp_path, "server")
    caplog.set_level(logging.ERROR)
    reported: list[tuple[Any, Exception]] = []

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        def hook(event: Any, error: Exception) -> None:
            reported.append((event, error))

        async with runtime.endpoint_class.serve(config, on_handler_error=hook) as server:
            await server.wait_until_connected_to("client")
            got = Collector()

            def plain(event: Count) -> None:
                raise ValueError("plain failed")

            async def later(event: Count) -> None:
                await turns(1)
                raise KeyError("later failed")

            async def wrong_signature() -> None:
                """Takes no event: the call itself fails."""

            server.subscribe(Count, plain)
            server.subscribe(Count, later)
            server.subscribe(Count, wrong_signature)
            await server.subscribe(Count, got).acknowledged()
            meeting.tell("go")
            # The subscriptions live on: each fails twice.
            assert await got.until(2) == [1, 2]
            await eventually(lambda: len(reported) == 6)

    async def publish(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class("client").run() as client:
            await client.connect_to_endpoints(config)
            await meeting.told("go")
            await client.broadcast(Count(number=1))
            await client.broadcast(Count(number=2))

    pair.run(serve, publish)
    assert sorted(type(error).__name__ for _, error in reported) == 2 * ["KeyError"] + 2 * [
        "TypeError"
    ] + 2 * ["ValueError"]
    records = [record for record in caplog.records if record.exc_info]
    assert len(records) == 6
    assert {record.levelno for record in records} == {logging.ERROR}
    assert all("Count from client" in record.getMessage() for record in records)


@scenario
async def test_L13_broadcast_nowait_raises_in_its_caller(runtime: Runtime, short_tmp_path: Path) -> None:
    async with connected_pair(runtime, short_tmp_path, server={"limits": Limits(frame_bytes=2048)}) as (
        server,
        client,
    ):
        with pytest.raises(NoSubscribers):
            client.broadcast_nowait(Count(number=1))
        await server.subscribe(Blob, Collector()).acknowledged()
        with pytest.raises(FrameTooLarge) as caught:
            client.broadcast_nowait(Blob(number=1, data=bytes(5000)))
        assert (caught.value.peer, caught.value.limit) == ("server", 2048)


# --- L20: the same event could not be sent twice ------------------------------------------------------------


@every_pair
def test_L20_event_may_be_sent_again_and_sent_on(pair: Pair, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")

    async def send_on(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class.serve(config) as server:
            await server.wait_until_connected_to("client")
            await server.subscribe(Count, Collector()).acknowledged()
            received: list[Count] = []
            server.subscribe(Count, received.append)
            meeting.tell("go")
            await eventually(lambda: len(received) == 2)
            await server.wait_until_endpoint_subscribed_to("client", Other)
            # What was received, and then the same once more.
            await server.broadcast(received[0], BroadcastConfig(filter_endpoint="client"))
            await server.broadcast(received[0], BroadcastConfig(filter_endpoint="client"))
            assert received[0].get_origin() == "client"
            await meeting.told("done")

    async def send_twice(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class("client").run() as client:
            await client.connect_to_endpoints(config)
            await meeting.told("go")
            event = Count(number=5)
            await client.broadcast(event)
            client.broadcast_nowait(event)
            assert event.get_origin() == "client"
            got = Collector()
            await client.subscribe(Count, got).acknowledged()
            await client.subscribe(Other, Collector()).acknowledged()
            assert await got.until(2) == [5, 5]
            assert {event.get_origin() for event in got.events} == {"server"}
            meeting.tell("done")

    pair.run(send_on, send_twice)

"""lahja 0.17's defects in who must not hold up whom: L4, L10, L11, L12, L17. None may come back.

Each test is named after the failure that lahja's users met. Tests of two endpoints run on every pair of
runtimes, each endpoint in a thread and an event loop of its own.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anyio
import pytest

import lahja_capn.endpoint.publishing
from lahja_capn import (
    BroadcastConfig,
    Limits,
)
from lahja_capn.binding import event_type
from lahja_capn.wire.frames import encode_frame, frame_size
from tests.conftest import Runtime
from tests.scenario.events import Blob, Count, Other, Question, Reply
from tests.scenario.mixed import Meeting, Pair, every_pair
from tests.scenario.support import Collector, at, eventually, join, raw_peer, scenario, turns
from tests.scenario.support import pair as connected_pair

# --- L4: an internal broadcast never returned, and no broadcast after it did --------------------------------


@scenario
async def test_L4_internal_broadcast_returns_and_later_ones_reach_peers(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with connected_pair(runtime, short_tmp_path) as (server, client):
        here, there = Collector(), Collector()
        client.subscribe(Count, here)
        await server.subscribe(Count, there).acknowledged()
        await client.broadcast(Count(number=1), BroadcastConfig(internal=True))
        await client.broadcast(Count(number=2))
        assert await there.until(1) == [2]
        assert here.numbers == [1, 2]


@every_pair
def test_L4_internal_broadcasts_between_others_block_nobody(pair: Pair, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        got = Collector()
        async with runtime.endpoint_class.serve(config) as server:
            await server.wait_until_connected_to("client")
            await server.subscribe(Count, got).acknowledged()
            meeting.tell("go")
            assert await got.until(50) == list(range(50))

    async def publish(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class("client").run() as client:
            here = Collector()
            client.subscribe(Other, here)
            await client.connect_to_endpoints(config)
            await meeting.told("go")
            for number in range(50):
                await client.broadcast(Other(number=number), BroadcastConfig(internal=True))
                await client.broadcast(Count(number=number))
            assert here.numbers == list(range(50))

    pair.run(serve, publish)


# --- L10: one peer that stopped reading stalled everybody ---------------------------------------------------


@every_pair
def test_L10_peer_that_stops_reading_stalls_nobody_else(pair: Pair, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    count = 80
    data = bytes(100_000)

    async def publish(runtime: Runtime, meeting: Meeting) -> None:
        limits = Limits(queued_per_peer_bytes=500_000, too_slow_s=0.3)
        async with runtime.endpoint_class.serve(config, limits=limits) as server:
            async with raw_peer(server, Blob, name="stuck"):
                meeting.tell("stuck")
                await server.wait_until_endpoint_subscribed_to("client", Blob)
                for number in range(count):
                    await server.broadcast(Blob(number=number, data=data))
                    if number == 31:
                        # The stuck one is full by now, and whoever reads has everything.
                        await meeting.told("half")
                # It took no byte for too_slow_s while its publisher waited for it.
                await eventually(lambda: not server.is_connected_to("stuck"))
                assert server.is_connected_to("client")
                await meeting.told("done")

    async def consume(runtime: Runtime, meeting: Meeting) -> None:
        got = Collector()
        async with runtime.endpoint_class("client").run() as client:
            await meeting.told("stuck")
            client.subscribe(Blob, got)
            await client.connect_to_endpoints(config)
            assert await got.until(32) == list(range(len(got.events)))
            meeting.tell("half")
            assert await got.until(count) == list(range(count))
            meeting.tell("done")

    pair.run(publish, consume)


@every_pair
def test_L10_broadcast_gives_the_event_to_whoever_has_room_before_it_waits(
    pair: Pair, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")

    async def publish(runtime: Runtime, meeting: Meeting) -> None:
        limits = Limits(queued_per_peer_bytes=1000)
        async with runtime.endpoint_class.serve(config, limits=limits) as server:
            narrow = Limits(event_credit_bytes=1000)
            async with raw_peer(server, Blob, name="stuck", limits=narrow):
                meeting.tell("stuck")
                await server.wait_until_endpoint_subscribed_to("client", Blob)
                published = 0

                async def broadcast_all() -> None:
                    nonlocal published
                    while True:
                        await server.broadcast(Blob(number=published, data=bytes(600)))
                        published += 1

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(broadcast_all)
                    stuck = server._peers.up["stuck"]
                    await eventually(lambda: stuck._room_waiters)
                    # The broadcast that waits for the stuck peer has reached the other one.
                    assert await meeting.told("got") == published
                    tasks.cancel_scope.cancel()
            meeting.tell("done")

    async def consume(runtime: Runtime, meeting: Meeting) -> None:
        got = Collector()
        async with runtime.endpoint_class("client").run() as client:
            await meeting.told("stuck")
            client.subscribe(Blob, got)
            await client.connect_to_endpoints(config)
            # Credit for two, room for two, and the fifth waits.
            await got.until(5)
            await turns()
            meeting.tell("got", got.numbers[-1])
            await meeting.told("done")

    pair.run(publish, consume)


# --- L11: nothing bounded what a receiver queued ------------------------------------------------------------


@every_pair
def test_L11_receiver_that_does_not_take_events_holds_its_window_and_not_more(
    pair: Pair, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    window = 64 * 1024
    data = bytes(1000)
    size = frame_size(encode_frame(1, 0, 0, event_type(Blob).encode(Blob(number=1, data=data))))

    async def consume(runtime: Runtime, meeting: Meeting) -> None:
        limits = Limits(event_credit_bytes=window)
        async with runtime.endpoint_class.serve(config, limits=limits) as server:
            await server.wait_until_connected_to("client")
            stream = server.stream(Blob)
            published = await meeting.told("dropping")
            # What was sent may still be on its way.
            await eventually(lambda: stream.counters().queued * size >= window)
            held = stream.counters().queued
            assert held * size <= window + size
            # Taken, they make room for others: the window is a window and not a total.
            for _ in range(held):
                await anext(stream)
            assert (await anext(stream)).number > held
            assert published > held
            await stream.aclose()
            meeting.tell("done")

    async def publish(runtime: Runtime, meeting: Meeting) -> None:
        limits = Limits(queued_per_peer_bytes=window)
        async with runtime.endpoint_class("client", limits=limits).run() as client:
            await client.connect_to_endpoints(config)
            await client.wait_until_endpoint_subscribed_to("server", Blob)
            number = 0
            give_up_at = time.monotonic() + 8

            def publish_one() -> None:
                nonlocal number
                number += 1
                client.broadcast_nowait(Blob(number=number, data=data))

            # A publisher that never waits loses events, each of them counted: nothing grows.
            counters = client.get_peer_counters()["server"]
            while counters.dropped < 500 or counters.sent_bytes < window:
                publish_one()
                await turns(1)
                counters = client.get_peer_counters()["server"]
                assert time.monotonic() < give_up_at
            assert counters.queued_bytes <= window + size
            assert counters.sent + counters.queued + counters.dropped == number
            meeting.tell("dropping", number)
            await meeting.told("done")

    pair.run(consume, publish)


@scenario
async def test_L11_local_publisher_waits_for_a_full_stream(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        stream = endpoint.stream(Count, queue=10)

        async def publish() -> None:
            for number in range(30):
                await endpoint.broadcast(Count(number=number))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish)
            await eventually(lambda: stream.counters().queued == 10)
            await turns()
            assert stream.counters().queued == 10
            got = [(await anext(stream)).number for _ in range(30)]
        assert got == list(range(30))
        await stream.aclose()


# --- L12: one slow handler blocked all others ---------------------------------------------------------------


@every_pair
def test_L12_slow_handler_holds_up_only_its_own_subscription(pair: Pair, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class.serve(config) as server:
            await server.wait_until_connected_to("client")
            release = anyio.Event()
            slow: list[int] = []
            fast, other = Collector(), Collector()

            async def handle_slowly(event: Count) -> None:
                await release.wait()
                slow.append(event.number)

            async def answer(request: Question) -> None:
                await server.respond(request, Reply(number=request.number))

            server.subscribe(Count, handle_slowly)
            server.subscribe(Count, fast)
            server.subscribe(Question, answer)
            await server.subscribe(Other, other).acknowledged()
            meeting.tell("go")
            assert await fast.until(20) == list(range(20))
            assert await other.until(1) == [1]
            await meeting.told("answered")
            assert slow == []
            release.set()
            await eventually(lambda: len(slow) == 20)
            assert slow == list(range(20))

    async def publish(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class("client").run() as client:
            await client.connect_to_endpoints(config)
            await meeting.told("go")
            for number in range(20):
                await client.broadcast(Count(number=number))
            await client.broadcast(Other(number=1))
            assert (await client.request(Question(number=3))).number == 3
            meeting.tell("answered")

    pair.run(serve, publish)


@scenario
async def test_L12_local_broadcast_does_not_wait_for_handlers(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        release = anyio.Event()
        done: list[int] = []

        async def handle_slowly(event: Count) -> None:
            await release.wait()
            done.append(event.number)

        endpoint.subscribe(Count, handle_slowly)
        for number in range(3):
            await endpoint.broadcast(Count(number=number))
        assert done == []
        release.set()
        await eventually(lambda: done == [0, 1, 2])


# --- L17: an event was encoded anew for every peer ----------------------------------------------------------


@scenario
async def test_L17_event_is_encoded_once_for_all_peers(
    runtime: Runtime, short_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = at(short_tmp_path, "server")
    encoded: list[str] = []
    original = lahja_capn.endpoint.publishing.encode_frame

    def count_and_encode(*args: Any) -> Any:
        encoded.append("frame")
        return original(*args)

    endpoint_class = runtime.endpoint_class
    async with (
        endpoint_class.serve(config) as server,
        endpoint_class("a").run() as a,
        endpoint_class("b").run() as b,
        endpoint_class("c").run() as c,
    ):
        collectors = [Collector() for _ in range(3)]
        for client, collector in zip((a, b, c), collectors, strict=True):
            client.subscribe(Count, collector)
            await join(client, server, config)
        bound = event_type(Count)
        encode = type(bound).encode

        def count_and_encode_event(self: Any, event: Any) -> Any:
            encoded.append("event")
            return encode(self, event)

        monkeypatch.setattr(lahja_capn.endpoint.publishing, "encode_frame", count_and_encode)
        monkeypatch.setattr(type(bound), "encode", count_and_encode_event)
        await server.broadcast(Count(number=1))
        server.broadcast_nowait(Count(number=2))
        for collector in collectors:
            assert await collector.until(2) == [1, 2]
        assert sorted(encoded) == ["event", "event", "frame", "frame"]

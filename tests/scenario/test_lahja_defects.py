"""lahja 0.17's defects, L1 to L22: none of them may come back.

Each test is named after the failure that lahja's users met. Tests of two endpoints run on every pair of
runtimes, each endpoint in a thread and an event loop of its own.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

import lahja_capn.endpoint.publishing
from lahja_capn import (
    BroadcastConfig,
    ConnectionConfig,
    FrameTooLarge,
    InvalidEndpointName,
    Limits,
    NameInUse,
    NoSubscribers,
    RemoteDisconnected,
    RequestTimeout,
    WrongName,
)
from lahja_capn.binding import event_type
from lahja_capn.session.control import Subscriptions
from lahja_capn.tools.engine import EngineAPI
from lahja_capn.tools.runner import AsyncioRunner, DriversFailed, IsolatedHomogenousRunner, TrioRunner
from lahja_capn.wire.frames import encode_frame, frame_size
from tests.conftest import Runtime
from tests.scenario.events import Blob, Count, Other, Question, Reply
from tests.scenario.mixed import Meeting, Pair, every_pair
from tests.scenario.rawpeer import (
    event_frame,
    frame_of,
    hello,
    send_raw,
    shake_hands,
    strange_type,
    talk_to,
)
from tests.scenario.support import Collector, at, eventually, join, raw_peer, scenario, turns
from tests.scenario.support import pair as connected_pair

ROOT = Path(__file__).parents[2]

# --- L1: any BroadcastConfig switched the check for subscribers off; a request to nobody hung ---------------


@scenario
async def test_L1_config_does_not_switch_the_subscriber_check_off(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        for config in (
            BroadcastConfig(require_subscriber=True),
            BroadcastConfig(filter_endpoint="nobody", require_subscriber=True),
            BroadcastConfig(filter_endpoint="nobody"),
            BroadcastConfig(internal=True),
        ):
            with pytest.raises(NoSubscribers):
                await endpoint.broadcast(Count(number=1), config)
            with pytest.raises(NoSubscribers):
                endpoint.broadcast_nowait(Count(number=1), config)
        await endpoint.broadcast(Count(number=1), BroadcastConfig(require_subscriber=False))


@scenario
async def test_L1_request_to_nobody_fails_at_once_whatever_the_config(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        for config in (
            None,
            BroadcastConfig(),
            BroadcastConfig(filter_endpoint="nobody"),
            BroadcastConfig(require_subscriber=False),
        ):
            with pytest.raises(NoSubscribers) as caught:
                await endpoint.request(Question(number=1), config)
            assert caught.value.event == "Question"


@every_pair
def test_L1_request_to_a_connected_endpoint_without_handler_fails_at_once(
    pair: Pair, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class.serve(config):
            await meeting.told("done")

    async def ask(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class("client").run() as client:
            await client.connect_to_endpoints(config)
            with pytest.raises(NoSubscribers) as caught:
                await client.request(Question(number=1), BroadcastConfig(filter_endpoint="server"))
            assert caught.value.endpoint == "server"
            meeting.tell("done")

    pair.run(serve, ask)


# --- L2: a peer that left stayed connected; a restarted one was refused for ever ----------------------------


@every_pair
@pytest.mark.parametrize("how", ["with a goodbye", "without a word"])
def test_L2_peer_that_leaves_is_noticed_while_nothing_is_sent(
    pair: Pair, short_tmp_path: Path, how: str
) -> None:
    config = at(short_tmp_path, "server")

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class.serve(config) as server:
            meeting.tell("path", server.ipc_path)
            await server.wait_until_connected_to("client")
            seen = server.connections_version
            meeting.tell("leave")
            await server.wait_until_connections_change(seen)
            assert not server.is_connected_to("client")
            assert server.get_connected_endpoints_and_subscriptions() == (("server", set()),)

    async def leave(runtime: Runtime, meeting: Meeting) -> None:
        if how == "without a word":
            with talk_to(await meeting.told("path")) as talker:
                await talker.send(shake_hands(name="client"))
                await meeting.told("leave")
                # With everything read, so that the end of the stream is all that is left to see.
                await talker.next_of(Subscriptions)
            return
        async with runtime.endpoint_class("client").run() as client:
            await client.connect_to_endpoints(config)
            await meeting.told("leave")

    pair.run(serve, leave)


@every_pair
def test_L2_peer_that_restarts_under_its_old_name_is_heard_and_served(
    pair: Pair, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    rounds = 3

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        got = Collector()
        async with runtime.endpoint_class.serve(config) as server:
            server.subscribe(Count, got)
            for number in range(rounds):
                await meeting.told(f"up {number}")
                await server.broadcast(Other(number=number))
                await got.until(number + 1)
        assert got.numbers == list(range(rounds))
        assert {event.get_origin() for event in got.events} == {"client"}

    async def restart(runtime: Runtime, meeting: Meeting) -> None:
        for number in range(rounds):
            got = Collector()
            async with runtime.endpoint_class("client").run() as client:
                subscription = client.subscribe(Other, got)
                await client.connect_to_endpoints(config)
                await subscription.acknowledged()
                meeting.tell(f"up {number}")
                assert await got.until(1) == [number]
                await client.broadcast(Count(number=number))

    pair.run(serve, restart)


# --- L3: a request had no timeout and did not fail when its responder left ----------------------------------


@every_pair
def test_L3_request_fails_when_the_responder_leaves(pair: Pair, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class.serve(config) as server:
            await server.wait_for(Question)

    async def ask(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class("client").run() as client:
            await client.connect_to_endpoints(config)
            await client.wait_until_endpoint_subscribed_to("server", Question)
            with pytest.raises(RemoteDisconnected) as caught:
                await client.request(Question(number=1), timeout=60)
            assert caught.value.peer == "server"
            assert "Question" in str(caught.value)

    pair.run(serve, ask)


@every_pair
def test_L3_request_without_an_answer_ends_in_time(pair: Pair, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class.serve(config) as server:
            stream = server.stream(Question)
            await meeting.told("done")
            await stream.aclose()

    async def ask(runtime: Runtime, meeting: Meeting) -> None:
        limits = Limits(request_timeout_s=0.05)
        async with runtime.endpoint_class("client", limits=limits).run() as client:
            await client.connect_to_endpoints(config)
            await client.wait_until_endpoint_subscribed_to("server", Question)
            for timeout in (None, 0.04):
                with pytest.raises(RequestTimeout) as caught:
                    await client.request(Question(number=1), timeout=timeout)
                assert caught.value.waiting_for == ("server",)
            meeting.tell("done")

    pair.run(serve, ask)


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


# --- L7: a second client of one name took the whole server down ---------------------------------------------


@every_pair
def test_L7_second_client_with_a_used_name_harms_nobody(pair: Pair, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        got = Collector()
        async with runtime.endpoint_class.serve(config) as server:
            server.subscribe(Count, got)
            await meeting.told("refused")
            assert await got.until(2) == [1, 2]
            assert server.is_connected_to("twin")
            assert server.is_running
            meeting.tell("looked")
            await meeting.told("connected")

    async def claim(runtime: Runtime, meeting: Meeting) -> None:
        endpoint_class = runtime.endpoint_class
        async with endpoint_class("twin").run() as first, endpoint_class("twin").run() as second:
            await first.connect_to_endpoints(config)
            await first.broadcast(Count(number=1))
            with pytest.raises(NameInUse) as caught:
                await second.connect_to_endpoints(config)
            assert caught.value.peer == "server"
            assert "twin" in str(caught.value)
            meeting.tell("refused")
            await first.broadcast(Count(number=2))
            async with endpoint_class("third").run() as third:
                await third.connect_to_endpoints(config)
                assert third.is_endpoint_subscribed_to("server", Count)
            meeting.tell("connected")
            await meeting.told("looked")

    pair.run(serve, claim)


# --- L8: a cancelled request leaked; num_events=0 gave an event ---------------------------------------------


@every_pair
def test_L8_cancelled_request_leaves_nothing_and_its_late_answer_is_counted(
    pair: Pair, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class.serve(config) as server:
            request = await server.wait_for(Question)
            meeting.tell("asked")
            await meeting.told("cancelled")
            await server.respond(request, Reply(number=1))
            await meeting.told("done")

    async def ask(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class("client").run() as client:
            await client.connect_to_endpoints(config)
            await client.wait_until_endpoint_subscribed_to("server", Question)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.request, Question(number=1))
                await meeting.told("asked")
                tasks.cancel_scope.cancel()
            (connection,) = client._peers.up.values()
            assert connection.pending == {}
            meeting.tell("cancelled")
            await eventually(lambda: client.get_peer_counters()["server"].late == 1)
            meeting.tell("done")

    pair.run(serve, ask)


@scenario
async def test_L8_cancelled_local_request_leaves_nothing(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        stream = endpoint.stream(Question)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(endpoint.request, Question(number=1))
            request = await anext(stream)
            tasks.cancel_scope.cancel()
        assert not endpoint._bus._local_pending
        assert not endpoint._bus._local_open
        await endpoint.respond(request, Reply(number=1))
        assert endpoint._bus.late_answers == 1
        await stream.aclose()


@scenario
async def test_L8_stream_of_zero_events_gives_none(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        stream = endpoint.stream(Count, num_events=0)
        await endpoint.broadcast(Count(number=1), BroadcastConfig(require_subscriber=False))
        assert [event async for event in stream] == []
        assert endpoint.get_subscribed_events() == set()


# --- L9: a client that said hello and then nothing kept all later ones out ----------------------------------


@every_pair
def test_L9_client_that_stops_after_hello_keeps_nobody_out(pair: Pair, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        limits = Limits(handshake_timeout_s=0.3)
        async with runtime.endpoint_class.serve(config, limits=limits) as server:
            got = Collector()
            server.subscribe(Count, got)
            with talk_to(config.path) as mute, talk_to(config.path) as half:
                await half.send(frame_of(hello(name="half")))
                meeting.tell("stuck")
                await server.wait_until_connected_to("client")
                assert await got.until(1) == [1]
                assert not server.is_connected_to("half")
                for talker in (half, mute):
                    assert (await talker.goodbye()).code == "handshakeTimeout"
            await server.broadcast(Other(number=2))

    async def connect(runtime: Runtime, meeting: Meeting) -> None:
        got = Collector()
        async with runtime.endpoint_class("client").run() as client:
            client.subscribe(Other, got)
            await meeting.told("stuck")
            await client.connect_to_endpoints(config)
            await client.broadcast(Count(number=1))
            assert await got.until(1) == [2]

    pair.run(serve, connect)


# --- L10: one peer that stopped reading stalled everybody ---------------------------------------------------


@every_pair
def test_L10_peer_that_stops_reading_stalls_nobody_else(pair: Pair, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    count = 40
    data = bytes(100_000)

    async def publish(runtime: Runtime, meeting: Meeting) -> None:
        limits = Limits(queued_per_peer_bytes=500_000, too_slow_s=0.3)
        async with runtime.endpoint_class.serve(config, limits=limits) as server:
            async with raw_peer(server, Blob, name="stuck"):
                meeting.tell("stuck")
                await server.wait_until_endpoint_subscribed_to("client", Blob)
                for number in range(count):
                    await server.broadcast(Blob(number=number, data=data))
                    if number == 15:
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
            assert await got.until(16) == list(range(len(got.events)))
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


# --- L14: one pickled event ran code; bytes that could not be decoded surfaced only at shutdown -------------


class Bomb:
    """Unpickling it makes a folder: the sign that something was executed."""

    def __init__(self, path: Path) -> None:
        self.path = os.fspath(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@every_pair
def test_L14_pickle_from_a_peer_is_never_loaded_and_ends_only_its_connection(
    pair: Pair, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    sign = short_tmp_path / "executed"
    bomb = pickle.dumps(Bomb(sign))

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class.serve(config) as server:
            got, blobs = Collector(), Collector()
            server.subscribe(Count, got)
            server.subscribe(Blob, blobs)
            await server.wait_until_connected_to("client")
            # As lahja framed it, before and after the handshake.
            framed = len(bomb).to_bytes(4, "little") + bomb
            for opening in (b"", shake_hands()):
                with talk_to(config.path) as talker:
                    await talker.send(opening + framed)
                    goodbye = await talker.goodbye()
                    assert goodbye.code == "protocolError"
            # As the content of a valid event.
            meeting.tell("go")
            assert await got.until(1) == [1]
            (event,) = blobs.events
            assert event.data == bomb
            meeting.tell("done")
        assert not sign.exists()

    async def publish(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class("client").run() as client:
            await client.connect_to_endpoints(config)
            await meeting.told("go")
            await client.broadcast(Blob(number=1, data=bomb))
            await client.broadcast(Count(number=1))
            await meeting.told("done")

    pair.run(serve, publish)


@scenario
async def test_L14_undecodable_bytes_are_reported_when_they_come(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:
        with talk_to(server.ipc_path) as talker:
            await talker.send(shake_hands() + b"\xff" * 64)
            await talker.goodbye()
        assert any("connection to 'raw' ended" in record.getMessage() for record in caplog.records)
    # Leaving serve() raised nothing.


# --- L15: any length was believed, there was no version, names were not checked -----------------------------


@scenario
async def test_L15_length_over_the_limit_is_refused_before_memory_is_spent(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    limits = Limits(frame_bytes=1 << 20)
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server"), limits=limits) as server:
        for opening, length, code in (
            (b"", (1 << 20) + 4, "protocolError"),
            (shake_hands(), (1 << 20) + 4, "frameTooLarge"),
            (shake_hands(), (1 << 31) - 12, "frameTooLarge"),
        ):
            with talk_to(server.ipc_path) as talker:
                # The header alone: the refusal does not wait for the bytes that it announces.
                header = length.to_bytes(4, "little") + bytes(12) + bytes(16)
                await talker.send(opening + header)
                assert (await talker.goodbye()).code == code


@scenario
async def test_L15_other_version_and_wrong_name_are_refused(runtime: Runtime, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    async with (
        runtime.endpoint_class.serve(config) as server,
        runtime.endpoint_class("client").run() as client,
    ):
        with talk_to(server.ipc_path) as talker:
            await talker.send(frame_of(hello(protocol_version=2)))
            assert (await talker.goodbye()).code == "unsupportedVersion"
        with pytest.raises(WrongName) as caught:
            await client.connect_to_endpoints(ConnectionConfig("billing", config.path))
        assert (caught.value.wanted, caught.value.got) == ("billing", "server")


# --- L16: one class that the other side did not know killed the link ----------------------------------------


@every_pair
def test_L16_types_that_one_side_does_not_know_do_not_kill_the_link(pair: Pair, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    strange = strange_type(0xD00DFEED_00000001, "theirs.capnp:Strange", (1, 2, 3))

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class.serve(config) as server:
            got = Collector()
            server.subscribe(Count, got)
            await server.wait_until_connected_to("client")
            async with raw_peer(server, Other, name="stranger") as stranger:
                # It declares a type that is not bound here, subscribes to it, and sends events of it.
                bound = event_type(Count)
                known, unknown = stranger.table.wire_id(bound), stranger.table.wire_id(strange)
                stranger.session._find = lambda type_id: strange
                stranger.session.update_subscriptions([strange.type_id], ack_wanted=True)
                await stranger.write()
                await stranger.read(lambda: len(stranger.events) > 1)
                for number in range(3):
                    await send_raw(stranger, event_frame(unknown, (bytes(16),)))
                    await send_raw(stranger, event_frame(known, bound.encode(Count(number=number))))
                assert await got.until(3) == [0, 1, 2]
                assert server.get_peer_counters()["stranger"].skipped == 3
                subscribed = dict(server.get_connected_endpoints_and_subscriptions())
                assert subscribed["stranger"] == {Other}
                await server.broadcast(Other(number=1))
                meeting.tell("done")
                await meeting.told("looked")

    async def watch(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class("client").run() as client:
            client.subscribe(Other, Collector())
            await client.connect_to_endpoints(config)
            await meeting.told("done")
            assert client.is_connected_to("server")
            meeting.tell("looked")

    pair.run(serve, watch)


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


# --- L18: a change between a look and a wait was lost -------------------------------------------------------


@every_pair
def test_L18_change_between_look_and_wait_is_not_lost(pair: Pair, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class.serve(config) as server:
            connections = server.connections_version
            subscriptions = server.subscriptions_version
            meeting.tell("looked")
            # Both changes have happened before the waits begin, and nothing more will.
            await eventually(lambda: server.is_endpoint_subscribed_to("client", Count))
            await meeting.told("subscribed")
            assert await server.wait_until_connections_change(connections) > connections
            assert await server.wait_until_endpoint_subscriptions_change(subscriptions) > subscriptions
            await server.wait_until_endpoint_subscribed_to("client", Count)
            meeting.tell("done")

    async def subscribe(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class("client").run() as client:
            await meeting.told("looked")
            await client.connect_to_endpoints(config)
            await client.subscribe(Count, Collector()).acknowledged()
            meeting.tell("subscribed")
            await meeting.told("done")

    pair.run(serve, subscribe)


# --- L19: names, request numbers, callable objects ----------------------------------------------------------


@scenario
async def test_L19_non_ascii_name_is_refused_here_and_from_a_peer(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    with pytest.raises(InvalidEndpointName):
        runtime.endpoint_class("k\u00fcche")
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:
        with talk_to(server.ipc_path) as talker:
            await talker.send(frame_of(hello(name="k\u00fcche")))
            goodbye = await talker.goodbye()
            assert goodbye.code == "invalidName"
            assert "k\u00fcche" in goodbye.text
        assert server.is_running


@every_pair
def test_L19_request_numbers_go_on_after_32_bits(pair: Pair, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class.serve(config) as server:

            async def answer(request: Question) -> None:
                await server.respond(request, Reply(number=request.number))

            server.subscribe(Question, answer)
            await meeting.told("done")

    async def ask(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class("client").run() as client:
            await client.connect_to_endpoints(config)
            await client.wait_until_endpoint_subscribed_to("server", Question)
            (connection,) = client._peers.up.values()
            connection.session._outgoing.last = 2**32 - 2
            for number in range(5):
                assert (await client.request(Question(number=number))).number == number
            assert connection.session._outgoing.last == 2**32 + 3
            meeting.tell("done")

    pair.run(serve, ask)


@scenario
async def test_L19_object_with_async_call_is_awaited(runtime: Runtime) -> None:
    class Handler:
        def __init__(self) -> None:
            self.numbers: list[int] = []

        async def __call__(self, event: Count) -> None:
            await turns(1)
            self.numbers.append(event.number)

    async with runtime.endpoint_class("alone").run() as endpoint:
        handler = Handler()
        endpoint.subscribe(Count, handler)
        await endpoint.broadcast(Count(number=1))
        await endpoint.broadcast(Count(number=2))
        await eventually(lambda: handler.numbers == [1, 2])


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


# --- L21: tests that could not fail -------------------------------------------------------------------------


async def exit_with_a_code(engine: EngineAPI) -> None:
    os._exit(3)


async def raise_an_error(engine: EngineAPI) -> None:
    raise ValueError("the driver failed")


async def end_well(engine: EngineAPI) -> None:
    await engine.sleep(0)


@pytest.mark.parametrize("runner", [AsyncioRunner(), TrioRunner()], ids=["asyncio", "trio"])
def test_L21_child_that_fails_fails_the_run(runner: Any) -> None:
    isolated = IsolatedHomogenousRunner(runner)
    isolated(end_well, end_well)
    for driver, code in ((exit_with_a_code, 3), (raise_an_error, 1)):
        with pytest.raises(DriversFailed) as caught:
            isolated(end_well, driver)
        assert [failure.exit_code for failure in caught.value.failures] == [code]


def test_L21_fixture_runs_what_its_name_says(runtime: Runtime) -> None:
    async def main() -> str:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            import trio

            assert trio.lowlevel.in_trio_run()
            return "trio"
        return "asyncio+uvloop" if type(loop).__module__.startswith("uvloop") else "asyncio"

    assert runtime.run(main) == runtime.name
    expected = "TrioEndpoint" if runtime.name == "trio" else "AsyncioEndpoint"
    assert runtime.endpoint_class.__name__ == expected


# --- L22: importing broke tracebacks and needed trio --------------------------------------------------------

IMPORT_AND_FAIL = """
import sys, threading
sys.modules["trio"] = None
hooks = sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook, sys.breakpointhook
import lahja_capn, lahja_capn.tools.drivers, lahja_capn.tools.runner
assert lahja_capn.AsyncioEndpoint
assert hooks == (
    sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook, sys.breakpointhook
)
assert sys.excepthook is sys.__excepthook__
raise ExceptionGroup("several", [ValueError("the real error")])
"""


def test_L22_import_needs_no_trio_and_leaves_hooks_alone() -> None:
    child = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", IMPORT_AND_FAIL],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=15,
        check=False,
    )
    assert child.returncode == 1
    assert "ValueError: the real error" in child.stderr
    assert "Error in sys.excepthook" not in child.stderr
    assert "AssertionError" not in child.stderr


def test_L22_trio_endpoint_leaves_the_hook_alone_too() -> None:
    code = (
        "import sys; from lahja_capn import TrioEndpoint; TrioEndpoint('t'); assert 'trio' in sys.modules;"
        "assert sys.excepthook is sys.__excepthook__"
    )
    child = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=15,
        check=False,
    )
    assert (child.returncode, child.stderr) == (0, "")

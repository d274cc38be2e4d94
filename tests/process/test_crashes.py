"""Peers that are killed, frozen or restarted: real processes, real signals."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import anyio
import pytest

from lahja_capn import Limits, RemoteDisconnected
from tests.conftest import Runtime
from tests.process.children import OTHER, child
from tests.scenario.events import Blob, Count, Question
from tests.scenario.support import Collector, at, eventually, scenario


@scenario
async def test_killed_peer_is_reported_gone_while_nothing_is_sent(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    # No keepalive either: the end of its stream alone tells.
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config, limits=Limits(keepalive_s=0)) as server:
        with child("idle", OTHER[runtime.name], config.path) as peer:
            await peer.says("connected")
            await server.wait_until_connected_to("child")
            seen = server.connections_version
            peer.kill()
            await server.wait_until_connections_change(seen)
            assert not server.is_connected_to("child")


@scenario
async def test_pending_requests_fail_when_their_responder_is_killed(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config) as server:
        with child("hold_request", OTHER[runtime.name], config.path) as peer:
            await peer.says("connected")
            await server.wait_until_endpoint_subscribed_to("child", Question)
            failed: list[str] = []

            async def ask() -> None:
                with pytest.raises(RemoteDisconnected) as caught:
                    await server.request(Question(number=1), timeout=60)
                failed.append(caught.value.peer)

            async with anyio.create_task_group() as tasks:
                for _ in range(10):
                    tasks.start_soon(ask)
                for _ in range(10):
                    await peer.says("asked")
                peer.kill()
            assert failed == ["child"] * 10


@scenario
async def test_peer_killed_in_the_middle_of_a_frame_leaves_only_whole_events(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config) as server:
        got = Collector()
        server.subscribe(Count, got)
        with child("half_a_frame", OTHER[runtime.name], config.path) as peer:
            await server.wait_until_connected_to("child")
            peer.tell()
            await peer.says("half")
            assert await got.until(1) == [1]
            peer.kill()
            await eventually(lambda: not server._peers.all)
        assert got.numbers == [1]


@scenario
async def test_peer_killed_while_it_floods_us_with_large_events_leaves_the_server_well(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config) as server:
        for _ in range(2):
            got = Collector()
            subscription = server.subscribe(Blob, got)
            with child("flood", OTHER[runtime.name], config.path) as peer:
                await got.until(3)
                peer.kill()
                await eventually(lambda: not server._peers.all)
            subscription.unsubscribe()
            numbers = got.numbers
            assert numbers == list(range(len(numbers)))
            # None of them is the one that was under way.
            assert all(event.data == b"x" * 4_000_000 for event in got.events)


@scenario
async def test_frozen_peer_is_found_by_keepalive_and_others_go_on(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    other = OTHER[runtime.name]
    async with runtime.endpoint_class.serve(config, limits=Limits(keepalive_s=0.2)) as server:
        with (
            child("consume", other, config.path, "frozen", 0) as frozen,
            child("consume", runtime.name, config.path, "living", 200) as living,
        ):
            await frozen.says("connected")
            await living.says("connected")
            await eventually(lambda: len(server._peers.up) == 2)
            for number in range(100):
                await server.broadcast(Count(number=number))
            frozen.signal(signal.SIGSTOP)
            frozen_at = time.monotonic()
            for number in range(100, 200):
                await server.broadcast(Count(number=number))
            await living.says("got 200")
            await eventually(lambda: not server.is_connected_to("frozen"))
            # Three intervals without a byte; the last byte may have come a little before it was frozen.
            print(
                f"a frozen peer was found after {(time.monotonic() - frozen_at) / 0.2:.1f} keepalive intervals"
            )
            # One that only has nothing to say answers the pings.
            assert server.is_connected_to("living")
            frozen.signal(signal.SIGCONT)
            await frozen.says("alone")
            await frozen.ends_well()
            assert server.is_connected_to("living")


@scenario
async def test_process_that_was_frozen_itself_asks_before_it_judges_its_peers(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    # The server never pings: all life comes from what the child asks for when it wakes up.
    async with runtime.endpoint_class.serve(config, limits=Limits(keepalive_s=0)) as server:
        with child("stay_connected", OTHER[runtime.name], config.path, argument=0.1) as peer:
            await peer.says("connected")
            await server.wait_until_connected_to("child")
            peer.signal(signal.SIGSTOP)
            # Many of its keepalive intervals: by its clock everybody has been silent for far too long.
            await anyio.sleep(1)
            peer.signal(signal.SIGCONT)
            (connection,) = server._peers.up.values()
            before = connection.session.last_received
            await eventually(lambda: connection.session.last_received > before)
            assert server.is_connected_to("child")


@scenario
async def test_frozen_peer_that_takes_no_byte_is_disconnected_and_others_have_everything(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    limits = Limits(keepalive_s=0, too_slow_s=0.3, queued_per_peer_bytes=1_000_000)
    async with runtime.endpoint_class.serve(config, limits=limits) as server:
        with (
            child("consume", OTHER[runtime.name], config.path, "frozen", 0) as frozen,
            child("consume", runtime.name, config.path, "living", 0) as living,
        ):
            await frozen.says("connected")
            await living.says("connected")
            await eventually(lambda: len(server._peers.up) == 2)
            frozen.signal(signal.SIGSTOP)
            published = 0
            while server.is_connected_to("frozen"):
                await server.broadcast(Blob(number=published, data=bytes(200_000)))
                published += 1
            for number in range(published):
                await living.says(f"blob {number}")
            assert server.is_connected_to("living")


@scenario
async def test_peer_that_was_killed_comes_back_under_its_old_name_at_once(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    # A name that had to be probed would not be free before the test's time is over.
    async with runtime.endpoint_class.serve(config, limits=Limits(name_probe_s=60)) as server:
        for number in range(3):
            with child("consume", OTHER[runtime.name], config.path, "again", 1) as peer:
                await peer.says("connected")
                await server.wait_until_endpoint_subscribed_to("again", Count)
                await server.broadcast(Count(number=0))
                await peer.says("got 1")
                if number < 2:
                    peer.kill()


@scenario
async def test_server_that_was_killed_is_started_again_at_its_path(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class("client").run() as client:
        for _ in range(2):
            with child("serve", OTHER[runtime.name], config.path) as server:
                await server.says("serving")
                await client.connect_to_endpoints(config)
                await client.wait_until_endpoint_subscribed_to("server", Question)
                assert (await client.request(Question(number=3))).number == 3
                server.kill()
                await eventually(lambda: not client.is_connected_to("server"))
            # Nobody removed it: the next server finds a stale file.
            assert config.path.is_socket()
        with child("serve", OTHER[runtime.name], config.path) as server:
            await server.says("serving")
            await client.connect_to_endpoints(config)
            server.tell("stop")
            await server.ends_well()
        assert not config.path.exists()

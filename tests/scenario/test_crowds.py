"""More who connect than an endpoint takes: handshakes that do not end, and peers."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path

import anyio
import pytest

from lahja_capn import ConnectionAttemptRejected, Limits
from lahja_capn.endpoint.keeping import Backoff
from tests.conftest import Runtime
from tests.scenario.events import Count
from tests.scenario.rawpeer import frame_of, hello, shake_hands, talk_to
from tests.scenario.support import Collector, at, eventually, join, scenario, turns


@pytest.mark.parametrize("said", ["nothing", "hello", "garbage"])
@scenario
async def test_handshakes_that_do_not_end_are_bounded_and_keep_nobody_out(
    runtime: Runtime,
    short_tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    said: str,
) -> None:
    monkeypatch.setattr("lahja_capn.endpoint.handshakes.HANDSHAKE_PATIENCE_S", 0.05)
    caplog.set_level(logging.WARNING)
    config = at(short_tmp_path, "server")
    most = 4
    async with (
        runtime.endpoint_class.serve(config, limits=Limits(handshakes=most, close_timeout_s=60)) as server,
        runtime.endpoint_class("client").run() as client,
        runtime.endpoint_class("late").run() as late,
    ):
        await join(client, server, config)
        got = Collector()
        await client.subscribe(Count, got).acknowledged()
        seen = []
        start = server._start_connection

        def counted(*arguments: object) -> object:
            seen.append(sum(not connection.is_up for connection in server._peers.all.values()))
            return start(*arguments)

        server._start_connection = counted
        with contextlib.ExitStack() as stack:
            strangers = [stack.enter_context(talk_to(config.path)) for _ in range(20)]
            for number, stranger in enumerate(strangers):
                if said != "nothing":
                    await stranger.send(
                        frame_of(hello(name=f"half-{number}")) if said == "hello" else b"\xff" * 64
                    )
            await eventually(lambda: len(server._handshakes) == most)
            await server.broadcast(Count(number=1))
            assert await got.until(1) == [1]
            # Behind all of them comes an honest one.
            await late.connect_to_endpoints(config)
            assert late.is_connected_to("server")
            assert client.is_connected_to("server")
            assert len(seen) == 21
            assert max(seen) == most - 1
            if said == "nothing":
                goodbye = await strangers[0].goodbye()
                assert goodbye.code == "handshakeTimeout"
                assert "4 handshakes under way (Limits.handshakes)" in goodbye.text
    assert "server: 4 handshakes are under way (Limits.handshakes)" in caplog.text


@scenario
async def test_burst_of_honest_ones_waits_for_its_turn_and_loses_nobody(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody is hung up, however slow the machine is.
    monkeypatch.setattr("lahja_capn.endpoint.handshakes.HANDSHAKE_PATIENCE_S", 60)
    caplog.set_level(logging.WARNING)
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config, limits=Limits(handshakes=1)) as server:
        async with contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(runtime.endpoint_class(f"client-{number}").run())
                for number in range(20)
            ]
            async with anyio.create_task_group() as tasks:
                for client in clients:
                    tasks.start_soon(client.connect_to_endpoints, config)
            await eventually(lambda: len(server._peers.up) == 20)
    # asyncio has its own to say on a slow machine.
    assert [record for record in caplog.records if record.name.startswith("lahja_capn")] == []


@scenario
async def test_client_that_leaves_in_its_handshake_makes_room_at_once(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with (
        runtime.endpoint_class.serve(config, limits=Limits(handshakes=1)) as server,
        runtime.endpoint_class("client").run() as client,
    ):
        with talk_to(config.path):
            await eventually(lambda: len(server._handshakes) == 1)
        began = time.monotonic()
        await client.connect_to_endpoints(config)
        # It would be hung up after 2 s.
        assert time.monotonic() - began < 1.5


@scenario
async def test_peer_beyond_the_limit_of_connections_is_refused_and_told_why(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    config = at(short_tmp_path, "server")
    async with (
        runtime.endpoint_class.serve(config, limits=Limits(connections=2)) as server,
        runtime.endpoint_class("one").run() as one,
        runtime.endpoint_class("three").run() as three,
    ):
        got = Collector()
        one.subscribe(Count, got)
        await join(one, server, config)
        async with runtime.endpoint_class("two").run() as two:
            await join(two, server, config)
            with pytest.raises(ConnectionAttemptRejected) as caught:
                await three.connect_to_endpoints(config)
            assert (caught.value.peer, caught.value.code) == ("server", "notPermitted")
            assert "'server' has 2 connections and takes no more (Limits.connections there)" in str(
                caught.value
            )
            assert sorted(server._peers.up) == ["one", "two"]
            assert "server: refused 'three'" in caplog.text
            # Who is connected does not notice; a newer connection of the same name is none more.
            await server.broadcast(Count(number=1))
            assert await got.until(1) == [1]
            kept = three.keep_connected(config, backoff=Backoff(max_s=0.05))
            await turns()
            assert kept.errors == {}
        # There is room now, and it is no final refusal: whoever keeps trying gets it.
        await kept.connected()
        await server.wait_until_connected_to("three")


@scenario
async def test_endpoint_at_its_limit_of_connections_connects_itself_and_takes_back_its_peers(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config, other = at(short_tmp_path, "server"), at(short_tmp_path, "other")
    instance = os.urandom(16)
    async with (
        runtime.endpoint_class.serve(config, limits=Limits(connections=1)) as server,
        runtime.endpoint_class.serve(other) as second,
    ):
        with talk_to(config.path) as old, talk_to(config.path) as new:
            await old.send(shake_hands(name="raw", instance=instance))
            await server.wait_until_connected_to("raw")
            await new.send(shake_hands(name="raw", instance=instance))
            assert (await old.goodbye()).code == "replaced"
            await eventually(lambda: server.is_connected_to("raw"))
            await server.connect_to_endpoints(other)
            assert second.is_connected_to("server")

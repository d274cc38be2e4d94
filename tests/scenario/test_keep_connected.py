"""``keep_connected``: connections come back by themselves, until the other side refuses us for good."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import anyio
import pytest

from lahja_capn import (
    Backoff,
    ConfigError,
    ConnectionConfig,
    DuplicateConnection,
    EndpointAPI,
    LifecycleError,
    NameInUse,
    NoSubscribers,
    RemoteDisconnected,
    TLSFailed,
    UnsupportedVersion,
    WrongName,
)
from lahja_capn.endpoint import keeping, reconnecting
from lahja_capn.session.control import Goodbye
from tests.conftest import Runtime
from tests.scenario.certificates import Authority
from tests.scenario.events import Count, Other, Question
from tests.scenario.rawpeer import frame_of
from tests.scenario.support import Collector, at, attempts, eventually, scenario, time_passes, turns

SOON = Backoff(first_s=0.001, max_s=0.01)


@scenario
async def test_client_comes_back_to_a_server_that_starts_again_with_its_subscriptions(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class("client").run() as client:
        got = Collector()
        client.subscribe(Count, got)
        kept = client.keep_connected(config, backoff=SOON)
        for number in range(3):
            async with runtime.endpoint_class.serve(config) as server:
                await kept.connected()
                assert client.is_connected_to("server")
                # Nothing has to be waited for: both sides know what the other subscribes to.
                await server.broadcast(Count(number=number))
                assert await got.until(number + 1) == list(range(number + 1))
            await eventually(lambda: not client.is_connected_to("server"))
        # Subscriptions that are made meanwhile are known, too.
        client.subscribe(Other, got)
        async with runtime.endpoint_class.serve(config) as server:
            await client.wait_until_connected_to("server")
            await kept.connected()
            await server.broadcast(Other(number=3))
            assert await got.until(4) == [0, 1, 2, 3]


@scenario
async def test_events_of_the_gap_go_to_whoever_is_there_and_are_not_kept(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class("client").run() as client:
        kept = client.keep_connected(config, backoff=SOON)
        async with runtime.endpoint_class.serve(config) as server:
            counts, held = server.stream(Count), server.stream(Question)
            await kept.connected()
            await client.wait_until_endpoint_subscribed_to("server", Count)
            await client.broadcast(Count(number=1))
            assert (await anext(counts)).number == 1
            outcomes = []

            async def ask() -> None:
                try:
                    await client.request(Question(number=1))
                except RemoteDisconnected as error:
                    outcomes.append(error)

            async with anyio.create_task_group() as tasks:
                await client.wait_until_endpoint_subscribed_to("server", Question)
                tasks.start_soon(ask)
                await anext(held)
                server._peers.up["client"].say_goodbye("shutdown", "for a moment")
                await eventually(lambda: outcomes)
        await eventually(lambda: not client.is_connected_to("server"))
        with pytest.raises(NoSubscribers):
            await client.broadcast(Count(number=2))
        here = Collector()
        client.subscribe(Count, here)
        await client.broadcast(Count(number=3))
        assert here.numbers == [3]
        async with runtime.endpoint_class.serve(config) as server:
            there = server.stream(Count)
            await kept.connected()
            await client.wait_until_endpoint_subscribed_to("server", Count)
            await client.broadcast(Count(number=4))
            assert (await anext(there)).number == 4


@scenario
async def test_connection_that_breaks_comes_back_and_waits_are_right_throughout(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with (
        runtime.endpoint_class.serve(config) as server,
        runtime.endpoint_class("client").run() as client,
    ):
        kept = client.keep_connected(config, backoff=SOON)
        for _ in range(5):
            await kept.connected()
            await server.wait_until_connected_to("client")
            before = client.connections_version
            server._peers.up["client"]._channel.close_write()
            await client.wait_until_connections_change(since=before)
            await client.wait_until_connected_to("server")
            await eventually(lambda: len(server._peers.all) == len(client._peers.all) == 1)
        await kept.connected()
        assert client._connecting == set()
        client._peers.up["server"].say_goodbye("shutdown", "")
        # In the same turn: the task that keeps it has not noticed yet.
        await kept.connected()
        assert client.is_connected_to("server")


@scenario
async def test_several_are_connected_when_all_are(runtime: Runtime, short_tmp_path: Path) -> None:
    one, two = at(short_tmp_path, "one"), at(short_tmp_path, "two")
    async with runtime.endpoint_class("client").run() as client:
        kept = client.keep_connected(one, two, backoff=SOON)
        async with anyio.create_task_group() as tasks:
            returned = []

            async def wait() -> None:
                await kept.connected()
                returned.append(True)

            tasks.start_soon(wait)
            async with runtime.endpoint_class.serve(one):
                await client.wait_until_connected_to("one")
                await turns()
                assert not returned
                async with runtime.endpoint_class.serve(two):
                    await eventually(lambda: returned)
                    assert client.is_connected_to("one")
                    assert client.is_connected_to("two")


@scenario
async def test_connection_that_the_peer_opened_or_that_was_there_before_is_kept(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    ours, theirs = at(short_tmp_path, "ours"), at(short_tmp_path, "theirs")
    async with runtime.endpoint_class.serve(ours) as us:
        async with runtime.endpoint_class.serve(theirs) as them:
            await them.connect_to_endpoints(ours)
            await us.wait_until_connected_to("theirs")
            (serial,) = us._peers.all
            kept = us.keep_connected(theirs, backoff=SOON)
            await kept.connected()
            await turns()
            assert list(us._peers.all) == [serial]
        async with runtime.endpoint_class.serve(theirs) as them:
            await kept.connected()
            assert us._peers.up["theirs"].dialed


async def assert_final(
    client: EndpointAPI,
    config: ConnectionConfig,
    kind: type[Exception],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Both waits raise the refusal, it is logged once, and no attempt follows."""
    tried: list[ConnectionConfig] = []
    transport = client._transport
    begin_connect = transport.begin_connect
    transport.begin_connect = lambda wanted, address: (tried.append(wanted), begin_connect(wanted, address))[
        1
    ]
    kept = client.keep_connected(config, backoff=SOON)
    with pytest.raises(kind):
        await kept.ended()
    with pytest.raises(kind):
        await kept.connected()
    assert list(kept.errors) == [config.name]
    assert isinstance(kept.errors[config.name], kind)
    made = tried.count(config)
    await attempts(client)
    assert tried.count(config) == made
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert ["no more attempts" in record.getMessage() for record in errors] == [True]
    # The way out is open: correct what is wrong, and ask again.
    client.keep_connected(config, backoff=SOON).stop()


@scenario
async def test_name_in_use_is_final(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = at(short_tmp_path, "server")
    async with (
        runtime.endpoint_class.serve(config),
        runtime.endpoint_class("client").run() as first,
        runtime.endpoint_class("client").run() as second,
    ):
        await first.connect_to_endpoints(config)
        await assert_final(second, config, NameInUse, caplog)


@scenario
async def test_wrong_name_is_final(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config), runtime.endpoint_class("client").run() as client:
        await assert_final(client, ConnectionConfig("other", config.path), WrongName, caplog)


@scenario
async def test_other_version_is_final(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = at(short_tmp_path, "server")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(config.path))
    listener.listen()

    async def refuse() -> None:
        await anyio.wait_readable(listener)
        sock, _ = listener.accept()
        sock.sendall(frame_of(Goodbye("unsupportedVersion", "this is version 7")))
        sock.close()

    async with runtime.endpoint_class("client").run() as client, anyio.create_task_group() as tasks:
        tasks.start_soon(refuse)
        await assert_final(client, config, UnsupportedVersion, caplog)
    listener.close()


@scenario
async def test_refused_certificate_is_final(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = Authority(short_tmp_path, "good"), Authority(short_tmp_path, "bad")
    served = ConnectionConfig.from_url("server", "tcp://127.0.0.1:0", tls=bad.issue("server", "127.0.0.1"))
    async with (
        runtime.endpoint_class.serve(served) as server,
        runtime.endpoint_class("client").run() as client,
    ):
        config = server.serving_at._replace(tls=good.issue("client"))
        caplog.set_level(logging.ERROR)
        await assert_final(client, config, TLSFailed, caplog)


@scenario
async def test_path_without_permission_is_final(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with runtime.endpoint_class("client").run() as client:

        def refuse(*_: Any) -> None:
            raise PermissionError(13, "Permission denied")

        client._transport.begin_connect = refuse
        await assert_final(client, at(short_tmp_path, "server"), PermissionError, caplog)


@pytest.mark.parametrize(
    "error",
    [
        TLSFailed("lost", address="", reason="", lost=True),
        OSError(24, "Too many open files"),
        ConnectionResetError(104, "reset"),
        RemoteDisconnected("left"),
        DuplicateConnection("crossed", code="duplicate"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_may_pass_is_not_final(error: Exception) -> None:
    assert not reconnecting.is_final(error)


@scenario
async def test_one_that_is_refused_does_not_end_the_others(runtime: Runtime, short_tmp_path: Path) -> None:
    good = at(short_tmp_path, "good")
    async with (
        runtime.endpoint_class.serve(good) as server,
        runtime.endpoint_class("client").run() as client,
    ):
        kept = client.keep_connected(good, ConnectionConfig("bad", good.path), backoff=SOON)
        with pytest.raises(WrongName):
            await kept.ended()
        for _ in range(2):
            await client.wait_until_connected_to("good")
            await server.wait_until_connected_to("client")
            version = client.connections_version
            server._peers.up["client"].say_goodbye("shutdown", "")
            await client.wait_until_connections_change(since=version)
        await client.wait_until_connected_to("good")


@scenario
async def test_stop_ends_the_attempts_and_leaves_the_connection(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class("client").run() as client:
        async with runtime.endpoint_class.serve(config) as server:
            kept = client.keep_connected(config, backoff=SOON)
            await kept.connected()
            kept.stop()
            kept.stop()
            await kept.ended()
            await turns()
            assert client.is_connected_to("server")
            with pytest.raises(LifecycleError, match="stop"):
                await kept.connected()
            server._peers.up["client"].say_goodbye("shutdown", "")
            await eventually(lambda: not client._peers.all)
            await attempts(client)
            assert not client.is_connected_to("server")
            # Stopped before its task has begun.
            client.keep_connected(config, backoff=SOON).stop()
            await turns()
            assert not client._peers.all
            # And now it is free to be kept again.
            await client.keep_connected(config, backoff=SOON).connected()


@pytest.mark.parametrize("served", [True, False])
@scenario
async def test_endpoint_that_stops_ends_the_waits_and_connects_no_more(
    runtime: Runtime, short_tmp_path: Path, served: bool
) -> None:
    config, nobody = at(short_tmp_path, "server"), at(short_tmp_path, "nobody")
    outcomes = []

    async def wait(wait: Any) -> None:
        with pytest.raises(LifecycleError):
            await wait()
        outcomes.append(1)

    async with runtime.endpoint_class.serve(config) as server, anyio.create_task_group() as tasks:
        async with runtime.endpoint_class("client").run() as client:
            kept = client.keep_connected(config if served else nobody, backoff=SOON)
            if served:
                await kept.connected()
            else:
                tasks.start_soon(wait, kept.connected)
            tasks.start_soon(wait, kept.ended)
            await turns()
        await eventually(lambda: len(outcomes) == 2 - served)
        await eventually(lambda: not server._peers.all)
        await turns()
        assert not server._peers.all


@scenario
async def test_keeping_the_same_twice_and_itself_is_refused(runtime: Runtime, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class("client").run() as client:
        client.keep_connected(config, backoff=SOON)
        for again in ((config,), (at(short_tmp_path, "x"), at(short_tmp_path, "x"))):
            with pytest.raises(DuplicateConnection, match="already"):
                client.keep_connected(*again)
        with pytest.raises(DuplicateConnection, match="itself"):
            client.keep_connected(at(short_tmp_path, "client"))
        with pytest.raises(ConfigError):
            client.keep_connected(at(short_tmp_path, "y"), backoff=3)
        assert list(client._keeping) == ["server"]
    with pytest.raises(LifecycleError):
        client.keep_connected(config)


@scenario
async def test_every_failed_attempt_rests_longer_and_only_a_connection_that_held_begins_anew(
    runtime: Runtime, short_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[list[float]] = []

    def rests(self: Backoff) -> Iterator[float]:
        rows.append([])
        for number, _ in enumerate(repeat(None)):
            rows[-1].append(number)
            # After the third attempt of a row no connection of this test holds for long enough.
            yield 0.001 if number < 3 else 0.2

    monkeypatch.setattr(keeping.Backoff, "rests", rests)
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class("client").run() as client:
        kept = client.keep_connected(config, backoff=SOON)
        await eventually(lambda: rows and len(rows[0]) == 4)
        async with runtime.endpoint_class.serve(config) as server:
            await kept.connected()
            server._peers.up["client"].say_goodbye("shutdown", "")
            await eventually(lambda: len(rows[0]) >= 5)
            assert len(rows) == 1
            await kept.connected()
            time_passes(monkeypatch, reconnecting, 0.25)
            server._peers.up["client"].say_goodbye("shutdown", "")
            await eventually(lambda: len(rows) == 2)


@scenario
async def test_long_absence_is_said_in_the_log_more_and_more_seldom(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconnecting, "NOTICE_FIRST_S", 0.01)
    monkeypatch.setattr(reconnecting, "NOTICE_FACTOR", 1000)
    caplog.set_level(logging.INFO)
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class("client").run() as client:
        made = []
        begin_connect = client._transport.begin_connect
        client._transport.begin_connect = lambda *a: (made.append(a), begin_connect(*a))[1]
        kept = client.keep_connected(config, backoff=SOON)
        await eventually(lambda: len(made) > 20)
        async with runtime.endpoint_class.serve(config) as server:
            await kept.connected()
            version = client.connections_version
            server._peers.up["client"].say_goodbye("shutdown", "")
            await client.wait_until_connections_change(since=version)
            await kept.connected()
            kept.stop()
    # Of ours: asyncio itself complains of slow turns in its debug mode.
    ours = [record for record in caplog.records if record.name == "lahja_capn.endpoint"]
    said = [(record.levelname, record.getMessage()) for record in ours]
    assert [level for level, _ in said] == ["WARNING", "INFO", "INFO", "INFO"]
    texts = [text for _, text in said]
    assert f"nobody serves at {config.path}" in texts[0]
    assert "connected to 'server' after" in texts[1]
    assert "connection to 'server' is gone" in texts[2]
    assert "connected to 'server' again after" in texts[3]


@scenario
async def test_twenty_servers_that_start_again_at_once_are_all_there_again(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    configs = [at(short_tmp_path, f"server-{number}") for number in range(20)]
    async with runtime.endpoint_class("client").run() as client:
        kept = client.keep_connected(*configs, backoff=SOON)

        async def serve(config: ConnectionConfig) -> None:
            async with runtime.endpoint_class.serve(config) as server:
                await server.wait_until_connected_to("client")
                await kept.connected()

        for _ in range(2):
            async with anyio.create_task_group() as tasks:
                for config in configs:
                    tasks.start_soon(serve, config)
            await eventually(lambda: not client._peers.up)


@pytest.mark.slow
def test_fifty_clients_of_a_server_that_starts_again_are_all_back_and_served(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config, clients = at(short_tmp_path, "server"), 50
    got = Collector()

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            kept = []
            for number in range(clients):
                client = await stack.enter_async_context(runtime.endpoint_class(f"client-{number}").run())
                client.subscribe(Count, got)
                kept.append(client.keep_connected(config))
            for start in range(2):
                began = time.monotonic()
                async with runtime.endpoint_class.serve(config) as server:
                    for one in kept:
                        await one.connected()
                    print(f"{clients} clients are there {time.monotonic() - began:.2f} s after start {start}")
                    await eventually(lambda: len(server._peers.up) == clients)
                    await server.broadcast(Count(number=start))
                    await got.until(clients * (start + 1))
        assert sorted(got.numbers) == [0] * clients + [1] * clients

    runtime.run(main, debug=False)

"""connect_to_endpoints: who may connect to whom, when it returns, and how it fails."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Any

import anyio
import pytest

from lahja_capn import (
    BroadcastConfig,
    ConnectionAttemptRejected,
    ConnectionConfig,
    ConnectTimeout,
    DuplicateConnection,
    EndpointAPI,
    InvalidEndpointName,
    LifecycleError,
    RemoteDisconnected,
    WrongName,
)
from lahja_capn.session.control import Goodbye, Subscriptions
from tests.conftest import Runtime
from tests.scenario.events import Count, Other
from tests.scenario.rawpeer import accept, frame_of, listen_at, shake_hands
from tests.scenario.support import Collector, at, eventually, join, pair, scenario, turns


@scenario
async def test_connection_works_in_both_directions(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        assert client.is_connected_to("server")
        assert server.is_connected_to("client")
        for sender, receiver in ((client, server), (server, client)):
            got = Collector()
            receiver.subscribe(Count, got)
            await sender.wait_until_endpoint_subscribed_to(receiver.name, Count)
            await sender.broadcast(Count(number=1))
            assert await got.until(1) == [1]
            assert got.events[0].get_origin() == sender.name


@scenario
async def test_subscriptions_made_before_connecting_are_known_on_return(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with (
        runtime.endpoint_class.serve(config) as server,
        runtime.endpoint_class("client").run() as client,
    ):
        server.subscribe(Count, Collector())
        await client.connect_to_endpoints(config)
        assert client.is_endpoint_subscribed_to("server", Count)


@scenario
async def test_server_knows_the_subscriptions_of_who_has_connected(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config) as server:
        for number in range(10):
            async with runtime.endpoint_class(f"client{number}").run() as client:
                got = Collector()
                client.subscribe(Count, got)
                await client.connect_to_endpoints(config)
                # Nothing is awaited between: the server needs no further turn of the loop.
                assert server.is_connected_to(client.name)
                assert server.is_any_endpoint_subscribed_to(Count)
                await server.broadcast(
                    Count(number=number),
                    BroadcastConfig(require_subscriber=True, filter_endpoint=client.name),
                )
                assert await got.until(1) == [number]


@scenario
async def test_server_knows_a_client_without_subscriptions_that_has_connected(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config) as server:
        for number in range(10):
            async with runtime.endpoint_class(f"client{number}").run() as client:
                await client.connect_to_endpoints(config)
                assert server.is_connected_to(client.name)


@scenario
async def test_who_connects_where_it_is_connected_already_is_known_with_all_its_subscriptions(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    a, b = at(short_tmp_path, "a"), at(short_tmp_path, "b")
    async with runtime.endpoint_class.serve(a) as one, runtime.endpoint_class.serve(b) as two:
        await two.connect_to_endpoints(a)
        one.subscribe(Count, Collector())
        await one.connect_to_endpoints(b)
        assert two.is_endpoint_subscribed_to("a", Count)


@scenario
async def test_peer_that_never_confirms_subscriptions_counts_as_connected(
    runtime: Runtime, short_tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lahja_capn.endpoint.connecting.KNOWN_S", 0.1)
    caplog.set_level(logging.INFO, "lahja_capn")
    config = at(short_tmp_path, "raw")
    with listen_at(config.path) as listener:
        async with runtime.endpoint_class("client").run() as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.connect_to_endpoints, config)
                talker = await accept(listener)
                await talker.send(shake_hands())
            assert client.is_connected_to("raw")
            talker.close()
    assert "client: connected to 'raw', which has not said that it knows our subscriptions" in caplog.messages


@scenario
async def test_peer_that_leaves_before_it_confirms_subscriptions_fails_the_attempt(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "raw")
    with listen_at(config.path) as listener:
        async with runtime.endpoint_class("client").run() as client, anyio.create_task_group() as tasks:

            async def leave() -> None:
                talker = await accept(listener)
                await talker.send(shake_hands())
                await talker.next_of(Subscriptions)
                await talker.send(frame_of(Goodbye("notPermitted", "not you")))
                talker.close()

            tasks.start_soon(leave)
            with pytest.raises(ConnectionAttemptRejected, match="notPermitted: not you"):
                await client.connect_to_endpoints(config)


@scenario
async def test_connect_waits_for_a_server_that_starts_later(runtime: Runtime, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    connected = []

    async def connect(client: EndpointAPI) -> None:
        await client.connect_to_endpoints(config)
        connected.append(client.is_connected_to("server"))

    async with runtime.endpoint_class("client").run() as client, anyio.create_task_group() as tasks:
        tasks.start_soon(connect, client)
        await turns()
        assert connected == []
        async with runtime.endpoint_class.serve(config):
            await eventually(lambda: connected)
            assert connected == [True]


@scenario
async def test_connect_replaces_nothing_when_the_file_is_stale(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    import socket

    config = at(short_tmp_path, "server")
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    dead.bind(os.fspath(config.path))
    dead.close()  # the file stays, and nobody listens
    async with runtime.endpoint_class("client", connect_timeout_s=0.05).run() as client:
        with pytest.raises(ConnectTimeout):
            await client.connect_to_endpoints(config)
        async with runtime.endpoint_class.serve(config) as server:
            await join(client, server, config)


@scenario
async def test_several_at_once_are_all_connected_on_return(runtime: Runtime, short_tmp_path: Path) -> None:
    a, b, c = (at(short_tmp_path, name) for name in "abc")
    serve = runtime.endpoint_class.serve
    async with serve(a), serve(b), serve(c), runtime.endpoint_class("client").run() as client:
        await client.connect_to_endpoints(a, b, c)
        assert [client.is_connected_to(name) for name in "abc"] == [True] * 3
        names = [name for name, _ in client.get_connected_endpoints_and_subscriptions()]
        assert sorted(names) == ["a", "b", "c", "client"]


@scenario
async def test_no_endpoints_at_all_is_no_error(runtime: Runtime) -> None:
    async with runtime.endpoint_class("client").run() as client:
        await client.connect_to_endpoints()


@scenario
async def test_one_of_several_that_cannot_be_reached_raises_its_own_error(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    there, nobody = at(short_tmp_path, "there"), at(short_tmp_path, "nobody")
    async with (
        runtime.endpoint_class.serve(there),
        runtime.endpoint_class("client", connect_timeout_s=0.05).run() as client,
    ):
        # The error itself, not a group of one.
        with pytest.raises(ConnectTimeout) as raised:
            await client.connect_to_endpoints(there, nobody)
        assert raised.value.peer == "nobody"
        assert raised.value.__context__ is None
        assert client.is_connected_to("there")


@scenario
async def test_nobody_at_the_path_is_a_timeout_that_names_the_path(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "nobody")
    async with runtime.endpoint_class("client", connect_timeout_s=0.05).run() as client:
        with pytest.raises(ConnectTimeout) as raised:
            await client.connect_to_endpoints(config)
    error = raised.value
    assert isinstance(error, TimeoutError)
    assert (error.peer, error.path, error.timeout_s) == ("nobody", os.fspath(config.path), 0.05)
    assert repr(os.fspath(config.path)) in str(error)
    assert "0.05 s (connect_timeout_s)" in str(error)


@scenario
async def test_long_wait_for_a_server_is_said_in_the_log(
    runtime: Runtime,
    short_tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lahja_capn.endpoint.connecting.CONNECT_NOTICE_S", 0.0)
    config = at(short_tmp_path, "late")
    async with runtime.endpoint_class("client", connect_timeout_s=0.05).run() as client:
        with pytest.raises(ConnectTimeout):
            await client.connect_to_endpoints(config)
    # On a slow machine asyncio's debug mode warns too, of its own slowness.
    warnings = [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and record.name.startswith("lahja_capn")
    ]
    assert warnings == [f"client: still waiting for 'late' to serve at {config.path}"]


@scenario
async def test_connecting_to_itself_is_refused(runtime: Runtime, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config) as server:
        with pytest.raises(DuplicateConnection, match="cannot connect to itself") as raised:
            await server.connect_to_endpoints(config)
        assert raised.value.peer == "server"
        assert isinstance(raised.value, ConnectionAttemptRejected)


@scenario
async def test_connecting_twice_is_refused_and_the_first_connection_stays(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        config = ConnectionConfig("server", server.ipc_path)
        with pytest.raises(DuplicateConnection, match="connected to 'server' already"):
            await client.connect_to_endpoints(config)
        got = Collector()
        server.subscribe(Count, got)
        await client.wait_until_endpoint_subscribed_to("server", Count)
        await client.broadcast(Count(number=1))
        assert await got.until(1) == [1]


@pytest.mark.parametrize("served", [True, False])
@scenario
async def test_connecting_twice_at_the_same_time_refuses_the_second(
    runtime: Runtime, short_tmp_path: Path, served: bool
) -> None:
    config = at(short_tmp_path, "server")
    outcomes: list[Any] = []

    async def connect(client: EndpointAPI) -> None:
        try:
            await client.connect_to_endpoints(config)
            outcomes.append(None)
        except ConnectionAttemptRejected as error:
            outcomes.append(type(error))

    async with runtime.endpoint_class("client").run() as client, anyio.create_task_group() as tasks:
        if not served:
            tasks.start_soon(connect, client)
            tasks.start_soon(connect, client)
            await turns()
        async with runtime.endpoint_class.serve(config) as server:
            if served:
                tasks.start_soon(connect, client)
                tasks.start_soon(connect, client)
            await eventually(lambda: len(outcomes) == 2)
            assert outcomes == [DuplicateConnection, None]
            await server.wait_until_connected_to("client")
            assert client.is_connected_to("server")
            assert len(client._peers.all) == 1


@scenario
async def test_connecting_again_after_a_failed_attempt_works(runtime: Runtime, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class("client", connect_timeout_s=0.03).run() as client:
        with pytest.raises(ConnectTimeout):
            await client.connect_to_endpoints(config)
        async with runtime.endpoint_class.serve(config) as server:
            await join(client, server, config)


@scenario
async def test_cancelled_attempt_leaves_nothing_and_can_be_repeated(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    import socket

    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class("client").run() as client:
        # Somebody listens but never answers.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
            silent.bind(os.fspath(config.path))
            silent.listen()
            with anyio.move_on_after(0.05) as scope:
                await client.connect_to_endpoints(config)
            assert scope.cancelled_caught
            assert client._peers._dialing == {}
        os.unlink(config.path)
        async with runtime.endpoint_class.serve(config) as server:
            await join(client, server, config)


@scenario
async def test_connecting_to_a_peer_that_connected_first_returns_at_once(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    a, b = at(short_tmp_path, "a"), at(short_tmp_path, "b")
    async with runtime.endpoint_class.serve(a) as one, runtime.endpoint_class.serve(b) as two:
        await join(two, one, a)
        await one.connect_to_endpoints(b)
        assert len(one._peers.all) == len(two._peers.all) == 1


@scenario
async def test_both_connecting_at_the_same_time_end_with_one_connection(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    a, b = at(short_tmp_path, "a"), at(short_tmp_path, "b")
    async with runtime.endpoint_class.serve(a) as one, runtime.endpoint_class.serve(b) as two:
        one.subscribe(Other, Collector())
        two.subscribe(Other, Collector())

        async def connect(endpoint: EndpointAPI, other: EndpointAPI, config: ConnectionConfig) -> None:
            await endpoint.connect_to_endpoints(config)
            assert endpoint.is_endpoint_subscribed_to(other.name, Other)
            assert other.is_endpoint_subscribed_to(endpoint.name, Other)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(connect, one, two, b)
            tasks.start_soon(connect, two, one, a)
        assert one.is_connected_to("b")
        assert two.is_connected_to("a")
        await eventually(lambda: len(one._peers.all) == len(two._peers.all) == 1)
        # The one that the lower name opened.
        assert one._peers.up["b"].dialed
        got = Collector()
        one.subscribe(Count, got)
        await two.wait_until_endpoint_subscribed_to("a", Count)
        await two.broadcast(Count(number=1))
        assert await got.until(1) == [1]


@scenario
async def test_wait_for_a_server_ends_when_that_one_connects_to_us(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    a = at(short_tmp_path, "a")
    done = []

    async def connect(one: EndpointAPI) -> None:
        # Nobody ever serves at this path.
        await one.connect_to_endpoints(at(short_tmp_path, "b"))
        done.append(one.is_connected_to("b"))

    async with (
        runtime.endpoint_class.serve(a) as one,
        runtime.endpoint_class("b").run() as two,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(connect, one)
        await turns()
        await two.connect_to_endpoints(a)
        await eventually(lambda: done)
        assert done == [True]


@scenario
async def test_served_name_other_than_the_wanted_one_is_refused(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config), runtime.endpoint_class("client").run() as client:
        with pytest.raises(WrongName) as raised:
            await client.connect_to_endpoints(ConnectionConfig("other", config.path))
        assert (raised.value.wanted, raised.value.got) == ("other", "server")
        assert not client.is_connected_to("server")
        assert not client.is_connected_to("other")


@scenario
async def test_stop_while_connecting_ends_the_attempt(runtime: Runtime, short_tmp_path: Path) -> None:
    outcomes = []

    async def connect(client: EndpointAPI) -> None:
        try:
            await client.connect_to_endpoints(at(short_tmp_path, "nobody"))
        except LifecycleError as error:
            outcomes.append(error)

    async with anyio.create_task_group() as tasks:
        async with runtime.endpoint_class("client").run() as client:
            tasks.start_soon(connect, client)
            await turns()
        await eventually(lambda: outcomes)


@scenario
async def test_path_that_may_not_be_connected_to_raises_what_the_system_says(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    path = short_tmp_path / "file"
    folder = short_tmp_path / "server.ipc"
    path.touch()
    folder.mkdir()
    async with runtime.endpoint_class("client", connect_timeout_s=0.05).run() as client:
        with pytest.raises((OSError, ConnectTimeout)):
            await client.connect_to_endpoints(ConnectionConfig("server", folder))


def test_config_from_name_puts_the_file_into_the_folder(short_tmp_path: Path) -> None:
    assert ConnectionConfig.from_name("srv", base_path=short_tmp_path).path == short_tmp_path / "srv.ipc"
    assert ConnectionConfig.from_name("srv", base_path=str(short_tmp_path)).path == short_tmp_path / "srv.ipc"
    assert ConnectionConfig.from_name("srv") == ConnectionConfig("srv", Path("srv.ipc"))


def test_config_from_name_refuses_what_is_no_folder(short_tmp_path: Path) -> None:
    file = short_tmp_path / "file"
    file.touch()
    for path in (file, short_tmp_path / "missing"):
        with pytest.raises(TypeError, match="base_path must be an existing folder"):
            ConnectionConfig.from_name("srv", base_path=path)


def test_config_from_name_refuses_what_is_no_name(short_tmp_path: Path) -> None:
    with pytest.raises(InvalidEndpointName):
        ConnectionConfig.from_name("a/b", base_path=short_tmp_path)


@scenario
async def test_socket_file_and_folder_are_closed_to_others(runtime: Runtime, short_tmp_path: Path) -> None:
    config = ConnectionConfig("server", short_tmp_path / "made" / "server.ipc")
    async with runtime.endpoint_class.serve(config):
        assert stat.S_IMODE(config.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(config.path.parent.stat().st_mode) == 0o700


@scenario
async def test_server_out_of_descriptors_says_so_and_accepts_later(
    runtime: Runtime,
    short_tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import errno

    from lahja_capn.transport.unix import UnixListener

    monkeypatch.setattr("lahja_capn.endpoint.connecting.ACCEPT_REST_S", 0.01)
    accept = UnixListener.accept
    failures = [errno.EMFILE, errno.ECONNABORTED, errno.EAGAIN]

    def failing(self: UnixListener) -> Any:
        if failures:
            code = failures.pop(0)
            raise OSError(code, os.strerror(code))
        return accept(self)

    monkeypatch.setattr(UnixListener, "accept", failing)
    config = at(short_tmp_path, "server")
    async with (
        runtime.endpoint_class.serve(config) as server,
        runtime.endpoint_class("client").run() as client,
    ):
        await join(client, server, config)
    logged = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert logged == ["server: cannot accept connections now: [Errno 24] Too many open files"]


@scenario
async def test_peer_of_another_user_is_refused(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, us, other = at(short_tmp_path, "server"), os.geteuid(), os.geteuid() + 1
    async with (
        runtime.endpoint_class.serve(config, allowed_uids={other}) as server,
        runtime.endpoint_class("client").run() as client,
    ):
        with pytest.raises(RemoteDisconnected):
            await client.connect_to_endpoints(config)
        assert not server.is_connected_to("client")
    assert f"refused a connection of user {us}; allowed are {other}" in caplog.text
    async with (
        runtime.endpoint_class.serve(config) as server,
        runtime.endpoint_class("client", allowed_uids=[other]).run() as client,
    ):
        with pytest.raises(ConnectionAttemptRejected, match=f"process of user {us}; allowed are {other}"):
            await client.connect_to_endpoints(config)


@scenario
async def test_users_that_are_named_may_connect(runtime: Runtime, short_tmp_path: Path) -> None:
    config, uids = at(short_tmp_path, "server"), (os.geteuid(), os.geteuid() + 1)
    async with (
        runtime.endpoint_class.serve(config, allowed_uids=uids) as server,
        runtime.endpoint_class("client", allowed_uids=uids).run() as client,
    ):
        await join(client, server, config)


@scenario
async def test_is_connected_to_itself_and_not_to_strangers(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        assert endpoint.is_connected_to("alone")
        assert not endpoint.is_connected_to("stranger")
        assert endpoint.get_connected_endpoints_and_subscriptions() == (("alone", set()),)
        await endpoint.wait_until_connected_to("alone")


@scenario
async def test_is_connected_to_ends_when_the_peer_goes(runtime: Runtime, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config) as server:
        async with runtime.endpoint_class("client").run() as client:
            await join(client, server, config)
        await eventually(lambda: not server.is_connected_to("client"))
        assert server.get_connected_endpoints_and_subscriptions() == (("server", set()),)

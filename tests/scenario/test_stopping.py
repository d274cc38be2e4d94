"""Leaving: what is queued arrives, peers hear goodbye, nothing stays behind."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import anyio
import pytest

from lahja_capn import LifecycleError, Limits, RemoteDisconnected
from lahja_capn.endpoint.connection import Connection
from lahja_capn.session import Arrived
from tests.conftest import Runtime
from tests.scenario.events import Blob, Count, Question
from tests.scenario.support import Collector, at, eventually, join, pair, raw_peer, scenario, turns

MANY = 300


class OwnError(Exception):
    pass


@scenario
async def test_events_queued_at_exit_arrive(runtime: Runtime, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config) as server:
        got = Collector()
        server.subscribe(Count, got)
        async with runtime.endpoint_class("client").run() as client:
            await client.connect_to_endpoints(config)
            for number in range(MANY):
                # Nothing is awaited between the last of these and the exit.
                client.broadcast_nowait(Count(number=number))
        assert await got.until(MANY) == list(range(MANY))


@scenario
async def test_events_queued_at_exit_arrive_at_a_peer_that_reads_late(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as outer:
        async with runtime.endpoint_class.serve(at(short_tmp_path, "leaver")) as leaver:
            async with raw_peer(leaver, Blob) as peer, anyio.create_task_group() as tasks:
                for number in range(10):
                    await leaver.broadcast(Blob(number=number, data=bytes(1_000_000)))
                # More is queued than the socket takes, so the exit has to wait for the reader.
                assert leaver.get_peer_counters()["raw"].queued > 0
                tasks.start_soon(peer.read, lambda: False)
                leaver._stop_waiter.wake(None)  # leaving the context, without leaving this test's own
                await leaver.wait_stopped()
        events = [event.event_type.name for event in peer.of(Arrived)]
        assert events == ["Blob"] * 10
        assert peer.closed is not None
        assert peer.closed.code == "shutdown"
        assert outer.is_running


@scenario
async def test_events_queued_at_an_exception_are_dropped_and_counted(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with anyio.create_task_group() as tasks, contextlib.AsyncExitStack() as stack:
        with pytest.raises(OwnError):  # noqa: PT012 - the error passes through all of it
            async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:
                # Credit for one event at a time: the others are queued until the peer reads.
                peer = await stack.enter_async_context(
                    raw_peer(server, Count, limits=Limits(event_credit_bytes=8))
                )
                counters = server._peers.up["raw"].session.counters
                for number in range(5):
                    await server.broadcast(Count(number=number))
                await eventually(lambda: counters.sent == 1)
                # From now on the peer would take them all, if the endpoint waited for it.
                tasks.start_soon(peer.read, lambda: False)
                raise OwnError
        assert (counters.sent, counters.dropped) == (1, 4)
        await eventually(lambda: peer.closed)
        assert peer.numbers == [0]


@pytest.mark.parametrize("how", ["normal", "exception", "cancelled"])
@scenario
async def test_goodbye_reaches_the_peer(runtime: Runtime, short_tmp_path: Path, how: str) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class("client").run() as client:
        closed = []
        on_closed = client.on_closed
        with anyio.CancelScope() as scope:
            try:
                async with runtime.endpoint_class.serve(config) as server:
                    await join(client, server, config)
                    # The connection tells its owner, the endpoint, how it ended.
                    connection = client._peers.up["server"]
                    connection._owner = type(
                        "Owner",
                        (),
                        {
                            "__getattr__": lambda _, name: getattr(client, name),
                            "on_closed": lambda _, c, why: (closed.append(why), on_closed(c, why)),
                        },
                    )()
                    if how == "exception":
                        raise OwnError
                    if how == "cancelled":
                        scope.cancel()
                        await anyio.sleep_forever()
            except OwnError:
                pass
        await eventually(lambda: not client.is_connected_to("server"))
        assert [why.code for why in closed] == ["shutdown"]
        assert closed[0].by_peer
        assert not os.path.exists(config.path)


@scenario
async def test_peer_that_does_not_read_holds_the_exit_up_no_longer_than_the_close_timeout(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    limits = Limits(close_timeout_s=0.05)
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server"), limits=limits) as server:
        async with raw_peer(server, Blob):
            for number in range(5):
                await server.broadcast(Blob(number=number, data=bytes(1_000_000)))
            server._stop_waiter.wake(None)
            # The deadline of the waiting helper is far below the default timeouts of 2 s each.
            with anyio.fail_after(1.5):
                await server.wait_stopped()


@scenario
async def test_waiting_for_a_peer_without_credit_does_not_spin(
    runtime: Runtime, short_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushes = []
    flush = Connection.flush
    monkeypatch.setattr(Connection, "flush", lambda self: (flushes.append(self), flush(self))[1])
    limits = Limits(close_timeout_s=0.1)
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server"), limits=limits) as server:
        # The peer grants credit for one event and never gives any back.
        async with raw_peer(server, Count, limits=Limits(event_credit_bytes=8)):
            await server.broadcast(Count(number=1))
            await server.broadcast(Count(number=2))
            flushes.clear()
            server._stop_waiter.wake(None)
            await server.wait_stopped()
            assert len(flushes) < 20


@scenario
async def test_cancelled_task_leaves_no_task_and_no_socket_file(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    endpoints = []

    async def live() -> None:
        async with (
            runtime.endpoint_class.serve(config) as server,
            runtime.endpoint_class("client").run() as client,
        ):
            await join(client, server, config)
            server.subscribe(Count, lambda event: anyio.sleep_forever())
            await client.wait_until_endpoint_subscribed_to("server", Count)
            await client.broadcast(Count(number=1))
            endpoints.extend([server, client])
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(live)
        await eventually(lambda: len(endpoints) == 2)
        tasks.cancel_scope.cancel()
    assert [endpoint.is_stopped for endpoint in endpoints] == [True, True]
    assert list(short_tmp_path.iterdir()) == []


def test_task_cancelled_by_asyncio_itself_leaves_nothing(
    asyncio_runtime: Runtime, short_tmp_path: Path
) -> None:
    import asyncio

    config = at(short_tmp_path, "server")
    started = []

    async def live() -> None:
        async with asyncio_runtime.endpoint_class.serve(config) as server:
            started.append(server)
            await asyncio.sleep(100)

    async def main() -> None:
        task = asyncio.create_task(live())
        await eventually(lambda: started)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert started[0].is_stopped
        assert list(short_tmp_path.iterdir()) == []

    asyncio_runtime.run(main)


@scenario
async def test_error_in_the_body_survives_a_cancellation_during_the_goodbye(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    with pytest.raises(OwnError):  # noqa: PT012 - the error passes through all of it
        with anyio.CancelScope() as scope:
            async with runtime.endpoint_class.serve(config) as server:
                # A peer that never answers the goodbye: the exit waits for it, and is cancelled while it does.
                async with raw_peer(server):
                    scope.cancel()
                    raise OwnError
    assert server.is_stopped
    assert list(short_tmp_path.iterdir()) == []


@scenario
async def test_cancelled_while_it_says_goodbye_ends_at_once(runtime: Runtime, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    ended = []
    async with contextlib.AsyncExitStack() as stack:
        with anyio.CancelScope() as scope:
            try:
                async with runtime.endpoint_class.serve(config, limits=Limits(close_timeout_s=60)) as server:
                    # A peer that never answers the goodbye.
                    await stack.enter_async_context(raw_peer(server))
                    scope.cancel()
            except BaseException as error:
                # Cancelled, and in no group.
                ended.append(type(error))
                raise
    assert scope.cancelled_caught
    assert ended == [server._runtime.cancelled_error]
    assert server.is_stopped
    assert list(short_tmp_path.iterdir()) == []


@scenario
async def test_task_that_has_just_been_spawned_begins_and_ends(runtime: Runtime) -> None:
    steps = []

    async def task() -> None:
        steps.append("begun")
        try:
            await anyio.sleep_forever()
        finally:
            steps.append("ended")

    async with runtime.endpoint_class._runtime_class().tasks() as tasks:
        tasks.spawn(task)
    tasks.spawn(task)
    await turns()
    assert steps == ["begun", "ended"]


@scenario
async def test_start_in_a_scope_that_is_cancelled_already_leaves_nothing(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    endpoint = runtime.endpoint_class("alone")
    with anyio.CancelScope() as scope:
        scope.cancel()
        async with endpoint.run():
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert endpoint.is_stopped
    with anyio.fail_after(1):
        await endpoint.wait_stopped()


@scenario
async def test_client_that_comes_in_the_turn_of_the_stop_is_not_accepted(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config) as server:
        wait_readable = server._runtime.wait_readable
        stopped = []

        async def stop_meanwhile(descriptor: int) -> None:
            await wait_readable(descriptor)
            server._stop_listening()
            stopped.append(True)

        # The task that accepts has not begun to wait yet.
        server._runtime.wait_readable = stop_meanwhile
        late = server._transport.begin_connect(config, config.path)
        await eventually(lambda: stopped)
        await turns()
        assert server._peers.all == {}
        assert not config.path.exists()
        late.close()


@scenario
async def test_task_of_ours_that_fails_is_seen_in_the_log_and_at_the_end(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    async def defect() -> None:
        raise OwnError("a defect")

    async def live() -> None:
        async with runtime.endpoint_class("alone").run() as endpoint:
            endpoint._spawn(defect)
            await turns()
            # Its other tasks go on.
            got = Collector()
            endpoint.subscribe(Count, got)
            await endpoint.broadcast(Count(number=1))
            assert got.numbers == [1]

    with pytest.raises(OwnError, match="a defect"):
        await live()
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]


@scenario
async def test_connection_that_comes_at_the_moment_of_stopping_is_closed(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    limits = Limits(close_timeout_s=0.05)
    async with runtime.endpoint_class.serve(config, limits=limits) as server:
        transport = server._transport
        channel = transport.begin_connect(config, config.path)
        assert channel is not None
        # Accepted in the very turn in which the endpoint stops: its task never gets to run.
        while True:
            try:
                accepted = server._listener.accept()
                break
            except BlockingIOError:
                await turns(1)
        connection = server._start_connection(accepted, None)
    assert connection._ended
    assert server._peers.all == {}
    channel.close()


@scenario
async def test_own_stop_fails_open_requests_with_lifecycle_error(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    outcomes = []

    async def ask(endpoint: object) -> None:
        try:
            await endpoint.request(Question(number=1))  # type: ignore[attr-defined]
        except Exception as error:
            outcomes.append(error)

    async with anyio.create_task_group() as tasks:
        config = at(short_tmp_path, "server")
        async with runtime.endpoint_class.serve(config) as server:
            asked = []
            server.stream(Question)
            held = server.stream(Question)
            async with runtime.endpoint_class("client").run() as client:
                await join(client, server, config)
                tasks.start_soon(ask, client)
                async for event in held:
                    asked.append(event)
                    break
            await eventually(lambda: outcomes)
    assert [type(error) for error in outcomes] == [LifecycleError]
    assert "'client'" in str(outcomes[0])


@scenario
async def test_stop_of_the_responder_fails_open_requests_with_remote_disconnected(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    outcomes = []

    async def ask(endpoint: object) -> None:
        try:
            await endpoint.request(Question(number=1))  # type: ignore[attr-defined]
        except Exception as error:
            outcomes.append(error)

    async with runtime.endpoint_class("client").run() as client, anyio.create_task_group() as tasks:
        config = at(short_tmp_path, "server")
        async with runtime.endpoint_class.serve(config) as server:
            await join(client, server, config)
            held = server.stream(Question)
            await client.wait_until_endpoint_subscribed_to("server", Question)
            tasks.start_soon(ask, client)
            await held.__anext__()
        await eventually(lambda: outcomes)
        assert [type(error) for error in outcomes] == [RemoteDisconnected]
        assert outcomes[0].peer == "server"


@scenario
async def test_endpoint_can_be_made_again_under_the_same_name_at_once(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with runtime.endpoint_class("client").run() as client:
        for _ in range(3):
            config = at(short_tmp_path, "server")
            async with runtime.endpoint_class.serve(config) as server:
                await join(client, server, config)
                got = Collector()
                server.subscribe(Count, got)
                await client.wait_until_endpoint_subscribed_to("server", Count)
                await client.broadcast(Count(number=1))
                assert await got.until(1) == [1]
            await eventually(lambda: not client.is_connected_to("server"))


@scenario
async def test_pair_leaves_no_tables_behind(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        pass
    for endpoint in (server, client):
        assert endpoint._peers.all == endpoint._peers.up == endpoint._peers._holders == {}
        assert endpoint._peers._dialing == {}

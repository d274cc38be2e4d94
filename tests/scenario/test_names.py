"""Names: who holds one, who takes it over, and which of two crossing connections stays."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import anyio
import pytest

from lahja_capn import (
    ConnectionConfig,
    DuplicateConnection,
    Limits,
    NameInUse,
    WrongName,
)
from lahja_capn.endpoint.connection import Connection
from lahja_capn.session.control import Goodbye, Hello, Ping, Pong, Subscriptions, SubscriptionsAck
from tests.conftest import Runtime
from tests.scenario.events import Count, Other
from tests.scenario.mixed import Meeting, Pair, every_pair
from tests.scenario.rawpeer import (
    accept,
    confirm_subscriptions,
    frame_of,
    hello,
    listen_at,
    shake_hands,
    talk_to,
)
from tests.scenario.support import Collector, at, eventually, join, raw_peer, scenario, turns

# --- one holder ---------------------------------------------------------------------------------------------


@scenario
async def test_same_instance_again_replaces_its_old_connection(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:
        instance = os.urandom(16)
        with talk_to(server.ipc_path) as old, talk_to(server.ipc_path) as new:
            await old.send(shake_hands(instance=instance))
            await server.wait_until_connected_to("raw")
            await new.send(shake_hands(instance=instance))
            goodbye = await old.goodbye()
            assert goodbye.code == "replaced"
            old.close()
            await server.wait_until_connected_to("raw")
            await eventually(lambda: len(server._peers.all) == 1)
            assert server.is_connected_to("raw")


@every_pair
def test_living_holder_keeps_its_name_and_the_newcomer_is_told(pair: Pair, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        # Far longer than the holder's answer takes: the newcomer is refused by the answer, not by the clock.
        async with runtime.endpoint_class.serve(config, limits=Limits(name_probe_s=60)) as server:
            got = Collector()
            server.subscribe(Count, got)
            await meeting.told("done")
            assert got.numbers == [1, 2]

    async def claim(runtime: Runtime, meeting: Meeting) -> None:
        endpoint_class = runtime.endpoint_class
        async with endpoint_class("twin").run() as holder, endpoint_class("twin").run() as newcomer:
            await holder.connect_to_endpoints(config)
            await holder.broadcast(Count(number=1))
            for _ in range(3):
                with pytest.raises(NameInUse) as caught:
                    await newcomer.connect_to_endpoints(config)
                assert (caught.value.peer, caught.value.code) == ("server", "nameInUse")
                assert "'twin' is in use" in str(caught.value)
                assert "another name" in str(caught.value)
            assert holder.is_connected_to("server")
            await holder.subscribe(Other, Collector()).acknowledged()
            await holder.broadcast(Count(number=2))
        meeting.tell("done")

    pair.run(serve, claim)


@scenario
async def test_silent_holder_is_replaced(runtime: Runtime, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    async with (
        runtime.endpoint_class.serve(config, limits=Limits(name_probe_s=0.1)) as server,
        raw_peer(server, Count, name="twin") as silent,
        runtime.endpoint_class("twin").run() as newcomer,
    ):
        got = Collector()
        newcomer.subscribe(Count, got)
        await newcomer.connect_to_endpoints(config)
        await server.wait_until_endpoint_subscribed_to("twin", Count)
        await server.broadcast(Count(number=1))
        assert await got.until(1) == [1]
        # When it wakes up it learns why it is alone.
        await silent.read(lambda: silent.closed)
        assert silent.closed is not None
        assert silent.closed.code == "replaced"


@scenario
async def test_name_is_not_given_to_a_peer_of_another_user(
    runtime: Runtime, short_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, us = at(short_tmp_path, "server"), os.geteuid()
    claims = {"another user's": us + 1, "the owner's": us}
    comes = [us]
    # What the kernel would say of who is accepted; only root could become another user.
    monkeypatch.setattr(
        "lahja_capn.transport.unix.peer_uid", lambda sock: comes[0] if sock.getsockname() else us
    )
    # A claimant that is asked about waits for the silent holder to be given up; one that is refused does not.
    limits = Limits(name_probe_s=0.1)
    async with (
        runtime.endpoint_class.serve(config, limits=limits, allowed_uids=set(claims.values())) as server,
        raw_peer(server, name="name") as owner,
    ):
        comes[:] = [claims["another user's"]]
        async with runtime.endpoint_class("name").run() as claimant:
            with pytest.raises(NameInUse, match="by a peer of another user or certificate"):
                await claimant.connect_to_endpoints(config)
        assert server._peers.up["name"].session.peer.instance == owner.session._local.instance
        comes[:] = [claims["the owner's"]]
        async with runtime.endpoint_class("name").run() as claimant:
            await claimant.connect_to_endpoints(config)
            assert server.is_connected_to("name")


@scenario
async def test_holder_whose_answer_lies_unread_keeps_its_name(
    runtime: Runtime, short_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = at(short_tmp_path, "server")
    async with (
        runtime.endpoint_class.serve(config) as server,
        raw_peer(server, name="twin") as holder,
        runtime.endpoint_class("twin").run() as newcomer,
    ):

        async def busy(connection: Connection) -> None:
            # The loop does something else until the time is over; meanwhile the answer comes.
            holder.session.ping(time.monotonic())
            holder._socket.sendall(b"".join(holder.session.data_to_send()))

        monkeypatch.setattr(Connection, "heard", busy)
        with pytest.raises(NameInUse):
            await newcomer.connect_to_endpoints(config)
        assert server.is_connected_to("twin")


@scenario
async def test_two_newcomers_for_a_silent_holders_name_one_gets_it(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with (
        runtime.endpoint_class.serve(config, limits=Limits(name_probe_s=0.1, close_timeout_s=0.1)) as server,
        raw_peer(server, name="twin"),
        runtime.endpoint_class("twin").run() as one,
        runtime.endpoint_class("twin").run() as two,
    ):
        refused: list[str] = []

        async def claim(endpoint: object) -> None:
            try:
                await endpoint.connect_to_endpoints(config)  # type: ignore[attr-defined]
            except NameInUse as error:
                refused.append(error.code)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(claim, one)
            tasks.start_soon(claim, two)
        assert refused == ["nameInUse"]
        assert [one.is_connected_to("server"), two.is_connected_to("server")].count(True) == 1
        await eventually(lambda: len(server._peers.all) == 1)


@scenario
async def test_holder_that_dies_while_it_is_asked_leaves_its_name(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with (
        runtime.endpoint_class.serve(config, limits=Limits(name_probe_s=60)) as server,
        runtime.endpoint_class("twin").run() as newcomer,
    ):
        with talk_to(config.path) as holder:
            await holder.send(shake_hands(name="twin"))
            await server.wait_until_connected_to("twin")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(newcomer.connect_to_endpoints, config)
                await holder.next_of(Ping)
                holder.close()
        assert newcomer.is_connected_to("server")


@scenario
async def test_holder_is_asked_by_a_ping_and_any_byte_answers(runtime: Runtime, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config, limits=Limits(name_probe_s=60)) as server:
        with talk_to(config.path) as holder, talk_to(config.path) as newcomer:
            await holder.send(shake_hands())
            await server.wait_until_connected_to("raw")
            await newcomer.send(shake_hands())
            await holder.next_of(Ping)
            # Half a frame is enough: the process behind it runs.
            await holder.send(frame_of(Pong())[:10])
            assert (await newcomer.goodbye()).code == "nameInUse"


@scenario
async def test_name_freed_by_goodbye_is_usable_at_once(runtime: Runtime, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    # If the name were probed instead of free, this would take far longer than the test may.
    async with runtime.endpoint_class.serve(config, limits=Limits(name_probe_s=60)) as server:
        for number in range(10):
            got = Collector()
            async with runtime.endpoint_class("client").run() as client:
                client.subscribe(Count, got)
                await client.connect_to_endpoints(config)
                await server.wait_until_endpoint_subscribed_to("client", Count)
                await server.broadcast(Count(number=number))
                assert await got.until(1) == [number]


# --- wrong names --------------------------------------------------------------------------------------------


@every_pair
def test_endpoint_with_another_name_is_refused(pair: Pair, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class.serve(config) as server:
            await meeting.told("done")
            assert not server.is_connected_to("client")

    async def connect(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class("client").run() as client:
            with pytest.raises(WrongName) as caught:
                await client.connect_to_endpoints(ConnectionConfig("billing", config.path))
            assert (caught.value.wanted, caught.value.got) == ("billing", "server")
            assert "'server'" in str(caught.value)
            assert "'billing'" in str(caught.value)
            assert not client.is_connected_to("billing")
            assert not client.is_connected_to("server")
            # The right name still works.
            await client.connect_to_endpoints(config)
        meeting.tell("done")

    pair.run(serve, connect)


@scenario
async def test_own_name_is_refused_on_both_sides(runtime: Runtime, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    async with (
        runtime.endpoint_class.serve(config) as server,
        runtime.endpoint_class("server").run() as namesake,
    ):
        # Nobody connects to an endpoint of his own name, be it himself or another.
        for endpoint in (server, namesake):
            with pytest.raises(DuplicateConnection) as caught:
                await endpoint.connect_to_endpoints(config)
            assert caught.value.peer == "server"
        # A peer that claims the server's own name.
        with talk_to(config.path) as talker:
            await talker.send(shake_hands(name="server"))
            assert (await talker.goodbye()).code == "nameInUse"
        assert server.get_connected_endpoints_and_subscriptions() == (("server", set()),)


@scenario
async def test_endpoint_called_like_us_at_another_address_is_refused(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config), runtime.endpoint_class("server").run() as namesake:
        with pytest.raises(NameInUse):
            await namesake.connect_to_endpoints(ConnectionConfig("other", config.path))


# --- two connections between two endpoints ------------------------------------------------------------------


@scenario
async def test_connecting_where_the_other_side_has_connected_makes_no_second_connection(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    one, two = at(short_tmp_path, "one"), at(short_tmp_path, "two")
    async with runtime.endpoint_class.serve(one) as first, runtime.endpoint_class.serve(two) as second:
        await join(first, second, two)
        await second.connect_to_endpoints(one)
        await turns()
        assert (len(first._peers.all), len(second._peers.all)) == (1, 1)
        with pytest.raises(DuplicateConnection):
            await first.connect_to_endpoints(two)


@scenario
async def test_dialed_connection_that_gives_way_before_it_is_up_does_not_fail_its_caller(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    # "one" has answered our hello, but not said its subscriptions, when its own connection arrives: that one
    # stays, because the lower name opened it, and the call that dialed is about the peer, not about a socket.
    path = short_tmp_path / "one.ipc"
    instance = os.urandom(16)
    async with runtime.endpoint_class.serve(at(short_tmp_path, "two")) as two:
        with listen_at(path) as listener, talk_to(two.ipc_path) as crossing:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(two.connect_to_endpoints, ConnectionConfig("one", path))
                dialed = await accept(listener)
                await dialed.send(frame_of(hello(name="one", instance=instance)))
                await dialed.next_of(Subscriptions)
                await crossing.send(shake_hands(name="one", instance=instance))
                assert (await dialed.goodbye()).code == "duplicate"
                dialed.close()
                await two.wait_until_connected_to("one")
                await eventually(lambda: len(two._peers.all) == 1)
                await confirm_subscriptions(crossing)


@scenario
async def test_lower_name_that_is_dialing_refuses_the_crossing_connection(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    path = short_tmp_path / "two.ipc"
    async with runtime.endpoint_class.serve(at(short_tmp_path, "one")) as one:
        with listen_at(path) as listener, talk_to(one.ipc_path) as crossing:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one.connect_to_endpoints, ConnectionConfig("two", path))
                dialed = await accept(listener)
                await crossing.send(shake_hands(name="two"))
                # At once: not accepted first, and then put out when the other one comes up.
                assert (await crossing.goodbye()).code == "duplicate"
                await dialed.send(shake_hands(name="two"))
                await confirm_subscriptions(dialed)
            assert one.is_connected_to("two")
            dialed.close()


@scenario
async def test_higher_name_that_is_dialing_gives_way_to_the_crossing_connection(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    path = short_tmp_path / "one.ipc"
    async with runtime.endpoint_class.serve(at(short_tmp_path, "two")) as two:
        with listen_at(path) as listener, talk_to(two.ipc_path) as crossing:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(two.connect_to_endpoints, ConnectionConfig("one", path))
                dialed = await accept(listener)
                await crossing.send(shake_hands(name="one"))
                assert (await dialed.goodbye()).code == "duplicate"
                await confirm_subscriptions(crossing)
            assert two.is_connected_to("one")
            dialed.close()


@scenario
async def test_connecting_while_the_peers_own_connection_comes_up_waits_for_that_one(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    # Ours would be the survivor ("one" is lower than "raw") and so kill a connection that the peer may
    # already use.
    path = short_tmp_path / "raw.ipc"
    async with runtime.endpoint_class.serve(at(short_tmp_path, "one")) as one:
        with listen_at(path) as listener, talk_to(one.ipc_path) as peer:
            await peer.send(frame_of(hello()))
            await peer.next_of(Subscriptions)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one.connect_to_endpoints, ConnectionConfig("raw", path))
                await turns()
                await peer.send(
                    frame_of(Subscriptions(1, (), (), False, False)) + frame_of(SubscriptionsAck(1))
                )
            assert one.is_connected_to("raw")
            with pytest.raises(BlockingIOError):
                listener.accept()


@scenario
async def test_own_path_under_another_name_is_refused_at_once(runtime: Runtime, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config) as server:
        with pytest.raises(DuplicateConnection):
            await server.connect_to_endpoints(ConnectionConfig("other", config.path))


@scenario
async def test_connecting_to_a_server_on_its_way_out_waits_for_the_next_one(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class("client").run() as client, anyio.create_task_group() as tasks:
        with listen_at(config.path) as listener:
            tasks.start_soon(client.connect_to_endpoints, config)
            leaving = await accept(listener)
            await leaving.next_of(Hello)
            await leaving.send(frame_of(Goodbye("shutdown", "")))
            leaving.close()
        async with runtime.endpoint_class.serve(config) as server:
            await server.wait_until_connected_to("client")


@every_pair
def test_endpoints_that_dial_each_other_at_once_keep_exactly_one_connection(
    pair: Pair, short_tmp_path: Path
) -> None:
    rounds = 40

    def dial(own: str, other: str):  # type: ignore[no-untyped-def]
        async def run(runtime: Runtime, meeting: Meeting) -> None:
            for number in range(rounds):
                mine = ConnectionConfig(own, short_tmp_path / f"{own}{number}.ipc")
                theirs = ConnectionConfig(other, short_tmp_path / f"{other}{number}.ipc")
                got = Collector()
                async with runtime.endpoint_class.serve(mine) as endpoint:
                    endpoint.subscribe(Count, got)
                    meeting.tell(f"{own} serves {number}")
                    await meeting.told(f"{other} serves {number}")
                    await endpoint.connect_to_endpoints(theirs)
                    await eventually(
                        lambda endpoint=endpoint: (
                            len(endpoint._peers.all) == 1 and endpoint.is_connected_to(other)
                        )
                    )
                    meeting.tell(f"{own} connected {number}")
                    await meeting.told(f"{other} connected {number}")
                    # No connection that was up gave way to another: what is sent on it now would be lost.
                    assert len(endpoint._peers.up) == 1
                    await endpoint.wait_until_endpoint_subscribed_to(other, Count)
                    await endpoint.broadcast(Count(number=number))
                    # One from here and one from there: no event came twice.
                    assert await got.until(2) == [number, number]
                    meeting.tell(f"{own} done {number}")
                    await meeting.told(f"{other} done {number}")

        return run

    pair.run(dial("one", "two"), dial("two", "one"))


@scenario
async def test_three_endpoints_mesh_fully_at_once(runtime: Runtime, short_tmp_path: Path) -> None:
    for number in range(10):
        names = ("a", "b", "c")
        folder = short_tmp_path / str(number)
        folder.mkdir(mode=0o700)
        configs = {name: at(folder, name) for name in names}
        async with contextlib.AsyncExitStack() as stack:
            endpoints = [
                await stack.enter_async_context(runtime.endpoint_class.serve(configs[name])) for name in names
            ]
            async with anyio.create_task_group() as tasks:
                for endpoint in endpoints:
                    others = [configs[name] for name in names if name != endpoint.name]
                    tasks.start_soon(endpoint.connect_to_endpoints, *others)
            for endpoint in endpoints:
                await eventually(lambda endpoint=endpoint: len(endpoint._peers.all) == 2)
                assert {name for name in names if endpoint.is_connected_to(name)} == set(names)
            collectors = [Collector() for _ in names]
            for endpoint, collector in zip(endpoints, collectors, strict=True):
                await endpoint.subscribe(Count, collector).acknowledged()
            for endpoint in endpoints:
                await endpoint.broadcast(Count(number=number))
            for collector in collectors:
                await collector.until(3)
                assert sorted(event.get_origin() for event in collector.events) == list(names)

"""lahja 0.17's defects in peers that come, go and claim names, and in waits: L2, L7, L9, L18. None may come back.

Each test is named after the failure that lahja's users met. Tests of two endpoints run on every pair of
runtimes, each endpoint in a thread and an event loop of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lahja_capn import (
    Limits,
    NameInUse,
)
from lahja_capn.session.control import Subscriptions
from tests.conftest import Runtime
from tests.scenario.events import Count, Other
from tests.scenario.mixed import Meeting, Pair, every_pair
from tests.scenario.rawpeer import (
    frame_of,
    hello,
    shake_hands,
    talk_to,
)
from tests.scenario.support import Collector, at, eventually

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

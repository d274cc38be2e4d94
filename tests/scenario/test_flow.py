"""Credit: what is larger than a window passes, and a full direction never stops requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from lahja_capn import BroadcastConfig, EndpointAPI, Limits, RequestTimeout
from tests.conftest import Runtime
from tests.scenario.events import Blob, Count, Question, Reply
from tests.scenario.support import Collector, at, eventually, join, pair, raw_peer, scenario, turns

SMALL = Limits(event_credit_bytes=400, queued_per_peer_bytes=400)


def answers(endpoint: EndpointAPI) -> Any:
    async def answer(question: Question) -> None:
        await endpoint.respond(question, Reply(number=question.number))

    return answer


@scenario
async def test_event_larger_than_the_credit_window_passes(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path, server={"limits": SMALL}, client={"limits": SMALL}) as (
        server,
        client,
    ):
        got = Collector()
        await server.subscribe(Blob, got).acknowledged()
        data = bytes(range(256)) * 400
        for number in range(5):
            await client.broadcast(Blob(number=number, data=data))
        assert await got.until(5) == list(range(5))
        assert all(event.data == data for event in got.events)


@scenario
async def test_event_larger_than_any_socket_buffer_passes_both_ways(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        got = Collector()
        server.subscribe(Blob, got)
        await client.subscribe(Blob, got).acknowledged()
        await client.wait_until_endpoint_subscribed_to("server", Blob)
        data = bytes(8_000_000)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                client.broadcast, Blob(number=1, data=data), BroadcastConfig(filter_endpoint="server")
            )
            tasks.start_soon(
                server.broadcast, Blob(number=2, data=data), BroadcastConfig(filter_endpoint="client")
            )
        assert sorted(await got.until(2)) == [1, 2]
        assert [len(event.data) for event in got.events] == [len(data)] * 2


@scenario
async def test_many_events_through_a_small_window_arrive_in_order(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path, server={"limits": SMALL}, client={"limits": SMALL}) as (
        server,
        client,
    ):
        got = []

        async def slow(event: Count) -> None:
            await anyio.lowlevel.checkpoint()
            got.append(event.number)

        await server.subscribe(Count, slow).acknowledged()
        for number in range(500):
            await client.broadcast(Count(number=number))
        await eventually(lambda: len(got) == 500)
        assert got == list(range(500))


@scenario
async def test_consumer_slow_on_a_stream_can_still_ask_and_answer(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path, server={"limits": SMALL}, client={"limits": SMALL}) as (
        server,
        client,
    ):
        stream = server.stream(Count)
        await server.subscribe(Question, answers(server)).acknowledged()
        await client.subscribe(Question, answers(client)).acknowledged()
        to_client, to_server = (
            BroadcastConfig(filter_endpoint="client"),
            BroadcastConfig(filter_endpoint="server"),
        )

        async def flood() -> None:
            for number in range(1000):
                await client.broadcast(Count(number=number))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flood)
            await eventually(lambda: client._peers.up["server"]._room_waiters)
            # Nobody takes events; the client's queue to the server is full of them.
            for number in range(20):
                assert (await server.request(Question(number=number), to_client, timeout=2)).number == number
                assert (await client.request(Question(number=number), to_server, timeout=2)).number == number
            tasks.cancel_scope.cancel()
        await stream.aclose()


@scenario
async def test_two_that_flood_each_other_while_their_handlers_ask_each_other_do_not_deadlock(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    many = 60
    async with pair(runtime, short_tmp_path, server={"limits": SMALL}, client={"limits": SMALL}) as (
        server,
        client,
    ):
        asked: dict[str, int] = {"server": 0, "client": 0}

        def asks(me: EndpointAPI, other: EndpointAPI) -> Any:
            config = BroadcastConfig(filter_endpoint=other.name)

            async def handle(event: Count) -> None:
                reply = await me.request(Question(number=event.number), config, timeout=4)
                assert reply.number == event.number
                asked[me.name] += 1

            return handle

        for me, other in ((server, client), (client, server)):
            me.subscribe(Question, answers(me))
            await me.subscribe(Count, asks(me, other)).acknowledged()

        async def flood(me: EndpointAPI, other: EndpointAPI) -> None:
            config = BroadcastConfig(filter_endpoint=other.name)
            for number in range(many):
                await me.broadcast(Count(number=number), config)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flood, server, client)
            tasks.start_soon(flood, client, server)
        await eventually(lambda: asked == {"server": many, "client": many})
        for endpoint, other in ((server, "client"), (client, "server")):
            counters = endpoint.get_peer_counters()[other]
            assert (counters.dropped, counters.late) == (0, 0)


@scenario
async def test_request_waits_for_room_while_the_peer_takes_no_byte(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    limits = Limits(queued_per_peer_bytes=10_000)
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server"), limits=limits) as server:
        async with raw_peer(server, Question) as peer, anyio.create_task_group() as tasks:
            # More than the socket holds.
            for number in range(40):
                tasks.start_soon(server.request, Question(number=number, data=bytes(100_000)))
            await eventually(lambda: server._peers.up["raw"]._room_waiters)
            await turns()
            assert server._peers.up["raw"].session.queued_bytes < 2_500_000
            await peer.read(lambda: len(peer.numbers) == 40)
            assert sorted(peer.numbers) == list(range(40))
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("credit", [0, 8])
@scenario
async def test_requests_pass_one_by_one_through_the_smallest_window(
    runtime: Runtime, short_tmp_path: Path, credit: int
) -> None:
    # A window of 0 lets nothing pass: the request waits, and times out.
    limits = Limits(request_credit_bytes=credit)
    async with pair(runtime, short_tmp_path, server={"limits": limits}) as (server, client):
        await server.subscribe(Question, answers(server)).acknowledged()
        if credit:
            for number in range(20):
                assert (await client.request(Question(number=number))).number == number
        else:
            with pytest.raises(TimeoutError):
                await client.request(Question(number=1), timeout=0.02)


@scenario
async def test_peer_without_room_for_requests_holds_up_neither_the_others_answer_nor_the_timeout(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    # Without credit for requests the first one already stays in the queue, and fills it.
    server_limits, peer_limits = Limits(queued_per_peer_bytes=8), Limits(request_credit_bytes=0)
    async with (
        runtime.endpoint_class.serve(at(short_tmp_path, "server"), limits=server_limits) as server,
        raw_peer(server, Question, limits=peer_limits),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(server.request, Question(number=0))
        await eventually(lambda: not server._peers.up["raw"].session.has_request_room)
        with pytest.raises(RequestTimeout) as raised:
            await server.request(Question(number=1), timeout=0.05)
        assert raised.value.waiting_for == ("raw",)
        async with runtime.endpoint_class("healthy").run() as healthy:
            await join(healthy, server, at(short_tmp_path, "server"))
            await healthy.subscribe(Question, answers(healthy)).acknowledged()
            assert (await server.request(Question(number=2), timeout=5)).number == 2
        # Neither question is still on its way to the peer that had no room.
        assert server._peers.up["raw"].session.queued_frames == 1
        tasks.cancel_scope.cancel()

"""Credit: what is larger than a window passes, and a full direction never stops requests."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from lahja_capn import BroadcastConfig, EndpointAPI, Limits, RemoteDisconnected, RequestTimeout
from lahja_capn.binding import event_type
from lahja_capn.session import Arrived
from tests.conftest import Runtime
from tests.scenario.events import Blob, Count, Question, Reply
from tests.scenario.support import Collector, at, eventually, join, pair, raw_peer, scenario, turns

# Frame size of a Count: header 16, segment table 8, root pointer 8, data 8.
COUNT_BYTES = 40
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
async def test_tasks_that_publish_at_the_same_time_keep_the_order_of_their_calls_where_the_queue_is_full(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    """One that had waited for room was overtaken by the next call, if that came before it was woken."""
    async with pair(runtime, short_tmp_path, server={"limits": SMALL}, client={"limits": SMALL}) as (
        server,
        client,
    ):
        got = []

        async def slow(event: Count) -> None:
            await anyio.lowlevel.checkpoint()
            got.append(event.number)

        await server.subscribe(Count, slow).acknowledged()
        called = 0

        async def publish() -> None:
            nonlocal called
            for _ in range(100):
                called += 1
                await client.broadcast(Count(number=called))
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(publish)
        await eventually(lambda: len(got) == 500)
        assert got == sorted(got)


@scenario
async def test_tasks_that_publish_at_the_same_time_keep_their_order_at_each_of_several_full_peers(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    """Each wait was a task of its own that joined the line when it first ran: whenever its loop saw fit."""
    got: dict[str, list[int]] = {name: [] for name in "abc"}
    endpoint = runtime.endpoint_class
    async with AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(endpoint("publisher", limits=SMALL).run())
        for name, numbers in got.items():

            async def slow(event: Count, numbers: list[int] = numbers) -> None:
                await anyio.lowlevel.checkpoint()
                numbers.append(event.number)

            consumer = await stack.enter_async_context(endpoint.serve(at(short_tmp_path, name), limits=SMALL))
            await publisher.connect_to_endpoints(at(short_tmp_path, name))
            await consumer.subscribe(Count, slow).acknowledged()
        called = 0

        async def publish() -> None:
            nonlocal called
            for _ in range(50):
                called += 1
                await publisher.broadcast(Count(number=called))

        async with anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(publish)
        await eventually(lambda: all(len(numbers) == 300 for numbers in got.values()))
        assert all(numbers == sorted(numbers) for numbers in got.values())


@scenario
async def test_publisher_that_is_cancelled_while_it_waits_in_line_lets_the_next_one_pass(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server"), limits=SMALL) as server:
        async with raw_peer(server, Count, limits=SMALL) as peer:
            peer.gives_credit = False
            for _ in range(2):  # the peer's window, then the queue
                for _ in range(10):
                    await server.broadcast(Count(number=0))
                await turns()
            async with anyio.create_task_group() as tasks:
                scopes = [anyio.CancelScope() for _ in range(4)]

                async def publish(number: int) -> None:
                    with scopes[number]:
                        await server.broadcast(Count(number=number + 1))

                for number in range(4):
                    tasks.start_soon(publish, number)
                    await eventually(lambda number=number: len(server._peers.up["raw"].line) > number)
                # The first, and one in the middle.
                scopes[0].cancel()
                scopes[2].cancel()
                await eventually(lambda: len(server._peers.up["raw"].line) == 2)
                peer.gives_credit = True
                for event in peer.of(Arrived):
                    peer.session.return_event_credit(event.size)
                await peer.read(lambda: peer.numbers[-2:] == [2, 4])
            # Nobody waits any more, and there is no line for those that come later.
            server.broadcast_nowait(Count(number=5))
            await peer.read(lambda: peer.numbers[-1:] == [5])
            assert server.get_peer_counters()["raw"].dropped == 0


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


@scenario
async def test_request_is_not_held_by_a_peer_that_gives_no_credit_for_requests_but_pings(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    limits = Limits(queued_per_peer_bytes=100, too_slow_s=0.3)
    async with (
        runtime.endpoint_class.serve(at(short_tmp_path, "server"), limits=limits) as server,
        raw_peer(server, Question, limits=Limits(request_credit_bytes=0)) as peer,
        anyio.create_task_group() as tasks,
    ):

        async def ping() -> None:
            while not peer.closed:
                peer.session.ping(time.monotonic())
                await peer.write()
                await anyio.sleep(0.01)

        async def ask(number: int) -> None:
            with pytest.raises(RemoteDisconnected):
                await server.request(Question(number=number))
            gone.append(number)

        gone: list[int] = []
        tasks.start_soon(ping)
        tasks.start_soon(peer.read, lambda: peer.closed)
        for number in range(10):
            tasks.start_soon(ask, number)
        await eventually(lambda: len(gone) == 10)
        await eventually(lambda: peer.closed)
        assert peer.closed is not None
        assert peer.closed.code == "tooSlow"
        assert peer.numbers == []


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


@scenario
async def test_publisher_is_paced_by_a_consumer_that_needs_long_for_half_a_window(
    runtime: Runtime, short_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Half of the window are 50 events, which take the handler five times too_slow_s.
    monkeypatch.setattr("lahja_capn.session.session.CREDIT_REST_S", 0.05)
    monkeypatch.setattr("lahja_capn.session.receiving.CREDIT_REST_S", 0.05)
    publishing = Limits(queued_per_peer_bytes=100, too_slow_s=0.5)
    receiving = Limits(event_credit_bytes=100 * COUNT_BYTES)
    async with pair(runtime, short_tmp_path, server={"limits": publishing}, client={"limits": receiving}) as (
        server,
        client,
    ):
        got = []

        async def slow(event: Count) -> None:
            got.append(event.number)
            await anyio.sleep(0.05)

        await client.subscribe(Count, slow).acknowledged()
        many = 125
        for number in range(many):
            await server.broadcast(Count(number=number))
        assert server.is_connected_to("client")
        # All that is not queued here or within the window there has been taken: the publisher was paced.
        assert len(got) >= many - 3 - 100 - 1
        assert got == list(range(len(got)))


@pytest.mark.parametrize("limit", ["of one peer", "of all peers"])
@scenario
async def test_peer_that_gives_no_credit_but_pings_does_not_hold_its_publisher(
    runtime: Runtime, short_tmp_path: Path, limit: str
) -> None:
    of_one, of_all = (100, 1_000_000) if limit == "of one peer" else (1_000_000, 100)
    limits = Limits(queued_per_peer_bytes=of_one, queued_per_endpoint_bytes=of_all, too_slow_s=0.3)
    async with (
        runtime.endpoint_class.serve(at(short_tmp_path, "server"), limits=limits) as server,
        runtime.endpoint_class("other").run() as other,
        raw_peer(server, Count, limits=Limits(event_credit_bytes=0)) as peer,
        anyio.create_task_group() as tasks,
    ):
        await join(other, server, at(short_tmp_path, "server"))
        got = Collector()
        await other.subscribe(Count, got).acknowledged()

        async def ping() -> None:
            # It lives, and reads what comes; it only gives no credit.
            while not peer.closed:
                peer.session.ping(time.monotonic())
                await peer.write()
                await anyio.sleep(0.01)

        tasks.start_soon(ping)
        tasks.start_soon(peer.read, lambda: peer.closed)
        # A broadcast to this endpoint ends its turn, too, and looks at what all peers together have queued.
        many = 10 if limit == "of one peer" else 4 * 64 * 1024 // COUNT_BYTES
        for number in range(many):
            await server.broadcast(Count(number=number))
        assert not server.is_connected_to("raw")
        assert await got.until(many) == list(range(many))
        await eventually(lambda: peer.closed)
        assert peer.closed is not None
        assert peer.closed.code == "tooSlow"
        assert peer.numbers == []
        assert server.is_connected_to("other")


@scenario
async def test_peer_that_takes_one_large_event_bit_by_bit_is_kept(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    limits = Limits(queued_per_peer_bytes=100, too_slow_s=0.5)
    async with (
        runtime.endpoint_class.serve(at(short_tmp_path, "server"), limits=limits) as server,
        raw_peer(server, Blob) as peer,
        anyio.create_task_group() as tasks,
    ):
        data = bytes(4_000_000)

        async def publish() -> None:
            for number in range(3):
                await server.broadcast(Blob(number=number, data=data))

        tasks.start_soon(publish)
        # Each bit well within too_slow_s, the whole event not.
        for _ in range(30):
            await anyio.wait_readable(peer._socket)
            peer.session.receive_bytes(peer._socket.recv(50_000), time.monotonic())
            await anyio.sleep(limits.too_slow_s / 10)
        assert server.is_connected_to("raw")
        await peer.read(lambda: len(peer.numbers) == 3)
        assert peer.numbers == [0, 1, 2]


@scenario
async def test_credit_that_lies_unread_counts_before_a_peer_is_judged(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    # So short that the peer is judged before the loop has looked at its socket, as after a handler that blocks.
    limits = Limits(queued_per_peer_bytes=100, too_slow_s=1e-9)
    async with (
        runtime.endpoint_class.serve(at(short_tmp_path, "server"), limits=limits) as server,
        raw_peer(server, Count, limits=Limits(event_credit_bytes=8)) as peer,
    ):
        for number in range(4):
            await server.broadcast(Count(number=number))
            await turns()
        await anyio.wait_readable(peer._socket)
        peer.session.receive_bytes(peer._socket.recv(100_000), time.monotonic())
        peer.session.return_event_credit(COUNT_BYTES)
        peer._socket.sendall(b"".join(peer.session.data_to_send()))
        await server.broadcast(Count(number=4))
        assert server.is_connected_to("raw")


@pytest.mark.parametrize("reads", [True, False])
@scenario
async def test_publisher_behind_answers_alone_waits_for_a_peer_that_reads_them(
    runtime: Runtime, short_tmp_path: Path, reads: bool
) -> None:
    limits = Limits(queued_per_peer_bytes=1000, too_slow_s=0.3)
    async with (
        runtime.endpoint_class.serve(at(short_tmp_path, "server"), limits=limits) as server,
        raw_peer(server, Count) as peer,
        anyio.create_task_group() as tasks,
    ):

        def refuse(question: Question) -> None:
            raise ValueError("x" * 16_000)

        server.subscribe(Question, refuse)
        await peer.read(lambda: peer.session.remote_subscriptions)
        # Their answers are more than the socket holds.
        for number in range(500):
            question = Question(number=number)
            peer.session.send_request(event_type(Question), event_type(Question).encode(question))
        await peer.write()
        await eventually(lambda: server._peers.up["raw"].session.queued_bytes > 1_000_000)

        async def publish() -> None:
            await server.broadcast(Count(number=1))
            published.append(server.is_connected_to("raw"))

        published: list[bool] = []
        tasks.start_soon(publish)
        if reads:
            # Each bit well within too_slow_s, all of it not.
            for _ in range(20):
                await anyio.wait_readable(peer._socket)
                peer.session.receive_bytes(peer._socket.recv(50_000), time.monotonic())
                await anyio.sleep(limits.too_slow_s / 10)
            assert published == []
            await peer.read(lambda: published)
        await eventually(lambda: published)
        assert published == [reads]

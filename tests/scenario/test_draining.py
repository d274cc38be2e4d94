"""``drain``: what is there is finished, and no more is taken."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from lahja_capn import Backoff, BroadcastConfig, ConnectTimeout, LifecycleError, Limits, NoSubscribers
from lahja_capn.binding import event_type
from lahja_capn.session import Offer
from lahja_capn.wire import FrameKind, encode_frame, frame_size
from tests.conftest import Runtime
from tests.scenario.events import Count, Other, Question, Reply
from tests.scenario.support import Collector, at, attempts, eventually, join, pair, raw_peer, scenario, turns

# Frame size of a Count: header 16, segment table 8, root pointer 8, data 8.
COUNT_BYTES = 40


@pytest.mark.parametrize("how", ["drain", "close"])
@scenario
async def test_events_that_were_sent_are_handled_by_who_drains_and_not_by_who_closes(
    runtime: Runtime, short_tmp_path: Path, how: str
) -> None:
    handled = []

    async def slow(event: Count) -> None:
        await anyio.sleep(0.002)
        handled.append(event.number)

    # A window and a queue much smaller than what is sent: some of it is still at the publisher.
    small = Limits(event_credit_bytes=10 * COUNT_BYTES)
    async with runtime.endpoint_class("client").run() as client:
        async with runtime.endpoint_class.serve(at(short_tmp_path, "server"), limits=small) as server:
            await join(client, server, at(short_tmp_path, "server"))
            await server.subscribe(Count, slow).acknowledged()
            await client.broadcast(Count(number=0))
            await eventually(lambda: handled)
            for number in range(1, 50):
                await client.broadcast(Count(number=number))
            # All that the client sends before it hears of the end is on its way.
            await turns()
            sent = client.get_peer_counters()["server"].sent
            if how == "drain":
                await server.drain()
                taken = len(handled)
                with pytest.raises(NoSubscribers):
                    await client.broadcast(Count(number=50))
        if how == "drain":
            assert handled == list(range(taken))
            assert taken >= sent
        else:
            assert len(handled) < 50


@scenario
async def test_event_of_a_peer_that_has_not_heard_yet_is_waited_for_and_handled(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    got = Collector()
    count = event_type(Count)
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server, raw_peer(server) as peer:
        server.subscribe(Count, got)
        await peer.read(lambda: peer.session.wants(count))
        async with anyio.create_task_group() as tasks:
            drained = anyio.Event()

            async def drain() -> None:
                await server.drain()
                drained.set()

            tasks.start_soon(drain)
            await turns()
            # Nothing is there to be handled, and what the peer does not know yet it may still send.
            assert not drained.is_set()
            frame = encode_frame(peer.table.wire_id(count), FrameKind.EVENT, 0, count.encode(Count(number=1)))
            assert peer.session.offer_event(count, frame_size(frame), frame) is Offer.QUEUED
            await peer.read(lambda: not peer.session.wants(count))
            await peer.write()
        assert got.numbers == [1]


@scenario
async def test_requests_under_way_are_answered_and_later_ones_find_nobody(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        asked, go_on = [], anyio.Event()

        async def answer(question: Question) -> None:
            asked.append(question)
            await go_on.wait()
            await server.respond(question, Reply(number=question.number))

        await server.subscribe(Question, answer).acknowledged()
        answers = []

        async def ask(number: int) -> None:
            answers.append((await client.request(Question(number=number))).number)

        drained = []

        async def drain() -> None:
            await server.drain()
            drained.append(sorted(answers))

        async with anyio.create_task_group() as tasks:
            for number in range(150):  # more than are handled at a time
                tasks.start_soon(ask, number)
            await eventually(lambda: len(asked) == 100)
            tasks.start_soon(drain)
            await eventually(lambda: not client.is_endpoint_subscribed_to("server", Question))
            with pytest.raises(NoSubscribers):
                await client.request(Question(number=1000))
            await turns()
            assert not drained
            go_on.set()
        assert sorted(answers) == list(range(150))


@scenario
async def test_plain_handler_and_one_that_returns_an_awaitable_are_waited_for(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        ended, go_on = [], anyio.Event()

        async def later(event: Other) -> None:
            await go_on.wait()
            ended.append(event.number)

        await server.subscribe(Other, lambda event: later(event)).acknowledged()
        for number in range(3):
            await client.broadcast(Other(number=number))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.drain)
            await eventually(lambda: not client.is_endpoint_subscribed_to("server", Other))
            await turns()
            assert not ended
            go_on.set()
        assert ended == [0, 1, 2]


@scenario
async def test_request_whose_handler_returned_an_awaitable_is_answered_first(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        go = anyio.Event()

        async def later(question: Question) -> None:
            await go.wait()
            await server.respond(question, Reply(number=question.number))

        await server.subscribe(Question, lambda question: later(question)).acknowledged()
        replies = []
        unanswered: list[int] = []

        async def ask() -> None:
            replies.append(await client.request(Question(number=1)))

        async def drain() -> None:
            await server.drain()
            unanswered.append(len(server._peers.up["client"].open_requests))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await eventually(lambda: server._peers.up["client"].open_requests)
            tasks.start_soon(drain)
            await turns()
            assert not unanswered
            go.set()
            await eventually(lambda: replies and unanswered)
        assert unanswered == [0]


@scenario
async def test_what_was_sent_has_left(runtime: Runtime, short_tmp_path: Path) -> None:
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:
        async with raw_peer(server, Count, limits=Limits(event_credit_bytes=10 * COUNT_BYTES)) as peer:
            for number in range(100):
                await server.broadcast(Count(number=number))
            async with anyio.create_task_group() as tasks:
                drained = []

                async def drain() -> None:
                    await server.drain()
                    drained.append(server.get_peer_counters()["raw"].queued)

                tasks.start_soon(drain)
                await turns()
                assert not drained
                await peer.read(lambda: len(peer.numbers) == 100)
            assert drained == [0]


@scenario
async def test_nobody_new_is_let_in_and_nothing_is_subscribed_to_any_more(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    ours, theirs = at(short_tmp_path, "ours"), at(short_tmp_path, "theirs")
    async with (
        runtime.endpoint_class.serve(ours) as us,
        runtime.endpoint_class.serve(theirs) as them,
        runtime.endpoint_class("late", connect_timeout_s=0.05).run() as late,
    ):
        kept = us.keep_connected(theirs, backoff=Backoff(first_s=0.001, max_s=0.01))
        await kept.connected()
        got = Collector()
        us.subscribe(Count, got)
        await us.drain()
        assert kept.is_stopped
        with pytest.raises(ConnectTimeout):
            await late.connect_to_endpoints(ours)
        # A subscription that a handler makes now is its own affair.
        us.subscribe(Other, got)
        await us.broadcast(Other(number=1))
        assert got.numbers == [1]
        await turns()
        assert not them.is_endpoint_subscribed_to("ours", Other)
        # It may still send, and ask others.
        heard = Collector()
        await them.subscribe(Count, heard).acknowledged()
        await us.broadcast(Count(number=2), BroadcastConfig(filter_endpoint="theirs"))
        assert await heard.until(1) == [2]
        them._peers.up["ours"].say_goodbye("shutdown", "")
        await eventually(lambda: not us._peers.all)
        await attempts(them)
        assert not us._peers.all


@scenario
async def test_draining_what_has_stopped_or_is_alone(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as alone:
        await alone.drain()
        await alone.drain()
    with pytest.raises(LifecycleError):
        await alone.drain()

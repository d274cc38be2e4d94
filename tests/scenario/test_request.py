"""request and respond: who is asked, which answer counts, and what is refused before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from lahja_capn import (
    BroadcastConfig,
    EndpointAPI,
    FrameTooLarge,
    Limits,
    NoSubscribers,
)
from lahja_capn.binding import event_type
from tests.conftest import Runtime
from tests.scenario.events import Count, Question, Reply
from tests.scenario.responders import OpenQuestions, answers, assert_nothing_open, three
from tests.scenario.support import Collector, at, eventually, join, pair, scenario

# --- answers ----------------------------------------------------------------------------------------------


@scenario
async def test_request_is_answered(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        await server.subscribe(Question, answers(server)).acknowledged()
        for number in range(3):
            reply = await client.request(Question(number=number))
            assert type(reply) is Reply
            assert reply.number == number + 1
            assert reply.get_origin() == "server"
        assert_nothing_open(server, client)


@scenario
async def test_request_goes_both_ways_over_one_connection(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        await server.subscribe(Question, answers(server, 1)).acknowledged()
        await client.subscribe(Question, answers(client, 2)).acknowledged()
        to_server, to_client = (
            BroadcastConfig(filter_endpoint="server"),
            BroadcastConfig(filter_endpoint="client"),
        )
        assert (await client.request(Question(number=10), to_server)).number == 11
        assert (await server.request(Question(number=10), to_client)).number == 12


@scenario
async def test_lahja_style_answer_by_broadcast_config(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        bystander = Collector()
        client.subscribe(Reply, bystander)

        async def answer(question: Question) -> None:
            await server.broadcast(Reply(number=5), question.broadcast_config())

        await server.subscribe(Question, answer).acknowledged()
        assert (await client.request(Question(number=1))).number == 5
        # A response completes its request only.
        await client.broadcast(Reply(number=6), BroadcastConfig(internal=True))
        assert bystander.numbers == [6]


@scenario
async def test_plain_handler_can_answer_with_broadcast_nowait(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):

        def answer(question: Question) -> None:
            server.broadcast_nowait(Reply(number=question.number), question.broadcast_config())

        await server.subscribe(Question, answer).acknowledged()
        assert (await client.request(Question(number=4))).number == 4


@scenario
async def test_local_responder_answers(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        endpoint.subscribe(Question, answers(endpoint))
        question = Question(number=1)
        reply = await endpoint.request(question)
        assert reply.number == 2
        assert reply.get_origin() == "alone"
        assert question.get_origin() == "alone"
        assert_nothing_open(endpoint)


@scenario
async def test_internal_answer_to_a_local_request(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:

        async def answer(question: Question) -> None:
            await endpoint.broadcast(Reply(number=3), question.broadcast_config(internal=True))

        endpoint.subscribe(Question, answer)
        reply = await endpoint.request(Question(number=1), BroadcastConfig(internal=True))
        assert reply.number == 3


@scenario
async def test_first_of_two_answers_wins_and_the_late_one_is_counted(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with three(runtime, short_tmp_path) as (asker, one, two):
        slow = OpenQuestions(one)
        await one.subscribe(Question, slow).acknowledged()
        await two.subscribe(Question, answers(two, 100)).acknowledged()
        assert (await asker.request(Question(number=1))).number == 101
        # Both were asked.
        await eventually(lambda: slow.questions)
        slow.go_on.set()
        await eventually(lambda: asker.get_peer_counters()["one"].late == 1)
        assert asker.get_peer_counters()["two"].late == 0
        assert_nothing_open(asker, one, two)


@scenario
async def test_request_goes_to_its_target_only(runtime: Runtime, short_tmp_path: Path) -> None:
    async with three(runtime, short_tmp_path) as (asker, one, two):
        asked = Collector()
        one.subscribe(Question, asked)
        await one.subscribe(Question, answers(one, 1)).acknowledged()
        await two.subscribe(Question, answers(two, 2)).acknowledged()
        for _ in range(3):
            reply = await asker.request(Question(number=0), BroadcastConfig(filter_endpoint="two"))
            assert reply.number == 2
        assert asked.events == []


@scenario
async def test_answer_through_a_stream(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client), anyio.create_task_group() as tasks:

        async def serve(stream: Any) -> None:
            async for question in stream:
                await server.respond(question, Reply(number=question.number))

        tasks.start_soon(serve, server.stream(Question, num_events=3))
        await client.wait_until_endpoint_subscribed_to("server", Question)
        assert [(await client.request(Question(number=number))).number for number in range(3)] == [0, 1, 2]
        assert_nothing_open(server, client)


@scenario
async def test_many_requests_at_once_each_get_their_own_answer(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        await server.subscribe(Question, answers(server, 1000)).acknowledged()
        got: dict[int, int] = {}

        async def ask(number: int) -> None:
            got[number] = (await client.request(Question(number=number))).number

        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(ask, number)
        assert got == {number: number + 1000 for number in range(200)}
        assert_nothing_open(server, client)


@pytest.mark.parametrize("where", ["local", "remote", "both"])
@scenario
async def test_same_request_object_can_be_asked_twice_at_a_time(
    runtime: Runtime, short_tmp_path: Path, where: str
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        asked = []

        def responder(endpoint: EndpointAPI) -> Any:
            async def answer(question: Question) -> None:
                asked.append(question.broadcast_config().filter_event_id)
                await endpoint.respond(question, Reply(number=len(asked)))

            return answer

        if where != "remote":
            client.subscribe(Question, responder(client))
        if where != "local":
            await server.subscribe(Question, responder(server)).acknowledged()
        question = Question(number=1)
        replies = []

        async def ask() -> None:
            replies.append((await client.request(question)).number)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            tasks.start_soon(ask)
        assert len(set(replies)) == 2
        assert len(set(asked)) == len(asked)
        assert_nothing_open(client)


@scenario
async def test_received_request_can_be_asked_on(runtime: Runtime, short_tmp_path: Path) -> None:
    async with three(runtime, short_tmp_path) as (asker, one, two):

        async def forward(question: Question) -> None:
            reply = await asker.request(question, BroadcastConfig(filter_endpoint="two"))
            await asker.respond(question, Reply(number=reply.number + 1))

        await asker.subscribe(Question, forward).acknowledged()
        await two.subscribe(Question, answers(two, 10)).acknowledged()
        assert (await one.request(Question(number=1))).number == 12


@scenario
async def test_response_type_bound_by_nobody_but_the_request_is_declared(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        await server.subscribe(Question, answers(server)).acknowledged()
        assert event_type(Reply).type_id not in client._table
        await client.request(Question(number=1))
        assert event_type(Reply).type_id in client._table


# --- refused before anything is sent ----------------------------------------------------------------------


@scenario
async def test_request_of_a_plain_event_is_refused(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        with pytest.raises(TypeError, match=r"request\(\) takes a BaseRequestResponseEvent, got Count"):
            await endpoint.request(Count(number=1))  # type: ignore[type-var]


@pytest.mark.parametrize(
    "config",
    [
        None,
        BroadcastConfig(filter_endpoint="stranger"),
        BroadcastConfig(internal=True),
        # There would be nothing to wait for.
        BroadcastConfig(require_subscriber=False),
    ],
    ids=str,
)
@scenario
async def test_request_for_nobody_is_refused(runtime: Runtime, config: BroadcastConfig | None) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        with pytest.raises(NoSubscribers, match="Nobody subscribes to Question"):
            await endpoint.request(Question(number=1), config)
        assert_nothing_open(endpoint)


@scenario
async def test_request_over_the_responders_frame_limit_is_refused(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    small = Limits(frame_bytes=1024)
    async with pair(runtime, short_tmp_path, server={"limits": small}) as (server, client):
        await server.subscribe(Question, answers(server)).acknowledged()
        with pytest.raises(FrameTooLarge) as raised:
            await client.request(Question(number=1, data=bytes(2000)))
        assert (raised.value.event, raised.value.peer, raised.value.limit) == ("Question", "server", 1024)
        assert (await client.request(Question(number=1))).number == 2
        assert_nothing_open(server, client)


@scenario
async def test_request_over_one_responders_frame_limit_goes_to_the_other(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    small, large = at(short_tmp_path, "small"), at(short_tmp_path, "large")
    serve = runtime.endpoint_class.serve
    async with (
        serve(small, limits=Limits(frame_bytes=1024)) as one,
        serve(large) as two,
        runtime.endpoint_class("asker").run() as asker,
    ):
        await join(asker, one, small)
        await join(asker, two, large)
        await one.subscribe(Question, answers(one, 1)).acknowledged()
        await two.subscribe(Question, answers(two, 2)).acknowledged()
        assert (await asker.request(Question(number=0, data=bytes(2000)))).number == 2
        assert_nothing_open(asker)

"""request: every way it fails, and what it says then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from lahja_capn import (
    EndpointAPI,
    Limits,
    RemoteDisconnected,
    RequestFailed,
    RequestTimeout,
    UnexpectedResponse,
)
from lahja_capn.binding import event_type
from lahja_capn.session import Arrived
from tests.conftest import Runtime
from tests.scenario.events import Other, Question, Reply
from tests.scenario.responders import OpenQuestions, assert_nothing_open, failing, three
from tests.scenario.support import Collector, at, eventually, pair, raw_peer, scenario, turns


@scenario
async def test_timeout_argument_ends_the_wait_and_names_the_responders(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        silent = OpenQuestions(server)
        await server.subscribe(Question, silent).acknowledged()
        with pytest.raises(RequestTimeout) as raised:
            await client.request(Question(number=1), timeout=0.02)
        error = raised.value
        assert isinstance(error, TimeoutError)
        assert (error.request, error.timeout_s, error.waiting_for) == ("Question", 0.02, ("server",))
        assert "no response within 0.02 s" in str(error)
        assert connection_tables_are_empty(client)
        # The answer comes late: counted, not raised, and the connection lives.
        silent.go_on.set()
        await eventually(lambda: client.get_peer_counters()["server"].late == 1)
        assert_nothing_open(server, client)


def connection_tables_are_empty(endpoint: EndpointAPI) -> bool:
    return all(not connection.pending for connection in endpoint._peers.all.values())


@scenario
async def test_default_timeout_comes_from_the_limits(runtime: Runtime, short_tmp_path: Path) -> None:
    limits = Limits(request_timeout_s=0.02)
    async with pair(runtime, short_tmp_path, client={"limits": limits}) as (server, client):
        await server.subscribe(Question, OpenQuestions(server)).acknowledged()
        with pytest.raises(RequestTimeout) as raised:
            await client.request(Question(number=1))
        assert raised.value.timeout_s == 0.02


@scenario
async def test_shorter_timeout_of_a_later_request_fires_first(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client), anyio.create_task_group() as tasks:
        await server.subscribe(Question, OpenQuestions(server)).acknowledged()
        tasks.start_soon(client.request, Question(number=1))
        await turns()
        with pytest.raises(RequestTimeout):
            await client.request(Question(number=2), timeout=0.01)
        tasks.cancel_scope.cancel()


@scenario
async def test_local_request_times_out_too(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        endpoint.subscribe(Question, OpenQuestions(endpoint))
        with pytest.raises(RequestTimeout) as raised:
            await endpoint.request(Question(number=1), timeout=0.01)
        assert raised.value.waiting_for == ("alone",)
        assert_nothing_open(endpoint)


@pytest.mark.parametrize("where", ["local", "remote"])
@scenario
async def test_answer_of_another_type_is_unexpected(
    runtime: Runtime, short_tmp_path: Path, where: str
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        responder = server if where == "remote" else client

        async def answer(question: Question) -> None:
            await responder.broadcast(Other(number=1), question.broadcast_config())

        await responder.subscribe(Question, answer).acknowledged()
        with pytest.raises(UnexpectedResponse) as raised:
            await client.request(Question(number=1))
        error = raised.value
        assert (error.request, error.wanted, error.got, error.peer) == (
            "Question",
            "Reply",
            "Other",
            responder.name,
        )
        assert_nothing_open(server, client)


@scenario
async def test_answer_of_another_type_leaves_the_request_to_the_other_responder(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "asker")
    async with (
        runtime.endpoint_class.serve(config) as asker,
        runtime.endpoint_class("good").run() as good,
        raw_peer(asker, Question, name="bad") as bad,
        anyio.create_task_group() as tasks,
    ):
        wrong_one_came = anyio.Event()

        async def answer(question: Question) -> None:
            await wrong_one_came.wait()
            await good.respond(question, Reply(number=question.number))

        good.subscribe(Question, answer)
        await good.connect_to_endpoints(config)
        answers = []

        async def ask() -> None:
            answers.append((await asker.request(Question(number=5))).number)

        tasks.start_soon(ask)
        await bad.read(lambda: bad.of(Arrived))
        other = event_type(Other)
        assert bad.session.send_response(bad.of(Arrived)[0].number, other, other.encode(Other(number=1)))
        await bad.write()
        await eventually(lambda: asker.get_peer_counters()["bad"].responses_received == 1)
        await turns()
        assert answers == []
        wrong_one_came.set()
        await eventually(lambda: answers)
        assert answers == [5]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("where", ["local", "remote"])
@scenario
async def test_handler_that_raises_fails_the_request_with_name_and_exception(
    runtime: Runtime, short_tmp_path: Path, where: str, kind: str
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        responder = server if where == "remote" else client

        def failing_sync(_: Question) -> None:
            raise KeyError("no such thing")

        await responder.subscribe(Question, failing if kind == "async" else failing_sync).acknowledged()
        with pytest.raises(RequestFailed) as raised:
            await client.request(Question(number=1))
        [failure] = raised.value.failures
        assert (failure.endpoint, failure.code, failure.type_name, failure.text) == (
            responder.name,
            "handlerRaised",
            "KeyError",
            "'no such thing'",
        )
        assert raised.value.request == "Question"
        assert f"{responder.name} (handlerRaised) KeyError: 'no such thing'" in str(raised.value)
        assert_nothing_open(server, client)


@scenario
async def test_request_fails_only_when_every_responder_has_and_tells_of_each(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with three(runtime, short_tmp_path) as (asker, one, two):
        go_on = anyio.Event()

        async def failing_later(_: Question) -> None:
            await go_on.wait()
            raise ValueError("not now")

        await one.subscribe(Question, failing).acknowledged()
        await two.subscribe(Question, failing_later).acknowledged()
        outcome: list[Any] = []

        async def ask() -> None:
            try:
                await asker.request(Question(number=1))
            except RequestFailed as error:
                outcome.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await eventually(lambda: asker.get_peer_counters()["one"].failed_received == 1)
            assert outcome == []
            go_on.set()
        told = {failure.endpoint: failure.type_name for failure in outcome[0].failures}
        assert told == {"one": "KeyError", "two": "ValueError"}
        assert_nothing_open(asker, one, two)


@scenario
async def test_local_and_remote_failures_are_told_together(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        client.subscribe(Question, failing)
        await server.subscribe(Question, failing).acknowledged()
        with pytest.raises(RequestFailed) as raised:
            await client.request(Question(number=1))
        assert sorted(failure.endpoint for failure in raised.value.failures) == ["client", "server"]


@scenario
async def test_one_responder_fails_and_the_other_answers(runtime: Runtime, short_tmp_path: Path) -> None:
    async with three(runtime, short_tmp_path) as (asker, one, two):
        await one.subscribe(Question, failing).acknowledged()
        slow = OpenQuestions(two)
        await two.subscribe(Question, slow).acknowledged()
        async with anyio.create_task_group() as tasks:
            replies = []

            async def ask() -> None:
                replies.append((await asker.request(Question(number=9))).number)

            tasks.start_soon(ask)
            await eventually(lambda: asker.get_peer_counters()["one"].failed_received == 1)
            slow.go_on.set()
        assert replies == [9]


@pytest.mark.parametrize("where", ["local", "remote"])
@scenario
async def test_one_handler_fails_and_another_of_the_same_endpoint_answers(
    runtime: Runtime, short_tmp_path: Path, where: str
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        responder = server if where == "remote" else client
        slow = OpenQuestions(responder)

        def failing_sync(_: Question) -> None:
            raise KeyError("no such thing")

        # The failure comes first: no `failed` may be sent while another handler still works.
        responder.subscribe(Question, failing_sync)
        await responder.subscribe(Question, slow).acknowledged()
        async with anyio.create_task_group() as tasks:
            replies = []

            async def ask() -> None:
                replies.append((await client.request(Question(number=9))).number)

            tasks.start_soon(ask)
            await eventually(lambda: slow.questions)
            await turns()
            slow.go_on.set()
        assert replies == [9]
        assert server.get_peer_counters()["client"].failed_sent == 0


@scenario
async def test_request_held_by_a_stream_is_not_reported_as_failed(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        stream = server.stream(Question)
        await server.subscribe(Question, failing).acknowledged()
        async with anyio.create_task_group() as tasks:
            replies = []

            async def ask() -> None:
                replies.append((await client.request(Question(number=9))).number)

            tasks.start_soon(ask)
            question = await stream.__anext__()
            await turns()
            assert replies == []
            assert server.get_peer_counters()["client"].failed_sent == 0
            await server.respond(question, Reply(number=1))
        assert replies == [1]
        assert_nothing_open(server, client)


@scenario
async def test_request_that_no_handler_answers_times_out(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        await server.subscribe(Question, Collector()).acknowledged()
        with pytest.raises(RequestTimeout):
            await client.request(Question(number=1), timeout=0.02)


@scenario
async def test_responder_that_leaves_fails_the_request_at_once(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:
        async with raw_peer(server, Question) as peer:
            outcome: list[Any] = []

            async def ask() -> None:
                try:
                    await server.request(Question(number=1))
                except Exception as error:
                    outcome.append(error)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await peer.read(lambda: peer.of(Arrived))
                peer.close()
            assert [type(error) for error in outcome] == [RemoteDisconnected]
            assert outcome[0].peer == "raw"
            assert "'raw' left before answering" in str(outcome[0])
            await eventually(lambda: not server._peers.all)
            assert_nothing_open(server)


@scenario
async def test_one_responder_leaves_and_the_other_answers(runtime: Runtime, short_tmp_path: Path) -> None:
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:
        slow = OpenQuestions(server)
        server.subscribe(Question, slow)
        async with raw_peer(server, Question) as peer, anyio.create_task_group() as tasks:
            replies = []

            async def ask() -> None:
                replies.append((await server.request(Question(number=1))).number)

            tasks.start_soon(ask)
            await peer.read(lambda: peer.of(Arrived))
            peer.close()
            await eventually(lambda: not server.is_connected_to("raw"))
            slow.go_on.set()
        assert replies == [1]


@scenario
async def test_failed_and_left_are_both_told(runtime: Runtime, short_tmp_path: Path) -> None:
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:
        server.subscribe(Question, failing)
        outcome: list[Any] = []
        async with raw_peer(server, Question) as peer, anyio.create_task_group() as tasks:

            async def ask() -> None:
                try:
                    await server.request(Question(number=1))
                except Exception as error:
                    outcome.append(error)

            tasks.start_soon(ask)
            await peer.read(lambda: peer.of(Arrived))
            peer.close()
        assert [type(error) for error in outcome] == [RequestFailed]
        assert str(outcome[0]).endswith("; left before answering: raw")

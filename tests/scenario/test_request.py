"""request and respond: which answer counts, and every way a request fails."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from lahja_capn import (
    BindError,
    BroadcastConfig,
    EndpointAPI,
    FrameTooLarge,
    Limits,
    NoSubscribers,
    RemoteDisconnected,
    RequestFailed,
    RequestTimeout,
    UnexpectedResponse,
)
from lahja_capn.binding import RequestToken, event_type
from lahja_capn.session import Arrived, FailedArrived, ResponseArrived
from tests.conftest import Runtime
from tests.scenario.events import Blob, Count, Other, Question, Reply
from tests.scenario.support import Collector, at, eventually, join, pair, raw_peer, scenario, turns


def answers(endpoint: EndpointAPI, plus: int = 1) -> Any:
    """An async handler that answers with the question's number plus something."""

    async def answer(question: Question) -> None:
        await endpoint.respond(question, Reply(number=question.number + plus))

    return answer


class OpenQuestions:
    """A handler that answers only when it is told to."""

    def __init__(self, endpoint: EndpointAPI) -> None:
        self.endpoint = endpoint
        self.questions: list[Question] = []
        self.go_on = anyio.Event()

    async def __call__(self, question: Question) -> None:
        self.questions.append(question)
        await self.go_on.wait()
        await self.endpoint.respond(question, Reply(number=question.number))


async def failing(_: Question) -> None:
    raise KeyError("no such thing")


@asynccontextmanager
async def three(
    runtime: Runtime, folder: Path
) -> AsyncIterator[tuple[EndpointAPI, EndpointAPI, EndpointAPI]]:
    """``(asker, one, two)``: one endpoint that asks, connected to two that may answer."""
    one, two = at(folder, "one"), at(folder, "two")
    serve = runtime.endpoint_class.serve
    async with serve(one) as first, serve(two) as second, runtime.endpoint_class("asker").run() as asker:
        await join(asker, first, one)
        await join(asker, second, two)
        yield asker, first, second


def assert_nothing_open(*endpoints: EndpointAPI) -> None:
    """No table holds a request any more."""
    for endpoint in endpoints:
        bus = endpoint._bus
        assert bus._local_pending == {}
        assert bus._local_open == {}
        assert len(bus.deadlines) == 0
        for connection in endpoint._peers.all.values():
            assert connection.pending == {}
            assert connection.open_requests == {}
            assert connection.session._outgoing.open == set()
            assert connection.session._incoming.open == set()


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


# --- failures ---------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("where", ["local", "remote"])
@scenario
async def test_cancelled_request_leaves_nothing_behind(
    runtime: Runtime, short_tmp_path: Path, where: str
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        responder = server if where == "remote" else client
        slow = OpenQuestions(responder)
        await responder.subscribe(Question, slow).acknowledged()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.request, Question(number=1))
            await eventually(lambda: slow.questions)
            tasks.cancel_scope.cancel()
        assert_nothing_open(client)
        slow.go_on.set()
        if where == "remote":
            await eventually(lambda: client.get_peer_counters()["server"].late == 1)
        else:
            await eventually(lambda: client._bus.late_answers == 1)
        assert_nothing_open(server, client)


@scenario
async def test_request_cancelled_before_it_was_sent_is_never_sent(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    # The peer grants no credit for requests after the first.
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:
        async with raw_peer(server, Question, limits=Limits(request_credit_bytes=8)) as peer:
            peer.gives_credit = False
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(server.request, Question(number=1))
                tasks.start_soon(server.request, Question(number=2))
                await peer.read(lambda: peer.of(Arrived))
                await eventually(lambda: server._peers.up["raw"].session.queued_frames == 1)
                tasks.cancel_scope.cancel()
            assert server._peers.up["raw"].session.queued_frames == 0
            assert_nothing_open(server)


@scenario
async def test_answered_request_holds_its_response_no_longer(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        await server.subscribe(Question, answers(server)).acknowledged()
        waiters = []
        new_waiter = client._runtime.new_waiter

        class Kept:
            """Wraps a waiter, because those have slots without a weak reference."""

            def __init__(self) -> None:
                self._waiter = new_waiter()
                self.wake, self.fail, self.wait = self._waiter.wake, self._waiter.fail, self._waiter.wait
                waiters.append(weakref.ref(self))

        client._runtime.new_waiter = Kept  # type: ignore[method-assign, assignment]
        try:
            await client.request(Question(number=1))
        finally:
            del client._runtime.new_waiter
        gc.collect()
        # Its deadline lies 30 s ahead, but what waited for it, and so the response, is gone.
        assert [waiter() for waiter in waiters] == [None] * len(waiters)


@scenario
async def test_answer_after_the_requester_has_gone_is_counted_and_not_raised(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config) as server:
        questions = server.stream(Question)
        async with runtime.endpoint_class("client").run() as client:
            await join(client, server, config)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.request, Question(number=1))
                question = await questions.__anext__()
                tasks.cancel_scope.cancel()
        await eventually(lambda: not server.is_connected_to("client"))
        await server.respond(question, Reply(number=1))
        assert server._bus.late_answers == 1


@scenario
async def test_second_answer_to_a_request_is_counted_and_not_sent(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):

        async def twice(question: Question) -> None:
            await server.respond(question, Reply(number=1))
            await server.respond(question, Reply(number=2))

        await server.subscribe(Question, twice).acknowledged()
        assert (await client.request(Question(number=1))).number == 1
        await eventually(lambda: server.get_peer_counters()["client"].answers_unsent == 1)
        assert client.get_peer_counters()["server"].late == 0


@scenario
async def test_handler_that_answers_and_then_raises_has_answered(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):

        async def answer(question: Question) -> None:
            await server.respond(question, Reply(number=1))
            raise ValueError("afterwards")

        subscription = server.subscribe(Question, answer)
        await subscription.acknowledged()
        assert (await client.request(Question(number=1))).number == 1
        await eventually(lambda: subscription.counters().failed == 1)
        assert server.get_peer_counters()["client"].failed_sent == 0


@scenario
async def test_response_over_the_requesters_frame_limit_raises_in_the_handler_and_fails_the_request(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    class _Ask:
        pass

    async with pair(runtime, short_tmp_path, client={"limits": Limits(frame_bytes=1024)}) as (server, client):

        async def answer(question: Question) -> None:
            await server.broadcast(Blob(number=1, data=bytes(2000)), question.broadcast_config())

        await server.subscribe(Question, answer).acknowledged()
        with pytest.raises(RequestFailed) as raised:
            await client.request(Question(number=1))
        assert raised.value.failures[0].type_name == "FrameTooLarge"


@scenario
async def test_request_without_a_subscriber_any_more_fails_with_no_handler(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        subscription = server.subscribe(Question, answers(server))
        await subscription.acknowledged()
        # The request is on its way while the subscription ends.
        async with anyio.create_task_group() as tasks:
            outcome: list[Any] = []

            async def ask() -> None:
                try:
                    await client.request(Question(number=1))
                except RequestFailed as error:
                    outcome.append(error.failures[0].code)

            tasks.start_soon(ask)
            subscription.unsubscribe()
        assert outcome == ["noHandler"]
        assert_nothing_open(server, client)


@scenario
async def test_request_right_behind_the_one_that_ended_the_subscription_fails(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:

        def answer_and_leave(question: Question) -> None:
            server.broadcast_nowait(Reply(number=question.number), question.broadcast_config())
            subscription.unsubscribe()

        subscription = server.subscribe(Question, answer_and_leave)
        async with raw_peer(server) as peer:
            peer.table.wire_id(event_type(Reply))
            kind = event_type(Question)
            for number in (1, 2):
                # Both are in one write, so the second has arrived when the first is handled.
                peer.session.send_request(kind, kind.encode(Question(number=number)))
            await peer.read(lambda: peer.of(ResponseArrived) and peer.of(FailedArrived))
            assert [answer.number for answer in peer.of(ResponseArrived)] == [1]
            assert [(failed.number, failed.code) for failed in peer.of(FailedArrived)] == [(2, "noHandler")]
            assert_nothing_open(server)


@scenario
async def test_queued_request_of_an_ended_subscription_fails(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        stream = server.stream(Question)
        await client.wait_until_endpoint_subscribed_to("server", Question)
        async with anyio.create_task_group() as tasks:
            outcome: list[Any] = []

            async def ask() -> None:
                try:
                    await client.request(Question(number=1))
                except RequestFailed as error:
                    outcome.append(error.failures[0].code)

            tasks.start_soon(ask)
            await eventually(lambda: stream.counters().queued == 1)
            await stream.aclose()
        assert outcome == ["noHandler"]
        assert_nothing_open(server, client)


@scenario
async def test_request_whose_second_subscription_its_first_handler_ends_fails_with_no_handler(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):

        def end_the_other(question: Question) -> None:
            second.unsubscribe()

        server.subscribe(Question, end_the_other)
        second = server.subscribe(Question, answers(server))
        await second.acknowledged()
        with pytest.raises(RequestFailed) as raised:
            await client.request(Question(number=1))
        assert raised.value.failures[0].code == "noHandler"
        assert_nothing_open(server, client)


@scenario
async def test_reply_address_of_a_connection_that_never_was_is_counted(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        await endpoint.broadcast(Reply(number=1), BroadcastConfig(filter_event_id=RequestToken(77, 1)))
        await endpoint.broadcast(Reply(number=1), BroadcastConfig(filter_event_id=RequestToken(0, 1)))
        assert endpoint._bus.late_answers == 2


@scenario
async def test_request_whose_response_type_is_not_bound_is_refused(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        endpoint.subscribe(Question, print)
        question = Question(number=1)

        class Never(Question):
            pass

        with pytest.raises(BindError):
            await endpoint.request(Never(number=1))
        assert question.number == 1

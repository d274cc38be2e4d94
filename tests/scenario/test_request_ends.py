"""request: cancelled, answered late or twice, or asked of a subscription that has ended. Nothing stays behind."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import anyio
import pytest

from lahja_capn import (
    BindError,
    BroadcastConfig,
    Limits,
    RequestFailed,
)
from lahja_capn.binding import RequestToken, event_type
from lahja_capn.session import Arrived, FailedArrived, ResponseArrived
from tests.conftest import Runtime
from tests.scenario.events import Blob, Question, Reply
from tests.scenario.responders import OpenQuestions, answers, assert_nothing_open
from tests.scenario.support import at, eventually, join, pair, raw_peer, scenario


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

"""What cannot be read, an event or an answer: one is lost or fails, loudly, and nothing else suffers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import anyio
import pytest

from lahja_capn import (
    BaseEvent,
    BaseRequestResponseEvent,
    EventFieldError,
    InactiveUnionMember,
    Limits,
    RequestFailed,
    bind,
)
from lahja_capn.binding import event_type
from lahja_capn.session import FailedArrived, ResponseArrived
from lahja_capn.wire import FrameKind
from tests.conftest import Runtime
from tests.scenario.events import Count, Question, Reply
from tests.scenario.rawpeer import (
    event_frame,
    send_raw,
)
from tests.scenario.support import Collector, at, eventually, pair, raw_peer, scenario, turns


class Word(BaseEvent):
    """Text that is unreadable if it is "bad"."""

    def __init__(self, text: str) -> None:
        self.text = text

    def serialize(self) -> bytes:
        return self.text.encode()

    @classmethod
    def deserialize(cls, data: bytes) -> Any:
        text = bytes(data).decode()
        if text == "bad":
            raise ValueError("a bad word")
        return cls(text)


@bind(type_id=0x9D1FB3A4C5E60718)
class Said(Word):
    pass


@bind(type_id=0x9D1FB3A4C5E60719)
class Asked(Word, BaseRequestResponseEvent[Said]):
    pass


class Words(Collector):
    @property
    def texts(self) -> list[str]:
        return [event.text for event in self.events]


@scenario
async def test_custom_serialization_travels(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        one, two = Words(), Words()
        server.subscribe(Said, one)
        await server.subscribe(Said, two).acknowledged()
        await client.broadcast(Said("hello"))
        await eventually(lambda: two.events)
        assert one.texts == two.texts == ["hello"]
        assert one.events[0].get_origin() == "client"


@scenario
async def test_unreadable_event_is_logged_and_the_next_ones_arrive(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A window far smaller than all of them together: the unreadable ones give their credit back too.
    limits = Limits(event_credit_bytes=200)
    async with pair(runtime, short_tmp_path, server={"limits": limits}) as (server, client):
        got, other = Words(), Collector()
        server.subscribe(Count, other)
        await server.subscribe(Said, got).acknowledged()
        for _ in range(20):
            await client.broadcast(Said("bad"))
        await client.broadcast(Said("good"))
        await client.broadcast(Count(number=1))
        assert await other.until(1) == [1]
        await eventually(lambda: got.events)
        assert got.texts == ["good"]
        logged = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        # Of as many as a peer cares to send, the first ones.
        assert len(logged) == 10
        assert logged[0].startswith("server: Said from client cannot be read: ")
        assert "a bad word" in logged[0]


@scenario
async def test_unreadable_request_fails_at_the_requester(runtime: Runtime, short_tmp_path: Path) -> None:
    limits = Limits(request_credit_bytes=200)
    async with pair(runtime, short_tmp_path, server={"limits": limits}) as (server, client):

        async def answer(asked: Asked) -> None:
            await server.respond(asked, Said("yes"))

        await server.subscribe(Asked, answer).acknowledged()
        for _ in range(20):
            with pytest.raises(RequestFailed) as raised:
                await client.request(Asked("bad"))
        [failure] = raised.value.failures
        assert (failure.endpoint, failure.code, failure.type_name) == (
            "server",
            "unreadable",
            "EventFieldError",
        )
        assert "a bad word" in failure.text
        assert (await client.request(Asked("good"))).text == "yes"
        assert server._peers.up["client"].open_requests == {}


@scenario
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EventFieldError("Question.number cannot be read", event="Question", path="number"), "unreadable"),
        (EventFieldError("Reply.number cannot be read", event="Reply", path="number"), "handlerRaised"),
        # The handler asked for a union member without asking which one is set.
        (
            InactiveUnionMember("Question.a is not set", event="Question", path="a", active="b"),
            "handlerRaised",
        ),
    ],
    ids=["the request", "another event", "a member not set"],
)
@pytest.mark.parametrize("plain", [True, False])
async def test_only_a_request_that_its_handler_cannot_read_fails_as_unreadable(
    runtime: Runtime, short_tmp_path: Path, error: EventFieldError, code: str, plain: bool
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):

        def read(question: Question) -> None:
            raise error

        async def read_later(question: Question) -> None:
            raise error

        await server.subscribe(Question, read if plain else read_later).acknowledged()
        with pytest.raises(RequestFailed) as raised:
            await client.request(Question(number=1))
        [failure] = raised.value.failures
        assert (failure.code, failure.type_name, failure.text) == (code, type(error).__name__, str(error))


@scenario
async def test_unreadable_response_raises_at_the_requester(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):

        async def answer(asked: Asked) -> None:
            await server.respond(asked, Said(asked.text[::-1]))

        await server.subscribe(Asked, answer).acknowledged()
        with pytest.raises(EventFieldError, match="a bad word"):
            await client.request(Asked("dab"))
        assert (await client.request(Asked("doog"))).text == "good"
        assert client._peers.up["server"].pending == {}
        assert len(client._bus.deadlines) == 0


@scenario
async def test_unreadable_response_leaves_the_request_to_the_other_responder(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        unreadable_one_came = anyio.Event()

        async def answer_badly(asked: Asked) -> None:
            await server.respond(asked, Said("bad"))

        async def answer(asked: Asked) -> None:
            await unreadable_one_came.wait()
            await client.respond(asked, Said("good"))

        await server.subscribe(Asked, answer_badly).acknowledged()
        client.subscribe(Asked, answer)
        answers = []

        async def ask() -> None:
            answers.append((await client.request(Asked("which"))).text)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await eventually(lambda: client.get_peer_counters()["server"].responses_received == 1)
            await turns()
            unreadable_one_came.set()
        assert answers == ["good"]


@scenario
async def test_event_that_cannot_be_encoded_raises_and_leaves_no_request(
    runtime: Runtime, short_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        await server.subscribe(Asked, print).acknowledged()

        def refuse(self: Any) -> bytes:
            raise ZeroDivisionError

        monkeypatch.setattr(Word, "serialize", refuse)
        with pytest.raises(ZeroDivisionError):
            await client.request(Asked("x"))
        assert client._peers.up["server"].pending == {}
        assert len(client._bus.deadlines) == 0


@scenario
async def test_unreadable_request_is_answered_as_failed_and_the_connection_lives(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:

        async def answer(request: Question) -> None:
            await server.respond(request, Reply(number=request.number))

        server.subscribe(Question, answer)
        async with raw_peer(server) as peer:
            wire_id = peer.table.wire_id(event_type(Question))
            # A root pointer that points outside its message.
            wild = (0x7FFF_FFF0).to_bytes(4, "little") + (1).to_bytes(2, "little") + bytes(2) + bytes(8)
            for number in (1, 2):
                peer.session._outgoing.new()
                peer.session._outbox.requests_sent_to = number
            await peer.write()
            await send_raw(peer, event_frame(wire_id, (wild,), FrameKind.REQUEST, 1))
            good = event_type(Question).encode(Question(number=5))
            await send_raw(peer, event_frame(wire_id, good, FrameKind.REQUEST, 2))
            await peer.read(lambda: peer.of(FailedArrived) and peer.of(ResponseArrived))
            (failed,) = peer.of(FailedArrived)
            assert (failed.number, failed.code) == (1, "unreadable")
            assert failed.type_name == "EventFieldError"


@scenario
async def test_failing_responders_are_told_apart(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):

        def refuse(request: Question) -> None:
            raise LookupError("no such number")

        await server.subscribe(Question, refuse).acknowledged()
        with pytest.raises(RequestFailed) as caught:
            await client.request(Question(number=1))
        (failure,) = caught.value.failures
        assert (failure.endpoint, failure.code, failure.type_name, failure.text) == (
            "server",
            "handlerRaised",
            "LookupError",
            "no such number",
        )
        assert "server" in str(caught.value)

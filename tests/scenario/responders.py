"""Who answers, fails or keeps silent in the scenarios of requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from lahja_capn import (
    EndpointAPI,
)
from tests.conftest import Runtime
from tests.scenario.events import Question, Reply
from tests.scenario.support import at, join


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

"""Much traffic between processes of different runtimes: all of it arrives, once and in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RUNTIMES, Runtime
from tests.process.children import child
from tests.scenario.events import Question, Reply
from tests.scenario.support import at, scenario

EVENTS = 20_000


@pytest.mark.parametrize("publisher", RUNTIMES)
def test_three_consumers_get_every_event_once_and_in_order(publisher: str, short_tmp_path: Path) -> None:
    path = short_tmp_path / "server.ipc"
    with (
        child("publish", publisher, path, "server", f"3,{EVENTS}") as server,
        child("consume", "asyncio", path, "a", EVENTS) as a,
        child("consume", "asyncio+uvloop", path, "b", EVENTS) as b,
        child("consume", "trio", path, "c", EVENTS) as c,
    ):
        consumers = (a, b, c)
        for consumer in consumers:
            consumer.expect("connected")
        server.expect(f"published {EVENTS}")
        for consumer in consumers:
            # The publisher leaves when all is sent: its goodbye comes after the last event.
            consumer.expect(f"got {EVENTS}")
            consumer.expect("alone")
        for process in (server, *consumers):
            assert process.end() == (0, "", ""), process.role
    assert not path.exists()


@scenario
async def test_storm_of_requests_is_answered_each_by_its_own_answer(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config) as server:

        async def answer(request: Question) -> None:
            await server.respond(request, Reply(number=request.number))

        server.subscribe(Question, answer)
        with (
            child("ask", "asyncio", config.path, "a", 1000) as a,
            child("ask", "asyncio+uvloop", config.path, "b", 1000) as b,
            child("ask", "trio", config.path, "c", 1000) as c,
        ):
            for asker in (a, b, c):
                await asker.says("answered 1000")
                await asker.ends_well()

"""Endpoints from async generator fixtures: pytest-asyncio sets up and tears down in different tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
import pytest_asyncio

from lahja_capn import AsyncioEndpoint, ConnectionConfig, EndpointAPI
from tests.conftest import Runtime
from tests.scenario.events import Count, Question, Reply
from tests.scenario.support import Collector, at, join, scenario


@pytest_asyncio.fixture
async def server(short_tmp_path: Path) -> AsyncIterator[AsyncioEndpoint]:
    config = ConnectionConfig.from_name("server", base_path=short_tmp_path)
    async with AsyncioEndpoint.serve(config) as endpoint:
        yield endpoint
    assert endpoint.is_stopped
    assert list(short_tmp_path.iterdir()) == []


@pytest_asyncio.fixture
async def client(server: AsyncioEndpoint) -> AsyncIterator[AsyncioEndpoint]:
    async with AsyncioEndpoint("client").run() as endpoint:
        await join(endpoint, server, ConnectionConfig("server", server.ipc_path))
        yield endpoint
    assert endpoint.is_stopped


@pytest.mark.asyncio
async def test_broadcast_between_endpoints_of_fixtures_arrives(
    server: AsyncioEndpoint, client: AsyncioEndpoint
) -> None:
    got = Collector()
    server.subscribe(Count, got)
    await client.wait_until_endpoint_subscribed_to("server", Count)
    await client.broadcast(Count(number=1))
    assert await got.until(1) == [1]


@pytest.mark.asyncio
async def test_request_between_endpoints_of_fixtures_is_answered(
    server: AsyncioEndpoint, client: AsyncioEndpoint
) -> None:
    async def answer(question: Question) -> None:
        await server.respond(question, Reply(number=question.number + 1))

    server.subscribe(Question, answer)
    await client.wait_until_endpoint_subscribed_to("server", Question)
    assert (await client.request(Question(number=1))).number == 2


def test_context_entered_and_left_in_different_tasks_works(
    asyncio_runtime: Runtime, short_tmp_path: Path
) -> None:
    async def main() -> None:
        config = at(short_tmp_path, "server")
        context = AsyncioEndpoint.serve(config)
        endpoints: list[EndpointAPI] = []

        async def enter() -> None:
            endpoints.append(await context.__aenter__())

        async def leave() -> None:
            await context.__aexit__(None, None, None)

        for step in (enter, leave):
            # Each in a task of its own, which has ended before the next begins.
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(step)
        assert endpoints[0].is_stopped
        assert list(short_tmp_path.iterdir()) == []

    asyncio_runtime.run(main)


@scenario
async def test_endpoint_from_an_async_generator_stops_with_it(runtime: Runtime, short_tmp_path: Path) -> None:
    async def fixture() -> AsyncIterator[EndpointAPI]:
        async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as endpoint:
            yield endpoint

    generator = fixture()
    endpoint = await generator.__anext__()
    assert endpoint.is_serving
    with pytest.raises(StopAsyncIteration):
        await generator.__anext__()
    assert endpoint.is_stopped

"""Handlers that raise: logged, counted, given to the hook, and the end of nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.conftest import Runtime
from tests.scenario.events import Count, Question, Reply
from tests.scenario.support import eventually, pair, scenario, turns


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("kind", ["plain", "async", "lambda returning an awaitable"])
@scenario
async def test_handler_error_is_logged_counted_given_to_the_hook_and_ends_nothing(
    runtime: Runtime, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    hooked: list[tuple[int, str]] = []
    got: list[int] = []

    def plain(event: Count) -> None:
        got.append(event.number)
        if event.number == 1:
            raise ValueError("one is odd")

    async def coroutine(event: Count) -> None:
        plain(event)

    handler: Any = {"plain": plain, "async": coroutine}.get(kind, lambda event: coroutine(event))
    async with runtime.endpoint_class(
        "alone", on_handler_error=lambda event, error: hooked.append((event.number, repr(error)))
    ).run() as endpoint:
        subscription = endpoint.subscribe(Count, handler)
        for number in range(3):
            await endpoint.broadcast(Count(number=number))
        await eventually(lambda: len(got) == 3)
        await turns()
        assert got == [0, 1, 2]
        assert hooked == [(1, "ValueError('one is odd')")]
        assert subscription.counters().failed == 1
        [record] = errors(caplog)
        assert record.levelno == logging.ERROR
        assert "raised on Count from alone" in record.getMessage()
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ValueError)


@scenario
async def test_hook_that_raises_is_logged_and_ends_nothing(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(event: Any, error: Exception) -> None:
        raise RuntimeError("hook")

    def handle(event: Count) -> None:
        got.append(event.number)
        raise ValueError("handler")

    got: list[int] = []
    async with runtime.endpoint_class("alone", on_handler_error=hook).run() as endpoint:
        endpoint.subscribe(Count, handle)
        await endpoint.broadcast(Count(number=1))
        await endpoint.broadcast(Count(number=2))
        assert got == [1, 2]
        assert [type(record.exc_info[1]) for record in errors(caplog)] == [ValueError, RuntimeError] * 2


@scenario
async def test_hook_set_later_is_used(runtime: Runtime) -> None:
    hooked = []

    def handle(event: Count) -> None:
        raise ValueError("handler")

    async with runtime.endpoint_class("alone").run() as endpoint:
        endpoint.subscribe(Count, handle)
        endpoint.on_handler_error = lambda event, error: hooked.append(error)
        await endpoint.broadcast(Count(number=1))
        assert [type(error) for error in hooked] == [ValueError]


@pytest.mark.parametrize("kind", ["plain", "async"])
@scenario
async def test_handler_with_the_wrong_arguments_is_a_handler_error(
    runtime: Runtime, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    def plain() -> None:
        pass

    async def coroutine() -> None:
        pass

    async with runtime.endpoint_class("alone").run() as endpoint:
        subscription = endpoint.subscribe(Count, plain if kind == "plain" else coroutine)  # type: ignore[arg-type]
        await endpoint.broadcast(Count(number=1))
        await endpoint.broadcast(Count(number=2))
        await eventually(lambda: subscription.counters().failed == 2)
        assert [type(record.exc_info[1]) for record in errors(caplog)] == [TypeError] * 2


def cancelled_error() -> type[BaseException]:
    return anyio.get_cancelled_exc_class()


@pytest.mark.parametrize("kind", ["plain", "async", "lambda returning an awaitable"])
def test_handler_that_meets_a_cancelled_future_is_a_handler_error(
    asyncio_runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """asyncio raises CancelledError, which is no Exception, in whoever awaits a cancelled future."""
    import asyncio

    from lahja_capn import RequestFailed

    async def main() -> None:
        async with pair(asyncio_runtime, short_tmp_path) as (server, client):

            def plain(question: Question) -> None:
                if question.number == 1:
                    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    future.cancel()
                    future.result()
                server.broadcast_nowait(Reply(number=question.number), question.broadcast_config())

            async def coroutine(question: Question) -> None:
                plain(question)

            handler: Any = {"plain": plain, "async": coroutine}.get(
                kind, lambda question: coroutine(question)
            )
            await server.subscribe(Question, handler).acknowledged()
            with pytest.raises(RequestFailed) as raised:
                await client.request(Question(number=1))
            assert raised.value.failures[0].type_name == "CancelledError"
            # Neither the subscription nor the connection suffers.
            assert (await client.request(Question(number=2))).number == 2
            assert [type(record.exc_info[1]) for record in errors(caplog)] == [asyncio.CancelledError]

    asyncio_runtime.run(main)

"""Cancels a call at each of its await points in turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any

import anyio

# No call of these tests suspends so often.
MOST_POINTS = 200


class _Interrupted:
    """Awaits ``coroutine``; before it suspends for the ``point``-th time, ``cancel`` is called."""

    def __init__(self, coroutine: Any, point: int, cancel: Callable[[], Any]) -> None:
        self._coroutine = coroutine
        self._point = point
        self._cancel = cancel
        self.reached = False

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._coroutine.__await__()
        point = 0
        resume: Callable[[], Any] = lambda: inner.send(None)  # noqa: E731
        while True:
            try:
                trap = resume()
            except StopIteration as stop:
                return stop.value
            point += 1
            if point == self._point:
                self.reached = True
                self._cancel()
            try:
                value = yield trap
            except BaseException as error:
                resume = lambda error=error: inner.throw(error)  # type: ignore[misc]  # noqa: E731
            else:
                resume = lambda value=value: inner.send(value)  # type: ignore[misc]  # noqa: E731


async def cancelled_everywhere(
    call: Callable[[], Awaitable[Any]], *, how: str = "scope"
) -> AsyncIterator[tuple[int, bool]]:
    """For the 1st, 2nd, ... await point of ``call()``: call it, cancel it there, yield ``(point, cancelled)``.

    Ends after a call that has no such point. ``how``: ``"scope"`` cancels a cancel scope around the call at the very
    moment in which it suspends; ``"late"`` a turn of the loop later, when what it waits for may have come; ``"task"``
    is ``Task.cancel()`` of asyncio.
    """
    for point in range(1, MOST_POINTS):
        if how == "task":
            interrupted, cancelled = await _in_a_task(call, point)
        else:
            with anyio.CancelScope() as scope:
                cancel = scope.cancel if how == "scope" else lambda scope=scope: _later(scope.cancel)
                interrupted = _Interrupted(_run(call), point, cancel)
                await interrupted
            cancelled = scope.cancelled_caught
        if not interrupted.reached:
            return
        yield point, cancelled
    raise AssertionError(f"more than {MOST_POINTS} await points")


async def _run(call: Callable[[], Awaitable[Any]]) -> Any:
    return await call()


async def _in_a_task(call: Callable[[], Awaitable[Any]], point: int) -> tuple[_Interrupted, bool]:
    interrupted = _Interrupted(_run(call), point, lambda: task.cancel())

    async def main() -> None:
        await interrupted

    task = asyncio.create_task(main())
    try:
        await task
    except asyncio.CancelledError:
        return interrupted, True
    return interrupted, False


def _later(function: Callable[[], Any]) -> None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        import trio

        trio.lowlevel.current_trio_token().run_sync_soon(function)
    else:
        loop.call_soon(function)

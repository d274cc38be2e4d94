"""Endpoints on asyncio, uvloop included."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio

from ..endpoint.endpoint import Endpoint
from ..errors import LifecycleError
from ..transport.unix import UnixTransport


class FutureWaiter:
    """One wake-up of one task: a bare future, because ``anyio.Event`` costs three times as much here."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def wake(self, value: Any) -> None:
        if not self._future.done():
            self._future.set_result(value)

    def fail(self, error: BaseException) -> None:
        if not self._future.done():
            self._future.set_exception(error)

    async def wait(self) -> Any:
        return await self._future


class AsyncioRuntime:
    """What ``endpoint.needs.Runtime`` asks for, on asyncio."""

    name = "asyncio"

    def check_running_here(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise LifecycleError(
                "An AsyncioEndpoint works inside a running asyncio event loop, and there is none here. "
                "Use it from a coroutine run by asyncio.run(), or take TrioEndpoint under trio."
            ) from None

    def new_waiter(self) -> FutureWaiter:
        return FutureWaiter()

    async def wait_readable(self, descriptor: int) -> None:
        await anyio.wait_readable(descriptor)

    async def wait_writable(self, descriptor: int) -> None:
        await anyio.wait_writable(descriptor)

    @contextlib.asynccontextmanager
    async def beside(self, main: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        # A task of its own, not a task group around the caller's body: pytest-asyncio enters and leaves a
        # fixture in two different tasks, which a cancel scope does not survive.
        task = asyncio.ensure_future(main())
        try:
            yield
        finally:
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                if not task.done():
                    # The caller is being cancelled while it waits for us to end: end now, leave nothing behind.
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
                raise


class AsyncioEndpoint(Endpoint):
    """An endpoint for asyncio programs; see :class:`~lahja_capn.endpoint.api.EndpointAPI`."""

    _runtime_class = AsyncioRuntime
    _transport_class = UnixTransport

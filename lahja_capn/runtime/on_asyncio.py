"""Endpoints on asyncio, uvloop included."""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import anyio

from ..endpoint.endpoint import Endpoint
from ..errors import LifecycleError
from ..transport import Transports


class FutureWaiter:
    """One wake-up of one task: a bare future, because ``anyio.Event`` costs three times as much here."""

    __slots__ = ("_future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._future: asyncio.Future[Any] = loop.create_future()

    def wake(self, value: Any) -> None:
        if not self._future.done():
            self._future.set_result(value)

    def fail(self, error: BaseException) -> None:
        if not self._future.done():
            self._future.set_exception(error)

    def wait(self) -> asyncio.Future[Any]:
        return self._future


class AsyncioTasks:
    """A set of tasks. anyio's task groups do the same, but cannot start a task from a reader's callback."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        if self._closed:
            return
        # The loop itself keeps only weak references to tasks.
        task = self._loop.create_task(function(*args))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        self._closed = True
        try:
            # A task that has not begun would be cancelled without one line of it run, its `finally` included.
            await asyncio.sleep(0)
        finally:
            while self._tasks:
                for task in self._tasks:
                    task.cancel()
                await asyncio.wait(self._tasks)


class AsyncioRuntime:
    """What ``endpoint.needs.Runtime`` asks for, on asyncio."""

    name = "asyncio"
    cancelled_error: type[BaseException] = asyncio.CancelledError

    def __init__(self) -> None:
        # An endpoint lives in one loop; asking which one it is for every wake-up would cost more than the rest.
        self._loop: asyncio.AbstractEventLoop | None = None

    def is_task_cancelled(self) -> bool:
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0

    def check_running_here(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise LifecycleError(
                "An AsyncioEndpoint works inside a running asyncio event loop, and there is none here. "
                "Use it from a coroutine run by asyncio.run(), or take TrioEndpoint under trio."
            ) from None

    def new_waiter(self) -> FutureWaiter:
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        return FutureWaiter(loop)

    async def wait_readable(self, descriptor: int) -> None:
        await anyio.wait_readable(descriptor)

    async def call_when_readable(self, descriptor: int, on_readable: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        hung_up = None
        if type(loop).__module__.startswith("uvloop"):
            # libuv stops watching a descriptor for good when it reports an error (a peer that was killed before
            # it had read what we sent): the reader is called once more and never again. So whoever reads on
            # uvloop has to ask for itself whether that has happened, and then to read to the end.
            hung_up = select.poll()
            hung_up.register(descriptor, 0)  # POLLERR and POLLHUP are reported always
        failed: asyncio.Future[None] = loop.create_future()

        def call() -> None:
            try:
                while on_readable() and hung_up is not None and hung_up.poll(0):
                    pass
            except BaseException as error:
                loop.remove_reader(descriptor)
                if not failed.done():
                    failed.set_exception(error)

        loop.add_reader(descriptor, call)
        try:
            await failed
        finally:
            loop.remove_reader(descriptor)

    async def wait_writable(self, descriptor: int) -> None:
        await anyio.wait_writable(descriptor)

    @contextlib.asynccontextmanager
    async def tasks(self) -> AsyncIterator[AsyncioTasks]:
        tasks = AsyncioTasks()
        try:
            yield tasks
        finally:
            await tasks.aclose()

    @contextlib.asynccontextmanager
    async def beside(self, main: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        # A task of its own, not a task group around the caller's body: pytest-asyncio enters and leaves a
        # fixture in two different tasks, which a cancel scope does not survive.
        task = asyncio.ensure_future(main())
        body_error: BaseException | None = None
        try:
            yield
        except BaseException as error:
            body_error = error
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            # The caller is being cancelled while it waits for us to end: end now, leave nothing behind.
            task.cancel()
            while not task.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait((task,))
            if body_error is None:
                raise
        if body_error is not None:
            raise body_error


class AsyncioEndpoint(Endpoint):
    """An endpoint for asyncio programs; see :class:`~lahja_capn.endpoint.api.EndpointAPI`."""

    _runtime_class = AsyncioRuntime
    _transport_class = Transports

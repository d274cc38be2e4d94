"""Endpoints on trio."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import outcome
import trio

from ..endpoint.endpoint import Endpoint
from ..errors import LifecycleError
from ..transport import Transports


class TaskWaiter:
    """One wake-up of one task: reschedules it, without an event between."""

    __slots__ = ("_result", "_task")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._result: outcome.Outcome[Any] | None = None

    def wake(self, value: Any) -> None:
        self._settle(outcome.Value(value))

    def fail(self, error: BaseException) -> None:
        self._settle(outcome.Error(error))

    def _settle(self, result: outcome.Outcome[Any]) -> None:
        if self._result is None:
            self._result = result
            if self._task is not None:
                task, self._task = self._task, None
                trio.lowlevel.reschedule(task, result)

    async def wait(self) -> Any:
        if self._result is not None:
            await trio.lowlevel.checkpoint()
            return self._result.unwrap()
        self._task = trio.lowlevel.current_task()

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._task = None
            self._result = outcome.Value(None)
            return trio.lowlevel.Abort.SUCCEEDED

        return await trio.lowlevel.wait_task_rescheduled(abort)


class TrioTasks:
    """A nursery that is cancelled when it is left."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._closed = False

    def spawn(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        if not self._closed:
            self._nursery.start_soon(function, *args)

    def cancel(self) -> None:
        self._closed = True
        self._nursery.cancel_scope.cancel()


class TrioRuntime:
    """What ``endpoint.needs.Runtime`` asks for, on trio."""

    name = "trio"
    cancelled_error: type[BaseException] = trio.Cancelled

    def is_task_cancelled(self) -> bool:
        return True  # trio raises it for no other reason

    def check_running_here(self) -> None:
        if not trio.lowlevel.in_trio_task():
            raise LifecycleError(
                "A TrioEndpoint works inside trio.run(), and this is no trio task. "
                "Use it from an async function run by trio.run(), or take AsyncioEndpoint under asyncio."
            )

    def new_waiter(self) -> TaskWaiter:
        return TaskWaiter()

    async def wait_readable(self, descriptor: int) -> None:
        await trio.lowlevel.wait_readable(descriptor)

    async def call_when_readable(self, descriptor: int, on_readable: Callable[[], bool]) -> None:
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            on_readable()

    async def wait_writable(self, descriptor: int) -> None:
        await trio.lowlevel.wait_writable(descriptor)

    @contextlib.asynccontextmanager
    async def tasks(self) -> AsyncIterator[TrioTasks]:
        async with trio.open_nursery() as nursery:
            tasks = TrioTasks(nursery)
            try:
                yield tasks
            finally:
                tasks.cancel()

    @contextlib.asynccontextmanager
    async def beside(self, main: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        # The nursery is ours and the caller never sees it: an error of the caller's own body does not pass
        # through it, so that it comes out as the very object that was raised, in no group.
        body_error: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(main)
                try:
                    yield
                except BaseException as error:
                    if nursery.cancel_scope.cancel_called:
                        # main failed, or Ctrl-C hit one of its tasks, and this is only the nursery's cancelling.
                        raise
                    body_error = error
        except BaseException as error:
            # While it waited for main the caller was cancelled: its body's own error says more.
            if body_error is None:
                if isinstance(error, BaseExceptionGroup):
                    raise _one_of(error) from None
                raise
        if body_error is not None:
            raise body_error


def _one_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What to raise in place of a nursery's group: what went wrong, or else the cancellation."""
    error: BaseException = group.split(trio.Cancelled)[1] or group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class TrioEndpoint(Endpoint):
    """An endpoint for trio programs; see :class:`~lahja_capn.endpoint.api.EndpointAPI`."""

    _runtime_class = TrioRuntime
    _transport_class = Transports

"""Engines: what a driver needs of asyncio and of trio."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

import anyio

if TYPE_CHECKING:
    from .. import EndpointAPI

Driver = Callable[["EngineAPI"], Awaitable[None]]
"""Runs one endpoint, from its start to its end. :func:`~lahja_capn.tools.drivers.driver` makes one; any
``async def drive(engine)`` is one too."""


def name_of(driver: Driver) -> str:
    """What a failure report calls ``driver``: a function by its name, anything else by its ``str``."""
    return str(getattr(driver, "__qualname__", driver))


class EventAPI(Protocol):
    """What ``asyncio.Event`` and ``trio.Event`` have in common."""

    # lahja has the same three; set() returns None on both runtimes.
    def set(self) -> None: ...

    def is_set(self) -> bool: ...

    async def wait(self) -> object: ...


class ActionTimeout(TimeoutError):
    """:meth:`EngineAPI.run_with_timeout` stopped what it ran: not a TimeoutError that came from inside it."""


class EngineAPI(ABC):
    """What a driver needs of a runtime."""

    endpoint_class: type[EndpointAPI]
    """The endpoint of this runtime."""

    Event: Callable[[], EventAPI]
    """Makes an event that a task of this runtime can wait for. Call it inside the running loop."""

    @abstractmethod
    async def run_drivers(self, *drivers: Driver) -> None:
        """Run ``drivers`` at the same time, until all have ended.

        When one fails the others are cancelled.

        Raises:
            Exception: what the failing driver raised. If several failed, an ``ExceptionGroup``, the first
                failure first.
        """

    @abstractmethod
    async def run_with_timeout(self, coro: Callable[..., Awaitable[Any]], *args: Any, timeout: float) -> None:
        """Await ``coro(*args)``, for at most ``timeout`` seconds.

        Raises:
            TimeoutError: it took longer and was cancelled.
        """

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Let other tasks run for ``seconds``."""


class _AnyioEngine(EngineAPI):
    """Both engines: what differs between them is the endpoint class."""

    Event = anyio.Event

    async def run_drivers(self, *drivers: Driver) -> None:
        failures: list[Exception] = []

        async def run(driver: Driver) -> None:
            try:
                await driver(self)
            except Exception as error:
                error.add_note(f"in driver {name_of(driver)}")
                failures.append(error)
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for driver in drivers:
                group.start_soon(run, driver)
        # Raised from here and not out of the task group, so that both runtimes raise the same thing.
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise ExceptionGroup(f"{len(failures)} of {len(drivers)} drivers failed", failures)

    async def run_with_timeout(self, coro: Callable[..., Awaitable[Any]], *args: Any, timeout: float) -> None:
        with anyio.move_on_after(timeout) as scope:
            await coro(*args)
        if scope.cancelled_caught:
            raise ActionTimeout(f"{coro} did not end within {timeout:g} s")

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


class _EndpointOfRuntime:
    """``endpoint_class`` as a class attribute that imports its runtime only when somebody reads it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, engine: EngineAPI | None, owner: type[EngineAPI]) -> Any:
        import lahja_capn

        return getattr(lahja_capn, self._name)


class AsyncioEngine(_AnyioEngine):
    """Drives an AsyncioEndpoint; to be used inside a running asyncio event loop."""

    if not TYPE_CHECKING:
        endpoint_class = _EndpointOfRuntime("AsyncioEndpoint")


class TrioEngine(_AnyioEngine):
    """Drives a TrioEndpoint; to be used inside ``trio.run``. Importing and making one needs no trio."""

    if not TYPE_CHECKING:
        endpoint_class = _EndpointOfRuntime("TrioEndpoint")

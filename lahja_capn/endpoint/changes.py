"""Wait until something about the peers is true, without missing a change."""

from __future__ import annotations

from collections.abc import Callable

from .needs import Runtime, Waiter


class Changes:
    """A counter of changes that tasks can wait on.

    ``version`` grows with every change. A caller that remembers the version it has looked at and waits for a
    later one cannot miss a change in between (lahja L18: its waits had no version, so a change between a look
    and a wait was lost).
    """

    __slots__ = ("_error", "_runtime", "_waiters", "version")

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._waiters: set[Waiter[None]] = set()
        self._error: Exception | None = None
        self.version = 0

    def notify(self) -> None:
        self.version += 1
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            waiter.wake(None)

    def stop(self, error: Exception) -> None:
        """Nothing will change any more: every present and future wait raises ``error``."""
        self._error = error
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            waiter.fail(error)

    async def wait_since(self, version: int) -> int:
        """Return the version once it is later than ``version``: at once if it already is."""
        while self.version <= version:
            await self._next()
        return self.version

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return once ``condition()`` is true; it is looked at now and after every change."""
        while not condition():
            await self._next()

    async def _next(self) -> None:
        if self._error is not None:
            raise self._error
        waiter = self._runtime.new_waiter()
        self._waiters.add(waiter)
        try:
            await waiter.wait()
        finally:
            self._waiters.discard(waiter)

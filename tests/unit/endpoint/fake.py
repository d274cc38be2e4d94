"""A runtime without an event loop: the test itself drives each coroutine step by step."""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any

import outcome


@types.coroutine
def _suspend() -> Generator[None, None, None]:
    yield


class FakeWaiter:
    def __init__(self) -> None:
        self.result: outcome.Outcome[Any] | None = None

    def wake(self, value: Any) -> None:
        if self.result is None:
            self.result = outcome.Value(value)

    def fail(self, error: BaseException) -> None:
        if self.result is None:
            self.result = outcome.Error(error)

    async def wait(self) -> Any:
        while self.result is None:
            await _suspend()
        return self.result.unwrap()


class FakeCancelled(BaseException):
    pass


class FakeRuntime:
    name = "fake"
    cancelled_error = FakeCancelled

    def __init__(self) -> None:
        self.waiters: list[FakeWaiter] = []

    def new_waiter(self) -> FakeWaiter:
        self.waiters.append(FakeWaiter())
        return self.waiters[-1]


class Task:
    """One coroutine; :meth:`step` runs it until it waits."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        self.outcome: outcome.Outcome[Any] | None = None
        self.step()

    @property
    def done(self) -> bool:
        return self.outcome is not None

    def step(self) -> bool:
        self._run(lambda: self._coroutine.send(None))
        return self.done

    def cancel(self) -> None:
        self._run(lambda: self._coroutine.throw(FakeCancelled()))

    def _run(self, resume: Any) -> None:
        if self.outcome is not None:
            return
        try:
            resume()
        except StopIteration as stop:
            self.outcome = outcome.Value(stop.value)
        except BaseException as error:
            self.outcome = outcome.Error(error)

    def result(self) -> Any:
        self.step()
        assert self.outcome is not None, "it still waits"
        return self.outcome.unwrap()

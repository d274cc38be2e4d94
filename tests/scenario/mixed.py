"""Two endpoints, each in a thread with an event loop of its own, so that every pair of runtimes can be tried."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from tests.conftest import Runtime
from tests.scenario.support import DEADLINE_S

Part = Callable[[Runtime, "Meeting"], Awaitable[None]]


class Meeting:
    """What the two sides tell each other besides the bus: named points, each with a value."""

    def __init__(self) -> None:
        self._told: dict[str, Any] = {}
        self._failed = False

    def tell(self, point: str, value: Any = None) -> None:
        self._told[point] = value

    def fail(self) -> None:
        self._failed = True

    async def told(self, point: str) -> Any:
        """Wait until the other side has told ``point``; returns its value."""
        give_up_at = time.monotonic() + DEADLINE_S
        while point not in self._told:
            if self._failed:
                raise OtherSideFailed(f"while waiting for {point!r}")
            if time.monotonic() >= give_up_at:
                raise AssertionError(f"the other side did not come to {point!r} within {DEADLINE_S:g} s")
            await anyio.sleep(0.001)
        return self._told[point]


class OtherSideFailed(Exception):
    """Not the failure itself, only its consequence here."""


class Pair:
    """Two runtimes."""

    def __init__(self, first: str, second: str) -> None:
        self.name = f"{first}-{second}"
        self._runtimes = (Runtime(first), Runtime(second))

    def __repr__(self) -> str:
        return f"<Pair {self.name}>"

    def run(self, first: Part, second: Part) -> None:
        """Run both parts to their end, at the same time; raises the failure of the one that failed first."""
        meeting = Meeting()
        failures: list[BaseException] = []

        def run_part(runtime: Runtime, part: Part) -> None:
            try:
                runtime.run(part, runtime, meeting)
            except BaseException as error:
                meeting.fail()
                failures.append(error)

        threads = [
            threading.Thread(target=run_part, args=arguments, daemon=True)
            for arguments in zip(self._runtimes, (first, second), strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        failures.sort(key=lambda error: isinstance(error, OtherSideFailed))
        if failures:
            raise failures[0]


PAIRS = (
    Pair("asyncio", "asyncio"),
    Pair("asyncio+uvloop", "asyncio+uvloop"),
    Pair("trio", "trio"),
    Pair("asyncio", "trio"),
    Pair("trio", "asyncio+uvloop"),
)

every_pair = pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
"""The test's argument ``pair`` is each pair of runtimes in turn."""

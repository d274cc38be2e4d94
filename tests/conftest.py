"""What all tests share: the runtimes, folders short enough for sockets, seeds that a failure shows.

A scenario test takes the fixture ``runtime`` and so runs on asyncio, asyncio with uvloop, and trio::

    def test_something(runtime: Runtime, short_tmp_path: Path) -> None:
        async def main() -> None:
            async with runtime.endpoint_class("alone").run() as endpoint:
                ...

        runtime.run(main)
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from lahja_capn import AsyncioEndpoint, TrioEndpoint

T = TypeVar("T")

# --- hypothesis -----------------------------------------------------------------------------------------

# No deadline: a shared machine is slow at random, and pytest's own timeout catches what hangs. The blob that
# reproduces a failure is printed. HYPOTHESIS_PROFILE=thorough searches longer.
_common: dict[str, Any] = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow],
}
settings.register_profile("ci", max_examples=100, derandomize=False, **_common)
settings.register_profile("dev", max_examples=50, **_common)
settings.register_profile("thorough", max_examples=5000, **_common)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))

# --- seeds ----------------------------------------------------------------------------------------------

SEED = os.environ.get("TEST_SEED") or secrets.token_hex(4)


def pytest_report_header() -> str:
    return f"seed of the fixture rng: {SEED} (the same again: TEST_SEED={SEED})"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers from the run's seed, which pytest's header shows, and the test's own name."""
    return random.Random(f"{SEED} {request.node.nodeid}")


# --- folders --------------------------------------------------------------------------------------------


@pytest.fixture
def short_tmp_path() -> Iterator[Path]:
    """A folder with a short path.

    A Unix socket's path may have 107 bytes (Linux) or 103 (macOS); pytest's ``tmp_path`` has the name of the
    test in it, and soon more.
    """
    path = Path(tempfile.mkdtemp(prefix="lc-", dir="/tmp" if os.path.isdir("/tmp") else None))
    yield path
    shutil.rmtree(path, ignore_errors=True)


# --- runtimes -------------------------------------------------------------------------------------------


class Runtime:
    """One way to run async code.

    Attributes:
        name: "asyncio", "asyncio+uvloop" or "trio".
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<Runtime {self.name}>"

    @property
    def endpoint_class(self) -> type[AsyncioEndpoint] | type[TrioEndpoint]:
        import lahja_capn

        return lahja_capn.TrioEndpoint if self.name == "trio" else lahja_capn.AsyncioEndpoint

    def run(
        self, main: Callable[..., Awaitable[T]], *args: Any, timeout: float = 15, debug: bool = True
    ) -> T:
        """Run ``main(*args)`` in a new loop and return its result.

        Args:
            timeout: seconds; below pytest's own limit, so that what hangs is shown with its own stack.
            debug: asyncio's debug mode; a test that counts or times many events turns it off.

        Raises:
            TimeoutError: ``main`` took longer and was cancelled.
            AssertionError: ``main`` ended and left tasks behind (asyncio; trio cannot).
        """
        if self.name == "trio":
            import trio

            async def main_in_time() -> T:
                with trio.fail_after(timeout):
                    return await main(*args)

            try:
                return trio.run(main_in_time)
            except trio.TooSlowError as error:
                raise TimeoutError(f"took longer than {timeout} s") from error

        async def main_alone() -> T:
            async with asyncio.timeout(timeout):
                result = await main(*args)
            await _refuse_leftovers()
            return result

        loop_factory = None
        if self.name == "asyncio+uvloop":
            import uvloop

            loop_factory = uvloop.new_event_loop
        with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
            return runner.run(main_alone())


async def _refuse_leftovers() -> None:
    """Fail if tasks outlive the test: what they do later is nobody's to see. Ending ones get a few rounds."""
    for _ in range(10):
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(0)
    raise AssertionError("the test ended but left tasks behind: " + ", ".join(map(repr, left)))


RUNTIMES = ("asyncio", "asyncio+uvloop", "trio")


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Each of the three runtimes in turn."""
    return Runtime(request.param)


@pytest.fixture
def asyncio_runtime() -> Runtime:
    """Only asyncio, for what does not depend on the runtime."""
    return Runtime("asyncio")

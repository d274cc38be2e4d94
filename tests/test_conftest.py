"""The shared fixtures do what tests rely on."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

import anyio.lowlevel
import pytest

from tests.conftest import SEED, Runtime


def test_run_returns_the_result_and_passes_arguments(runtime: Runtime) -> None:
    async def add(a: int, b: int) -> int:
        await anyio.lowlevel.checkpoint()
        return a + b

    assert runtime.run(add, 40, 2) == 42


def test_the_runtime_is_the_one_it_says(runtime: Runtime) -> None:
    async def name() -> str:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return "trio" if sys.modules["trio"].lowlevel.in_trio_run() else "none"
        return "asyncio+uvloop" if type(loop).__module__.startswith("uvloop") else "asyncio"

    assert runtime.run(name) == runtime.name


def test_endpoint_class_belongs_to_the_runtime(runtime: Runtime) -> None:
    wanted = "TrioEndpoint" if runtime.name == "trio" else "AsyncioEndpoint"
    assert runtime.endpoint_class.__name__ == wanted


def test_a_test_that_hangs_is_a_timeout(runtime: Runtime) -> None:
    with pytest.raises(TimeoutError):
        runtime.run(anyio.sleep_forever, timeout=0.01)


@pytest.mark.parametrize("name", ["asyncio", "asyncio+uvloop"])
def test_a_task_left_behind_is_found(name: str) -> None:
    async def leave() -> None:
        leave.task = asyncio.ensure_future(anyio.sleep_forever())  # type: ignore[attr-defined]

    with pytest.raises(AssertionError, match="left tasks behind"):
        Runtime(name).run(leave)


def test_a_socket_path_in_the_short_folder_stays_below_every_limit(short_tmp_path: Path) -> None:
    assert len(os.fsencode(short_tmp_path / ("n" * 30 + ".ipc"))) < 100


def test_random_numbers_follow_from_the_printed_seed_and_the_name_of_the_test(
    rng: random.Random, request: pytest.FixtureRequest
) -> None:
    assert rng.random() == random.Random(f"{SEED} {request.node.nodeid}").random()

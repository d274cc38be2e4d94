"""lahja 0.17's defects in the runners and the import: L21, L22. None may come back.

Each test is named after the failure that lahja's users met. Tests of two endpoints run on every pair of
runtimes, each endpoint in a thread and an event loop of its own.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lahja_capn.tools.engine import EngineAPI
from lahja_capn.tools.runner import AsyncioRunner, DriversFailed, IsolatedHomogenousRunner, TrioRunner
from tests.conftest import Runtime

ROOT = Path(__file__).parents[2]

# --- L21: tests that could not fail -------------------------------------------------------------------------


async def exit_with_a_code(engine: EngineAPI) -> None:
    os._exit(3)


async def raise_an_error(engine: EngineAPI) -> None:
    raise ValueError("the driver failed")


async def end_well(engine: EngineAPI) -> None:
    await engine.sleep(0)


@pytest.mark.parametrize("runner", [AsyncioRunner(), TrioRunner()], ids=["asyncio", "trio"])
def test_L21_child_that_fails_fails_the_run(runner: Any) -> None:
    isolated = IsolatedHomogenousRunner(runner)
    isolated(end_well, end_well)
    for driver, code in ((exit_with_a_code, 3), (raise_an_error, 1)):
        with pytest.raises(DriversFailed) as caught:
            isolated(end_well, driver)
        assert [failure.exit_code for failure in caught.value.failures] == [code]


def test_L21_fixture_runs_what_its_name_says(runtime: Runtime) -> None:
    async def main() -> str:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            import trio

            assert trio.lowlevel.in_trio_run()
            return "trio"
        return "asyncio+uvloop" if type(loop).__module__.startswith("uvloop") else "asyncio"

    assert runtime.run(main) == runtime.name
    expected = "TrioEndpoint" if runtime.name == "trio" else "AsyncioEndpoint"
    assert runtime.endpoint_class.__name__ == expected


# --- L22: importing broke tracebacks and needed trio --------------------------------------------------------

IMPORT_AND_FAIL = """
import sys, threading
sys.modules["trio"] = None
hooks = sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook, sys.breakpointhook
import lahja_capn, lahja_capn.tools.drivers, lahja_capn.tools.runner
assert lahja_capn.AsyncioEndpoint
assert hooks == (
    sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook, sys.breakpointhook
)
assert sys.excepthook is sys.__excepthook__
raise ExceptionGroup("several", [ValueError("the real error")])
"""


def test_L22_import_needs_no_trio_and_leaves_hooks_alone() -> None:
    child = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", IMPORT_AND_FAIL],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=15,
        check=False,
    )
    assert child.returncode == 1
    assert "ValueError: the real error" in child.stderr
    assert "Error in sys.excepthook" not in child.stderr
    assert "AssertionError" not in child.stderr


def test_L22_trio_endpoint_leaves_the_hook_alone_too() -> None:
    code = (
        "import sys; from lahja_capn import TrioEndpoint; TrioEndpoint('t'); assert 'trio' in sys.modules;"
        "assert sys.excepthook is sys.__excepthook__"
    )
    child = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=15,
        check=False,
    )
    assert (child.returncode, child.stderr) == (0, "")

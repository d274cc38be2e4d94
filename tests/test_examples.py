"""Every program in ``examples/`` runs as its reader would run it: in a process of its own, from another folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
PROGRAMS = sorted(path.name for path in EXAMPLES.glob("*.py"))

# What the demo promises its reader (README.md).
DEMO_LIMIT_S = 30.0


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run an example, its children included, with every warning an error; it must leave the folder empty."""
    ended = subprocess.run(
        [sys.executable, os.fspath(EXAMPLES / program)],
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "error", "TMPDIR": os.fspath(folder), "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        timeout=DEMO_LIMIT_S + 10,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    # One of them logs, and logs go to stderr; nothing else belongs there.
    for trouble in ("Traceback", "Warning", "Error", "Exception"):
        assert trouble not in ended.stderr, ended.stderr
    assert os.listdir(folder) == []
    return ended


def test_there_are_examples() -> None:
    assert {"demo.py", "inter_process_ping_pong.py", "request_api.py"} <= set(PROGRAMS)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("program", [name for name in PROGRAMS if name != "demo.py"])
def test_example_ends_well_and_says_something(program: str, short_tmp_path: Path) -> None:
    ended = run(program, short_tmp_path)
    assert (ended.stdout + ended.stderr).strip()


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_demo_ends_in_time_and_each_of_its_processes_reports(short_tmp_path: Path) -> None:
    started = time.monotonic()
    output = run("demo.py", short_tmp_path).stdout
    assert time.monotonic() - started < DEMO_LIMIT_S
    lines = re.findall(r"^ *[\d.]+ s  (\w+) +(asyncio|trio) +(.+)$", output, re.MULTILINE)
    reported = {(name, runtime) for name, runtime, _ in lines}
    assert len({name for name, _ in reported}) == len(reported) == 5
    assert {runtime for _, runtime in reported} == {"asyncio", "trio"}
    # What the demo is there to show: a broadcast, a request, a stream, a targeted event, a large event.
    table = output[output.index("p50 us") :]
    for row in ("pictures of", "readings", "requests", "stream"):
        assert row in table
    assert "to the wheels only" in output
    assert output.rstrip().splitlines()[-1].startswith("5 processes, ")
    assert "all ended well, nothing left behind" in output

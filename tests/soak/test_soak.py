"""The short form of `make soak`, and that a run finds what it is there to find."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak import sabotage

ROOT = Path(__file__).parents[2]

# SOAK_MINUTES=30 makes the test of CI as long as wanted; SOAK_SABOTAGE=all tries every kind of damage.
MINUTES = float(os.environ.get("SOAK_MINUTES", "1"))
DAMAGES = tuple(sabotage.KINDS) if os.environ.get("SOAK_SABOTAGE") == "all" else ("loss",)


def soak(*arguments: str, timeout_s: float) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.soak", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.timeout(MINUTES * 120 + 240)
def test_a_minute_of_load_and_faults_loses_nothing_and_nothing_grows() -> None:
    code, report = soak("--minutes", str(MINUTES), timeout_s=MINUTES * 120 + 230)
    print(report)
    assert code == 0, report
    assert "passed: order kept" in report


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_found(kind: str) -> None:
    code, report = soak("--minutes", "0.5", "--quiet-every", "4", "--sabotage", kind, timeout_s=290)
    assert code == 1, report
    assert re.search(sabotage.KINDS[kind], report), report

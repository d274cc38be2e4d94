"""``make demo-languages``: who is there speaks and is heard, who is not is said to be missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from peers.languages import FOREIGN

DEMO = Path(__file__).resolve().parents[2] / "examples" / "languages" / "demo.py"

# What the demo promises.
LIMIT_S = 60.0


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_each_language_that_is_built_has_its_part_in_the_conversation(short_tmp_path: Path) -> None:
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, os.fspath(DEMO)],
        cwd=short_tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "error", "TMPDIR": os.fspath(short_tmp_path)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S + 10,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert time.monotonic() - started < LIMIT_S
    assert ended.stderr == ""
    assert os.listdir(short_tmp_path) == []
    for language in FOREIGN:
        title = re.escape(language.title)
        if trouble := language.trouble(language.example):
            assert f"{language.title} did not take part, {trouble}" in ended.stdout
            continue
        for number in (1, 2, 3):
            assert re.search(rf"^ *[\d.]+ s  {title} +.*\bCount {number}\b", ended.stdout, re.MULTILINE)
        assert re.search(
            rf"^ *[\d.]+ s  Python +is asked by {title} for twice 21$", ended.stdout, re.MULTILINE
        )
        farewell = rf"^ *[\d.]+ s  {title} +hub (is gone|says goodbye): .*\bshutdown\b"
        assert re.search(farewell, ended.stdout, re.MULTILINE), ended.stdout
        assert re.search(rf'Python +is told by {title}: "twice \d+" is \d+$', ended.stdout, re.MULTILINE)

"""The command behind ``make fuzz``, without atheris: it runs each target for a moment, and outlives what kills one."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import run
from tests.fuzz.targets import TARGETS


@pytest.mark.slow
def test_a_short_run_of_all_targets_reports_and_finds_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--plain", "--minutes", "0.07", "--seed", "1", "--folder", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    report = said.rpartition(run.HEAD)[2].splitlines()
    lines = {line.split()[0]: line.split() for line in report if line}
    assert list(lines) == [*TARGETS, "all"]
    counts = [int(lines[name][1].replace(",", "")) for name in TARGETS]
    assert min(counts) > 0
    assert int(lines["all"][1].replace(",", "")) == sum(counts)
    assert said.startswith("plain, seed 1, 0.07 minutes")


def test_an_input_that_ends_the_process_is_kept_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = (
        "import os, sys; folder = sys.argv[4]; "
        "open(folder + '/current.bin', 'wb').write((3).to_bytes(8, 'little') + b'badrest'); os.abort()"
    )
    popen: Any = subprocess.Popen
    monkeypatch.setattr(
        run.subprocess,
        "Popen",
        lambda command, **facts: popen([command[0], "-c", program, *command[1:]], **facts),
    )
    tally = run.Tally("events")
    run.run_slice(tally, tmp_path, 1.0, 1, "plain")
    name = f"crash-{hashlib.sha1(b'bad').hexdigest()}"
    assert (tmp_path / name).read_bytes() == b"bad"
    assert tally.findings == {f"process ended with -6: {name}": 1}
    assert name in capsys.readouterr().out

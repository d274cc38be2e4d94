"""What every conformance program does by itself: runs all vectors, notices a wrong one, knows its command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.vectors.loading import names
from tests.vectors.store import FOLDERS

from .pair import PYTHON_SIDES, START_LIMIT_S, Side
from .program import LIMIT_S, Program
from .test_matrix import SIDES

VECTORS = Path(__file__).resolve().parents[1] / "vectors"

# The vectors do not know of runtimes.
PROGRAMS = [side for side in SIDES if side not in PYTHON_SIDES[1:]]

each_program = pytest.mark.parametrize("side", PROGRAMS, ids=lambda side: side.key)


def run(side: Side, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*side.command, *arguments],
        env={**os.environ, "PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def counts(ended: subprocess.CompletedProcess[str]) -> tuple[int, int]:
    """Passed and failed, as its last line says."""
    found = re.search(r"^(\d+) passed, (\d+) failed\n\Z", ended.stdout, re.MULTILINE)
    assert found is not None, ended.stdout + ended.stderr
    return int(found[1]), int(found[2])


@pytest.mark.slow
@pytest.mark.timeout(150)
@each_program
def test_every_vector_passes(side: Side) -> None:
    ended = run(side, "vectors", os.fspath(VECTORS))
    passed, failed = counts(ended)
    assert (failed, ended.returncode) == (0, 0), ended.stdout + ended.stderr
    everything = every_name()
    # Those a runner may leave out.
    needing = [pair for pair in everything if load(*pair).get("needs")]
    assert len(everything) - len(needing) <= passed <= len(everything)


def every_name() -> list[tuple[str, str]]:
    return [(folder, name) for folder in FOLDERS for name in names(VECTORS, folder)]


def load(folder: str, name: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((VECTORS / folder / f"{name}.json").read_text(encoding="utf-8"))
    return facts


def damage(folder: str, facts: dict[str, Any]) -> None:
    """Make what the vector says of its bytes wrong."""
    if folder in ("messages", "values"):
        facts["value"]["number"] = str(int(facts["value"]["number"]) ^ 1)
    elif folder == "frames":
        facts["wire_id"] += 1
    elif folder == "conversations":
        facts["expect"].append({"event": {"type": "Count", "value": {"number": "12345"}}})
    else:
        facts["goodbye"] = ["tooSlow"]


# One of each folder.
SAMPLES = {
    "messages": "count-highest",
    "values": "count-highest",
    "frames": "event",
    "conversations": "ping",
    "refusals": "ack-0",
}


@pytest.mark.slow
@pytest.mark.timeout(60)
@each_program
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_wrong_vector_fails(side: Side, folder: str, tmp_path: Path) -> None:
    for one, name in SAMPLES.items():
        (tmp_path / one).mkdir()
        for path in (VECTORS / one).glob(f"{name}.*"):
            shutil.copy(path, tmp_path / one)
    right = run(side, "vectors", os.fspath(tmp_path))
    assert (counts(right), right.returncode) == ((5, 0), 0), right.stdout + right.stderr
    facts = load(folder, SAMPLES[folder])
    damage(folder, facts)
    (tmp_path / folder / f"{SAMPLES[folder]}.json").write_text(json.dumps(facts), encoding="utf-8")
    wrong = run(side, "vectors", os.fspath(tmp_path))
    assert counts(wrong) == (4, 1), wrong.stdout + wrong.stderr
    assert wrong.returncode != 0


@each_program
@pytest.mark.parametrize("arguments", ["", "dance", "peer --name x", "peer --name x --connect y"])
def test_a_bad_command_line_ends_with_2(side: Side, arguments: str) -> None:
    ended = run(side, *arguments.split())
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert ended.stdout == ""
    assert ended.stderr != ""


HANDSHAKE_S = 0.3
# For a busy machine; and below the 10 s of a program that does not do as it is told.
REFUSED_LIMIT_S = 5.0


def refusal(program: Program) -> float:
    """Wait until the program has given its connection up because of the deadline; when that was."""
    line = program.wait("refused", limit_s=REFUSED_LIMIT_S)
    assert line == {"is": "refused", "code": "handshakeTimeout"}
    return time.monotonic()


@each_program
def test_who_says_nothing_is_given_up_at_the_handshake_deadline(side: Side, short_tmp_path: Path) -> None:
    path = os.fspath(short_tmp_path / "s.ipc")
    deadline = ("--handshake-ms", str(round(HANDSHAKE_S * 1000)))
    with socket.socket(socket.AF_UNIX) as mute:
        mute.settimeout(LIMIT_S)
        program = side.start("server", "--serve", path, *deadline)
        try:
            program.wait("listening", limit_s=START_LIMIT_S)
            started = time.monotonic()
            mute.connect(path)
            assert refusal(program) - started >= HANDSHAKE_S
            # A frame, and then the end: what it says is known from the line above.
            assert len(mute.recv(1000)) >= 32
            assert mute.recv(1000) == b""
            # Else it would wait for our end of the stream.
            mute.close()
            program.stop()
        finally:
            program.close()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(START_LIMIT_S)
        listener.bind(f"{path}.mute")
        listener.listen()
        program = side.start("client", "--connect", f"{path}.mute", "--expect", "server", *deadline)
        try:
            mute, _ = listener.accept()
            with mute:
                refusal(program)
        finally:
            program.close()

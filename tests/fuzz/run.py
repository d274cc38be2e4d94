"""Fuzzes for some minutes: ``python -m tests.fuzz.run --minutes 10``, or ``make fuzz MINUTES=10``.

Each target runs in a process of its own, one after the other, in slices: what ends a process is a finding like any
other, and the run goes on. What was found so far stays in the folder, and the next run goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# In the order of the layers: share of the time.
SHARES = {"decoder": 0.25, "control": 0.35, "sessions": 0.2, "events": 0.2}
# A target's corpus is read anew at the start of a slice, which takes seconds.
_SLICE_S = 180.0
_PROGRESS_S = 15.0
# What a process may take to start and to end, besides its slice.
_GRACE_S = 150.0


@dataclass
class Tally:
    """What came of one target."""

    name: str
    inputs: int = 0
    seconds: float = 0.0
    slowest_ms: float = 0.0
    slowest_bytes: int = 0
    largest_kib: int = 0
    largest_bytes: int = 0
    peak_rss_mib: int = 0
    findings: dict[str, int] = field(default_factory=dict)

    def add(self, status: dict[str, Any]) -> None:
        """Add what one process has reported."""
        self.inputs += status["inputs"]
        self.seconds += status["seconds"]
        if status["slowest_ms"] > self.slowest_ms:
            self.slowest_ms, self.slowest_bytes = status["slowest_ms"], status["slowest_bytes"]
        if status["largest_kib"] > self.largest_kib:
            self.largest_kib, self.largest_bytes = status["largest_kib"], status["largest_bytes"]
        self.peak_rss_mib = max(self.peak_rss_mib, status["peak_rss_mib"])
        for key, count in status["findings"].items():
            self.findings[key] = self.findings.get(key, 0) + count

    def __str__(self) -> str:
        rate = self.inputs / self.seconds if self.seconds else 0
        return (
            f"{self.name:9} {self.inputs:>11,} {rate:>9,.0f}   {self.slowest_ms:>7.1f} ({self.slowest_bytes:>5})   "
            f"{self.largest_kib:>8,} ({self.largest_bytes:>5})   {self.peak_rss_mib:>8}   {len(self.findings):>8}"
        )


HEAD = "target         inputs  inputs/s   slowest ms (bytes)   KiB taken (bytes)   RSS MiB   findings"


def run_slice(tally: Tally, folder: Path, seconds: float, seed: int, how: str) -> None:
    """Run one target for a while; show progress; keep what ended its process."""
    folder.mkdir(parents=True, exist_ok=True)
    status_path = folder / "status.json"
    status_path.unlink(missing_ok=True)
    before = set(folder.iterdir())
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.child",
        tally.name,
        os.fspath(folder),
        str(seconds),
        str(seed),
        how,
    ]
    with (folder / "log.txt").open("ab") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)
        give_up_at = time.monotonic() + seconds + _GRACE_S
        next_progress = time.monotonic() + _PROGRESS_S
        try:
            while child.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(0.2)
                if time.monotonic() > give_up_at:
                    child.send_signal(signal.SIGKILL)
                if time.monotonic() > next_progress:
                    next_progress += _PROGRESS_S
                    status = _status(status_path)
                    if status is not None:
                        shown = Tally(tally.name)
                        shown.add(status)
                        print(f"{shown}", flush=True)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
            status = _status(status_path)
            if status is not None:
                tally.add(status)
    if child.returncode:
        if how == "plain":
            _save_current(folder)
        left = sorted(
            {path.name for path in set(folder.iterdir()) - before if path.name.startswith(_ARTIFACTS)}
        )
        from_outside = child.returncode == -signal.SIGKILL and not left
        what = "killed from outside, or hung in one call" if from_outside else "see log.txt"
        key = f"process ended with {child.returncode}: {', '.join(left) or what}"
        tally.findings[key] = tally.findings.get(key, 0) + 1
        print(f"{tally.name}: {key}", flush=True)


_ARTIFACTS = ("crash-", "timeout-", "oom-", "leak-")


def _save_current(folder: Path) -> None:
    """Keep the input in which a plain run has ended, as libFuzzer does by itself."""
    current = folder / "current.bin"
    if current.exists():
        content = current.read_bytes()
        data = content[8 : 8 + int.from_bytes(content[:8], "little")]
        (folder / f"crash-{hashlib.sha1(data).hexdigest()}").write_bytes(data)


def _status(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--target", action="append", choices=[*SHARES], help="only this one; may be repeated")
    parser.add_argument(
        "--folder", type=Path, default=Path(".fuzz"), help="corpus, findings, logs (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()) & 0x7FFFFFFF)
    parser.add_argument(
        "--fresh", action="store_true", help="forget what earlier runs have left in the folder"
    )
    parser.add_argument("--plain", action="store_true", help="more inputs, not guided by coverage")
    options = parser.parse_args(arguments)
    how = "plain" if options.plain or find_spec("atheris") is None else "guided"
    if options.fresh:
        shutil.rmtree(options.folder, ignore_errors=True)
    names = [name for name in SHARES if not options.target or name in options.target]
    tallies = {name: Tally(name) for name in names}
    total = options.minutes * 60
    shares = {name: SHARES[name] / sum(SHARES[n] for n in names) for name in names}
    rounds = max(1, round(total * min(shares.values()) / _SLICE_S))
    print(f"{how}, seed {options.seed}, {options.minutes:g} minutes, {rounds} rounds\n{HEAD}", flush=True)
    try:
        for number in range(rounds):
            for name in names:
                seconds = total * shares[name] / rounds
                run_slice(tallies[name], options.folder / name, seconds, options.seed + number, how)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    print(f"\n{HEAD}")
    for tally in tallies.values():
        print(tally)
    print(f"{'all':9} {sum(tally.inputs for tally in tallies.values()):>11,}")
    for tally in tallies.values():
        for key, count in tally.findings.items():
            print(f"FINDING in {tally.name}, {count} times: {key}")
    if any(tally.findings for tally in tallies.values()):
        print(f"inputs and tracebacks: {options.folder}/*/finding-*, {options.folder}/*/crash-*")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

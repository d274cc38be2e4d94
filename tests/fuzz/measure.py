"""What one input may cost, and what is remembered of a run: counts, the slowest input, memory, findings.

Time is the thread's CPU time, so that a busy machine makes no findings. Memory is looked at in two ways: the
process's largest resident size after every input, which also sees what the Cap'n Proto library allocates; and
tracemalloc's peak for inputs that made it jump, and for every n-th one.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
import traceback
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

# The promise: no input takes longer, whatever it is.
INPUT_LIMIT_S = 1.0

# An input after which the process's peak is larger by this much is run again, measured.
_JUMP_BYTES = 2 * 1024 * 1024
# Every so many inputs one is measured anyhow.
_SAMPLE = 512
_PEAK_UNIT = 1024 if sys.platform != "darwin" else 1


class Target(Protocol):
    """Something that takes hostile bytes. ``run`` raises whatever is a finding."""

    name: str
    # What an input of n bytes may allocate at its peak: this, and so many bytes per byte of input.
    base_bytes: int
    bytes_per_byte: int
    # Inputs are no longer than this: a longer one shows little more, and takes the time of many.
    max_bytes: int

    def seeds(self) -> list[bytes]: ...

    def mutate(self, data: bytes, seed: int) -> bytes: ...

    def run(self, data: bytes) -> None: ...


class Finding(AssertionError):
    """A promise that an input has broken."""


def _limit_s() -> float:
    """The limit, or several times as much where a measurement of coverage looks at every line."""
    return INPUT_LIMIT_S * (5 if sys.gettrace() is not None else 1)


def peak_bytes() -> int:
    """The largest resident size that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _PEAK_UNIT


class Gauge:
    """Runs inputs of one target and remembers what they cost."""

    def __init__(self, target: Target, folder: Path | None = None) -> None:
        self.target = target
        # Where findings and the slowest inputs are written; None: they are raised.
        self.folder = folder
        self.inputs = 0
        self.slowest_s = 0.0
        self.slowest = b""
        self.largest_bytes = 0
        self.largest = b""
        # By what broke: text -> how often. One input of each is kept.
        self.findings: dict[str, int] = {}
        self.started_peak = peak_bytes()
        self._peak = self.started_peak

    def __call__(self, data: bytes) -> None:
        """Run one input. Raises what is wrong with it, if there is no folder to keep it in."""
        self.inputs += 1
        try:
            begin = time.thread_time()
            self.target.run(data)
            took = time.thread_time() - begin
            if took > self.slowest_s:
                self.slowest_s, self.slowest = took, data
                self._keep("slowest", data)
                if took > _limit_s() and self._time(data) > _limit_s():
                    raise Finding(f"an input of {len(data)} bytes took {took:.2f} s")
            peak = peak_bytes()
            if peak > self._peak + _JUMP_BYTES or self.inputs % _SAMPLE == 0:
                self._peak = peak
                self._measure(data)
        except Exception as error:
            if self.folder is None:
                raise
            self._found(data, error)

    def _time(self, data: bytes) -> float:
        """Run an input once more: the first time, something may have been made once for all."""
        begin = time.thread_time()
        self.target.run(data)
        return time.thread_time() - begin

    def run_measured(self, data: bytes) -> None:
        """Run one input and look at its memory as well. Raises what is wrong with it."""
        self(data)
        self._measure(data)

    def _measure(self, data: bytes) -> None:
        used = traced_peak(self.target.run, data)
        if used > self.largest_bytes:
            self.largest_bytes, self.largest = used, data
            self._keep("largest", data)
        limit = self.target.base_bytes + self.target.bytes_per_byte * len(data)
        if used > limit:
            raise Finding(
                f"an input of {len(data)} bytes allocated {used} bytes at its peak: the limit is {limit}"
            )

    def _keep(self, name: str, data: bytes) -> None:
        if self.folder is not None:
            (self.folder / f"{name}.bin").write_bytes(data)

    def _found(self, data: bytes, error: Exception) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        where = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-4:]))
        words = str(error).split()
        key = f"{type(error).__name__} at {where}: {' '.join(words[:3])}"
        count = self.findings[key] = self.findings.get(key, 0) + 1
        if count == 1:
            name = f"finding-{hashlib.sha1(key.encode()).hexdigest()[:8]}"
            self._keep(name, data)
            text = "".join(traceback.format_exception(error))
            assert self.folder is not None
            (self.folder / f"{name}.txt").write_text(f"{key}\n\n{text}")

    def report(self) -> dict[str, Any]:
        return {
            "inputs": self.inputs,
            "slowest_ms": round(self.slowest_s * 1000, 1),
            "slowest_bytes": len(self.slowest),
            "largest_kib": self.largest_bytes // 1024,
            "largest_bytes": len(self.largest),
            "peak_rss_mib": peak_bytes() >> 20,
            "started_rss_mib": self.started_peak >> 20,
            "findings": self.findings,
        }

    def write(self, path: Path, **facts: Any) -> None:
        path.write_text(json.dumps({**self.report(), **facts}))


def traced_peak(run: Callable[[bytes], None], data: bytes) -> int:
    """Run an input and return how many bytes were allocated at the most while it ran."""
    tracemalloc.start(1)
    try:
        run(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

"""One target, in a process that may die: ``python -m tests.fuzz.child TARGET FOLDER SECONDS SEED guided|plain``.

*guided*: under libFuzzer, which keeps inputs that reach new code of lahja_capn. *plain*: damage of what FOLDER/corpus
holds, at random, without looking: several times as many inputs, and no atheris is needed.

Writes FOLDER/status.json every second, and what it found beside it. Ends by itself when its time is over; a process
that ends otherwise has found something that ends processes: libFuzzer then leaves the input as crash-*, a plain run has
written it to FOLDER/current.bin (its length in 8 bytes, then it).
"""

from __future__ import annotations

import importlib
import mmap
import os
import sys
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

if sys.argv[5:] == ["guided"]:
    import atheris

    # Only ours: the tests' own code would drown it.
    with atheris.instrument_imports(include=["lahja_capn"]):
        importlib.import_module("tests.fuzz.targets")

from tests.fuzz import corpus, measure
from tests.fuzz.measure import Gauge
from tests.fuzz.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fuzz.measure import Target

# Far beyond the 1 s that is a finding: what runs so long never ends. libFuzzer then ends the process.
_HANG_S = 60
_RSS_MIB = 2048
# Damage adds up: so many inputs of a plain run start from one of the corpus.
_CHAIN = 8


def main(name: str, folder: Path, seconds: float, seed: int, guided: bool) -> None:
    target = TARGETS[name]()
    gauge = Gauge(target, folder)
    started = time.monotonic()
    next_status = started + 1

    def run(data: bytes) -> None:
        nonlocal next_status
        gauge(data)
        now = time.monotonic()
        if now >= next_status:
            next_status = now + 1
            gauge.write(folder / "status.json", seconds=now - started)
            if now - started >= seconds:
                # libFuzzer would look through its whole corpus once more before it ends.
                os._exit(0)

    found = folder / "corpus"
    if not found.exists():
        found.mkdir(parents=True)
        started_from = [*target.seeds(), *(data for _, data in corpus.regressions(name))]
        for number, data in enumerate(dict.fromkeys(started_from)):
            (found / f"seed-{number:04}").write_bytes(data)
    (run_guided if guided else run_plain)(target, run, folder, seed)


def run_guided(target: Target, run: Callable[[bytes], None], folder: Path, seed: int) -> None:
    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        if seed % 5 == 0:
            changed: bytes = atheris.Mutate(data, max_size)
            return changed
        return target.mutate(data, seed)[:max_size]

    # With its counters in it, the code takes several times as long.
    measure.INPUT_LIMIT_S *= 4
    options: list[Any] = [
        sys.argv[0],
        f"-seed={seed}",
        f"-timeout={_HANG_S}",
        f"-rss_limit_mb={_RSS_MIB}",
        f"-artifact_prefix={folder}/",
        f"-max_len={target.max_bytes}",
        "-len_control=0",
        # A slow input is not to be the parent of many.
        "-entropic_scale_per_exec_time=1",
        "-verbosity=0",
        os.fspath(folder / "corpus"),
    ]
    atheris.Setup(options, run, custom_mutator=mutate)
    atheris.Fuzz()


def run_plain(target: Target, run: Callable[[bytes], None], folder: Path, seed: int) -> None:
    seeds = [path.read_bytes() for path in sorted((folder / "corpus").iterdir())]
    rng = Random(seed)
    # What runs now, where it outlives this process: length, then bytes.
    with (folder / "current.bin").open("w+b") as file:
        file.truncate(8 + 2 * target.max_bytes)
        current = mmap.mmap(file.fileno(), 0)
    while True:
        data = rng.choice(seeds)
        for _ in range(_CHAIN):
            data = target.mutate(data, rng.getrandbits(64))[: target.max_bytes]
            current[: 8 + len(data)] = len(data).to_bytes(8, "little") + data
            run(data)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "guided")

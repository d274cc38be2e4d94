"""One target under libFuzzer: ``python -m tests.fuzz.child TARGET FOLDER SECONDS SEED``.

Writes FOLDER/status.json every second, and what it found beside it. Ends by itself when its time is over; a process
that ends otherwise has found something that ends processes, and libFuzzer has left the input as crash-*.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import atheris

# Only ours: the tests' own code would drown it.
with atheris.instrument_imports(include=["lahja_capn"]):
    from tests.fuzz.targets import TARGETS

from tests.fuzz import corpus
from tests.fuzz.measure import Gauge

# Far beyond the 1 s that is a finding: what runs so long never ends. libFuzzer then ends the process.
_HANG_S = 60
_RSS_MIB = 2048


def main(name: str, folder: Path, seconds: float, seed: int) -> None:
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

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        if seed % 5 == 0:
            changed: bytes = atheris.Mutate(data, max_size)
            return changed
        return target.mutate(data, seed)[:max_size]

    seeds = folder / "corpus"
    if not seeds.exists():
        seeds.mkdir(parents=True)
        started_from = [*target.seeds(), *(data for _, data in corpus.regressions(name))]
        for number, data in enumerate(dict.fromkeys(started_from)):
            (seeds / f"seed-{number:04}").write_bytes(data)
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
        os.fspath(seeds),
    ]
    atheris.Setup(options, run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))

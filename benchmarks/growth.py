"""How the cost of an event grows: ``make bench-growth``, or ``python -m benchmarks.growth --help``.

Each point is the median of some runs of two new processes. Where a cost should not grow the curve is flat.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import shutil
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.bench import say
from benchmarks.processes import ROOT, Process, RunFailed
from benchmarks.report import commit, machine
from benchmarks.run import RESULTS, draw, write
from benchmarks.workload import Job

# Binding 10,000 classes takes a while.
RUN_TIMEOUT_S = 180.0


@dataclass(frozen=True)
class Curve:
    """What grows, and what is measured over it.

    Attributes:
        kind: see growing.py.
        along: what grows.
        points: how many of it.
        events: timed in a run, of the first point.
        shared: events are fewer as there are more of it, down to ``least``.
    """

    name: str
    kind: str
    along: str
    unit: str
    points: tuple[int, ...]
    events: int
    shared: bool = False
    least: int = 300

    def job(self, folder: str, at: int, seed: int, scale: float) -> Job:
        count = self.events // at if self.shared else self.events
        if self.kind == "payload":
            count = 400_000_000 // at
            count = max(5, min(count, self.events))
        else:
            count = max(self.least, count)
        size = at if self.kind == "payload" else 64
        return Job(self.kind, folder, max(2, int(count * scale)), 1, seed=seed, size=size, many=at)


CURVES = [
    Curve("event types", "types", "event types in use", "µs per event", (1, 10, 100, 1000, 10_000), 20_000),
    Curve("peers", "peers", "peers", "µs per delivery", (1, 2, 4, 8, 16, 32, 64), 30_000, shared=True),
    Curve(
        "subscriptions",
        "subscriptions",
        "subscriptions",
        "µs per delivery",
        (1, 10, 100),
        30_000,
        shared=True,
    ),
    Curve(
        "payload",
        "payload",
        "bytes of Data",
        "µs per event",
        (64, 640, 6400, 64_000, 640_000, 6_400_000, 64_000_000),
        20_000,
    ),
    Curve(
        "queue depth",
        "depth",
        "events that wait already",
        "µs to queue one more",
        (1, 10, 100, 1000, 10_000, 100_000, 1_000_000),
        1,
    ),
]
# Measured beside a kind of curve: its key in a run's result, name, what grows, and unit.
BESIDE = {
    "depth": ("drained", "draining a queue", "events that waited", "µs per event"),
    # What Python itself takes when as many classes are in use: so much of the curve is no matter of the bus.
    "types": ("bare", "bare dataclasses", "classes in use", "µs to construct one and read it"),
}


async def run_once(job: Job) -> dict[str, float]:
    """One run: ``value`` in µs, and what is measured beside."""
    processes: list[Process] = []
    python = Path(sys.executable)
    folder = tempfile.mkdtemp(prefix="lcg-", dir="/tmp")
    job = replace(job, folder=folder)
    try:
        async with asyncio.timeout(RUN_TIMEOUT_S):
            processes.append(await Process.start(python, "benchmarks.growing", "consume", job))
            await processes[0].expect("ready")
            processes.append(await Process.start(python, "benchmarks.growing", "publish", job))
            await processes[1].expect("connected")
            processes[1].order_go()
            report = await processes[1].expect("report")
        result = {"value": report["seconds"] / report["events"] * 1e6}
        return result | {key: report[key] * 1e6 for key, *_ in BESIDE.values() if key in report}
    except TimeoutError:
        raise RunFailed(f"took longer than {RUN_TIMEOUT_S:g} s") from None
    finally:
        for process in processes:
            await process.end()
        shutil.rmtree(folder, ignore_errors=True)


async def measure(curve: Curve, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The curve, and the one beside it; as JSON."""
    points: list[dict[str, Any]] = []
    beside: list[dict[str, Any]] = []
    key, *of_beside = BESIDE.get(curve.kind, ("",))
    failures: list[str] = []
    for at in curve.points[: options.points]:
        if at > options.most:
            break
        results = []
        for number in range(options.rounds):
            try:
                result = await run_once(curve.job("", at, options.seed + number, options.scale))
            except RunFailed as error:
                failures.append(f"at {at}: {error}")
                say(f"{curve.name:16} {at:>10,}  round {number + 1} FAILED: {error}")
                break
            results.append(result)
            say(f"{curve.name:16} {at:>10,}  round {number + 1}  {result['value']:>12.2f} {curve.unit}")
        for found, name in ((points, "value"), (beside, key)):
            values = [result[name] for result in results if name in result]
            if values:
                found.append({"at": at, "median": statistics.median(values), "values": values})
    curves = [(curve.name, curve.along, curve.unit, points)]
    if of_beside:
        name, along, unit = of_beside
        curves.append((name, along, unit, beside))
    return [
        {"name": name, "along": along, "unit": unit, "points": found, "failures": failures}
        for name, along, unit, found in curves
    ]


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs per point (%(default)s)")
    parser.add_argument(
        "--curves", help=f"only these, separated by commas: {', '.join(c.kind for c in CURVES)}"
    )
    parser.add_argument("--points", type=int, help="only so many points of each curve, from the lowest")
    parser.add_argument("--most", type=int, default=sys.maxsize, help="no point above this")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of events (%(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="two points, one round, few events: does it work"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the data (%(default)s)")
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--no-plots", action="store_true", help="do not draw the result")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.points, options.scale = 1, options.points or 2, 0.05
    kinds = options.curves.split(",") if options.curves else [curve.kind for curve in CURVES]
    if unknown := set(kinds) - {curve.kind for curve in CURVES}:
        parser.error(f"no such curve: {', '.join(sorted(unknown))}")
    options.curves = [curve for curve in CURVES if curve.kind in kinds]
    return options


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    began = datetime.datetime.now(datetime.UTC)
    facts: dict[str, Any] = {
        "began": began.isoformat(timespec="seconds"),
        "commit": commit(ROOT),
        "machine": machine(),
        "options": {name: getattr(options, name) for name in ("rounds", "points", "scale", "seed")},
        "curves": [],
    }
    for curve in options.curves:
        facts["curves"] += asyncio.run(measure(curve, options))
    for curve in facts["curves"]:
        line = ", ".join(f"{point['at']:,}: {point['median']:.3g}" for point in curve["points"])
        print(f"{curve['name']}, {curve['unit']}: {line}")
    path = options.json or RESULTS / f"growth-{began:%Y%m%dT%H%M%SZ}.json"
    write(path, facts)
    if not options.no_plots:
        draw(path)
    failed = [failure for curve in facts["curves"] for failure in curve["failures"]]
    print("\n".join(failed), end="")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

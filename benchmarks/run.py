"""Runs the benchmarks: ``make bench``, or ``python -m benchmarks.run --help``."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Plan, Prepared
from benchmarks.cases import CASES, UNITS
from benchmarks.environments import HERE, system_names
from benchmarks.processes import ROOT
from benchmarks.report import commit, machine, table

BASELINE = "lahja"
RESULTS = HERE / "results"


def parse(arguments: list[str]) -> argparse.Namespace:
    there = system_names()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=5, help="counted runs per case and system, at most (%(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=0.7, help="length of a run, about (%(default)s)")
    parser.add_argument("--events", type=int, help="send exactly so many per run, instead of --seconds")
    parser.add_argument("--quick", action="store_true", help="1 round of 0.1 s: does it work, not how fast")
    parser.add_argument(
        "--cases", help="only cases whose name contains one of these, separated by semicolons"
    )
    parser.add_argument("--systems", help=f"only these, separated by commas; there are {', '.join(there)}")
    parser.add_argument("--seed", type=int, default=1, help="of the data (%(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=14.0, help="make fewer rounds if it would take longer (%(default)s)"
    )
    parser.add_argument("--json", type=Path, help="where to write the result (benchmarks/results/TIME.json)")
    parser.add_argument("--no-plots", action="store_true", help="do not draw the result")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds = 1, 0.1
    names = (
        options.systems.split(",") if options.systems else sorted(there, key=lambda name: name != BASELINE)
    )
    if unknown := set(names) - set(there):
        parser.error(f"no such system: {', '.join(sorted(unknown))}; there are {', '.join(there)}")
    options.named = bool(options.systems)
    options.systems = names
    words = [word.strip() for word in options.cases.split(";")] if options.cases else [""]
    options.cases = [case for case in CASES if any(word in case.name for word in words)]
    if not options.cases:
        parser.error(f"no such case; there are: {'; '.join(case.name for case in CASES)}")
    return options


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    began = datetime.datetime.now(datetime.UTC)
    prepared = Prepared.of(options.systems)
    if not prepared.pythons:
        return 1
    plan = Plan(
        options.systems,
        options.cases,
        options.rounds,
        options.seconds,
        options.events,
        options.seed,
        options.minutes * 60,
    )
    bench = Bench(plan, prepared.pythons)
    facts: dict[str, Any] = {
        "began": began.isoformat(timespec="seconds"),
        "commit": commit(ROOT),
        "machine": machine(),
        "versions": asyncio.run(prepared.versions()),
        "skipped": prepared.skipped,
        "baseline": next(iter(prepared.pythons)),
        "options": {
            name: getattr(options, name)
            for name in ("rounds", "seconds", "events", "seed", "systems", "minutes")
        },
    }
    asyncio.run(bench.run())
    print(f"{facts['machine']['processor']}, {facts['machine']['cores']} cores, {facts['machine']['system']}")
    for system, versions in facts["versions"].items():
        print(f"{system}: {', '.join(f'{name} {version}' for name, version in versions.items())}")
    for system, reason in prepared.skipped.items():
        print(f"{system}: skipped; {reason}")
    length = f"{options.events} events" if options.events else f"about {options.seconds:g} s"
    print(f"commit {facts['commit'] or 'unknown'}; rounds of {length}, systems in turns\n")
    print(table(bench.measured, facts["baseline"], UNITS))
    path = options.json or RESULTS / f"{began:%Y%m%dT%H%M%SZ}.json"
    groups = {case.name: case.group for case in CASES}
    results = [
        {**one.to_dict(), "unit": UNITS[one.case], "group": groups[one.case]} for one in bench.measured
    ]
    write(path, {**facts, "results": results})
    if not options.no_plots:
        draw(path)
    failed = [one for one in bench.measured if one.failures]
    for one in failed:
        print(f"{one.case}, {one.system}: failed: {one.failures[0]}")
    # A system that was asked for by name must run; of all the systems some may be missing.
    return 1 if failed or (options.named and prepared.skipped) else 0


def write(path: Path, facts: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"\nwritten to {path}")


def draw(path: Path) -> None:
    """Plot a result, if matplotlib is here."""
    try:
        from benchmarks import plots
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        print("no plots: matplotlib is not installed (pip install 'lahja_capn[bench]')")
        return
    for image in plots.draw(path, path.with_suffix("")):
        print(f"drawn: {image}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

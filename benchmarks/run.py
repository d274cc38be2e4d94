"""Runs the benchmarks: ``make bench``, or ``python -m benchmarks.run --help``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import json
import math
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.environments import HERE, kinds, python_for, system_names
from benchmarks.report import Measured, commit, machine, table
from benchmarks.workload import Job, expected_checksum

ROOT = HERE.parent
BASELINE = "lahja"
# A run of one case takes a second or two; whatever takes this long hangs.
RUN_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        kind: see :class:`benchmarks.workload.Job`.
        trial: events or requests of the first, uncounted run, whose rate decides how many the rounds send.
        in_flight: requests at the same time.
    """

    name: str
    kind: str
    consumers: int
    unit: str
    trial: int
    in_flight: int = 1

    def rate(self, count: int, seconds: float) -> float:
        return count * (self.consumers if self.kind == "large" else 1) / seconds


CASES = [
    Case("64 B, 1 to 1", "small", 1, "events/s", 5000),
    Case("64 B, 1 to 3", "small", 3, "events/s, each", 3000),
    Case("64 B, 1 to 10", "small", 10, "events/s, each", 1000),
    Case("request", "requests", 1, "round trips/s", 1000),
    Case("request, 64 in flight", "requests", 1, "round trips/s", 2000, in_flight=64),
    Case("1 MB, 1 to 1", "large", 1, "events/s, all together", 100),
    Case("1 MB, 1 to 3", "large", 3, "events/s, all together", 50),
]


class RunFailed(Exception):
    """One run of one case gave no figure."""


class Process:
    """One process of a run, started; speaks lines of JSON."""

    def __init__(self, role: str, process: asyncio.subprocess.Process, errors: Path) -> None:
        self.role = role
        self.process = process
        self._errors = errors

    @classmethod
    async def start(cls, python: Path, system: str, role: str, job: Job) -> Process:
        errors = job.path(f"{role}-{job.index}.err")
        with errors.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(str(python), "-m", "benchmarks.worker", system, role, job.to_json()),
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
            )
        return cls(role, process, errors)

    async def expect(self, key: str) -> Any:
        """The next line's ``key``."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        try:
            return json.loads(line)[key]
        except (ValueError, KeyError):
            said = self._errors.read_text(errors="replace")[-4000:]
            raise RunFailed(f"{self.role} said {line!r} instead of {key}; its errors:\n{said}") from None

    def order_stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def end(self) -> None:
        """Kill it if it is still there. How it ends is not measured."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
        await self.process.wait()


async def run_once(python: Path, system: str, case: Case, count: int, seed: int) -> dict[str, float]:
    """One run: start the processes, wait for what they report, stop them.

    Returns:
        ``rate``, and for requests ``p50`` and ``p99`` (seconds).

    Raises:
        RunFailed: a process failed, took too long, or did not get what was sent.
    """
    folder = tempfile.mkdtemp(prefix="lcb-", dir="/tmp")
    job = Job(case.kind, folder, count, case.consumers, seed=seed, in_flight=case.in_flight)
    receive, send = ("respond", "ask") if case.kind == "requests" else ("consume", "publish")
    processes: list[Process] = []
    try:
        async with asyncio.timeout(RUN_TIMEOUT_S):
            for index in range(case.consumers):
                processes.append(await Process.start(python, system, receive, replace(job, index=index)))
            for process in processes:
                await process.expect("ready")
            sender = await Process.start(python, system, send, job)
            processes.append(sender)
            sent = await sender.expect("report")
            if case.kind == "requests":
                result = {"rate": case.rate(count, sent["seconds"]), "p50": sent["p50"], "p99": sent["p99"]}
            else:
                reports = [await process.expect("report") for process in processes[:-1]]
                check(job, reports)
                result = {"rate": case.rate(count, max(report["last"] for report in reports) - sent["first"])}
        for process in processes:
            process.order_stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                for process in processes:
                    await process.process.wait()
        return result
    except TimeoutError:
        raise RunFailed(f"took longer than {RUN_TIMEOUT_S:g} s") from None
    finally:
        for process in processes:
            await process.end()
        shutil.rmtree(folder, ignore_errors=True)


def check(job: Job, reports: list[dict[str, float]]) -> None:
    """A figure counts only if every consumer got everything, whole and in order."""
    wanted = expected_checksum(job)
    for report in reports:
        whole = math.isclose(report["checksum"], wanted, rel_tol=1e-9)
        if report["received"] != job.count or report["out_of_order"] or not whole:
            raise RunFailed(f"a consumer got something else than was sent: {report}, checksum {wanted}")


class Bench:
    """Systems in turns, case by case."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._deadline = time.monotonic() + options.max_seconds
        self._pythons = {system: python_for(system) for system in options.systems}
        self.measured: list[Measured] = []

    async def run(self) -> None:
        for case in self._options.cases:
            counts = await self._trials(case)
            these = {system: Measured(case.name, system, counts[system]) for system in counts}
            self.measured += these.values()
            for number in range(self._options.rounds):
                # Every other round in reverse: no system always runs on the machine another has warmed up.
                order = list(counts) if number % 2 == 0 else list(counts)[::-1]
                for system in order:
                    await self._round(case, these[system], number)
        self.measured.sort(key=lambda one: [case.name for case in self._options.cases].index(one.case))

    async def _trials(self, case: Case) -> dict[str, int]:
        """How many events each system sends per round: what takes it about ``--seconds``."""
        counts = {}
        for system, python in self._pythons.items():
            if case.kind not in kinds(system):
                continue
            if self._options.events:
                counts[system] = self._options.events
                continue
            try:
                result = await run_once(python, system, case, case.trial, self._options.seed)
            except RunFailed as error:
                failed = Measured(case.name, system, case.trial, failures=[str(error)])
                self.measured.append(failed)
                say(f"{case.name:14} {system:12} FAILED: {error}")
                continue
            per_second = result["rate"] * case.trial / case.rate(case.trial, 1)
            counts[system] = max(case.trial // 4, int(per_second * self._options.seconds))
        return counts

    async def _round(self, case: Case, measured: Measured, number: int) -> None:
        label = f"{case.name:14} {measured.system:12} {number + 1}/{self._options.rounds}"
        if time.monotonic() > self._deadline:
            measured.failures.append("not run: out of time, see --max-seconds")
            return
        try:
            result = await run_once(
                self._pythons[measured.system],
                measured.system,
                case,
                measured.count,
                self._options.seed + number,
            )
        except RunFailed as error:
            measured.failures.append(str(error))
            say(f"{label} FAILED: {error}")
            return
        measured.rates.append(result["rate"])
        if "p50" in result:
            measured.p50.append(result["p50"])
            measured.p99.append(result["p99"])
        say(f"{label} {result['rate']:>10,.0f} {case.unit}")

    async def versions(self) -> dict[str, dict[str, str]]:
        found = {}
        for system, python in self._pythons.items():
            process = await asyncio.create_subprocess_exec(
                *(str(python), "-m", "benchmarks.worker", system, "versions", "{}"),
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
            )
            output, _ = await process.communicate()
            if process.returncode:
                raise SystemExit(f"{system} does not start")
            found[system] = json.loads(output)
        return found


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(arguments: list[str]) -> argparse.Namespace:
    there = system_names()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=5, help="counted runs per case and system (%(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a run, about (%(default)s)")
    parser.add_argument("--events", type=int, help="send exactly so many per run, instead of --seconds")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 0.3 s: does it work, not how fast")
    parser.add_argument("--cases", help="only cases whose name contains one of these, separated by commas")
    parser.add_argument("--systems", help=f"only these, separated by commas; there are {', '.join(there)}")
    parser.add_argument("--seed", type=int, default=1, help="of the data (%(default)s)")
    parser.add_argument(
        "--max-seconds", type=float, default=1200, help="no round starts later than this (%(default)s)"
    )
    parser.add_argument("--json", type=Path, help="where to write the result (benchmarks/results/TIME.json)")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds = 2, 0.3
    names = (
        options.systems.split(",") if options.systems else sorted(there, key=lambda name: name != BASELINE)
    )
    if unknown := set(names) - set(there):
        parser.error(f"no such system: {', '.join(sorted(unknown))}; there are {', '.join(there)}")
    options.systems = names
    words = options.cases.split(",") if options.cases else [""]
    options.cases = [case for case in CASES if any(word in case.name for word in words)]
    if not options.cases:
        parser.error(f"no such case; there are: {'; '.join(case.name for case in CASES)}")
    return options


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    bench = Bench(options)
    began = datetime.datetime.now(datetime.UTC)
    facts: dict[str, Any] = {
        "began": began.isoformat(timespec="seconds"),
        "commit": commit(ROOT),
        "machine": machine(),
        "versions": asyncio.run(bench.versions()),
        "options": {
            name: getattr(options, name) for name in ("rounds", "seconds", "events", "seed", "systems")
        },
    }
    asyncio.run(bench.run())
    units = {case.name: case.unit for case in CASES}
    print(f"{facts['machine']['processor']}, {facts['machine']['cores']} cores, {facts['machine']['system']}")
    for system, versions in facts["versions"].items():
        print(f"{system}: {', '.join(f'{name} {version}' for name, version in versions.items())}")
    length = f"{options.events} events" if options.events else f"about {options.seconds:g} s"
    print(f"commit {facts['commit'] or 'unknown'}; {options.rounds} rounds of {length}, systems in turns\n")
    print(table(bench.measured, options.systems[0], units))
    path = options.json or HERE / "results" / f"{began:%Y%m%dT%H%M%SZ}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    results = [{**one.to_dict(), "unit": units[one.case]} for one in bench.measured]
    path.write_text(json.dumps({**facts, "results": results}, indent=1) + "\n")
    print(f"\nwritten to {path}")
    failed = [one for one in bench.measured if one.failures]
    for one in failed:
        print(f"{one.case}, {one.system}: {len(one.failures)} failed; the first: {one.failures[0]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

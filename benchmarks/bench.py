"""Systems in turns, case by case, round by round, within a given time."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.cases import Case
from benchmarks.environments import Unavailable, process_environment, python_for
from benchmarks.processes import ROOT, RunFailed, run_once
from benchmarks.report import Measured

# While there is time every case gets so many rounds, if more are not asked for.
LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        rounds: of a case and system, at most.
        seconds: how long one run of a case takes, about.
        events: send exactly so many per run, instead.
        within_s: how long everything takes, about: each case gets its share of what is left of it.
    """

    systems: Sequence[str]
    cases: Sequence[Case]
    rounds: int = 5
    seconds: float = 1.0
    events: int | None = None
    seed: int = 1
    within_s: float = 840.0


@dataclass
class Prepared:
    """The systems that can run here, and why the others cannot."""

    pythons: dict[str, Path] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, systems: Sequence[str]) -> Prepared:
        prepared = cls()
        for system in systems:
            try:
                prepared.pythons[system] = python_for(system)
            except Unavailable as error:
                prepared.skipped[system] = str(error)
                say(f"{system} is skipped: {error}")
        return prepared

    async def versions(self) -> dict[str, dict[str, str]]:
        found = {}
        for system, python in self.pythons.items():
            process = await asyncio.create_subprocess_exec(
                *(str(python), "-m", "benchmarks.worker", system, "versions", "{}"),
                cwd=ROOT,
                env=process_environment(),
                stdout=asyncio.subprocess.PIPE,
            )
            output, _ = await process.communicate()
            if process.returncode:
                raise SystemExit(f"{system} does not start")
            found[system] = json.loads(output)
        return found


class Bench:
    """Runs a plan; ``measured`` grows meanwhile."""

    def __init__(self, plan: Plan, pythons: dict[str, Path]) -> None:
        self._plan = plan
        self._pythons = pythons
        self._began = time.monotonic()
        self._place = ""
        self.measured: list[Measured] = []

    async def run(self) -> None:
        cases = self._plan.cases
        for index, case in enumerate(cases):
            self._place = f"{index + 1}/{len(cases)}"
            now = time.monotonic()
            share = (self._began + self._plan.within_s - now) / (len(cases) - index)
            await self._case(case, until=now + share)

    async def _case(self, case: Case, until: float) -> None:
        chosen = await self._trials(case)
        these = {
            system: Measured(case.name, system, count, case.lower_is_better)
            for system, (count, _) in chosen.items()
        }
        self.measured += these.values()
        end = self._began + self._plan.within_s
        for number in range(self._plan.rounds):
            now = time.monotonic()
            if number and (now > end or (number >= LEAST_ROUNDS and now > until)):
                return
            # Every other round in reverse: no system always runs on the machine another has warmed up.
            for system in list(chosen) if number % 2 == 0 else list(chosen)[::-1]:
                if not these[system].failures:
                    await self._round(case, these[system], number, chosen[system][1])

    async def _trials(self, case: Case) -> dict[str, tuple[int, float]]:
        """How many events each system sends per round, which takes it about ``seconds``; and how many per second."""
        chosen = {}
        for system, python in self._pythons.items():
            if not case.has(system):
                continue
            if case.fixed:
                chosen[system] = (case.trial, 0.0)
                continue
            if self._plan.events and case.kind != "paced":
                chosen[system] = (self._plan.events, 0.0)
                continue
            # For half of its load a system's full one must be known.
            tried = Case("", "small", "", case.trial, "") if case.kind == "paced" else case
            try:
                result = await run_once(python, system, tried, tried.trial, self._plan.seed)
            except RunFailed as error:
                self.measured.append(Measured(case.name, system, case.trial, failures=[str(error)]))
                self._say(case, system, f"FAILED: {error}")
                continue
            rate = case.per_second(result["value"])
            self._say(case, system, "has been tried")
            if case.kind == "paced":
                rate /= 2
            count = self._plan.events or max(case.least, int(rate * self._plan.seconds))
            chosen[system] = (count, rate)
        return chosen

    async def _round(self, case: Case, measured: Measured, number: int, rate: float) -> None:
        try:
            result = await run_once(
                self._pythons[measured.system],
                measured.system,
                case,
                measured.count,
                self._plan.seed + number,
                rate,
            )
        except RunFailed as error:
            measured.failures.append(str(error))
            self._say(case, measured.system, f"round {number + 1} FAILED: {error}")
            return
        measured.add(result)
        self._say(case, measured.system, f"round {number + 1}  {result['value']:>11,.0f} {case.unit}")

    def _say(self, case: Case, system: str, what: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        say(f"{minutes:2}:{seconds:02}  case {self._place} {case.name:22}  {system:18}  {what}")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

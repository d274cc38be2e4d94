"""``make bench-quick``: fails when this project is no longer well ahead of lahja 0.17, measured in the same minute.

Only ratios count: an absolute time says more about the machine than about a change. The thresholds are far below what
a quiet machine shows (README.md). On a busy one, who runs when decides more than the programs do: so a case passes too
if the ratio of processor times per event is above its threshold, and what fails is measured once more.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.bench import Bench, Plan, Prepared
from benchmarks.cases import CASES, UNITS
from benchmarks.report import Measured, table

SYSTEM = "lahja_capn"
BASELINE = "lahja"
# Case -> at least so many times lahja's rate. `request` waits mostly for two processes to wake each other.
THRESHOLDS = {
    "64 B, 1 to 1": 1.3,
    "request": 1.1,
    "request, 64 in flight": 1.6,
    "1 MB, 1 to 1": 3.0,
}
ROUNDS = 4
SECONDS = 0.3
# No round but a case's first three starts later; on a loaded machine the starts of processes take the time.
WITHIN_S = 45.0


def complaints(measured: Sequence[Measured]) -> list[str]:
    """What is wrong with a run: cases below their threshold, and those that gave no figure."""
    found = []
    by_name = {(one.case, one.system): one for one in measured}
    for case, wanted in THRESHOLDS.items():
        ours, theirs = by_name.get((case, SYSTEM)), by_name.get((case, BASELINE))
        ratio = ours.times_better(theirs) if ours is not None else None
        if ratio is None:
            reasons = [one.failures[0] for one in (ours, theirs) if one is not None and one.failures]
            found.append(f"{case}: not measured: {'; '.join(reasons) or 'there is no figure'}")
        elif ratio < wanted:
            thriftier = ours.times_thriftier(theirs) if ours is not None else None
            if thriftier is not None and thriftier >= wanted:
                continue
            by_processor = f" ({thriftier:.2f} by processor time)" if thriftier is not None else ""
            found.append(f"{case}: {ratio:.2f} times {BASELINE}{by_processor}, wanted at least {wanted:g}")
    return found


def measure(plan: Plan, prepared: Prepared) -> list[Measured]:
    bench = Bench(plan, prepared.pythons)
    asyncio.run(bench.run())
    print(table(bench.measured, BASELINE, UNITS))
    return bench.measured


def main() -> int:
    prepared = Prepared.of([BASELINE, SYSTEM])
    if prepared.skipped:
        return 1
    cases = [case for case in CASES if case.name in THRESHOLDS]
    plan = Plan([BASELINE, SYSTEM], cases, ROUNDS, SECONDS, within_s=WITHIN_S)
    measured = measure(plan, prepared)
    if found := complaints(measured):
        # A busy neighbour does not come twice; a change that made it slow is still there.
        print("once more: " + "; ".join(found))
        again = [case for case in cases if any(one.startswith(f"{case.name}: ") for one in found)]
        second = measure(replace(plan, cases=again), prepared)
        named = {case.name for case in again}
        found = complaints([one for one in measured if one.case not in named] + second)
    print("\n" + "\n".join(["FAILED", *found] if found else ["passed: every case is above its threshold"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

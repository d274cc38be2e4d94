"""What a soak run prints in the end."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.soak.run import Soak

# What the processes that live for the whole run must have no more of in the end.
EXACT = ("fds", "tasks", "entries", "threads")

# A run that was not scheduled itself for so long excuses peers that took each other for dead.
STALL_S = 1.5

# Wrong things that are shown.
SHOWN = 10


def note(text: str) -> None:
    print(text, flush=True)


def print_report(soak: Soak, elapsed: float) -> None:
    note("")
    note(
        f"soak report: {elapsed:.0f} s, seed {soak.seed}, Python {sys.version.split()[0]}, "
        f"{len(soak.all)} processes, {soak.quiet_points} quiet points"
    )
    note(f"events delivered      {sum(soak.delivered.values()):,}")
    note(f"requests              {listed(soak.requests)}; {soak.timeouts} timed out at a peer held up")
    note(f"faults                {sum(soak.faults.values())}: {listed(soak.faults)}")
    note(f"connections ended     {sum(soak.ends.values())}: {listed(soak.ends)}")
    excused: Counter[str] = Counter()
    for excuse, count in soak.lost.values():
        excused[excuse or "NO EXCUSE"] += count
    note(f"in flight at an end   {sum(excused.values())}: {listed(excused) or 'none'}")
    note(f"log records           {listed(soak.logs) or 'none'}")
    note(f"machine stalled       {len(soak.stalls)} times over {STALL_S} s, at most {soak.worst_stall:.1f} s")
    note(
        f"lived all the time    {'':12}"
        + "".join(f"{what:>12}" for what in ("rss MB", *EXACT, "objects", "events"))
    )
    for member in soak.members:
        samples = soak.samples[f"{member.name}.1"]
        if member.survives and len(samples) > soak.warm():
            for label, sample in (("after warm-up", samples[soak.warm()]), ("at the end", samples[-1])):
                figures = [
                    f"{sample['rss'] / 1e6:.1f}",
                    *(sample[what] for what in (*EXACT, "objects", "events")),
                ]
                note(f"  {member.name:<12}{label:>18}  " + "".join(f"{figure:>12}" for figure in figures))
    if soak.wrong:
        note(f"FAILED: {len(soak.wrong)} things were wrong")
        for text in soak.wrong[:SHOWN]:
            note(f"- {text[:200].splitlines()[0]}")
    else:
        note("passed: order kept, nothing lost between living peers, nothing grew, no warning")


def listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items(), key=lambda e: -e[1]))

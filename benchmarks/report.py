"""What a run found, for people (a table) and for programs (JSON)."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Measured:
    """All rounds of one system in one case.

    Attributes:
        values: one per round; see the case for its unit.
        lower_is_better: whether a small value is a good one.
        p50, p99, p999: of request round trips, or of paced events from due to received, in seconds; one per round.
        processor: seconds of processor time per event, in the processes that report (of requests: who asks).
        pace: paced events per second.
        failures: rounds that did not end well, each with the reason.
    """

    case: str
    system: str
    count: int
    lower_is_better: bool = False
    values: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    p999: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    pace: float | None = None
    failures: list[str] = field(default_factory=list)

    @property
    def median(self) -> float | None:
        return statistics.median(self.values) if self.values else None

    def add(self, result: dict[str, float]) -> None:
        """Take the result of a round."""
        self.values.append(result["value"])
        self.pace = result.get("pace")
        for name in ("p50", "p99", "p999", "processor"):
            if name in result:
                getattr(self, name).append(result[name])

    def times_better(self, other: Measured | None) -> float | None:
        """The ratio of the medians, above 1 if this one is better."""
        mine, theirs = self.median, other.median if other is not None else None
        if not mine or not theirs or mine < 0 or theirs < 0:
            return None
        return theirs / mine if self.lower_is_better else mine / theirs

    def times_thriftier(self, other: Measured | None) -> float | None:
        """The ratio of the processor times per event, above 1 if this one takes less."""
        if other is None or not self.processor or not other.processor:
            return None
        mine, theirs = statistics.median(self.processor), statistics.median(other.processor)
        return theirs / mine if mine > 0 and theirs > 0 else None

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "median": self.median}


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    model = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else ""
    return {
        "system": platform.platform(),
        "processor": model or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def commit(folder: Path) -> str:
    """The commit that was measured, with "+" if the checkout has changes; "" outside a checkout."""
    try:
        name = subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return name.stdout.strip() if name.returncode == 0 else ""


def number(value: float) -> str:
    """Three significant digits, with thousands separated: the rest is noise."""
    if value >= 1000:
        digits = len(str(int(value))) - 3
        return f"{int(round(value, -digits)):,}"
    return f"{value:.3g}"


def table(measured: list[Measured], baseline: str, units: dict[str, str]) -> str:
    """One row per case and system; how many times better than ``baseline``, by the medians of the same case."""
    head = ["case", "system", "median", "lowest", "highest", "p50 µs", "p99 µs", "p99.9 µs", f"x {baseline}"]
    rows = [head]
    base = {one.case: one for one in measured if one.system == baseline}
    last = ""
    for one in measured:
        case = f"{one.case}, {units[one.case]}" if one.case != last else ""
        last = one.case
        if one.median is None:
            rows.append([case, one.system, "failed", *[""] * 6])
            continue
        ratio = one.times_better(base.get(one.case))
        rows.append(
            [
                case,
                one.system,
                number(one.median),
                number(min(one.values)),
                number(max(one.values)),
                *(
                    f"{statistics.median(times) * 1e6:.0f}" if times else ""
                    for times in (one.p50, one.p99, one.p999)
                ),
                f"{ratio:.2f}" if ratio else "",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)

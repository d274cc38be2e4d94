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
        rates: one per round; see the case for its unit.
        p50, p99: of request round trips, in seconds; one per round, empty for events.
        failures: rounds that did not end well, each with the reason.
    """

    case: str
    system: str
    count: int
    rates: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def median(self) -> float | None:
        return statistics.median(self.rates) if self.rates else None

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
    """One row per case and system; ratios of medians to ``baseline`` in the same case."""
    head = ["case", "system", "median", "lowest", "highest", "p50 µs", "p99 µs", f"x {baseline}"]
    rows = [head]
    base = {one.case: one.median for one in measured if one.system == baseline}
    last = ""
    for one in measured:
        case = f"{one.case}, {units[one.case]}" if one.case != last else ""
        last = one.case
        if one.median is None:
            rows.append([case, one.system, "failed", *[""] * 5])
            continue
        reference = base.get(one.case)
        rows.append(
            [
                case,
                one.system,
                number(one.median),
                number(min(one.rates)),
                number(max(one.rates)),
                f"{statistics.median(one.p50) * 1e6:.0f}" if one.p50 else "",
                f"{statistics.median(one.p99) * 1e6:.0f}" if one.p99 else "",
                f"{one.median / reference:.2f}" if reference else "",
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

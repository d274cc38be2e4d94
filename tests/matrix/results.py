"""What came of the matrix, and how it is printed at the end of the run."""

from __future__ import annotations

from collections.abc import Iterable

from .pair import ALL_SIDES


class Results:
    """Per pair (who serves, who connects) the checks that failed, and how long it took."""

    def __init__(self) -> None:
        self.failed: dict[tuple[str, str], list[str]] = {}
        self.seconds: dict[tuple[str, str], float] = {}

    def add(self, pair: tuple[str, str], failed: Iterable[str], seconds: float) -> None:
        self.failed[pair] = list(failed)
        self.seconds[pair] = seconds

    def lines(self, troubles: dict[str, str]) -> list[str]:
        """The matrix, a row for who serves, a column for who connects; then what failed."""
        width = max(len(side.title) for side in ALL_SIDES) + 2
        lines = ["serves \\ connects".ljust(width + 4) + "".join(f"{s.title:>{width}}" for s in ALL_SIDES)]
        for serving in ALL_SIDES:
            cells = "".join(
                f"{self._cell(serving.key, connecting.key, troubles):>{width}}" for connecting in ALL_SIDES
            )
            lines.append(f"{serving.title:{width + 4}}{cells}")
        titles = {side.key: side.title for side in ALL_SIDES}
        for (serving_key, connecting_key), failed in self.failed.items():
            if failed:
                names = ", ".join(failed)
                lines.append(
                    f"{titles[serving_key]} serves, {titles[connecting_key]} connects: failed {names}"
                )
        return lines

    def _cell(self, serving: str, connecting: str, troubles: dict[str, str]) -> str:
        if (serving, connecting) not in self.failed:
            return "missing" if {serving, connecting} & troubles.keys() else "-"
        failed = self.failed[serving, connecting]
        return f"{len(failed)} failed" if failed else f"ok {self.seconds[serving, connecting]:.1f} s"

"""The environment of child processes whose coverage nobody needs, because the tests before them have it already."""

from __future__ import annotations

import os


def environment(**more: str) -> dict[str, str]:
    """This process's environment and ``more``, without what makes coverage measure in children.

    Measuring more than doubles what a process of the matrix, of a soak or of a benchmark takes, and these are most of
    the time of a whole run.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")} | more

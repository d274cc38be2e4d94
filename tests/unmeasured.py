"""Without coverage: child processes whose coverage nobody needs, and what compares rates."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import coverage


def environment(**more: str) -> dict[str, str]:
    """This process's environment and ``more``, without what makes coverage measure in children.

    Measuring more than doubles what a process of the matrix, of a soak or of a benchmark takes, and these are most of
    the time of a whole run.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")} | more


@contextlib.contextmanager
def here() -> Iterator[None]:
    """Nothing of this process is measured inside: a rate is one of the program that users run.

    Measuring makes each line of Python dearer, and what C does inside of one not: it changes what things cost beside
    each other, not only how much.
    """
    measuring = coverage.Coverage.current()
    if measuring is None:
        yield
        return
    measuring.stop()
    try:
        yield
    finally:
        measuring.start()

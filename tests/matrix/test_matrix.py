"""Every two languages, live: one serves, the other connects. ``checks`` says what is checked."""

from __future__ import annotations

import time
import traceback
from pathlib import Path

import pytest

from peers.languages import FOREIGN, Language

from .checks import CHECKS
from .pair import FOREIGN_SIDES, PYTHON_SIDES, UVLOOP, Pair, Side
from .program import Trouble
from .results import Results

# A pair in which nothing works must not cost the time of all its waits.
MOST_FAILURES = 3

SIDES = (*PYTHON_SIDES, *(FOREIGN_SIDES[language.key] for language in FOREIGN if not language.trouble()))


@pytest.mark.parametrize("language", FOREIGN, ids=lambda language: language.key)
def test_language_takes_part(language: Language, required: bool) -> None:
    if trouble := language.trouble():
        assert not required, f"{language.title}: {trouble}"
        pytest.skip(f"{language.title}: {trouble}")


def failures_of(serving: Side, connecting: Side, folder: Path) -> dict[str, str]:
    """Do every check; the names of those that failed, each with what went wrong."""
    failures: dict[str, str] = {}
    pair: Pair | None = None
    try:
        for check in CHECKS:
            try:
                if pair is None:
                    pair = Pair(serving, connecting, folder)
                    pair.start()
                check(pair)
            except Trouble as trouble:
                assert pair is not None
                at = traceback.extract_tb(trouble.__traceback__)[1]
                where = f"{Path(at.filename).name}, line {at.lineno}"
                failures[check.__name__] = f"{trouble}\n({where})\n{pair.report()}"
                pair.close()
                # The next check begins with new processes.
                pair = None
                if len(failures) == MOST_FAILURES:
                    break
    finally:
        if pair is not None:
            pair.close()
    return failures


def fail_with(failures: dict[str, str]) -> None:
    if failures:
        pytest.fail("\n\n".join(f"== {name}: {text}" for name, text in failures.items()), pytrace=False)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("connecting", SIDES, ids=lambda side: side.key)
@pytest.mark.parametrize("serving", SIDES, ids=lambda side: side.key)
def test_pair(serving: Side, connecting: Side, short_tmp_path: Path, results: Results) -> None:
    started = time.monotonic()
    failures = failures_of(serving, connecting, short_tmp_path)
    results.add((serving.key, connecting.key), failures, time.monotonic() - started)
    fail_with(failures)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_python_on_uvloop(short_tmp_path: Path) -> None:
    # Not a side of the matrix: what may differ on uvloop is Python's affair, whoever is at the other end.
    fail_with(failures_of(UVLOOP, UVLOOP, short_tmp_path))

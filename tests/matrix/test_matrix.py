"""Every two languages, live: one serves, the other connects. ``checks`` says what is checked."""

from __future__ import annotations

import time
import traceback
from pathlib import Path

import pytest

from peers.languages import FOREIGN, Language

from .checks import CHECKS
from .pair import FOREIGN_SIDES, PYTHON_SIDES, Pair, Side
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


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("connecting", SIDES, ids=lambda side: side.key)
@pytest.mark.parametrize("serving", SIDES, ids=lambda side: side.key)
def test_pair(serving: Side, connecting: Side, short_tmp_path: Path, results: Results) -> None:
    started = time.monotonic()
    failures: dict[str, str] = {}
    pair: Pair | None = None
    try:
        for check in CHECKS:
            try:
                if pair is None:
                    pair = Pair(serving, connecting, short_tmp_path)
                    pair.start()
                check(pair)
            except Trouble as trouble:
                assert pair is not None
                line = traceback.extract_tb(trouble.__traceback__)[1].lineno
                failures[check.__name__] = f"{trouble}\n(line {line} of checks.py)\n{pair.report()}"
                pair.close()
                # The next check begins with new processes.
                pair = None
                if len(failures) == MOST_FAILURES:
                    break
    finally:
        if pair is not None:
            pair.close()
        results.add((serving.key, connecting.key), failures, time.monotonic() - started)
    if failures:
        pytest.fail("\n\n".join(f"== {name}: {text}" for name, text in failures.items()), pytrace=False)

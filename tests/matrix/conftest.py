"""The matrix at the end of the run, and what happens to a language that is not there.

A language without a program is left out; a test is skipped in its place and says why, and so does `make test` in its
last lines. With ``LANGUAGES_REQUIRED=all`` in the environment (``make test-all``, .ci/run) it fails the run.
"""

from __future__ import annotations

import os

import pytest

from peers.languages import FOREIGN

from .results import Results

REQUIRED = os.environ.get("LANGUAGES_REQUIRED", "")

if REQUIRED not in ("", "all"):
    raise pytest.UsageError(f"LANGUAGES_REQUIRED is all or nothing, got {REQUIRED!r}")

_results = Results()


def troubles() -> dict[str, str]:
    """Language -> why its program cannot run, and the way out."""
    return {language.key: trouble for language in FOREIGN if (trouble := language.trouble())}


@pytest.fixture(scope="session")
def results() -> Results:
    return _results


@pytest.fixture(scope="session")
def required() -> bool:
    """Whether every language must be there."""
    return REQUIRED == "all"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _results.failed:
        terminalreporter.section("live matrix")
        for line in _results.lines(troubles()):
            terminalreporter.line(line)

"""What is said of a language that is not there, and of pairs that failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from peers import languages
from peers.languages import Language, Need

from . import test_matrix
from .pair import ALL_SIDES
from .results import Results

ROOT = Path(__file__).resolve().parents[2]

# No folder of peers/ has this name, so it has no program either.
LACKING = Language("cobol", "COBOL", (Need("cobc", lambda: False, "Debian: apt-get install gnucobol"),))
UNBUILT = Language("cobol", "COBOL", (Need("cobc", lambda: True, "is there"),))


def test_a_missing_tool_is_named_with_the_way_to_get_it() -> None:
    assert LACKING.trouble() == "missing: cobc (Debian: apt-get install gnucobol)"


def test_a_program_that_could_be_built_is_named_with_the_command() -> None:
    assert UNBUILT.trouble() == "not built: make -C peers/cobol build"


def test_a_missing_language_is_skipped_and_where_all_are_required_it_fails() -> None:
    with pytest.raises(pytest.skip.Exception, match="COBOL: missing: cobc"):
        test_matrix.test_language_takes_part(LACKING, required=False)
    with pytest.raises(AssertionError, match="COBOL: missing: cobc"):
        test_matrix.test_language_takes_part(LACKING, required=True)


def test_a_program_that_is_built_runs_only_with_what_it_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(languages, "PEERS", tmp_path)
    (tmp_path / "cobol" / "bin").mkdir(parents=True)
    LACKING.program.write_text("")
    LACKING.program.chmod(0o755)
    assert LACKING.trouble() == ""
    interpreted = Language("cobol", "COBOL", (Need("cobrun", lambda: False, "nowhere", to_run=True),))
    assert interpreted.trouble() == "missing: cobrun (nowhere)"


def test_building_without_the_tool_says_what_is_missing_and_calls_nothing() -> None:
    assert languages.build(LACKING) == LACKING.trouble()


def test_a_failed_build_is_reported_with_what_it_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cobol").mkdir()
    (tmp_path / "cobol" / "Makefile").write_text("build:\n\t@echo no such division; exit 3\n")
    monkeypatch.setattr(languages, "PEERS", tmp_path)
    trouble = languages.build(UNBUILT)
    assert "no such division" in trouble
    assert "make -C peers/cobol build" in trouble


def test_without_any_tool_every_language_is_a_line_and_only_all_makes_that_a_failure(tmp_path: Path) -> None:
    # A copy, beside which nothing is built; and nothing is found on its PATH.
    copy = tmp_path / "languages.py"
    copy.write_text((ROOT / "peers" / "languages.py").read_text())
    for options, code in (([], 0), (["--all"], 1)):
        ended = subprocess.run(
            [sys.executable, os.fspath(copy), "missing", *options],
            env={"PATH": os.fspath(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        lines = ended.stderr.splitlines()
        assert (ended.returncode, len(lines)) == (code, len(languages.FOREIGN)), ended.stderr
        for line, language in zip(lines, languages.FOREIGN, strict=True):
            assert line.startswith(f"{language.title} is left out, missing: ")
            assert all(need.get in line for need in language.needs if "/" not in need.what)


def test_the_matrix_has_a_cell_per_pair_and_names_the_checks_that_failed() -> None:
    results = Results()
    results.add(("asyncio", "trio"), [], 1.25)
    results.add(("trio", "asyncio"), ["credit", "goodbye"], 2.0)
    head, *rows, failed = results.lines({"rust": "not built"})
    assert head.split()[:3] == ["serves", "\\", "connects"]
    assert len(rows) == len(ALL_SIDES)
    cells = {row.split()[0]: row for row in rows}
    assert cells["Python/asyncio"].split()[1:] == "- ok 1.2 s - missing - -".split()
    assert cells["Python/trio"].split()[1:] == "2 failed - - missing - -".split()
    assert cells["Rust"].split()[1:] == ["missing"] * 6
    assert failed == "Python/trio serves, Python/asyncio connects: failed credit, goodbye"


def test_python_takes_part_on_both_runtimes() -> None:
    assert [side.key for side in test_matrix.SIDES[:2]] == ["asyncio", "trio"]

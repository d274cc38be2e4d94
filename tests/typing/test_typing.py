"""Runs mypy over the case files and compares what it says with what is written beside each line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

_REVEALED = re.compile(r'^(?P<file>[^:]+):(?P<line>\d+): note: Revealed type is "(?P<type>.*)"$')
_ERROR = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+): error: .*\[(?P<code>[\w-]+)\]$")


def expectations(file: Path) -> dict[int, tuple[str, str]]:
    """Return line -> ("type" or "error", text) as the comments say."""
    result = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if line.lstrip().startswith("#"):
            continue
        for mark, kind in (("# > ", "type"), ("# ! ", "error")):
            if mark in line:
                result[number] = (kind, line.partition(mark)[2].strip())
    return result


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["binding_cases.py", "endpoint_cases.py"])
def test_mypy_says_of_each_line_what_is_written_beside_it(name: str, tmp_path: Path) -> None:
    if name == "endpoint_cases.py" and not (ROOT / "lahja_capn" / "__init__.py").exists():
        pytest.skip("the package does not export endpoints yet")
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "setup.cfg"), "--no-error-summary"]
    command += ["--cache-dir", str(tmp_path / "cache"), "--no-pretty", str(HERE / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    said: dict[int, list[tuple[str, str]]] = {}
    for line in done.stdout.splitlines():
        if not line.startswith(f"tests/typing/{name}:"):
            continue
        for pattern, kind in ((_REVEALED, "type"), (_ERROR, "error")):
            found = pattern.match(line)
            if found:
                text = found["type"] if kind == "type" else found["code"]
                said.setdefault(int(found["line"]), []).append(
                    (kind, re.sub(r"tests\.typing\.|builtins\.", "", text))
                )
    wanted = expectations(HERE / name)
    assert wanted
    problems = []
    for number in sorted(wanted.keys() | said.keys()):
        kind, text = wanted.get(number, ("nothing", ""))
        alternatives = [re.escape(one.strip()).replace(r"\{any\}", r"[\w.]+") for one in text.split(" | ")]
        if kind == "type":
            alternatives = [re.escape(text).replace(r"\{any\}", r"[\w.]+")]
        got = said.get(number, [])
        if not any(k == kind and any(re.fullmatch(one, t) for one in alternatives) for k, t in got):
            problems.append(f"{name}:{number}: wanted {kind} {text!r}, mypy said {got}")
    assert not problems, "\n".join([*problems, done.stdout[-2000:], done.stderr[-2000:]])

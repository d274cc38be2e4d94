"""docs/reliability.md names tests and vectors that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")


def named(pattern: str) -> list[str]:
    return sorted(set(re.findall(pattern, PAGE)))


TESTS = named(r"`(tests/[\w/]+\.py(?:::\w+)?)`")
VECTORS = named(r"`((?:messages|values|frames|conversations|refusals)/[\w.*-]+)`")


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


@pytest.mark.parametrize("test", TESTS)
def test_a_test_that_proves_a_promise_exists(test: str) -> None:
    file, _, name = test.partition("::")
    assert (ROOT / file).is_file()
    assert not name or name in functions(ROOT / file)


@pytest.mark.parametrize("vector", VECTORS)
def test_a_vector_that_proves_a_promise_exists(vector: str) -> None:
    assert any((ROOT / "tests/vectors").glob(f"{vector}.json"))


def test_every_promise_has_a_proof_that_was_seen_to_fail() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    rows = [line for line in rows if not line.startswith(("| promise ", "| --- "))]
    assert len(rows) > 5
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split(" |")]
        assert len(cells) == 4, f"wanted promise, proof, figure or nothing, damage: {row}"
        promise, proof, _, damage = cells
        assert promise
        assert re.search(r"`tests/|`(messages|values|frames|conversations|refusals)/", proof), row
        assert damage, f"damage what protects, see the proof fail, and write down what was damaged: {row}"

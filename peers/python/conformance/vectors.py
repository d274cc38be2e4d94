"""``conformance vectors DIR``: runs the vectors as tests/test_vectors.py does, and counts."""

from __future__ import annotations

from pathlib import Path

from tests.vectors.loading import load_all
from tests.vectors.running import can_run, run


def run_vectors(folder: Path) -> int:
    """Run every vector; a line per failure, then the counts. 0 if none failed and there was one."""
    passed = failed = 0
    for vector in load_all(folder):
        if not can_run(vector):
            print(f"{vector}: left out, needs {vector.facts['needs']}")
            continue
        try:
            run(vector)
        except Exception as error:
            failed += 1
            print(f"{vector}: {type(error).__name__}: {error}".replace("\n", " ")[:500])
        else:
            passed += 1
    print(f"{passed} passed, {failed} failed")
    return 0 if passed and not failed else 1

"""The values that every pair exchanges: those of tests/vectors/values that a broadcast can show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.vectors.loading import load, names

_VECTORS = Path(__file__).resolve().parents[1] / "vectors"

# Shown whole by every program, and in every hello: Late must still be undeclared later.
_TYPES = ("Answer", "Everything", "Evolving")


def _values() -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    found = []
    for name in names(_VECTORS, "values"):
        facts = load(_VECTORS, "values", name).facts
        if facts["type"] in _TYPES:
            found.append((name, facts["type"], facts["build"], facts["value"]))
    return found


# Name of the vector, type, value to build, value that must arrive.
VALUES = _values()

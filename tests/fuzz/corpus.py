"""What the fuzzers start from: the vectors, and the regression inputs."""

from __future__ import annotations

import functools
from pathlib import Path

from tests.vectors import loading
from tests.vectors.loading import Vector

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
REGRESSIONS = Path(__file__).resolve().parent / "regressions"

# Longer vectors show a limit and little else; what they say is in shorter ones too.
_MAX_BYTES = 6000


@functools.cache
def vectors(folder: str) -> tuple[Vector, ...]:
    """Return the vectors of a folder that are short."""
    found = (loading.load(VECTORS, folder, name) for name in loading.names(VECTORS, folder))
    return tuple(vector for vector in found if len(vector.data) <= _MAX_BYTES)


@functools.cache
def messages() -> tuple[tuple[str, bytes], ...]:
    """Return (name of the type, message in stream framing) of everything that is content in the vectors."""
    found = [(v.facts["type"], v.data) for v in vectors("messages") if v.facts.get("schema") != "wire"]
    found += [(v.facts["type"], v.data[16:]) for v in vectors("frames") if v.facts["kind"] != "control"]
    return tuple(found)


def regressions(name: str) -> list[tuple[str, bytes]]:
    """Return the regression inputs of a target, with their names."""
    return [(path.stem, path.read_bytes()) for path in sorted((REGRESSIONS / name).glob("*.bin"))]

"""Inputs without a coverage-guided fuzzer: seeds, damaged again and again, the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tests.fuzz.measure import Target

# Damage adds up: a chain of this many inputs starts from one seed.
_CHAIN = 6


def inputs(target: Target, seed: int) -> Iterator[bytes]:
    """Yield every seed as it is, then damaged ones without end."""
    seeds = target.seeds()
    yield from seeds
    rng = Random(seed)
    while True:
        data = rng.choice(seeds)
        for _ in range(_CHAIN):
            data = target.mutate(data, rng.getrandbits(64))
            yield data

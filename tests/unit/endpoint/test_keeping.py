"""How long to rest between attempts to connect."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from lahja_capn import Backoff, ConfigError


def rests(count: int, **options: Any) -> list[float]:
    return list(islice(Backoff(**options).rests(), count))


def test_rests_double_up_to_the_longest() -> None:
    assert rests(6, first_s=0.5, max_s=5, jitter=0) == [0.5, 1, 2, 4, 5, 5]


def test_jitter_takes_off_no_more_than_its_part_and_differs_between_clients() -> None:
    full = rests(20, jitter=0)
    for seed in range(20):
        some = rests(20, jitter=0.25, seed=seed)
        assert all(0.75 * most <= rest <= most for most, rest in zip(full, some, strict=True))
    assert len({tuple(rests(5)) for _ in range(20)}) == 20


def test_same_seed_gives_the_same_rests() -> None:
    assert rests(20, seed="a") == rests(20, seed="a") != rests(20, seed="b")


@pytest.mark.parametrize(
    "options",
    [
        {"first_s": 0},
        {"first_s": 6},
        {"max_s": float("inf")},
        {"factor": 0.5},
        {"jitter": 1.5},
        {"jitter": -1},
    ],
    ids=str,
)
def test_value_outside_its_range_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Backoff(**options)  # type: ignore[arg-type]

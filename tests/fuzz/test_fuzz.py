"""The fuzzers for some seconds, without atheris: the same inputs each time. And the inputs that once broke something.

``make fuzz MINUTES=n`` goes on from here, guided by coverage.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from tests.fuzz import corpus, measure
from tests.fuzz.measure import Finding, Gauge
from tests.fuzz.run import SHARES, Tally
from tests.fuzz.seeded import inputs
from tests.fuzz.targets import TARGETS

# Damaged inputs in each part of a run; about 1 s.
_PART = {"decoder": 1000, "control": 2500, "sessions": 700, "events": 700}
_PARTS = 5


def test_every_target_has_its_share_of_a_long_run() -> None:
    assert list(SHARES) == list(TARGETS) == list(_PART)
    assert sum(SHARES.values()) == pytest.approx(1)


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_keeps_every_promise(name: str) -> None:
    target = TARGETS[name]()
    gauge = Gauge(target)
    for data in dict.fromkeys(target.seeds()):
        gauge(data)
    assert gauge.inputs > 50


@pytest.mark.slow
@pytest.mark.parametrize("part", range(_PARTS))
@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_keep_every_promise(name: str, part: int) -> None:
    target = TARGETS[name]()
    gauge = Gauge(target)
    seeds = len(target.seeds())
    for data in itertools.islice(inputs(target, part), seeds, seeds + _PART[name]):
        try:
            gauge(data)
        except BaseException:
            print(f"input of {name}, {len(data)} bytes: {data.hex()}")
            raise


@pytest.mark.parametrize(
    ("name", "which", "data"),
    [(name, which, data) for name in TARGETS for which, data in corpus.regressions(name)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_input_that_once_broke_a_promise_keeps_it(name: str, which: str, data: bytes) -> None:
    Gauge(TARGETS[name]()).run_measured(data)


def test_the_same_seed_gives_the_same_inputs() -> None:
    for name in TARGETS:
        one, other = (list(itertools.islice(inputs(TARGETS[name](), 7), 0, 3000, 100)) for _ in range(2))
        assert one == other


# --- the oracles themselves ---------------------------------------------------------------------------------


_TOO_MUCH = r"4 bytes allocated 2\d\d\d bytes at its peak: the limit is 1008"


class Fake:
    name = "fake"
    base_bytes = 1000
    bytes_per_byte = 2
    max_bytes = 100

    def __init__(self, run: Any) -> None:
        self.run = run

    def seeds(self) -> list[bytes]:
        return [b"seed"]

    def mutate(self, data: bytes, seed: int) -> bytes:
        return data


def test_an_input_that_takes_more_than_its_time_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measure.INPUT_LIMIT_S == 1.0
    monkeypatch.setattr(measure, "_limit_s", lambda: 0.02)

    def slow(data: bytes) -> None:
        until = time.thread_time() + 0.03
        while time.thread_time() < until:
            pass

    with pytest.raises(Finding, match=r"4 bytes took 0\.0"):
        Gauge(Fake(slow))(b"slow")


def test_an_input_that_takes_more_than_its_memory_is_found_when_the_process_grows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = [10 << 20, 11 << 20, 13 << 20]
    monkeypatch.setattr(measure, "peak_bytes", lambda: sizes.pop(0))
    gauge = Gauge(Fake(lambda data: bytes(2000)))
    gauge(b"much")
    with pytest.raises(Finding, match=_TOO_MUCH):
        gauge(b"much")


def test_an_input_that_takes_more_than_its_memory_is_found_when_its_turn_comes() -> None:
    gauge = Gauge(Fake(lambda data: bytes(2000)))
    for _ in range(511):
        gauge(b"much")
    with pytest.raises(Finding, match=_TOO_MUCH):
        gauge(b"much")


def test_findings_are_kept_once_each_with_their_input_and_the_run_goes_on(tmp_path: Any) -> None:
    def fail(data: bytes) -> None:
        raise ValueError(f"bad {data[:1]!r}") if data < b"m" else TypeError("worse")

    gauge = Gauge(Fake(fail), tmp_path)
    for data in (b"a1", b"a2", b"z1"):
        gauge(data)
    assert gauge.inputs == 3
    assert sorted(gauge.findings.values()) == [1, 2]
    assert {path.read_bytes() for path in tmp_path.glob("finding-*.bin")} == {b"a1", b"z1"}
    assert any("ValueError: bad" in path.read_text() for path in tmp_path.glob("finding-*.txt"))
    tally = Tally("fake")
    for _ in range(2):
        tally.add({**gauge.report(), "seconds": 2.0})
    assert tally.inputs == 6
    assert sorted(tally.findings.values()) == [2, 4]

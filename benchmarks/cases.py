"""The cases: what is sent, by how many to how many, and what is measured of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.environments import cases as only_cases
from benchmarks.environments import kinds
from benchmarks.workload import Job

MB = 1_000_000


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        kind, size, consumers, producers, in_flight: see :class:`benchmarks.workload.Job`.
        unit: of the figure.
        trial: events or requests of the first, uncounted run, whose rate decides how many the rounds send.
        fixed: every round sends as many as the trial would; there is no trial.
        least: no round sends fewer.
        group: the plot that shows it.
    """

    name: str
    kind: str
    unit: str
    trial: int
    group: str
    consumers: int = 1
    size: int = 64
    producers: int = 1
    in_flight: int = 1
    fixed: bool = False
    least: int = 1

    @property
    def lower_is_better(self) -> bool:
        return self.kind in ("paced", "start", "connect", "connections", "queued")

    def job(self, folder: str, count: int, seed: int, rate: float = 0.0) -> Job:
        """``count`` is rounded up so that every producer sends the same number."""
        return Job(
            self.kind,
            folder,
            -(-count // self.producers) * self.producers,
            self.consumers,
            seed=seed,
            in_flight=self.in_flight,
            size=self.size,
            producers=self.producers,
            rate=rate,
        )

    def has(self, system: str) -> bool:
        """Whether a system takes part."""
        only = only_cases(system)
        return self.kind in kinds(system) and (only is None or self.name in only)

    def rate(self, count: int, seconds: float) -> float:
        """The figure of a case that counts events: of large ones those that all consumers got, together."""
        return count * (self.consumers if self.kind == "large" else 1) / seconds

    def per_second(self, rate: float) -> float:
        """Events that were sent per second, from the figure."""
        return rate / (self.consumers if self.kind == "large" else 1)


def _small(name: str, trial: int, **more: Any) -> Case:
    unit = "events/s, each" if more.get("consumers", 1) > 1 else "events/s"
    return Case(name, "small", unit, trial, "small events", **more)


def _large(name: str, trial: int, size: int, consumers: int) -> Case:
    group = f"{size // MB} MB events"
    least = 8 if size > MB else 20
    return Case(name, "large", "events/s, all together", trial, group, consumers, size, least=least)


CASES = [
    _small("64 B, 1 to 1", 5000),
    _small("64 B, 1 to 3", 3000, consumers=3),
    _small("64 B, 1 to 10", 1000, consumers=10),
    _small("4 KB, 1 to 1", 3000, size=4096),
    Case("64 B, 10 to 1", "fan-in", "events/s, all together", 3000, "small events", producers=10),
    Case("64 B, local", "local", "events/s", 5000, "small events"),
    Case("request", "requests", "round trips/s", 1000, "requests"),
    Case("request, 64 in flight", "requests", "round trips/s", 2000, "requests", in_flight=64),
    _large("1 MB, 1 to 1", 60, MB, 1),
    _large("1 MB, 1 to 3", 30, MB, 3),
    _large("1 MB, 1 to 10", 10, MB, 10),
    Case("1 MB, one field read", "selective", "events/s", 60, "1 MB events", size=MB),
    _large("16 MB, 1 to 1", 8, 16 * MB, 1),
    _large("16 MB, 1 to 3", 4, 16 * MB, 3),
    _large("16 MB, 1 to 10", 2, 16 * MB, 10),
    Case("latency at half load", "paced", "µs", 5000, "latency at half load"),
    Case("start-up", "start", "ms", 10, "start", fixed=True),
    Case("connect", "connect", "ms", 10, "start", fixed=True),
    Case("memory per connection", "connections", "KiB", 64, "memory per connection", fixed=True),
    Case("memory per queued event", "queued", "bytes", 50_000, "memory per queued event", fixed=True),
]
UNITS = {case.name: case.unit for case in CASES}

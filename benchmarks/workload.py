"""What is sent, and how a receiver proves that it got it. Only standard library: every system imports it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

# The event that the figures of the design are about: u64, f64, 64 bytes of Data, Text, Bool.
SMALL_BYTES = 64
LARGE_BYTES = 1_000_000
# Values repeat after so many events: enough for no cache to help, few enough to be made before the clock
# starts.
VALUES = 1024

Values = tuple[float, bytes, str, bool]


@dataclass(frozen=True)
class Job:
    """One run of one case, as each of its processes sees it.

    Attributes:
        kind: "small" or "large" events, or "requests".
        folder: for sockets; short, private to the run.
        count: events or requests to send.
        consumers: how many processes receive.
        index: which of them this process is, from 0; 0 for the sending process.
        in_flight: requests that wait for their answer at the same time.
    """

    kind: str
    folder: str
    count: int
    consumers: int
    index: int = 0
    seed: int = 1
    in_flight: int = 1

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        return cls(**json.loads(text))

    def path(self, name: str) -> Path:
        return Path(self.folder) / name


def small_values(seed: int) -> list[Values]:
    """What follows the sequence number in event number n: element ``n % VALUES``."""
    rng = random.Random(seed)
    return [
        (rng.random(), rng.randbytes(SMALL_BYTES), f"sensor-{rng.randrange(10_000)}", rng.random() < 0.5)
        for _ in range(VALUES)
    ]


def large_payload(seed: int) -> bytes:
    return random.Random(seed).randbytes(LARGE_BYTES)


class Sink:
    """Takes what arrives; every field of every event ends up in :attr:`checksum`.

    Args:
        full: called once, when ``count`` events have come.
    """

    def __init__(self, count: int, full: Callable[[], object]) -> None:
        self._count = count
        self._full = full
        self.received = 0
        self.out_of_order = 0
        self.checksum = 0.0
        self.last = 0.0

    def small(self, number: int, value: float, payload: bytes, text: str, flag: bool) -> None:
        if number != self.received:
            self.out_of_order += 1
        self.checksum += value + payload[0] + len(text) + flag
        self.received += 1
        if self.received == self._count:
            self.last = time.monotonic()
            self._full()

    def large(self, number: int, payload: bytes | memoryview) -> None:
        if number != self.received:
            self.out_of_order += 1
        self.checksum += len(payload) + payload[0] + payload[-1]
        self.received += 1
        if self.received == self._count:
            self.last = time.monotonic()
            self._full()

    def facts(self) -> dict[str, float]:
        """What a consumer reports."""
        return {
            "received": self.received,
            "out_of_order": self.out_of_order,
            "checksum": self.checksum,
            "last": self.last,
        }


def expected_checksum(job: Job) -> float:
    """The checksum of a consumer that got every event whole."""
    sink = Sink(job.count, lambda: None)
    if job.kind == "large":
        payload = large_payload(job.seed)
        for number in range(job.count):
            sink.large(number, payload)
    else:
        values = small_values(job.seed)
        for number in range(job.count):
            sink.small(number, *values[number % VALUES])
    return sink.checksum


class Stopwatch:
    """Times requests, of which several may be under way: ``began = start()`` and ``stop(began)`` around each."""

    def __init__(self) -> None:
        self._first = time.monotonic()
        self._last = self._first
        self._times: list[float] = []

    def start(self) -> float:
        return time.monotonic()

    def stop(self, began: float) -> None:
        self._last = time.monotonic()
        self._times.append(self._last - began)

    def facts(self) -> dict[str, float]:
        """What the asking process reports; percentiles in seconds."""
        times = sorted(self._times)
        return {
            "received": len(times),
            "seconds": self._last - self._first,
            "p50": times[len(times) // 2],
            "p99": times[len(times) * 99 // 100],
        }

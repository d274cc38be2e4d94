"""What is sent, and how a receiver proves that it got it. Only standard library: every system imports it."""

from __future__ import annotations

import json
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

# Of a request and its answer.
REQUEST_BYTES = 64
# Values repeat after so many events: enough for no cache to help, few enough to be made before the clock
# starts.
VALUES = 1024
# An event's number is its producer's index shifted by so much, plus its place among that producer's events.
SOURCE_SHIFT = 40
# Paced events come in bursts, one burst in this time: a shorter sleep is not what a loop's timer gives.
TICK_S = 0.001

KINDS = (
    "small",
    "large",
    "selective",
    "fan-in",
    "paced",
    "requests",
    "start",
    "connect",
    "connections",
    "queued",
    "local",
)

Values = tuple[float, bytes, str, bool]


@dataclass(frozen=True)
class Job:
    """One run of one case, as each of its processes sees it.

    Attributes:
        kind: one of ``KINDS``; systems/__init__.py says what each asks for.
        folder: for sockets; short, private to the run.
        count: events or requests to send, by all producers together.
        consumers: how many processes receive.
        index: which of the consumers, or of the producers, this process is, from 0.
        in_flight: requests that wait for their answer at the same time.
        size: bytes of Data in an event.
        producers: how many processes send.
        rate: for ``paced``: events per second.
        many: of what grows; see growth.py.
    """

    kind: str
    folder: str
    count: int
    consumers: int
    index: int = 0
    seed: int = 1
    in_flight: int = 1
    size: int = 64
    producers: int = 1
    rate: float = 0.0
    many: int = 1

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        return cls(**json.loads(text))

    def path(self, name: str) -> Path:
        return Path(self.folder) / name

    @property
    def is_large(self) -> bool:
        """Whether its events are ``Large``, not ``Small``."""
        return self.kind in ("large", "selective")

    @property
    def numbers(self) -> range:
        """The numbers of the events that this producer sends."""
        first = self.index << SOURCE_SHIFT
        return range(first, first + self.count // self.producers)


def small_values(job: Job) -> list[Values]:
    """What follows the number in an event: element ``number % VALUES``."""
    rng = random.Random(job.seed)
    return [
        (rng.random(), rng.randbytes(job.size), f"sensor-{rng.randrange(10_000)}", rng.random() < 0.5)
        for _ in range(VALUES)
    ]


def large_payload(job: Job) -> bytes:
    return random.Random(job.seed).randbytes(job.size)


def bursts(job: Job) -> Iterator[tuple[float, range]]:
    """When paced events are due, and their numbers: ``rate`` events per second in a burst every ``TICK_S``.

    The first is due a tick from now. An event carries the time when it was *due*, so that a sender which falls
    behind does not hide the waiting.
    """
    began = time.monotonic()
    sent = 0
    tick = 0
    while sent < job.count:
        tick += 1
        until = min(job.count, int(job.rate * TICK_S * tick))
        if until > sent:
            yield began + TICK_S * tick, range(sent, until)
            sent = until


class Sink:
    """Takes what arrives; every field of every event ends up in :attr:`checksum`.

    Args:
        full: called once, when ``job.count`` events have come.

    Attributes:
        take_small, take_large: what to call with an event's fields, in the kind of the job.
    """

    def __init__(self, job: Job, full: Callable[[], object]) -> None:
        self._count = job.count
        self._full = full
        self.received = 0
        self.out_of_order = 0
        self.checksum = 0.0
        self.last = 0.0
        self._next: dict[int, int] = {}
        self._waits: list[float] = []
        self.take_small: Callable[[int, float, bytes, str, bool], None] = self.small
        if job.kind in ("fan-in", "connections"):
            self.take_small = self.from_many
        elif job.kind == "paced":
            self.take_small = self.stamped
        self.take_large = self.large

    def _arrived(self) -> None:
        self.received += 1
        if self.received == self._count:
            self.last = time.monotonic()
            self._full()

    def small(self, number: int, value: float, payload: bytes, text: str, flag: bool) -> None:
        if number != self.received:
            self.out_of_order += 1
        self.checksum += value + payload[0] + len(text) + flag
        self.received += 1
        if self.received == self._count:
            self.last = time.monotonic()
            self._full()

    def from_many(self, number: int, value: float, payload: bytes, text: str, flag: bool) -> None:
        """One of several producers' events, in order for each of them."""
        source = number >> SOURCE_SHIFT
        place = number - (source << SOURCE_SHIFT)
        if place != self._next.get(source, 0):
            self.out_of_order += 1
        self._next[source] = place + 1
        self.checksum += value + payload[0] + len(text) + flag
        self._arrived()

    def stamped(self, number: int, value: float, payload: bytes, text: str, flag: bool) -> None:
        """An event whose ``value`` is the time when it was due."""
        self._waits.append(time.monotonic() - value)
        if number != self.received:
            self.out_of_order += 1
        self.checksum += payload[0] + len(text) + flag
        self._arrived()

    def large(self, number: int, payload: bytes | memoryview) -> None:
        if number != self.received:
            self.out_of_order += 1
        self.checksum += len(payload) + payload[0] + payload[-1]
        self._arrived()

    def selective(self, number: int) -> None:
        """A large event of which only the number is read."""
        if number != self.received:
            self.out_of_order += 1
        self.checksum += 1
        self._arrived()

    def facts(self) -> dict[str, float]:
        """What a consumer reports; percentiles in seconds."""
        facts = {
            "received": self.received,
            "out_of_order": self.out_of_order,
            "checksum": self.checksum,
            "last": self.last,
        }
        return facts | percentiles(self._waits) if self._waits else facts


def expected_checksum(job: Job) -> float:
    """The checksum of a consumer that got every event whole."""
    sink = Sink(job, lambda: None)
    if job.kind == "selective":
        return float(job.count)
    if job.is_large:
        payload = large_payload(job)
        for number in range(job.count):
            sink.large(number, payload)
        return sink.checksum
    values = small_values(job)
    each = 1 if job.kind == "connections" else job.count // job.producers
    for _ in range(job.count // each):
        for number in range(each):
            sink.take_small(number, *values[number % VALUES])
    return sink.checksum


def percentiles(times: list[float]) -> dict[str, float]:
    """``p50``, ``p99`` and ``p999`` of times, in their unit."""
    times = sorted(times)
    count = len(times)
    return {
        "p50": times[count // 2],
        "p99": times[count * 99 // 100],
        "p999": times[count * 999 // 1000],
    }


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
        return {
            "received": len(self._times),
            "seconds": self._last - self._first,
            **percentiles(self._times),
        }


def memory_bytes() -> int:
    """Memory of this process that is in RAM; where the system does not tell, the most there ever was."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

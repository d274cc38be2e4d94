"""When to ask a silent peer whether it lives, and when to give it up."""

from __future__ import annotations

INFINITY = float("inf")


class Keepalive:
    """Any received byte is life. After an interval without one a ping is due, after ``misses`` it is dead.

    A peer is given up only after it left ``misses - 1`` pings unanswered for an interval each: if this
    process was stopped for long, the first look at the clock asks, it does not judge.
    """

    __slots__ = ("_asked", "_asked_at", "_interval_s", "_misses", "last_received")

    def __init__(self, interval_s: float, misses: int, now: float) -> None:
        self._interval_s = interval_s if interval_s > 0 else INFINITY
        self._misses = misses
        self.last_received = now
        self._asked = 0
        self._asked_at = now

    def received(self, now: float) -> None:
        self.last_received = now
        self._asked = 0

    @property
    def deadline(self) -> float:
        return (self._asked_at if self._asked else self.last_received) + self._interval_s

    def ask(self, now: float) -> bool:
        """The deadline has passed. True: send a ping. False: the peer is dead."""
        self._asked += 1
        self._asked_at = now
        return self._asked < self._misses

    def describe(self, now: float) -> str:
        return (
            f"no byte for {now - self.last_received:g} s: {self._misses - 1} pings, {self._interval_s:g} s "
            "apart, were not answered"
        )

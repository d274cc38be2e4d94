"""The requests of one connection that are under way, ours and the peer's. docs/wire.md section 9."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from ..errors import RemoteProtocolError


class OutgoingRequests:
    """Numbers of our requests. They start at 1 and strictly increase; a gap is a request never sent."""

    __slots__ = ("last", "open")

    def __init__(self) -> None:
        self.last = 0
        self.open: set[int] = set()

    def new(self) -> int:
        self.last = number = self.last + 1
        self.open.add(number)
        return number

    def forget(self, number: int) -> bool:
        """False if it is answered or forgotten already."""
        if number in self.open:
            self.open.remove(number)
            return True
        return False

    def answered(self, number: int, sent_to: int) -> bool:
        """An answer has come. True if its request was open; False if it is late.

        Raises:
            RemoteProtocolError: no request up to ``sent_to``, the highest sent, had the number.
        """
        if not 0 < number <= sent_to:
            raise RemoteProtocolError(
                f"an answer to request {number}, which was never sent: the highest is {sent_to}",
                code="unknownCorrelation",
            )
        return self.forget(number)


class IncomingRequests:
    """The peer's requests. One stays open until its one answer was handed to the runtime.

    The credit of a request that the session refused comes back only then: a peer that asks and does not read
    cannot make our queue of refusals grow beyond its window.
    """

    __slots__ = ("_last", "_limit", "_refused", "_unsent", "open", "refusals")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._last = 0
        # Numbers of those that wait for their answer.
        self.open: set[int] = set()
        # Number -> frame size whose credit is held back.
        self._refused: dict[int, int] = {}
        # Refused, and the answer is not made yet: number and frame size, in turns, by code and text of the answer.
        # 16 bytes for each: there may be 131,072 of them, and `failed` frames would be forty times that.
        self.refusals: dict[tuple[str, str], array[int]] = {}
        # Answers that are queued, or will be.
        self._unsent = 0

    @property
    def is_full(self) -> bool:
        return len(self.open) + self._unsent >= self._limit

    def arrived(self, number: int) -> None:
        """Raises RemoteProtocolError unless the numbers strictly increase."""
        if number <= self._last:
            raise RemoteProtocolError(
                f"request {number} after request {self._last}: numbers strictly increase"
            )
        self._last = number

    def refuse(self, number: int, size: int, code: str, text: str) -> None:
        """Answer ``number``, a request frame of ``size``, with ``failed`` when that can be sent."""
        self._unsent += 1
        self.refusals.setdefault((code, text), array("Q")).extend((number, size))

    def take_refusals(self, most: int) -> Iterator[tuple[int, str, str]]:
        """Take up to ``most`` refusals, whose answers are now queued: number, code, text."""
        while self.refusals and most > 0:
            key = next(iter(self.refusals))
            waiting = self.refusals[key]
            taken = waiting[: 2 * most]
            del waiting[: 2 * most]
            if not waiting:
                del self.refusals[key]
            most -= len(taken) // 2
            for number, size in zip(taken[::2], taken[1::2], strict=True):
                self._refused[number] = size
                yield number, *key

    def forget_refusals(self) -> int:
        """The connection ends: return how many requests get no answer."""
        count = sum(map(len, self.refusals.values())) // 2
        self.refusals.clear()
        return count

    def answer(self, number: int) -> None:
        """The one answer to an open request is queued."""
        self.open.remove(number)
        self._unsent += 1

    def sent(self, number: int) -> int:
        """Its answer has left. Return the credit that was held back for it."""
        self._unsent -= 1
        return self._refused.pop(number, 0)

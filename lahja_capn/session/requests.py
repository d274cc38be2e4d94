"""The requests of one connection that are under way, ours and the peer's. docs/wire.md section 9."""

from __future__ import annotations

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

    __slots__ = ("_last", "_limit", "_refused", "_unsent", "open")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._last = 0
        # Numbers of those that wait for their answer.
        self.open: set[int] = set()
        # Number -> frame size whose credit is held back.
        self._refused: dict[int, int] = {}
        # Answers that are queued.
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

    def refuse(self, number: int, size: int) -> None:
        self._refused[number] = size
        self._unsent += 1

    def answer(self, number: int) -> None:
        """The one answer to an open request is queued."""
        self.open.remove(number)
        self._unsent += 1

    def sent(self, number: int) -> int:
        """Its answer has left. Return the credit that was held back for it."""
        self._unsent -= 1
        return self._refused.pop(number, 0)

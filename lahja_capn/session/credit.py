"""Flow control: one window of credit per direction and kind (events, requests). docs/wire.md section 8.

Both sides count bytes of frame size. A frame may be sent while the balance is above zero and is charged
whole, so that an event larger than the window still passes and the balance may go below zero by that one
frame.
"""

from __future__ import annotations

from ..errors import RemoteProtocolError
from ..wire.limits import MAX_CREDIT, UNLIMITED

# What an unlimited window is reset to before each use: no round of sending gets near it.
_PLENTY = 2**62


class SendWindow:
    """Credit that the peer granted us. ``balance`` is bytes; the outbox charges it."""

    __slots__ = ("balance", "unlimited")

    def __init__(self) -> None:
        self.balance = 0
        self.unlimited = False

    def grant(self, size: int) -> None:
        """The window in the peer's hello."""
        if size == UNLIMITED:
            self.unlimited = True
            self.balance = _PLENTY
        else:
            self.balance = _checked(size)

    def refill(self, size: int) -> None:
        """A credit message. It says nothing new about an unlimited window.

        Raises:
            RemoteProtocolError: the balance would leave the range of a signed 64-bit integer.
        """
        if not self.unlimited:
            self.balance = _checked(self.balance + _checked(size))

    def charge(self, balance: int) -> None:
        """Store the balance after a round of sending."""
        self.balance = _PLENTY if self.unlimited else balance


class ReceiveWindow:
    """Credit that we granted the peer: what it may still send, and what came back but was not told yet."""

    __slots__ = ("_is_open", "balance", "pending", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        # Nothing may come before our hello is on its way.
        self._is_open = False
        self.balance = 0
        self.pending = 0

    def reduce(self, by: int) -> None:
        """Before it is opened: grant so much less, at least nothing."""
        if self.window != UNLIMITED:
            self.window = max(0, self.window - by)

    def open(self) -> None:
        """Our hello, which names the window, is queued."""
        self._is_open = True
        self.charge(self.window)

    @property
    def unused(self) -> int:
        """What the peer may still send, and what it is owed: all of a window that it has not heard of."""
        return self.balance + self.pending if self._is_open else self.window

    def charge(self, balance: int) -> None:
        """Store the balance after a round of receiving."""
        self.balance = _PLENTY if self.window == UNLIMITED else balance

    def give_back(self, size: int) -> bool:
        """Count ``size`` as returned. True if the peer must be told now: half the window has come back."""
        if self.window == UNLIMITED:
            return False
        self.pending += size
        return 2 * self.pending >= self.window

    def take_pending(self) -> int:
        """Return what the next credit message says."""
        pending, self.pending = self.pending, 0
        self.balance += pending
        return pending


def _checked(size: int) -> int:
    if size > MAX_CREDIT:
        raise RemoteProtocolError(
            f"credit adds up to {size} bytes: the most is {MAX_CREDIT}, or {UNLIMITED} in hello for unlimited"
        )
    return size

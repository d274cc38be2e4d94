"""Log lines that a peer can cause at will: a few of each kind in a while, and then how many were left out.

A log that a stranger can fill is a disk that a stranger can fill, and a traceback costs a hundred times what the frame
did that caused it.
"""

from __future__ import annotations

import logging
import time

# Of each kind of line so many in so many seconds: enough to see what goes on and with whom, and at most some hundred
# lines a minute whatever peers do.
LOG_LINES = 10
LOG_WINDOW_S = 10.0


class LimitedLog:
    """One kind of line, of one endpoint or one subscription."""

    __slots__ = ("_left", "_logger", "_unsaid", "_window_ends")

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._left = 0
        self._window_ends = float("-inf")
        # Lines that were left out since the last one.
        self._unsaid = 0

    def log(self, level: int, message: str, *args: object, exc_info: BaseException | None = None) -> None:
        now = time.monotonic()
        if now >= self._window_ends:
            self._window_ends = now + LOG_WINDOW_S
            self._left = LOG_LINES
        if not self._left:
            self._unsaid += 1
            return
        self._left -= 1
        if self._unsaid:
            message += " (and %d more such messages, not logged)"
            args = (*args, self._unsaid)
            self._unsaid = 0
        self._logger.log(level, message, *args, exc_info=exc_info, stacklevel=2)

    def end(self, whose: str, what: str) -> None:
        """Nothing follows: say how many were left out, if any."""
        if self._unsaid:
            self._logger.warning("%s: %d more messages about %s were not logged", whose, self._unsaid, what)
            self._unsaid = 0

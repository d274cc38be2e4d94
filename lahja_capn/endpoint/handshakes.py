"""How many peers may be about to connect to us: what is not a peer yet must cost little, however many try."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import anyio

from ..wire.limits import HANDSHAKE_PATIENCE_S
from .limitedlog import LimitedLog
from .needs import Channel, Runtime, Waiter

logger = logging.getLogger("lahja_capn.endpoint")


class Handshakes:
    """Connections that came to us and are not up yet, the oldest first; those that never will be included.

    Whoever comes when there are ``limit`` of them waits in the system's queue of the listening socket. An honest
    handshake takes milliseconds, so there is room soon; and where nothing moves, the oldest that has had
    HANDSHAKE_PATIENCE_S is hung up.
    """

    def __init__(self, name: str, runtime: Runtime, limit: int) -> None:
        self._name = name
        self._runtime = runtime
        self._limit = limit
        # When it began, and what ends it.
        self._under_way: dict[Channel, tuple[float, Callable[[], None]]] = {}
        self._waiter: Waiter[None] | None = None
        self._log = LimitedLog(logger)

    def __len__(self) -> int:
        return len(self._under_way)

    def begin(self, channel: Channel, hang_up: Callable[[], None]) -> None:
        """One more; or a next step of the same, which is to be ended in another way from now on."""
        began_at, _ = self._under_way.get(channel, (time.monotonic(), None))
        self._under_way[channel] = (began_at, hang_up)

    def end(self, channel: Channel) -> None:
        """It is up, or its channel is closed. Idempotent."""
        if self._under_way.pop(channel, None) is not None and self._waiter is not None:
            self._waiter.wake(None)

    async def room(self) -> None:
        """Wait until one more may begin."""
        while len(self._under_way) >= self._limit:
            channel, (began_at, hang_up) = next(iter(self._under_way.items()))
            rest_s = began_at + HANDSHAKE_PATIENCE_S - time.monotonic()
            if rest_s <= 0:
                self._log.log(
                    logging.WARNING,
                    "%s: %d handshakes are under way (Limits.handshakes); the oldest is hung up for the next one",
                    self._name,
                    len(self._under_way),
                )
                # Its own task ends it, in one of the next turns of the loop.
                self._under_way[channel] = (time.monotonic(), hang_up)
                hang_up()
                continue
            self._waiter = self._runtime.new_waiter()
            with anyio.move_on_after(rest_s):
                await self._waiter.wait()
            self._waiter = None

    def stop(self) -> None:
        self._log.end(self._name, "handshakes that were hung up")

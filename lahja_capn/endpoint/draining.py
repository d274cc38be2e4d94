"""Leaving in good order: finish what is there, and take no more."""

from __future__ import annotations

import anyio

from .reconnecting import ReconnectingEndpoint

# Between two looks whether the handlers have finished; an endpoint drains once in its life.
LOOK_S = 0.002


class DrainingEndpoint(ReconnectingEndpoint):
    """Can drain."""

    async def drain(self) -> None:
        self._check()
        self._stop_listening()
        for keeping in set(self._keeping.values()):
            keeping.stop()
        bus = self._bus
        bus.withdraw()
        version = bus.version
        await self._peers.subscriptions_changed.wait_until(
            lambda: all(connection.applied_version >= version for connection in self._peers.up.values())
        )
        while not bus.is_idle:
            await anyio.sleep(LOOK_S)
            self._check()
        for connection in tuple(self._peers.up.values()):
            await connection.drained()

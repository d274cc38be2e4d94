"""Connections that come back by themselves: ``keep_connected``.

One task for each kept endpoint: connect, wait until the connection is gone, connect again. Between attempts it rests,
for longer each time and never exactly as long as another client of the same server, so that they do not all come back
in the same moment. What others do: nats.py rests 2 s between attempts and gives up after 60 of them; zenoh doubles from
1 s to 4 s and paho from 1 s to 120 s, both for ever. Here a peer that starts again is missed for milliseconds, and one
that is away for a day costs an attempt every few seconds and a line in the log every ten minutes.
"""

from __future__ import annotations

import errno
import logging
import time

import anyio

from ..errors import (
    ConfigError,
    ConnectionAttemptRejected,
    ConnectTimeout,
    DuplicateConnection,
    LahjaError,
    LifecycleError,
    NameInUse,
    TLSFailed,
    UnsupportedVersion,
    WrongName,
)
from .config import ConnectionConfig
from .connecting import ConnectingEndpoint
from .connection import Connection
from .keeping import Backoff, Kept, KeptConnections

logger = logging.getLogger("lahja_capn.endpoint")

# Away for so long, it is said in the log; then each time the absence is so many times as long, but every ten minutes.
NOTICE_FIRST_S = 2.0
NOTICE_FACTOR = 4
NOTICE_MAX_S = 600.0


def is_final(error: Exception) -> bool:
    """True if trying again the same way is pointless (docs/wire.md, section 13)."""
    if isinstance(error, TLSFailed):
        return not error.lost
    if isinstance(error, (NameInUse, WrongName, UnsupportedVersion, ConfigError)):
        return True
    if isinstance(error, ConnectionAttemptRejected):
        # Without a code it is ours: the user who serves there is none of those allowed.
        code = getattr(error, "code", "")
        return code in ("", "invalidName") and not isinstance(error, DuplicateConnection)
    return isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM)


class ReconnectingEndpoint(ConnectingEndpoint):
    """Keeps connections."""

    def keep_connected(self, *endpoints: ConnectionConfig, backoff: Backoff | None = None) -> KeptConnections:
        self._check()
        for config in endpoints:
            self._check_other(config)
        names = [config.name for config in endpoints]
        for name in names:
            kept_by = self._keeping.get(name)
            if names.count(name) > 1 or (kept_by is not None and name not in kept_by.errors):
                raise DuplicateConnection(
                    f"Endpoint {self.name!r} keeps a connection to {name!r} already", peer=name
                )
        if backoff is None:
            backoff = Backoff()
        elif not isinstance(backoff, Backoff):
            raise ConfigError(f"backoff is a Backoff, got {backoff!r}")
        keeping = KeptConnections(self._runtime, endpoints, self._forget_kept)
        for kept in keeping._kept.values():
            self._keeping[kept.config.name] = keeping
            self._spawn(self._keep, keeping, kept, backoff)
        return keeping

    def _forget_kept(self, keeping: KeptConnections) -> None:
        for name in [name for name, kept_by in self._keeping.items() if kept_by is keeping]:
            del self._keeping[name]

    async def _keep(self, keeping: KeptConnections, kept: Kept, backoff: Backoff) -> None:
        with anyio.CancelScope() as kept.scope:
            if keeping.is_stopped:
                return
            try:
                await self._keep_for_ever(keeping, kept, backoff)
            except LifecycleError:
                pass  # the endpoint stops
            except (LahjaError, OSError) as error:
                logger.error("%s: no more attempts to connect to %r: %s", self.name, kept.config.name, error)
                kept.error = error
                keeping._changes.notify()

    async def _keep_for_ever(self, keeping: KeptConnections, kept: Kept, backoff: Backoff) -> None:
        """Raises what makes more attempts pointless."""
        name = kept.config.name
        peers = self._peers
        rests = backoff.rests()
        rest_s = 0.0
        absence = _Absence(self.name, kept.config, again=False)
        while True:
            try:
                await self._connect_once(kept.config)
            except (LahjaError, OSError) as error:
                if isinstance(error, LifecycleError) or is_final(error):
                    raise
                absence.goes_on(error)
            else:
                # None if it has gone already.
                kept.connection = connection = peers.up.get(name)
                if connection is not None:
                    absence.ended()
                    up_at = time.monotonic()
                    keeping._changes.notify()
                    await self._until_gone(connection)
                    kept.connection = None
                    if time.monotonic() - up_at > rest_s:
                        rests = backoff.rests()
                    absence = _Absence(self.name, kept.config, again=True)
            rest_s = next(rests)
            # Whoever connects to us meanwhile saves us the trouble.
            with anyio.move_on_after(rest_s):
                await peers.connections_changed.wait_until(lambda: peers.is_connected_to(name))

    async def _until_gone(self, connection: Connection) -> None:
        await self._peers.connections_changed.wait_until(lambda: connection.closed is not None)
        self._check()

    async def _connect_once(self, config: ConnectionConfig) -> None:
        """One attempt, whatever it waits for limited by the time to connect.

        Raises:
            ConnectTimeout: nobody is there.
        """
        name = config.name
        if name in self._connecting:
            raise ConnectTimeout(f"connect_to_endpoints() is connecting to {name!r}", peer=name)
        self._connecting.add(name)
        try:
            await self._connect_in_time(config, time.monotonic() + self._connect_timeout_s, once=True)
        finally:
            self._connecting.discard(name)

    def _end_connections(self) -> None:
        for keeping in set(self._keeping.values()):
            keeping._endpoint_stopped(LifecycleError(f"Endpoint {self.name!r} stopped"))
        super()._end_connections()


class _Absence:
    """What the log says of a peer that is away: at once, then more and more seldom, and when it is back."""

    def __init__(self, own: str, config: ConnectionConfig, *, again: bool) -> None:
        self._own = own
        self._config = config
        self._since = time.monotonic()
        self._attempts = 0
        self._again = again
        self._notice_s = NOTICE_FIRST_S
        self._notice_at = self._since + NOTICE_FIRST_S
        if again:
            logger.info("%s: connection to %r is gone, connecting again", own, config.name)

    def goes_on(self, error: Exception) -> None:
        self._attempts += 1
        now = time.monotonic()
        if now >= self._notice_at:
            self._notice_s = min(NOTICE_MAX_S, self._notice_s * NOTICE_FACTOR)
            self._notice_at = now + self._notice_s
            logger.warning(
                "%s: not connected to %r for %.0f s, after %d attempts: %s",
                self._own,
                self._config.name,
                now - self._since,
                self._attempts,
                "nobody serves at " + self._config.where if isinstance(error, ConnectTimeout) else error,
            )

    def ended(self) -> None:
        if self._again or self._attempts:
            logger.info(
                "%s: connected to %r%s after %.1f s",
                self._own,
                self._config.name,
                " again" if self._again else "",
                time.monotonic() - self._since,
            )

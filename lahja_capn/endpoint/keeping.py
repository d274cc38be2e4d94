"""What ``keep_connected`` takes and returns: how long to rest between attempts, and the connections that are kept."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import anyio

from ..errors import ConfigError, LahjaError, LifecycleError
from .changes import Changes
from .config import ConnectionConfig
from .connection import Connection
from .needs import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to rest between two attempts to connect.

    The n-th rest is ``first_s * factor ** n``, at most ``max_s``, less a random part of up to ``jitter`` of it. A
    connection that held longer than the rest before it begins anew with ``first_s``.

    Args:
        seed: makes the random part repeatable, for tests.

    Raises:
        ConfigError: a value outside its range.
    """

    first_s: float = 0.05
    max_s: float = 5.0
    factor: float = 2.0
    jitter: float = 0.5
    seed: int | str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.first_s <= self.max_s < float("inf"):
            raise ConfigError(f"0 < first_s <= max_s wanted, got {self.first_s!r} and {self.max_s!r}")
        if not 1 <= self.factor < float("inf"):
            raise ConfigError(f"factor is 1 or more, got {self.factor!r}")
        if not 0 <= self.jitter <= 1:
            raise ConfigError(f"jitter is a part of the rest, 0 to 1, got {self.jitter!r}")

    def rests(self) -> Iterator[float]:
        """The rests of one endless row of attempts that fail, in seconds."""
        rng = random.Random(self.seed)
        rest_s = self.first_s
        while True:
            yield rest_s * (1 - self.jitter * rng.random())
            rest_s = min(self.max_s, rest_s * self.factor)


@dataclass(slots=True, eq=False)
class Kept:
    """One endpoint that is kept connected."""

    config: ConnectionConfig
    # Of the task that keeps it, once that runs.
    scope: anyio.CancelScope | None = None
    # On which both sides know what the other subscribes to.
    connection: Connection | None = None
    error: LahjaError | OSError | None = None

    @property
    def is_ready(self) -> bool:
        return self.connection is not None and self.connection.closed is None


class KeptConnections:
    """What ``keep_connected`` returns: the connections that are kept, and why one is no longer."""

    def __init__(
        self,
        runtime: Runtime,
        configs: tuple[ConnectionConfig, ...],
        forget: Callable[[KeptConnections], None],
    ) -> None:
        self._kept = {config.name: Kept(config) for config in configs}
        self._changes = Changes(runtime)
        self._forget = forget
        self._stopped = False

    @property
    def errors(self) -> dict[str, LahjaError | OSError]:
        """Endpoints that refused us for good, by name; to these no more attempt is made."""
        return {name: kept.error for name, kept in self._kept.items() if kept.error is not None}

    @property
    def is_stopped(self) -> bool:
        return self._stopped

    def _raise_refusal(self) -> None:
        for error in self.errors.values():
            raise error

    async def connected(self) -> None:
        """Wait until all are connected at the same time and both sides know what the other subscribes to.

        Raises:
            ConnectionAttemptRejected, UnsupportedVersion, ConfigError, OSError: one refused us for good.
            LifecycleError: the endpoint stopped, or ``stop()`` was called.
        """

        def is_decided() -> bool:
            return self._stopped or bool(self.errors) or all(kept.is_ready for kept in self._kept.values())

        await self._changes.wait_until(is_decided)
        self._raise_refusal()
        if self._stopped:
            raise LifecycleError("The connections are not kept any more: stop() was called")

    async def ended(self) -> None:
        """Wait until one refuses us for good, and raise that; return after ``stop()``.

        Raises:
            LifecycleError: the endpoint stopped.
        """
        await self._changes.wait_until(lambda: self._stopped or bool(self.errors))
        self._raise_refusal()

    def stop(self) -> None:
        """Connect no more. Connections that are up stay. Idempotent."""
        if not self._stopped:
            self._stopped = True
            self._cancel()
            self._forget(self)
            self._changes.notify()

    def _cancel(self) -> None:
        for kept in self._kept.values():
            if kept.scope is not None:
                kept.scope.cancel()

    def _endpoint_stopped(self, error: LahjaError) -> None:
        self._stopped = True
        self._cancel()
        self._changes.stop(error)

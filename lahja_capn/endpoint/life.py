"""An endpoint's life: started once, run by its tasks, stopped with goodbyes. One timer for all that is due."""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import threading
import time
import weakref
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from typing import Any, ClassVar, NoReturn, Self

import anyio

from ..errors import LifecycleError
from ..session import LocalEndpoint, Policy, WireTable
from ..wire.limits import Limits
from .api import EndpointAPI
from .arguments import check_limits, check_policy, check_seconds, check_uids
from .bus import Bus
from .config import ConnectionConfig, check_endpoint_name
from .handlers import HandlerErrorHook
from .handshakes import Handshakes
from .keeping import KeptConnections
from .limitedlog import LimitedLog
from .needs import Listener, Runtime, Tasks, Transport, Waiter
from .peers import Peers

logger = logging.getLogger("lahja_capn.endpoint")

# A peer is a process that may take its time to import and start; lahja gave up on a missing socket file after
# 2 s and its users met that (trinity #2108).
CONNECT_TIMEOUT_S = 30.0


class Life(enum.Enum):
    NEW = "has not been started: enter `async with endpoint.run()` or `Endpoint.serve(config)`"
    RUNNING = "is running"
    STOPPING = "is stopping"
    STOPPED = "has stopped: an endpoint runs once, make a new one"
    FORKED = "belongs to the parent process: make a new endpoint after the fork"


_living: weakref.WeakSet[LivingEndpoint] = weakref.WeakSet()


def _mark_forked() -> None:
    for endpoint in tuple(_living):
        endpoint._enter(Life.FORKED)


# A child shares its parent's sockets: one byte written there would break the parent's frames.
os.register_at_fork(after_in_child=_mark_forked)


class LivingEndpoint(EndpointAPI):
    """What an endpoint is made of, and how it starts, runs and stops.

    Args:
        name: unique among all endpoints that are connected with each other.
        limits: see :mod:`lahja_capn.wire.limits`.
        peer_policy: what happens to an event for a peer whose queue (``limits.queued_per_peer_bytes``) is full.
        on_handler_error: called with the event and the exception, after it was logged.
        connect_timeout_s: how long ``connect_to_endpoints`` waits for each endpoint.
        allowed_uids: numbers of the users whose processes may be connected with over Unix sockets; by default only
            the one that this process runs as.

    Raises:
        InvalidEndpointName: see :func:`check_endpoint_name`.
    """

    _runtime_class: ClassVar[type[Runtime]]
    _transport_class: ClassVar[type[Transport]]

    def __init__(
        self,
        name: str,
        *,
        limits: Limits | None = None,
        peer_policy: Policy = Policy.WAIT,
        on_handler_error: HandlerErrorHook | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        allowed_uids: Collection[int] | None = None,
    ) -> None:
        self.name = check_endpoint_name(name)
        self.limits = check_limits(limits)
        self.on_handler_error = on_handler_error
        self._peer_policy = check_policy(peer_policy)
        self._peer_policies: dict[str, Policy] = {}
        self._connect_timeout_s = check_seconds("connect_timeout_s", connect_timeout_s)
        self._runtime = self._runtime_class()
        self._transport = self._transport_class(check_uids(allowed_uids))
        keepalive_s = self.limits.keepalive_s
        self._local = LocalEndpoint(
            name=name,
            instance=os.urandom(16),
            limits=self.limits,
            keepalive_s=0.0 if keepalive_s is None else keepalive_s,
        )
        self._table = WireTable(self.limits)
        self._peers = Peers(self._local, self._runtime, self.limits)
        self._bus = Bus(name, self._runtime, self.limits, self._peers, self._table, self.on_deadline)
        self._life = Life.NEW
        # The thread that it may be used from now: None unless it is running.
        self._thread: int | None = None
        self._tasks: Tasks | None = None
        self._failure: BaseException | None = None
        self._stop_waiter: Waiter[None] | None = None
        self._drain_on_stop = True
        self._timer_waiter: Waiter[None] | None = None
        self._timer_deadline = float("-inf")
        self._life_waiters: list[Waiter[None]] = []
        self._listener: Listener | None = None
        self._handshakes = Handshakes(name, self._runtime, self.limits.handshakes)
        self._listener_scope: anyio.CancelScope | None = None
        self._serving_at: ConnectionConfig | None = None
        self._server_stopped = False
        # Names that connect_to_endpoints is trying to reach.
        self._connecting: set[str] = set()
        # What keep_connected() keeps, by name.
        self._keeping: dict[str, KeptConnections] = {}
        # What peers can make us say.
        self._log_refused = LimitedLog(logger)
        self._log_ended = LimitedLog(logger)
        self._log_disabled = LimitedLog(logger)
        self._log_dropped = LimitedLog(logger)
        _living.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self._life.name.lower()}>"

    def __str__(self) -> str:
        return f"Endpoint[{self.name}]"

    async def __aenter__(self) -> NoReturn:
        raise LifecycleError(
            f"Endpoint {self.name!r} is entered by its run(): write `async with {type(self).__name__}(...).run()`, or "
            "serve(config)"
        )

    async def __aexit__(self, *_: object) -> None:
        """Never reached; there because ``async with`` looks for both."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "An endpoint lives in one process and cannot be pickled: send its ConnectionConfig and connect there"
        )

    # --- life -----------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        return self._life is Life.RUNNING

    @property
    def is_stopped(self) -> bool:
        return self._life is Life.STOPPED

    def _enter(self, life: Life) -> None:
        self._life = life
        self._thread = threading.get_ident() if life is Life.RUNNING else None

    def _check(self) -> None:
        if threading.get_ident() != self._thread:
            raise self._lifecycle_error()

    def _lifecycle_error(self) -> LifecycleError:
        if self._life is Life.RUNNING:
            return LifecycleError(
                f"Endpoint {self.name!r} runs in another thread: an endpoint is used from the thread of its event "
                "loop only. Hand the work over with loop.call_soon_threadsafe() or trio.from_thread.run()."
            )
        return LifecycleError(f"Endpoint {self.name!r} {self._life.value}")

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Self]:
        self._runtime.check_running_here()
        if self._life is not Life.NEW:
            raise (
                self._lifecycle_error()
                if self._life is not Life.RUNNING
                else LifecycleError(f"Endpoint {self.name!r} is running already: one run() at a time")
            )
        self._stop_waiter = stop_waiter = self._runtime.new_waiter()
        started = self._runtime.new_waiter()
        self._enter(Life.STOPPING)  # until the tasks are there, nobody may use it
        async with self._runtime.beside(lambda: self._main(started)):
            try:
                await started.wait()
                yield self
            except BaseException:
                self._drain_on_stop = False
                raise
            finally:
                stop_waiter.wake(None)
        if self._failure is not None:
            raise self._failure

    async def _main(self, started: Waiter[None]) -> None:
        try:
            async with self._runtime.tasks() as self._tasks:
                self._enter(Life.RUNNING)
                self._spawn(self._keep_time)
                started.wake(None)
                self._wake_life_waiters()
                try:
                    assert self._stop_waiter is not None  # run() made it
                    await self._stop_waiter.wait()
                    await self._say_goodbye()
                finally:
                    self._end_connections()
        finally:
            self._finish()
            started.wake(None)

    async def _say_goodbye(self) -> None:
        """Send what is queued, then tell every peer; each for at most the close timeout."""
        peers = self._peers
        if self._drain_on_stop:
            with anyio.move_on_after(self.limits.close_timeout_s):
                for connection in tuple(peers.up.values()):
                    await connection.drained()
        self._end_connections()
        with anyio.move_on_after(self.limits.close_timeout_s):
            await peers.connections_changed.wait_until(lambda: not peers.all)

    def _end_connections(self) -> None:
        self._enter(Life.STOPPING)
        self._stop_listening()
        # Before the goodbyes: it is not the responders that left.
        self._bus.fail_requests(LifecycleError(f"Endpoint {self.name!r} stopped while a request was open"))
        for connection in tuple(self._peers.all.values()):
            connection.say_goodbye("shutdown", "")

    def _finish(self) -> None:
        self._enter(Life.STOPPED)
        self._tasks = None
        _living.discard(self)
        error = LifecycleError(f"Endpoint {self.name!r} stopped")
        self._bus.stop(error)
        self._peers.stop(error)
        self._handshakes.stop()
        self._log_refused.end(self.name, "connections that were refused")
        self._log_ended.end(self.name, "connections that ended")
        self._log_disabled.end(self.name, "types that are not exchanged")
        self._log_dropped.end(self.name, "events that peers dropped")
        self._wake_life_waiters()

    def _wake_life_waiters(self) -> None:
        waiters, self._life_waiters = self._life_waiters, []
        for waiter in waiters:
            waiter.wake(None)

    async def _wait_life(self, reached: Callable[[], bool]) -> None:
        while not reached():
            waiter = self._runtime.new_waiter()
            self._life_waiters.append(waiter)
            await waiter.wait()

    async def wait_started(self) -> None:
        await self._wait_life(
            lambda: (self._life not in (Life.NEW,) and self._tasks is not None) or self.is_stopped
        )

    async def wait_stopped(self) -> None:
        await self._wait_life(lambda: self.is_stopped)

    def _spawn(self, function: Callable[..., Any], *args: Any) -> None:
        if self._tasks is not None:
            self._tasks.spawn(self._guard, function, *args)

    async def _guard(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        try:
            await function(*args)
        except Exception as error:
            # Every task of ours handles its own errors; what comes here is a defect, and must be seen.
            logger.critical("%s: a task failed", self.name, exc_info=error)
            self._failure = error

    async def _keep_time(self) -> None:
        """The one timer of the endpoint: handshakes, keepalives, closing connections, request timeouts."""
        while True:
            now = time.monotonic()
            deadline = self._bus.deadlines.expire(now)
            for connection in tuple(self._peers.all.values()):
                deadline = min(deadline, connection.handle_time(now))
            self._timer_deadline = deadline
            self._timer_waiter = self._runtime.new_waiter()
            with anyio.move_on_after(max(0.0, deadline - time.monotonic())):
                await self._timer_waiter.wait()
            self._timer_deadline = float("-inf")

    def on_deadline(self, deadline: float) -> None:
        """Something is due at ``deadline``: wake the timer if it sleeps longer."""
        if deadline < self._timer_deadline and self._timer_waiter is not None:
            self._timer_waiter.wake(None)

    @abstractmethod
    def _stop_listening(self) -> None:
        """Accept no more connections."""

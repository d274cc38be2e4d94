"""The endpoint, written once for every runtime: life, connections, and the public API over the bus."""

from __future__ import annotations

import contextlib
import enum
import errno
import logging
import os
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self, TypeVar

import anyio
from anyio.abc import TaskGroup

from ..binding import BaseEvent, BaseRequestResponseEvent, BroadcastConfig, EventType
from ..binding import event_type as event_type_of
from ..errors import ConnectTimeout, DuplicateConnection, LahjaError, LifecycleError
from ..session import (
    Closed,
    Counters,
    LocalEndpoint,
    PeerDropped,
    Policy,
    Session,
    TypeDisabled,
    WireTable,
)
from ..wire.limits import Limits
from .api import EndpointAPI
from .bus import Bus
from .config import ConnectionConfig, check_endpoint_name
from .connection import Connection
from .handlers import HandlerErrorHook, HandlerInbox
from .inbox import DEFAULT_QUEUE_EVENTS
from .needs import Channel, Listener, Runtime, Tasks, Transport, Waiter
from .peers import Peers, rejection
from .streams import EventStream, StreamInbox, first_event
from .subscription import Subscription

logger = logging.getLogger("lahja_capn.endpoint")

E = TypeVar("E", bound=BaseEvent)
R = TypeVar("R", bound=BaseEvent)

# A peer is a process that may take its time to import and start; lahja gave up on a missing socket file after
# 2 s and its users met that (trinity #2108).
CONNECT_TIMEOUT_S = 30.0

# Between two looks whether somebody serves at a path; there is no event to wait for that works everywhere.
CONNECT_RETRY_FIRST_S = 0.01
CONNECT_RETRY_MAX_S = 0.25

# After this long without anybody at the path the log says what is being waited for.
CONNECT_NOTICE_S = 2.0

# How long accepting rests when the process is out of file descriptors or memory.
ACCEPT_REST_S = 0.25


class _Life(enum.Enum):
    NEW = "has not been started: enter `async with endpoint.run()` or `Endpoint.serve(config)`"
    RUNNING = "is running"
    STOPPING = "is stopping"
    STOPPED = "has stopped: an endpoint runs once, make a new one"
    FORKED = "belongs to the parent process: make a new endpoint after the fork"


_living: weakref.WeakSet[Endpoint] = weakref.WeakSet()


def _mark_forked() -> None:
    for endpoint in tuple(_living):
        endpoint._life = _Life.FORKED


# A child shares its parent's sockets: one byte written there would break the parent's frames.
os.register_at_fork(after_in_child=_mark_forked)


class Endpoint(EndpointAPI):
    """Implements :class:`EndpointAPI` for whatever runtime a subclass names.

    Args:
        name: unique among all endpoints that are connected with each other.
        limits: see :mod:`lahja_capn.wire.limits`.
        peer_policy: what happens to an event for a peer whose queue (``limits.queued_per_peer_bytes``) is full.
        on_handler_error: called with the event and the exception, after it was logged.
        connect_timeout_s: how long ``connect_to_endpoints`` waits for each endpoint.

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
    ) -> None:
        self.name = check_endpoint_name(name)
        self.limits = Limits() if limits is None else limits
        self.on_handler_error = on_handler_error
        self._peer_policy = peer_policy
        self._peer_policies: dict[str, Policy] = {}
        self._connect_timeout_s = connect_timeout_s
        self._runtime = self._runtime_class()
        self._transport = self._transport_class()
        keepalive_s = self.limits.keepalive_s
        self._local = LocalEndpoint(
            name=name,
            instance=os.urandom(16),
            limits=self.limits,
            keepalive_s=self._transport.keepalive_s if keepalive_s is None else keepalive_s,
        )
        self._table = WireTable(self.limits)
        self._peers = Peers(self._local, self._runtime, self.limits)
        self._bus = Bus(name, self._runtime, self.limits, self._peers, self._table, self.on_deadline)
        self._life = _Life.NEW
        self._thread: int | None = None
        self._tasks: Tasks | None = None
        self._failure: BaseException | None = None
        self._stop_waiter: Waiter[None] | None = None
        self._drain_on_stop = True
        self._timer_waiter: Waiter[None] | None = None
        self._timer_deadline = float("-inf")
        self._life_waiters: list[Waiter[None]] = []
        self._listener: Listener | None = None
        self._listener_scope: anyio.CancelScope | None = None
        self._path: Path | None = None
        self._server_stopped = False
        # Names that connect_to_endpoints is trying to reach.
        self._connecting: set[str] = set()
        _living.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self._life.name.lower()}>"

    def __str__(self) -> str:
        return f"Endpoint[{self.name}]"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "An endpoint lives in one process and cannot be pickled: send its ConnectionConfig and connect there"
        )

    # --- life -----------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        return self._life is _Life.RUNNING

    @property
    def is_stopped(self) -> bool:
        return self._life is _Life.STOPPED

    def _check(self) -> None:
        if self._life is not _Life.RUNNING or threading.get_ident() != self._thread:
            raise self._lifecycle_error()

    def _lifecycle_error(self) -> LifecycleError:
        if self._life is _Life.RUNNING:
            return LifecycleError(
                f"Endpoint {self.name!r} runs in another thread: an endpoint is used from the thread of its event "
                "loop only. Hand the work over with loop.call_soon_threadsafe() or trio.from_thread.run()."
            )
        return LifecycleError(f"Endpoint {self.name!r} {self._life.value}")

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Self]:
        self._runtime.check_running_here()
        if self._life is not _Life.NEW:
            raise (
                self._lifecycle_error()
                if self._life is not _Life.RUNNING
                else LifecycleError(f"Endpoint {self.name!r} is running already: one run() at a time")
            )
        self._thread = threading.get_ident()
        self._stop_waiter = stop_waiter = self._runtime.new_waiter()
        started = self._runtime.new_waiter()
        self._life = _Life.STOPPING  # until the tasks are there, nobody may use it
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
                self._life = _Life.RUNNING
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
        self._life = _Life.STOPPING
        self._stop_listening()
        # Before the goodbyes: it is not the responders that left.
        self._bus.fail_requests(LifecycleError(f"Endpoint {self.name!r} stopped while a request was open"))
        for connection in tuple(self._peers.all.values()):
            connection.say_goodbye("shutdown", "")

    def _finish(self) -> None:
        self._life = _Life.STOPPED
        self._tasks = None
        _living.discard(self)
        error = LifecycleError(f"Endpoint {self.name!r} stopped")
        self._bus.stop(error)
        self._peers.connections_changed.stop(error)
        self._peers.subscriptions_changed.stop(error)
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
            lambda: (self._life not in (_Life.NEW,) and self._tasks is not None) or self.is_stopped
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

    # --- serve ----------------------------------------------------------------------------------------

    @classmethod
    @contextlib.asynccontextmanager
    async def serve(cls, config: ConnectionConfig, **options: Any) -> AsyncIterator[Self]:
        endpoint = cls(config.name, **options)
        async with endpoint.run():
            endpoint._listen(Path(config.path))
            yield endpoint

    @property
    def is_serving(self) -> bool:
        return self.is_running and self._listener is not None

    @property
    def is_server_stopped(self) -> bool:
        return self._server_stopped

    @property
    def ipc_path(self) -> Path:
        if self._path is None:
            raise LifecycleError(f"Endpoint {self.name!r} does not serve: start it with serve(config)")
        return self._path

    def _listen(self, path: Path) -> None:
        self._listener = self._transport.listen(path)
        self._path = path
        self._spawn(self._accept_connections, self._listener)

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is None:
            return
        self._server_stopped = True
        if self._listener_scope is None:
            listener.close()
        else:
            # The accepting task closes it, once nothing waits for its descriptor: libuv (uvloop) aborts the
            # process over one that is closed while it is polled.
            self._listener_scope.cancel()

    async def _accept_connections(self, listener: Listener) -> None:
        try:
            with anyio.CancelScope() as self._listener_scope:
                while self._listener is listener:
                    await self._runtime.wait_readable(listener.fileno())
                    if self._listener is not listener:
                        break  # stopped in the very turn in which somebody came
                    try:
                        channel = listener.accept()
                    except BlockingIOError:
                        continue
                    except OSError as error:
                        if error.errno in (errno.ECONNABORTED, errno.EINTR, errno.EPROTO):
                            continue
                        logger.error("%s: cannot accept connections now: %s", self.name, error)
                        await anyio.sleep(ACCEPT_REST_S)
                        continue
                    if channel is not None:
                        self._start_connection(channel, None)
        finally:
            listener.close()

    # --- connections ----------------------------------------------------------------------------------

    def _start_connection(self, channel: Channel, expected: str | None) -> Connection:
        session = Session(
            self._local,
            self._table,
            connector=expected is not None,
            now=time.monotonic(),
            expected_peer=expected,
        )
        connection = Connection(
            self._runtime, self, self._bus, channel, session, self._peers.next_serial(), expected is not None
        )
        self._peers.add(connection, expected)
        self._spawn(self._run_connection, connection)
        return connection

    async def _run_connection(self, connection: Connection) -> None:
        try:
            await connection.run()
        except Exception:
            # A defect of ours in one connection must not end the others.
            logger.exception("%s: connection to %r failed", self.name, connection.name)
            connection.say_goodbye("internalError", "internal error")
        finally:
            self._peers.remove(connection)
            self._bus.connection_closed(connection, "disconnected")

    async def connect_to_endpoints(self, *endpoints: ConnectionConfig) -> None:
        self._check()
        for config in endpoints:
            check_endpoint_name(config.name)
            if config.name == self.name or self._path == Path(config.path):
                raise DuplicateConnection(
                    f"Endpoint {self.name!r} cannot connect to itself: it always receives its own broadcasts",
                    peer=config.name,
                )
        if len(endpoints) == 1:
            await self._connect(endpoints[0])
            return
        errors: list[LahjaError | OSError] = []

        async def connect(config: ConnectionConfig, tasks: TaskGroup) -> None:
            try:
                await self._connect(config)
            except (LahjaError, OSError) as error:
                errors.append(error)
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for config in endpoints:
                tasks.start_soon(connect, config, tasks)
        if errors:
            raise errors[0]

    async def _connect(self, config: ConnectionConfig) -> None:
        name = config.name
        peers = self._peers
        if name in self._connecting or peers.dialed(name):
            raise DuplicateConnection(
                f"Endpoint {self.name!r} is connected to {name!r} already, or about to be", peer=name
            )
        self._connecting.add(name)
        try:
            await self._connect_in_time(config, time.monotonic() + self._connect_timeout_s)
        finally:
            self._connecting.discard(name)

    async def _connect_in_time(self, config: ConnectionConfig, give_up_at: float) -> None:
        name = config.name
        peers = self._peers
        while not peers.is_connected_to(name):
            if peers.holds(name):
                # It has connected to us and is about to be up: a connection of ours would displace that one.
                await peers.connections_changed.wait_until(
                    lambda: peers.is_connected_to(name) or not peers.holds(name)
                )
                continue
            channel = await self._open_channel(config, give_up_at)
            if channel is None:
                continue
            connection = self._start_connection(channel, name)
            try:
                await peers.connections_changed.wait_until(
                    lambda connection=connection: connection.is_up or connection.closed is not None  # type: ignore[misc]
                )
            except BaseException:
                # Cancelled: nobody waits for this connection any more.
                connection.say_goodbye("shutdown", "the attempt to connect was cancelled")
                raise
            closed = connection.closed
            if closed is None:
                return
            if closed.by_peer and closed.code == "shutdown" and time.monotonic() < give_up_at:
                # We met it on its way out; it may be started again, as if nobody had been there.
                await anyio.sleep(CONNECT_RETRY_FIRST_S)
                continue
            if closed.code in ("duplicate", "replaced"):
                # Both sides dialed and the other connection stays: this call is about the peer, so wait for it.
                with anyio.move_on_after(give_up_at - time.monotonic()):
                    await peers.connections_changed.wait_until(lambda: peers.is_connected_to(name))
                if peers.is_connected_to(name):
                    return
            raise rejection(closed, name, self.name, config.path)

    async def _open_channel(self, config: ConnectionConfig, give_up_at: float) -> Channel | None:
        """A channel to whoever serves at the path; None if the peer connected to us in the meantime."""
        rest_s = CONNECT_RETRY_FIRST_S
        notice_at = time.monotonic() + CONNECT_NOTICE_S
        while True:
            channel = self._transport.begin_connect(Path(config.path))
            if channel is not None:
                return channel
            now = time.monotonic()
            if now >= give_up_at:
                raise ConnectTimeout(
                    f"Endpoint {self.name!r} waited {self._connect_timeout_s:g} s (connect_timeout_s) for "
                    f"{config.name!r}, and nobody serves at {os.fspath(config.path)!r}. Start that endpoint with "
                    "serve(), or correct the path: both sides must name the same one.",
                    peer=config.name,
                    path=os.fspath(config.path),
                    timeout_s=self._connect_timeout_s,
                )
            if now >= notice_at:
                notice_at = give_up_at
                logger.warning("%s: still waiting for %r to serve at %s", self.name, config.name, config.path)
            await anyio.sleep(min(rest_s, give_up_at - now))
            rest_s = min(2 * rest_s, CONNECT_RETRY_MAX_S)
            self._check()
            if self._peers.holds(config.name):
                return None

    def is_connected_to(self, endpoint_name: str) -> bool:
        return endpoint_name == self.name or self._peers.is_connected_to(endpoint_name)

    async def wait_until_connected_to(self, endpoint_name: str) -> None:
        self._check()
        await self._peers.connections_changed.wait_until(lambda: self.is_connected_to(endpoint_name))

    def get_connected_endpoints_and_subscriptions(self) -> tuple[tuple[str, set[type[BaseEvent]]], ...]:
        return (
            (self.name, self.get_subscribed_events()),
            *((name, self._peers.subscribed_classes(peer)) for name, peer in self._peers.up.items()),
        )

    @property
    def connections_version(self) -> int:
        return self._peers.connections_changed.version

    async def wait_until_connections_change(self, since: int | None = None) -> int:
        self._check()
        changes = self._peers.connections_changed
        return await changes.wait_since(changes.version if since is None else since)

    # --- what connections tell (connection.Owner) -----------------------------------------------------

    def on_hello(self, connection: Connection) -> None:
        self._peers.settle(connection, self._accept, self._spawn)

    def _accept(self, connection: Connection) -> None:
        connection.session.policy = self._peer_policies.get(connection.name, self._peer_policy)
        connection.accept(self._bus.type_ids(), self._bus.version)

    def on_up(self, connection: Connection) -> None:
        self._bus.peers_changed()
        self._peers.came_up(connection)

    def on_subscriptions(self, connection: Connection) -> None:
        self._bus.peers_changed()
        self._peers.subscriptions_changed.notify()

    def on_type_disabled(self, connection: Connection, disabled: TypeDisabled) -> None:
        self._bus.peers_changed()
        logger.error(
            "%s: events of one type are not exchanged with %r: %s",
            self.name,
            connection.name,
            disabled.incompatibility,
        )
        self._peers.subscriptions_changed.notify()

    def on_dropped(self, connection: Connection, dropped: PeerDropped) -> None:
        logger.warning(
            "%s: %r dropped %d events for this endpoint, which is too slow: %s",
            self.name,
            connection.name,
            sum(dropped.counts.values()),
            ", ".join(f"{count} of {type_id:#018x}" for type_id, count in dropped.counts.items()),
        )

    def on_closed(self, connection: Connection, closed: Closed) -> None:
        if closed.error is not None:
            logger.warning("%s: connection to %r ended: %s", self.name, connection.name, closed.error)
        else:
            logger.debug(
                "%s: connection to %r ended: %s %s", self.name, connection.name, closed.code, closed.text
            )
        self._peers.hang_up(connection)
        self._bus.connection_closed(connection, closed.text or closed.code or "connection lost")

    # --- events ---------------------------------------------------------------------------------------

    async def broadcast(self, item: BaseEvent, config: BroadcastConfig | None = None) -> None:
        if self._life is not _Life.RUNNING or threading.get_ident() != self._thread:
            raise self._lifecycle_error()
        await self._bus.broadcast(item, config)

    def broadcast_nowait(self, item: BaseEvent, config: BroadcastConfig | None = None) -> None:
        self._check()
        self._bus.broadcast_nowait(item, config)

    async def request(
        self,
        item: BaseRequestResponseEvent[R],
        config: BroadcastConfig | None = None,
        *,
        timeout: float | None = None,
    ) -> R:
        self._check()
        timeout_s = self.limits.request_timeout_s if timeout is None else timeout
        response = await self._bus.request(item, config, timeout_s)
        return response  # type: ignore[return-value]  # checked against expected_response_type()

    async def respond(self, request: BaseRequestResponseEvent[R], response: R) -> None:
        await self.broadcast(response, request.broadcast_config())

    def subscribe(
        self,
        event_type: type[E],
        handler: Callable[[E], Any],
        *,
        policy: Policy = Policy.WAIT,
        queue: int = DEFAULT_QUEUE_EVENTS,
    ) -> Subscription:
        self._check()
        if not callable(handler):
            raise TypeError(
                f"subscribe() takes a handler, a function to call with each event, got {handler!r}"
            )
        inbox = HandlerInbox(
            self._runtime,
            event_type_of(event_type),
            policy,
            queue,
            self._bus.remove_inbox,
            self._disconnect_publisher,
            handler=handler,
            hook=self._report_handler_error,
            spawn=self._spawn,
        )
        self._bus.add_inbox(inbox)
        return Subscription(inbox, self._wait_until_applied)

    def _report_handler_error(self, event: BaseEvent, error: Exception) -> None:
        if self.on_handler_error is not None:
            self.on_handler_error(event, error)

    def _disconnect_publisher(self, event: BaseEvent, event_type: EventType) -> None:
        connection = self._peers.up.get(event.get_origin())
        if connection is not None:
            connection.say_goodbye(
                "tooSlow", f"a subscription to {event_type.name} is full and its policy is disconnect"
            )

    async def _wait_until_applied(self, version: int) -> None:
        self._check()
        await self._peers.subscriptions_changed.wait_until(
            lambda: all(connection.applied_version >= version for connection in self._peers.up.values())
        )

    def _open_stream(self, event_type: type[BaseEvent], policy: Policy, queue: int) -> StreamInbox:
        self._check()
        inbox = StreamInbox(
            self._runtime,
            event_type_of(event_type),
            policy,
            queue,
            self._bus.remove_inbox,
            self._disconnect_publisher,
        )
        self._bus.add_inbox(inbox)
        return inbox

    def stream(
        self,
        event_type: type[E],
        num_events: int | None = None,
        *,
        policy: Policy = Policy.WAIT,
        queue: int = DEFAULT_QUEUE_EVENTS,
    ) -> EventStream[E]:
        return EventStream(self._open_stream(event_type, policy, queue), num_events)

    async def wait_for(self, event_type: type[E]) -> E:
        inbox = self._open_stream(event_type, Policy.WAIT, DEFAULT_QUEUE_EVENTS)
        event = await first_event(inbox, event_type.__qualname__)
        return event  # type: ignore[return-value]  # the inbox holds events of this type only

    # --- who listens ----------------------------------------------------------------------------------

    def get_subscribed_events(self) -> set[type[BaseEvent]]:
        return {event_type.event_class for event_type in self._bus.subscriptions}

    def is_endpoint_subscribed_to(self, remote_endpoint: str, event_type: type[BaseEvent]) -> bool:
        bound = event_type_of(event_type)
        if remote_endpoint == self.name:
            return bound in self._bus.subscriptions
        connection = self._peers.up.get(remote_endpoint)
        return connection is not None and connection.wants(bound)

    def is_any_endpoint_subscribed_to(self, event_type: type[BaseEvent]) -> bool:
        bound = event_type_of(event_type)
        return bound in self._bus.subscriptions or bool(self._peers.wanting(bound))

    def are_all_endpoints_subscribed_to(self, event_type: type[BaseEvent], include_self: bool = True) -> bool:
        bound = event_type_of(event_type)
        if include_self and bound not in self._bus.subscriptions:
            return False
        return all(connection.wants(bound) for connection in self._peers.up.values())

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        self._check()
        await self._peers.subscriptions_changed.wait_until(condition)

    async def wait_until_endpoint_subscribed_to(self, remote_endpoint: str, event: type[BaseEvent]) -> None:
        await self._wait_until(lambda: self.is_endpoint_subscribed_to(remote_endpoint, event))

    async def wait_until_any_endpoint_subscribed_to(self, event: type[BaseEvent]) -> None:
        await self._wait_until(lambda: self.is_any_endpoint_subscribed_to(event))

    async def wait_until_all_endpoints_subscribed_to(
        self, event: type[BaseEvent], *, include_self: bool = True
    ) -> None:
        await self._wait_until(lambda: self.are_all_endpoints_subscribed_to(event, include_self))

    @property
    def subscriptions_version(self) -> int:
        return self._peers.subscriptions_changed.version

    async def wait_until_endpoint_subscriptions_change(self, since: int | None = None) -> int:
        self._check()
        changes = self._peers.subscriptions_changed
        return await changes.wait_since(changes.version if since is None else since)

    def maybe_raise_no_subscribers_exception(
        self, config: BroadcastConfig | None, event_type: type[BaseEvent]
    ) -> None:
        self._bus.check_subscribers(event_type_of(event_type), config)

    def set_peer_policy(self, endpoint_name: str, policy: Policy) -> None:
        self._peer_policies[check_endpoint_name(endpoint_name)] = policy
        connection = self._peers.up.get(endpoint_name)
        if connection is not None:
            connection.session.policy = policy

    def get_peer_counters(self) -> dict[str, Counters]:
        return {name: connection.session.snapshot() for name, connection in self._peers.up.items()}

"""How an endpoint gets its connections: serving, connecting, and what the connections tell it."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup

from ..binding import BaseEvent, find_event_type
from ..errors import ConnectTimeout, DuplicateConnection, LahjaError, LifecycleError
from ..session import Closed, PeerDropped, Session, TypeDisabled
from .arguments import check_connection_config
from .config import ConnectionConfig, check_endpoint_name
from .connection import Connection
from .core import ConnectionCore
from .life import LivingEndpoint
from .needs import Channel, Listener
from .peers import rejection

logger = logging.getLogger("lahja_capn.endpoint")

# Between two looks whether somebody serves at a path; there is no event to wait for that works everywhere.
CONNECT_RETRY_FIRST_S = 0.01
CONNECT_RETRY_MAX_S = 0.25

# After this long without anybody at the path the log says what is being waited for.
CONNECT_NOTICE_S = 2.0

# How long a peer that is up may take to say that it knows our subscriptions before it counts as connected without: one
# that is alive says so at once, and one that never does must not fail the program that connects.
KNOWN_S = 1.0

# Of one peer's notices that it dropped events so many seconds apart are logged, and so many types of each.
DROP_LOG_S = 10.0
DROP_LOG_TYPES = 10

# How long accepting rests when the process is out of file descriptors or memory.
ACCEPT_REST_S = 0.25
# And how often that is said in the log, as long as it lasts.
ACCEPT_LOG_S = 10.0


def _type_name(type_id: int) -> str:
    """The name of the class that is bound to a type id here, or the id."""
    event_type = find_event_type(type_id)
    return f"{type_id:#018x}" if event_type is None else event_type.name


class ConnectingEndpoint(LivingEndpoint):
    """Serves, connects, and keeps the table of peers."""

    # --- serve ----------------------------------------------------------------------------------------

    @classmethod
    @contextlib.asynccontextmanager
    async def serve(cls, config: ConnectionConfig, **options: Any) -> AsyncIterator[Self]:
        check_connection_config(config)
        endpoint = cls(config.name, **options)
        async with endpoint.run():
            await endpoint._listen(config)
            yield endpoint

    @property
    def is_serving(self) -> bool:
        return self.is_running and self._listener is not None

    @property
    def is_server_stopped(self) -> bool:
        return self._server_stopped

    @property
    def ipc_path(self) -> Path:
        config = self.serving_at
        if config.url:
            raise LifecycleError(f"Endpoint {self.name!r} serves at {config.url}, not at a path")
        return Path(config.path)

    @property
    def serving_at(self) -> ConnectionConfig:
        if self._serving_at is None:
            raise LifecycleError(f"Endpoint {self.name!r} does not serve: start it with serve(config)")
        return self._serving_at

    async def _listen(self, config: ConnectionConfig) -> None:
        address = (await self._transport.resolve(config))[0]
        # It may have been stopped meanwhile: then nobody would close the listener.
        self._check()
        self._listener = self._transport.listen(config, address)
        self._serving_at = config._replace(url=self._listener.url)
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
        say_at = 0.0
        try:
            with anyio.CancelScope() as self._listener_scope:
                while self._listener is listener:
                    await self._handshakes.room()
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
                        now = time.monotonic()
                        if now >= say_at:
                            say_at = now + ACCEPT_LOG_S
                            logger.error("%s: cannot accept connections now: %s", self.name, error)
                        await anyio.sleep(ACCEPT_REST_S)
                        continue
                    if channel is not None:
                        self._take_channel(channel)
        finally:
            listener.close()

    def _take_channel(self, channel: Channel) -> None:
        """Start a connection that came, at once or when it carries bytes."""
        try:
            ready = channel.begin() is None
        except (OSError, LahjaError) as error:
            self._log_refused.log(logging.WARNING, "%s: refused a connection: %s", self.name, error)
            channel.close()
            return
        if ready:
            self._start_accepted(channel)
        else:
            scope = anyio.CancelScope()
            self._handshakes.begin(channel, scope.cancel)
            self._spawn(self._begin_and_start, channel, scope)

    async def _begin_and_start(self, channel: Channel, scope: anyio.CancelScope) -> None:
        begun = False
        try:
            with scope, anyio.move_on_after(self.limits.handshake_timeout_s):
                await self._begin(channel)
                begun = True
        except (OSError, LahjaError) as error:
            self._log_refused.log(logging.WARNING, "%s: refused a connection: %s", self.name, error)
        finally:
            if not begun:
                channel.close()
                self._handshakes.end(channel)
        if begun:
            self._start_accepted(channel)

    def _start_accepted(self, channel: Channel) -> None:
        connection = self._start_connection(channel, None)

        def hang_up() -> None:
            connection.say_goodbye(
                "handshakeTimeout",
                f"{self.name!r} has {self.limits.handshakes} handshakes under way (Limits.handshakes), of which this "
                "one had lasted longest",
            )
            connection.stop()

        self._handshakes.begin(channel, hang_up)

    async def _begin(self, channel: Channel) -> None:
        """Wait until a channel carries bytes: connected, and past its TLS handshake."""
        while (wanted := channel.begin()) is not None:
            if wanted == "read":
                await self._runtime.wait_readable(channel.fileno())
            else:
                await self._runtime.wait_writable(channel.fileno())

    # --- connections ----------------------------------------------------------------------------------

    def _start_connection(self, channel: Channel, expected: str | None) -> Connection:
        withheld = 0 if expected is None else self._peers.left(expected)
        local = self._local
        if self.limits.keepalive_s is None:
            local = dataclasses.replace(local, keepalive_s=channel.keepalive_s)
        session = Session(
            local,
            self._table,
            connector=expected is not None,
            now=time.monotonic(),
            withheld=withheld,
            expected_peer=expected,
        )
        connection = Connection(
            self._runtime, self, self._bus, channel, session, self._peers.next_serial(), expected is not None
        )
        connection.withheld = withheld
        self._peers.add(connection, expected)
        self._spawn(self._run_connection, connection)
        return connection

    async def _run_connection(self, connection: Connection) -> None:
        try:
            await connection.run()
        except Exception as error:
            # A defect of ours in one connection must not end the others.
            self._log_ended.log(
                logging.ERROR, "%s: connection to %r failed", self.name, connection.name, exc_info=error
            )
            connection.say_goodbye("internalError", "internal error")
        finally:
            self._handshakes.end(connection.channel)
            connection.session.release()
            self._peers.remove(connection)
            self._bus.connection_closed(connection, "disconnected")

    def _check_other(self, config: ConnectionConfig) -> None:
        """Raises unless ``config`` can be connected to."""
        check_connection_config(config)
        check_endpoint_name(config.name)
        if config.name == self.name or (
            self._serving_at is not None and self._serving_at.where == config.where
        ):
            raise DuplicateConnection(
                f"Endpoint {self.name!r} cannot connect to itself: it always receives its own broadcasts",
                peer=config.name,
            )

    async def connect_to_endpoints(self, *endpoints: ConnectionConfig) -> None:
        self._check()
        for config in endpoints:
            self._check_other(config)
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

    async def _connect_in_time(
        self, config: ConnectionConfig, give_up_at: float, *, once: bool = False
    ) -> None:
        """Connect, and wait until both sides know it. ``once``: do not wait for somebody who does not serve yet."""
        name = config.name
        peers = self._peers
        version = self._bus.version
        while True:
            connected = peers.up.get(name)
            if connected is not None:
                await self._wait_until_known(connected, version, give_up_at)
                if connected.closed is None:
                    return
                continue
            if peers.holds(name):
                # It has connected to us and is about to be up: a connection of ours would displace that one.
                await peers.connections_changed.wait_until(
                    lambda: peers.is_connected_to(name) or not peers.holds(name)
                )
                continue
            channel = await self._open_channel(config, give_up_at, once)
            if channel is None:
                continue
            connection = self._start_connection(channel, name)
            try:
                await peers.connections_changed.wait_until(
                    lambda connection=connection: connection.is_up or connection.closed is not None  # type: ignore[misc]
                )
                await self._wait_until_known(connection, version, give_up_at)
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
                # Who tries again anyway need not wait long for one that may be gone, too.
                patience_s = give_up_at - time.monotonic()
                with anyio.move_on_after(min(KNOWN_S, patience_s) if once else patience_s):
                    await peers.connections_changed.wait_until(lambda: peers.is_connected_to(name))
                if peers.is_connected_to(name):
                    continue
            raise rejection(closed, name, self.name, config.where)

    async def _wait_until_known(self, connection: Connection, version: int, give_up_at: float) -> None:
        """Wait until the peer has confirmed our subscriptions up to ``version``, or the connection has ended."""
        with anyio.move_on_after(min(KNOWN_S, give_up_at - time.monotonic())) as scope:
            await self._peers.subscriptions_changed.wait_until(
                lambda: connection.applied_version >= version or connection.closed is not None
            )
        if scope.cancelled_caught:
            logger.info(
                "%s: connected to %r, which has not said that it knows our subscriptions",
                self.name,
                connection.name,
            )

    async def _open_channel(self, config: ConnectionConfig, give_up_at: float, once: bool) -> Channel | None:
        """A channel to whoever serves at the path; None if the peer connected to us in the meantime."""
        rest_s = CONNECT_RETRY_FIRST_S
        notice_at = time.monotonic() + CONNECT_NOTICE_S
        while True:
            channel = await self._dial(config, give_up_at)
            if channel is not None:
                return channel
            now = time.monotonic()
            if once or now >= give_up_at:
                raise ConnectTimeout(
                    f"Endpoint {self.name!r} waited {self._connect_timeout_s:g} s (connect_timeout_s) for "
                    f"{config.name!r}, and nobody serves at {config.where!r}. Start that endpoint with "
                    "serve(), or correct the path: both sides must name the same one.",
                    peer=config.name,
                    path=config.url or os.fspath(config.path),
                    timeout_s=self._connect_timeout_s,
                )
            if now >= notice_at:
                notice_at = give_up_at
                logger.warning(
                    "%s: still waiting for %r to serve at %s", self.name, config.name, config.where
                )
            await anyio.sleep(min(rest_s, give_up_at - now))
            rest_s = min(2 * rest_s, CONNECT_RETRY_MAX_S)
            self._check()
            if self._peers.holds(config.name):
                return None

    async def _dial(self, config: ConnectionConfig, give_up_at: float) -> Channel | None:
        """One attempt at each address of ``config``; None if nobody listens at any of them now."""
        for address in await self._transport.resolve(config):
            channel = self._transport.begin_connect(config, address)
            if channel is None:
                continue
            begun = False
            try:
                with anyio.move_on_after(give_up_at - time.monotonic()):
                    await self._begin(channel)
                    begun = True
            except ConnectionRefusedError:
                continue
            finally:
                if not begun:
                    channel.close()
            if begun:
                return channel
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
        connection.accept(self._bus.type_ids(), self._bus.version, self._peers.left(connection.name))

    def on_up(self, connection: Connection) -> None:
        self._handshakes.end(connection.channel)
        self._bus.peers_changed()
        self._peers.came_up(connection)

    def on_subscriptions(self, connection: Connection) -> None:
        self._bus.peers_changed()
        self._peers.subscriptions_changed.notify()

    def on_type_disabled(self, connection: Connection, disabled: TypeDisabled) -> None:
        self._bus.peers_changed()
        self._log_disabled.log(
            logging.ERROR,
            "%s: events of one type are not exchanged with %r: %s",
            self.name,
            connection.name,
            disabled.incompatibility,
        )
        self._peers.subscriptions_changed.notify()

    def on_dropped(self, connection: Connection, dropped: PeerDropped) -> None:
        connection.drops_unlogged += sum(dropped.counts.values())
        now = time.monotonic()
        if now >= connection.log_drops_at:
            connection.log_drops_at = now + DROP_LOG_S
            self._log_drops(connection, dropped.counts)

    def _log_drops(self, connection: Connection, counts: dict[int, int]) -> None:
        """Say how many events the peer has dropped since this was last said, and of which types the last ones were."""
        most = sorted(counts.items(), key=lambda item: -item[1])
        types = [f"{count} of {_type_name(type_id)}" for type_id, count in most[:DROP_LOG_TYPES]]
        if len(most) > DROP_LOG_TYPES:
            types.append(f"{sum(count for _, count in most[DROP_LOG_TYPES:])} of other types")
        earlier = connection.drops_unlogged - sum(counts.values())
        if earlier:
            types.append(f"{earlier} since the last such message")
        connection.drops_unlogged = 0
        self._log_dropped.log(
            logging.WARNING,
            "%s: %r dropped events for this endpoint, because its queue for us was full or they are over our "
            "Limits.frame_bytes: %s",
            self.name,
            connection.name,
            ", ".join(types),
        )

    def on_closed(self, connection: Connection, closed: Closed) -> None:
        if closed.error is not None:
            self._log_ended.log(
                logging.WARNING, "%s: connection to %r ended: %s", self.name, connection.name, closed.error
            )
        else:
            logger.debug(
                "%s: connection to %r ended: %s %s", self.name, connection.name, closed.code, closed.text
            )
        if connection.drops_unlogged:
            self._log_drops(connection, {})
        self._peers.count_left(connection)
        gone = self._peers.too_much_left()
        if gone:
            count = sum(
                inbox.drop_left(gone) for inboxes in self._bus.subscriptions.values() for inbox in inboxes
            )
            self._log_dropped.log(
                logging.WARNING,
                "%s: dropped %d events of %d connections that have ended: peers that have gone left more here than "
                "Limits.left_events_bytes",
                self.name,
                count,
                len(gone),
            )
        self._peers.hang_up(connection)
        self._bus.connection_closed(connection, closed.text or closed.code or "connection lost")

    def on_taken_late(self, connection: ConnectionCore, size: int) -> None:
        self._peers.taken_late(connection, size)

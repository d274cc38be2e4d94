"""What the scenarios share: a runner, a connected pair, waits with a deadline, and a peer made of a bare session."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from lahja_capn import Backoff, BaseEvent, ConnectionConfig, EndpointAPI, Limits
from lahja_capn.binding import event_type
from lahja_capn.session import Arrived, Closed, LocalEndpoint, PeerHello, Session, WireTable
from lahja_capn.wire import FrameKind
from tests.conftest import Runtime

# Far longer than anything takes; a condition that is not true by then never will be.
DEADLINE_S = 8.0


def scenario(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test on the loop of its ``runtime`` fixture; it may name further fixtures."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        fixtures["runtime"].run(functools.partial(test, **fixtures))

    return run


async def eventually(condition: Callable[[], Any]) -> None:
    """Return when ``condition()`` is true."""
    give_up_at = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() >= give_up_at:
            raise AssertionError(f"not true within {DEADLINE_S:g} s: {condition}")
        await anyio.sleep(0.001)


async def turns(count: int = 20) -> None:
    """Let everything that is ready run: for what must *not* happen, beside a sign that it could have."""
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


def time_passes(monkeypatch: pytest.MonkeyPatch, module: ModuleType, seconds: float) -> None:
    """For this module the clock goes ahead by so many seconds, at once."""
    ahead = module.time.monotonic
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: ahead() + seconds))


async def attempts(endpoint: EndpointAPI, count: int = 20) -> None:
    """Return when an endpoint has tried so often, with short rests, to reach nobody.

    For what must not be tried again: it would have been, meanwhile.
    """
    made = 0
    transport: Any = endpoint._transport  # type: ignore[attr-defined]
    begin_connect = transport.begin_connect

    def counted(config: ConnectionConfig, address: Any) -> Any:
        nonlocal made
        if config.name != "nobody":
            return begin_connect(config, address)
        made += 1
        return None

    transport.begin_connect = counted
    nobody = ConnectionConfig("nobody", Path("/nonexistent/nobody.ipc"))
    kept = endpoint.keep_connected(nobody, backoff=Backoff(first_s=0.001, max_s=0.01))
    await eventually(lambda: made >= count)
    kept.stop()
    transport.begin_connect = begin_connect


def at(folder: Path, name: str) -> ConnectionConfig:
    return ConnectionConfig.from_name(name, base_path=folder)


@contextlib.asynccontextmanager
async def pair(
    runtime: Runtime,
    folder: Path,
    *,
    server: dict[str, Any] | None = None,
    client: dict[str, Any] | None = None,
) -> AsyncIterator[tuple[EndpointAPI, EndpointAPI]]:
    """``(server, client)``, connected; the arguments are options of either."""
    config = at(folder, "server")
    async with (
        runtime.endpoint_class.serve(config, **server or {}) as one,
        runtime.endpoint_class("client", **client or {}).run() as two,
    ):
        await join(two, one, config)
        yield one, two


async def join(connector: EndpointAPI, acceptor: EndpointAPI, config: ConnectionConfig) -> None:
    """Connect, and wait until the other side knows it too."""
    await connector.connect_to_endpoints(config)
    await acceptor.wait_until_connected_to(connector.name)


class Collector:
    """A handler that keeps what it gets."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def __call__(self, event: BaseEvent) -> None:
        self.events.append(event)

    @property
    def numbers(self) -> list[int]:
        return [event.number for event in self.events]

    async def until(self, count: int) -> list[int]:
        """The numbers, once there are ``count`` of them."""
        await eventually(lambda: len(self.events) >= count)
        return self.numbers


class RawPeer:
    """A peer that does nothing by itself: it reads and writes only when it is told to.

    A test that needs a peer which does not read just does not tell it.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        subscriptions: tuple[type[BaseEvent], ...] = (),
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.table = WireTable(self.limits)
        local = LocalEndpoint(name=name, instance=os.urandom(16), limits=self.limits, keepalive_s=0)
        self.session = Session(local, self.table, connector=True, now=time.monotonic())
        self.events: list[Any] = []
        # Whether it gives the credit of what it reads back.
        self.gives_credit = True
        self._subscriptions = [event_type(cls).type_id for cls in subscriptions]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Small, so that a peer that does not read is felt early.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect(os.fspath(path))
        self._socket.setblocking(False)

    @property
    def closed(self) -> Closed | None:
        return next((event for event in self.events if isinstance(event, Closed)), None)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the events that have arrived."""
        return [event.event_type.open(event.segments).number for event in self.of(Arrived)]

    async def write(self) -> None:
        while buffers := self.session.data_to_send():
            data = memoryview(b"".join(buffers))
            while data:
                try:
                    data = data[self._socket.send(data) :]
                except BlockingIOError:
                    await anyio.wait_writable(self._socket)

    async def read(self, until: Callable[[], Any]) -> None:
        """Write what is due and read until ``until()`` is true or the stream has ended."""
        with anyio.fail_after(DEADLINE_S):
            while True:
                await self.write()
                if self.session.is_closed:
                    self._socket.shutdown(socket.SHUT_WR)
                    return
                if until():
                    return
                await anyio.wait_readable(self._socket)
                buffer = self.session.receive_buffer()
                count = self._socket.recv_into(buffer)
                buffer.release()
                if count:
                    self.session.bytes_received(count, time.monotonic())
                else:
                    self.session.receive_eof(time.monotonic())
                for event in self.session.take_events():
                    self.events.append(event)
                    if isinstance(event, PeerHello):
                        self.session.accept(self._subscriptions)
                    elif isinstance(event, Arrived) and self.gives_credit:
                        if event.kind == FrameKind.REQUEST:
                            self.session.return_request_credit(event.size)
                        else:
                            self.session.return_event_credit(event.size)

    async def connect(self) -> None:
        """Go through the handshake."""
        await self.read(lambda: self.session.state.name == "UP")

    def close(self) -> None:
        self._socket.close()


@contextlib.asynccontextmanager
async def raw_peer(
    server: EndpointAPI,
    *subscriptions: type[BaseEvent],
    name: str = "raw",
    limits: Limits | None = None,
) -> AsyncIterator[RawPeer]:
    """A :class:`RawPeer` that is connected to ``server``."""
    peer = RawPeer(server.ipc_path, name, subscriptions, limits)
    try:
        await peer.connect()
        await server.wait_until_connected_to(name)
        yield peer
    finally:
        peer.close()

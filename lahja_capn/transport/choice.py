"""Which transport a config means."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio

from ..endpoint.config import ConnectionConfig
from ..endpoint.needs import Channel, Listener
from .tcp import TcpTransport
from .unix import UnixTransport


class Transports:
    """Unix sockets for a config with a path, TCP for one with a URL: one endpoint may use both."""

    def __init__(self, allowed_uids: frozenset[int] | None = None) -> None:
        self._unix = UnixTransport(allowed_uids)
        self._tcp = TcpTransport()

    async def resolve(self, config: ConnectionConfig) -> Sequence[Any]:
        if not config.url:
            return (Path(config.path),)
        # In a thread, by anyio: a name server may take its time.
        found = await anyio.getaddrinfo(*config.host_and_port, type=socket.SOCK_STREAM)
        return [(family, address) for family, _, _, _, address in found]

    def listen(self, config: ConnectionConfig, address: Any) -> Listener:
        return self._tcp.listen(config, address) if config.url else self._unix.listen(address)

    def begin_connect(self, config: ConnectionConfig, address: Any) -> Channel | None:
        if config.url:
            return self._tcp.begin_connect(config, address)
        return self._unix.begin_connect(address)

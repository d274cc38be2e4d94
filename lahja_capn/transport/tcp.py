"""TCP: the transport between machines. TLS 1.3 with certificates on both sides, unless the user writes ``plaintext``.

Nothing here blocks. A channel is there at once and is not ready yet: ``begin`` takes the next step of connecting (and
of the TLS handshake, see ``tls``) and says what to wait for.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from ..endpoint.config import ConnectionConfig
from ..endpoint.needs import Channel, Wanted
from ..errors import AddressInUse, ConfigError
from ..wire import Buffer
from .tls import TLSChannel, TLSContexts
from .unix import BACKLOG, MAX_BUFFERS, SOCKET_BUFFER_BYTES

logger = logging.getLogger("lahja_capn.transport")

# End of stream does not tell of a machine that lost its power or its cable: silence has to.
KEEPALIVE_S = 15.0

# What a connection attempt meets when nobody listens there now; a later one may find somebody.
_NOBODY_THERE = frozenset(
    {errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT}
)

# Family and socket address.
Address: TypeAlias = tuple[int, Any]


class TcpChannel:
    """A TCP connection as it is; ``tls.TLSChannel`` lies on top of one.

    Args:
        connected: False while the connection is still being made.
    """

    __slots__ = ("_connected", "_fileno", "receive_into", "send", "socket")

    keepalive_s = KEEPALIVE_S

    def __init__(self, sock: socket.socket, connected: bool) -> None:
        sock.setblocking(False)
        # What one turn of the loop queues leaves in one send already; waiting for more would only delay it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
        self.socket = sock
        self._fileno = sock.fileno()
        self._connected = connected
        self.receive_into: Callable[[memoryview], int] = sock.recv_into
        self.send: Callable[[Buffer], int] = sock.send

    @property
    def identity(self) -> str:
        """Nobody: on plain TCP anybody may say anything."""
        return ""

    def fileno(self) -> int:
        return self._fileno

    def begin(self) -> Wanted:
        if self._connected:
            return None
        code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code in _NOBODY_THERE:
            raise ConnectionRefusedError(code, os.strerror(code))
        if code:
            raise OSError(code, os.strerror(code))
        try:
            self.socket.getpeername()
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            return "write"
        self._connected = True
        return None

    def has_more(self) -> bool:
        return False

    def send_many(self, buffers: Sequence[Buffer]) -> int:
        return self.socket.sendmsg(buffers[:MAX_BUFFERS])

    def close_write(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()


class TcpListener:
    """A bound TCP address."""

    def __init__(self, sock: socket.socket, host: str, contexts: TLSContexts | None) -> None:
        self._socket = sock
        self._contexts = contexts
        # The port that the system chose, if 0 was asked for.
        port = sock.getsockname()[1]
        self.url = f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"

    def fileno(self) -> int:
        return self._socket.fileno()

    def accept(self) -> Channel:
        sock, address = self._socket.accept()
        try:
            plain = TcpChannel(sock, connected=True)
            if self._contexts is None:
                return plain
            return TLSChannel(plain, self._contexts.server, f"{address[0]} port {address[1]}", None)
        except BaseException:
            sock.close()
            raise

    def close(self) -> None:
        self._socket.close()


class TcpTransport:
    """Connects and serves at ``tcp://host:port``."""

    def listen(self, config: ConnectionConfig, address: Address) -> TcpListener:
        """Bind and listen at one resolved address."""
        contexts = _contexts(config)
        family, where = address
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            # A restarted endpoint gets its port back although old connections still linger in TIME_WAIT. While a
            # living one listens there, bind fails all the same.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setblocking(False)
            sock.bind(where)
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRINUSE:
                raise AddressInUse(
                    f"Another process serves at {config.url}. Stop it, or serve at another port.",
                    path=config.url,
                ) from None
            raise
        return TcpListener(sock, config.host_and_port[0], contexts)

    def begin_connect(self, config: ConnectionConfig, address: Address) -> Channel | None:
        """Begin to connect to one resolved address."""
        contexts = _contexts(config)
        family, where = address
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            code = sock.connect_ex(where)
            if code in _NOBODY_THERE:
                sock.close()
                return None
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code), config.url)
            plain = TcpChannel(sock, connected=code == 0)
            if contexts is None:
                return plain
            return TLSChannel(
                plain, contexts.client, config.url, contexts.server_name or config.host_and_port[0]
            )
        except BaseException:
            sock.close()
            raise


def _contexts(config: ConnectionConfig) -> TLSContexts | None:
    """Return how the connections are protected; None if the user wrote that they are not.

    Raises:
        ConfigError: neither certificates nor ``plaintext``, both, or certificates that cannot be used.
    """
    if config.tls is not None and config.plaintext:
        raise ConfigError(
            f"{config.url}: tls= and plaintext=True exclude each other: choose one", url=config.url
        )
    if config.tls is not None:
        return TLSContexts.of(config.tls)
    if config.plaintext:
        return None
    raise ConfigError(
        f"{config.url} has no certificates: give ConnectionConfig.from_url(..., tls=TLS(certificate=, key=, "
        "authorities=)). On a network that nobody else can reach, plaintext=True goes without.",
        url=config.url,
    )

"""TLS 1.3 with a certificate on each side: who may connect, between machines."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from ..endpoint.config import TLS
from ..endpoint.needs import Wanted
from ..errors import ConfigError, TLSFailed
from ..wire import Buffer

if TYPE_CHECKING:
    from .tcp import TcpChannel


@dataclass(frozen=True, slots=True)
class TLSContexts:
    """One endpoint's certificate and whom it trusts, ready for use on either side."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    server_name: str | None

    @classmethod
    def of(cls, tls: TLS) -> Self:
        """Read the files.

        Raises:
            ConfigError: one is missing or is no certificate, key, or list of authorities; or the key is another's.
        """
        return cls(
            _context(ssl.PROTOCOL_TLS_SERVER, tls), _context(ssl.PROTOCOL_TLS_CLIENT, tls), tls.server_name
        )


def _context(protocol: Any, tls: TLS) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    # Older versions are what a downgrade attack asks for; every peer of ours has 1.3.
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # For a server too: without it anybody could connect.
    context.verify_mode = ssl.CERT_REQUIRED
    # Resumed sessions would carry a peer past the check of its certificate's time.
    context.options |= ssl.OP_NO_TICKET
    if protocol is ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    files = {"certificate": tls.certificate, "key": tls.key, "authorities": tls.authorities}
    for what, path in files.items():
        if not os.path.isfile(path):
            raise ConfigError(
                f"TLS: there is no file for {what}= at {os.fspath(path)!r}", path=os.fspath(path)
            )
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=_no_password)
        context.load_verify_locations(tls.authorities)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"TLS: {', '.join(f'{what}={os.fspath(path)!r}' for what, path in files.items())} cannot be used: "
            f"{error}. Wanted are PEM files: the certificate with its chain, its key without a password, and the "
            "certificates of the authorities that peers' certificates come from.",
            **{what: os.fspath(path) for what, path in files.items()},
        ) from None
    return context


def _no_password() -> str:
    # Without this OpenSSL asks at the terminal, and the process hangs.
    raise ValueError("the key is protected by a password")


class TLSChannel:
    """TLS over a TCP connection.

    Args:
        where: the other side, for messages.
        server_name: the name that the other side's certificate must have; None on the side that accepted.
    """

    __slots__ = ("_context", "_plain", "_server_name", "_tls", "_where")

    @property
    def keepalive_s(self) -> float:
        return self._plain.keepalive_s

    def __init__(
        self, plain: TcpChannel, context: ssl.SSLContext, where: str, server_name: str | None
    ) -> None:
        self._plain = plain
        self._context = context
        self._where = where
        self._server_name = server_name
        self._tls: ssl.SSLSocket | None = None

    @property
    def identity(self) -> str:
        """The subject of the peer's certificate."""
        certificate = None if self._tls is None else self._tls.getpeercert()
        if not certificate:
            return ""
        subject: Any = certificate.get("subject", ())
        names: Any = certificate.get("subjectAltName", ())
        return ", ".join(
            [f"{key}={value}" for part in subject for key, value in part] + [f"{k}:{v}" for k, v in names]
        )

    def fileno(self) -> int:
        return self._plain.fileno()

    def begin(self) -> Wanted:
        if self._tls is None:
            wanted = self._plain.begin()
            if wanted is not None:
                return wanted
            self._tls = self._context.wrap_socket(
                self._plain.socket,
                server_side=self._server_name is None,
                server_hostname=self._server_name,
                do_handshake_on_connect=False,
            )
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return "read"
        except ssl.SSLWantWriteError:
            return "write"
        except OSError as error:
            raise TLSFailed(
                f"{self._where}: no TLS connection: {_reason(error)}. Both sides need a certificate from an "
                "authority that the other one trusts, valid now, and the server's must have the name that is "
                "connected to.",
                address=self._where,
                reason=_reason(error),
                lost=not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError),
            ) from None
        return None

    def receive_into(self, buffer: memoryview) -> int:
        # One call of OpenSSL gives one record, 16 KiB at most: go on, because a short count ends the reader's turn.
        tls = self._live
        done = 0
        try:
            while done < len(buffer):
                with buffer[done:] as rest:
                    count = tls.recv_into(rest)
                if count == 0:
                    break
                done += count
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if not done:
                raise BlockingIOError from None
        except ssl.SSLError as error:
            if not done:
                raise OSError(error.errno, f"TLS: {_reason(error)}") from None
        except OSError:
            # What came before the reset counts; the next call finds the stream at its end.
            if not done:
                raise
        return done

    def send(self, buffer: Buffer) -> int:
        try:
            return self._live.send(buffer)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            # The same bytes come again: the caller keeps what was not taken.
            raise BlockingIOError from None
        except ssl.SSLError as error:
            raise OSError(error.errno, f"TLS: {_reason(error)}") from None

    def send_many(self, buffers: Sequence[Buffer]) -> int:
        # No sendmsg under TLS, and a join of large buffers would copy them: one after the other.
        done = 0
        for buffer in buffers:
            try:
                sent = self.send(buffer)
            except BlockingIOError:
                if not done:
                    raise
                break
            done += sent
            if sent < len(buffer):
                break
        return done

    def has_more(self) -> bool:
        return self._tls is not None and self._tls.pending() > 0

    def close_write(self) -> None:
        # close_notify, then the end of the stream; reading goes on, which is why this is not SSLSocket.shutdown.
        if self._tls is None:
            self._plain.close_write()
            return
        try:
            self._tls.unwrap()
        except (OSError, ValueError):
            pass
        try:
            socket.socket.shutdown(self._tls, socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        if self._tls is not None:
            self._tls.close()
        self._plain.close()

    @property
    def _live(self) -> ssl.SSLSocket:
        assert self._tls is not None, "begin() has not said that the channel is ready"
        return self._tls


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return error.strerror or str(error) or type(error).__name__

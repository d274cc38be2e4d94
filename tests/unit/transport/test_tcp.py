"""The steps of a TCP connection; what needs a peer is in tests/scenario/test_tcp.py."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from lahja_capn.transport.tcp import TcpChannel


class Connecting(socket.socket):
    """A socket whose connection attempt ends with ``code``."""

    code = 0

    def getsockopt(self, level: int, option: int, *size: Any) -> Any:
        if option == socket.SO_ERROR:
            return self.code
        return super().getsockopt(level, option, *size)


@pytest.mark.parametrize(
    "code", [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT, errno.ECONNRESET]
)
def test_nobody_there_is_one_error_whatever_the_system_calls_it(code: int) -> None:
    with Connecting() as sock:
        sock.code = code
        with pytest.raises(ConnectionRefusedError):
            TcpChannel(sock, connected=False).begin()


def test_other_errors_of_connecting_are_told() -> None:
    with Connecting() as sock:
        sock.code = errno.EACCES
        with pytest.raises(PermissionError):
            TcpChannel(sock, connected=False).begin()


def test_connection_under_way_waits_until_it_is_writable() -> None:
    with Connecting() as sock:
        assert TcpChannel(sock, connected=False).begin() == "write"

"""What a TLS channel makes of the ends of its connection; what needs a peer is in tests/scenario/test_tcp.py."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from lahja_capn.transport.tls import TLSChannel


class Scripted:
    """A TLS socket that gives records, and then an error or the end of the stream."""

    def __init__(self, records: list[bytes], end: Exception | None) -> None:
        self._records = records
        self._end = end

    def recv_into(self, buffer: memoryview) -> int:
        if self._records:
            record = self._records.pop(0)
            buffer[: len(record)] = record
            return len(record)
        end, self._end = self._end, None
        if end is not None:
            raise end
        return 0


def broken() -> ssl.SSLError:
    error = ssl.SSLError(1, "broken")
    error.reason = "BROKEN"
    return error


@pytest.mark.parametrize(
    "end",
    [ConnectionResetError(104, "reset"), ssl.SSLEOFError(8, "eof"), broken(), None],
    ids=["reset", "eof", "broken", "end"],
)
def test_what_came_before_the_end_of_the_connection_is_received(end: Exception | None) -> None:
    nothing: Any = None
    channel = TLSChannel(nothing, nothing, "far", None)
    socket: Any = Scripted([b"one", b"two"], end)
    channel._tls = socket
    buffer = memoryview(bytearray(100))
    assert channel.receive_into(buffer) == 6
    assert bytes(buffer[:6]) == b"onetwo"
    assert channel.receive_into(buffer) == 0


@pytest.mark.parametrize(
    ("end", "wanted"),
    [
        (ConnectionResetError(104, "reset"), ConnectionResetError),
        (broken(), OSError),
        (ssl.SSLWantReadError(2, "more"), BlockingIOError),
        (ssl.SSLWantWriteError(3, "room"), BlockingIOError),
    ],
    ids=["reset", "broken", "want-read", "want-write"],
)
def test_an_end_with_nothing_before_it_is_told(end: Exception, wanted: type[Exception]) -> None:
    nothing: Any = None
    channel = TLSChannel(nothing, nothing, "far", None)
    socket: Any = Scripted([], end)
    channel._tls = socket
    with pytest.raises(wanted) as caught:
        channel.receive_into(memoryview(bytearray(100)))
    assert isinstance(caught.value, BlockingIOError) is (wanted is BlockingIOError)

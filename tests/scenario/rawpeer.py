"""Peers that misbehave: raw sockets that say what they are told, byte by byte if need be."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio

from lahja_capn import Limits
from lahja_capn.binding import TypeRow
from lahja_capn.session.control import (
    ControlMessage,
    Goodbye,
    Hello,
    Subscriptions,
    SubscriptionsAck,
    decode_control,
)
from lahja_capn.session.handshake import encode_control_frame
from lahja_capn.wire import FrameDecoder, FrameKind, encode_frame
from tests.scenario.support import DEADLINE_S, RawPeer


def hello(**changes: Any) -> Hello:
    """A hello as a well-behaved peer called "raw" says it, but for ``changes``."""
    fields: dict[str, Any] = {
        "protocol_version": 1,
        "name": "raw",
        "instance": os.urandom(16),
        "implementation": "rawpeer",
        "version": "0",
        "frame_limit": 64 * 1024 * 1024,
        "keepalive_ms": 0,
        "event_credit": 2**64 - 1,
        "request_credit": 2**64 - 1,
        "features": (),
        "rows": (),
    }
    return Hello(**{**fields, **changes})


def frame_of(message: ControlMessage) -> bytes:
    """A control message as bytes."""
    return b"".join(encode_control_frame(message))


def event_frame(wire_id: int, segments: Any, kind: int = FrameKind.EVENT, correlation: int = 0) -> bytes:
    return b"".join(encode_frame(wire_id, kind, correlation, segments))


def shake_hands(**changes: Any) -> bytes:
    """Everything a connecting peer says until it is up: its hello and empty subscriptions."""
    return frame_of(hello(**changes)) + frame_of(Subscriptions(1, (), (), False, False))


def strange_type(
    type_id: int, name: str, layout: tuple[int, ...] = (), *, is_request: bool = False, kind: str = "struct"
) -> Any:
    """An event type that no class here is bound to, good enough for a session to declare and send."""
    row = TypeRow(type_id=type_id, kind=kind, name=name, layout=layout)
    return SimpleNamespace(type_id=type_id, name=name, row=row, reachable=(), is_request=is_request)


async def send_raw(peer: RawPeer, data: bytes) -> None:
    """Send bytes that the peer's session knows nothing about."""
    await Talker(peer._socket).send(data)


class Talker:
    """One end of a connection that sends any bytes, and splits what comes back into control messages."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._decoder = FrameDecoder(Limits())
        self._decoder.open()
        self._messages: list[ControlMessage] = []
        self.ended = False

    async def send(self, data: bytes) -> None:
        """Send all of it; what the other side no longer takes is lost."""
        view = memoryview(data)
        with anyio.fail_after(DEADLINE_S), contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while view:
                try:
                    view = view[self._socket.send(view) :]
                except BlockingIOError:
                    await anyio.wait_writable(self._socket)

    async def _receive(self) -> None:
        await anyio.wait_readable(self._socket)
        buffer = self._decoder.receive_buffer()
        try:
            count = self._socket.recv_into(buffer)
        except ConnectionResetError:
            count = 0
        buffer.release()
        if not count:
            self.ended = True
            return
        self._decoder.bytes_received(count)
        while frames := self._decoder.frames():
            self._messages += [decode_control(frame[4]) for frame in frames if not frame[0]]

    async def next(self) -> ControlMessage:
        """The next control message."""
        with anyio.fail_after(DEADLINE_S):
            while not self._messages:
                assert not self.ended, "the stream ended without another message"
                await self._receive()
        return self._messages.pop(0)

    async def next_of(self, kind: type[Any]) -> Any:
        """The next control message of this kind; others are skipped."""
        while not isinstance(message := await self.next(), kind):
            pass
        return message

    async def goodbye(self) -> Goodbye:
        """The other side's goodbye, after which its stream must end."""
        message: Goodbye = await self.next_of(Goodbye)
        with anyio.fail_after(DEADLINE_S):
            while not self.ended:
                await self._receive()
        assert not self._messages, "goodbye is the last frame"
        return message

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def talk_to(path: Path) -> Iterator[Talker]:
    """A connection to whoever serves at ``path``."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(os.fspath(path))
    talker = Talker(sock)
    try:
        yield talker
    finally:
        talker.close()


@contextlib.contextmanager
def listen_at(path: Path) -> Iterator[socket.socket]:
    """A listening socket; :func:`accept` takes its connections."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(os.fspath(path))
        sock.listen(8)
        sock.setblocking(False)
        yield sock


async def confirm_subscriptions(talker: Talker) -> None:
    """Read an endpoint's first subscriptions and confirm them, for which its ``connect_to_endpoints`` waits."""
    await talker.next_of(Subscriptions)
    await talker.send(frame_of(SubscriptionsAck(1)))


async def accept(listener: socket.socket) -> Talker:
    with anyio.fail_after(DEADLINE_S):
        while True:
            try:
                return Talker(listener.accept()[0])
            except BlockingIOError:
                await anyio.wait_readable(listener)

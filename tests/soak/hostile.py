"""Connections that are no peers: garbage, halves of frames, storms. Each function takes what the address needs."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from lahja_capn.binding import event_type
from lahja_capn.session.control import Declare, Subscriptions
from tests.scenario.rawpeer import event_frame, frame_of, hello
from tests.soak.events import Small

TIMEOUT_S = 5.0


def open_socket(address: list[str]) -> socket.socket:
    _, path, url = address
    if url:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        return socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT_S)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(TIMEOUT_S)
    try:
        sock.connect(os.fspath(path))
    except OSError:
        sock.close()
        raise
    return sock


def garbage(sock: socket.socket, rng: random.Random) -> None:
    sock.sendall(rng.randbytes(rng.randrange(1, 5000)))


def four_gigabytes(sock: socket.socket, rng: random.Random) -> None:
    sock.sendall(b"\xff\xff\xff\xff" + rng.randbytes(60))


def half_a_hello(sock: socket.socket, rng: random.Random) -> None:
    frame = frame_of(hello(name="raw-half"))
    sock.sendall(frame[: rng.randrange(1, len(frame))])
    time.sleep(rng.random() * 3)


def nothing(sock: socket.socket, rng: random.Random) -> None:
    time.sleep(rng.random() * 3)


def _handshake(sock: socket.socket, rng: random.Random) -> bytes:
    """Become a peer; returns an event."""
    bound = event_type(Small)
    name = f"raw-{rng.randrange(1 << 30)}"
    sock.sendall(frame_of(hello(name=name)) + frame_of(Declare(((1, bound.row),))))
    sock.sendall(frame_of(Subscriptions(1, (), (), False, False)))
    sock.recv(1)
    # Of a publisher that is none of the run's: it is told from them by its number.
    return event_frame(1, bound.encode(Small(run=0, seq=1)))


def half_an_event(sock: socket.socket, rng: random.Random) -> None:
    frame = _handshake(sock, rng)
    sock.sendall(frame[: rng.randrange(1, len(frame))])
    time.sleep(rng.random())


def garbage_after_the_handshake(sock: socket.socket, rng: random.Random) -> None:
    _handshake(sock, rng)
    sock.sendall(rng.randbytes(2000))


ATTACKS: tuple[Callable[[socket.socket, random.Random], None], ...] = (
    garbage,
    four_gigabytes,
    half_a_hello,
    nothing,
    half_an_event,
    garbage_after_the_handshake,
)


def attack(address: list[str], rng: random.Random) -> tuple[str, threading.Thread]:
    """One of the attacks, in a thread of its own; returns its name and the thread."""
    chosen = rng.choice(ATTACKS)
    own = random.Random(rng.random())

    def run() -> None:
        # The other side may be stopped, gone, or done with us.
        with contextlib.suppress(OSError), open_socket(address) as sock:
            chosen(sock, own)

    return chosen.__name__, _started(run)


def _started(run: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def storm(address: list[str], rng: random.Random, count: int = 100) -> threading.Thread:
    """Many connections at once that say little or nothing, all closed together."""
    own = random.Random(rng.random())

    def run() -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(count):
                with contextlib.suppress(OSError):
                    sock = stack.enter_context(open_socket(address))
                    own.choice((garbage, four_gigabytes, lambda *_: None))(sock, own)

    return _started(run)

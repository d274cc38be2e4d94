"""Damage on purpose: each kind must be found by the run. ``python -m tests.soak --sabotage KIND``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import anyio

from lahja_capn.session import Arrivals

# Kind: what the report says about it.
KINDS = {
    "loss": "came instead of|is missing, later events of connection",
    "duplicate": "came after",
    "reorder": "came after",
    "bytes": "has other bytes than were sent",
    "answer": "was answered with",
    "descriptors": "fds grew from",
    "tasks": "tasks grew from",
    "memory": "rss grew from",
    "entries": "connections to 5 peers|entries grew from",
    "warning": "ResourceWarning: left open",
    # Its traceback is noted too, behind what all its peers complain of.
    "error": "an error of its own|ended without a reason: shutdown",
    "goodbye": "ended without a reason: protocolError",
    "exit": "ended with exit code 3",
    "deaf": "events of .* have not come to a-asyncio",
}

EVERY = 200


def damage(kind: str) -> None:
    """Change the library in this process."""
    if kind in ("loss", "duplicate", "reorder"):
        _damage_arrivals(kind)
    elif kind == "bytes":
        _damage_bytes()
    elif kind == "entries":
        from lahja_capn.endpoint.peers import Peers

        def hang_up(self: Any, connection: Any) -> None:
            self.up.pop(connection.name, None)
            self._holders.pop(connection.name, None)
            self._dialing[f"{connection.serial}"] = connection
            self._both_changed()

        Peers.hang_up = hang_up  # type: ignore[method-assign]
    elif kind == "deaf":
        from lahja_capn.endpoint.bus import Bus

        plain = Bus.on_events

        def on_events(self: Any, connection: Any, arrivals: Any) -> None:
            if arrivals.event_type.name != "Streamed":
                plain(self, connection, arrivals)

        Bus.on_events = on_events  # type: ignore[method-assign]


def _replace_arrivals(changed: Callable[[Callable[..., None], Any, Any, Any], None]) -> None:
    """``changed(plain, bus, connection, arrivals)`` is called for every single event instead of ``plain``."""
    from lahja_capn.endpoint.bus import Bus

    plain = Bus.on_events

    def on_events(self: Any, connection: Any, arrivals: Any) -> None:
        for frame in arrivals.frames:
            changed(plain, self, connection, Arrivals(arrivals.event_type, [frame]))

    Bus.on_events = on_events  # type: ignore[method-assign]


def _damage_arrivals(kind: str) -> None:
    seen = 0
    kept: list[Any] = []

    def changed(plain: Any, self: Any, connection: Any, arrivals: Any) -> None:
        nonlocal seen
        seen += 1
        if kept and kept[0][0] is connection:
            plain(self, connection, arrivals)
            plain(self, *kept.pop())
        elif seen % EVERY:
            plain(self, connection, arrivals)
        elif kind == "loss":
            connection.session.return_event_credit(arrivals.frames[0][0])
        elif kind == "duplicate":
            plain(self, connection, arrivals)
            plain(self, connection, arrivals)
        elif not kept:
            kept.append((connection, arrivals))
        else:
            plain(self, connection, arrivals)

    _replace_arrivals(changed)


def _damage_bytes() -> None:
    def changed(plain: Any, self: Any, connection: Any, arrivals: Any) -> None:
        ((size, segments),) = arrivals.frames
        if size > 50_000:
            *before, last = segments
            other = bytearray(last)
            other[-100] ^= 1
            arrivals.frames[0] = (size, (*before, bytes(other)))
        plain(self, connection, arrivals)

    _replace_arrivals(changed)


def start(kind: str, worker: Any, tasks: Any) -> None:
    """Do what is not the library's doing."""
    if kind in _TASKS:
        tasks.start_soon(_TASKS[kind], worker, tasks)


async def _leak_descriptors(worker: Any, tasks: Any) -> None:
    while True:
        os.open(os.devnull, os.O_RDONLY)
        await anyio.sleep(1)


async def _leak_tasks(worker: Any, tasks: Any) -> None:
    while True:
        tasks.start_soon(anyio.sleep_forever)
        await anyio.sleep(1)


async def _leak_memory(worker: Any, tasks: Any) -> None:
    kept = []
    while True:
        kept.append(os.urandom(500_000))
        await anyio.sleep(0.1)


async def _warn(worker: Any, tasks: Any) -> None:
    await anyio.sleep(2)

    class Careless:
        def __del__(self) -> None:
            warnings.warn("left open", ResourceWarning, stacklevel=1)

    Careless()


async def _fail(worker: Any, tasks: Any) -> None:
    await anyio.sleep(2)
    raise RuntimeError("an error of its own")


async def _say_goodbye(worker: Any, tasks: Any) -> None:
    await anyio.sleep(2)
    connection = next(iter(worker.bus._peers.up.values()))
    connection.say_goodbye("protocolError", "for no reason")


async def _exit(worker: Any, tasks: Any) -> None:
    await anyio.sleep(2)
    os._exit(3)


async def _answer(worker: Any, tasks: Any) -> None:
    from tests.soak.events import Answer, Ask

    async def answer(ask: Ask) -> None:
        await worker.bus.respond(ask, Answer(number=ask.number // 50 * 50, by=0))

    worker.bus.subscribe(Ask, answer)


_TASKS = {
    "descriptors": _leak_descriptors,
    "tasks": _leak_tasks,
    "memory": _leak_memory,
    "warning": _warn,
    "error": _fail,
    "goodbye": _say_goodbye,
    "exit": _exit,
    "answer": _answer,
}

"""Damage on purpose: each kind must be found by the run. ``python -m tests.soak --sabotage KIND``."""

from __future__ import annotations

import os
import warnings
from typing import Any

import anyio

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
    "entries": "connections to 5 peers",
    "warning": "ResourceWarning: left open",
    "error": "an error of its own",
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

        plain = Bus.on_arrived

        def on_arrived(self: Any, connection: Any, arrived: Any) -> None:
            if arrived.event_type.name != "Streamed":
                plain(self, connection, arrived)

        Bus.on_arrived = on_arrived  # type: ignore[method-assign]


def _damage_arrivals(kind: str) -> None:
    from lahja_capn.endpoint.bus import Bus

    plain = Bus.on_arrived
    seen = 0
    kept: list[Any] = []

    def on_arrived(self: Any, connection: Any, arrived: Any) -> None:
        nonlocal seen
        seen += 1
        if kept and kept[0][0] is connection:
            plain(self, connection, arrived)
            plain(self, *kept.pop())
        elif seen % EVERY:
            plain(self, connection, arrived)
        elif kind == "loss":
            connection.session.return_event_credit(arrived.size)
        elif kind == "duplicate":
            plain(self, connection, arrived)
            plain(self, connection, arrived)
        elif not kept:
            kept.append((connection, arrived))
        else:
            plain(self, connection, arrived)

    Bus.on_arrived = on_arrived  # type: ignore[method-assign]


def _damage_bytes() -> None:
    from lahja_capn.endpoint.bus import Bus

    plain = Bus.on_arrived

    def on_arrived(self: Any, connection: Any, arrived: Any) -> None:
        if arrived.size > 50_000:
            *before, last = arrived.segments
            changed = bytearray(last)
            changed[-100] ^= 1
            arrived.segments = (*before, bytes(changed))
        plain(self, connection, arrived)

    Bus.on_arrived = on_arrived  # type: ignore[method-assign]


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

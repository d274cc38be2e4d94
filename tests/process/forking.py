"""Hundreds of children: a process that has imported everything forks them, and each is there in milliseconds.

``python -m tests.process.forking``: a line ``RUNTIME ROLE PATH NAME`` on stdin forks a child, whose process id comes
back. What a child says to stderr comes out of the whole.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio

from lahja_capn import (
    Backoff,
    BroadcastConfig,
    ConnectionConfig,
    Limits,
    NoSubscribers,
    RemoteDisconnected,
    RequestFailed,
)
from tests.process.program import run
from tests.scenario.events import Blob, Count, Question, Reply

SURVIVOR = BroadcastConfig(filter_endpoint="survivor")

ROOT = Path(__file__).parents[2]


async def talk(bus: Any) -> None:
    """Publish, ask and answer without an end."""
    count = 0

    async def answer(question: Question) -> None:
        await bus.respond(question, Reply(number=question.number))

    async def publish() -> None:
        nonlocal count
        while True:
            # Each number exactly once: the survivor must see all of them up to some last one.
            try:
                await bus.broadcast(Blob(number=count, data=bytes(count * 7919 % 50_000)))
                count += 1
            except NoSubscribers:
                await anyio.sleep(0.001)

    async def ask() -> None:
        number = 0
        while True:
            number += 1
            try:
                reply = await bus.request(Question(number=number), SURVIVOR, timeout=5)
                assert reply.number == number
            except (NoSubscribers, RemoteDisconnected, RequestFailed):
                await anyio.sleep(0.001)

    bus.subscribe(Question, answer)
    bus.subscribe(Count, lambda event: None)
    async with anyio.create_task_group() as tasks:
        for task in (publish, ask, ask):
            tasks.start_soon(task)


async def victim(role: str, path: Path, name: str, endpoint_class: Any) -> None:
    config = ConnectionConfig(name if role == "serve" else "survivor", path)
    limits = Limits(event_credit_bytes=200_000, queued_per_peer_bytes=200_000)
    if role == "serve":
        async with endpoint_class.serve(config, limits=limits) as bus:
            await talk(bus)
    else:
        async with endpoint_class(name, limits=limits).run() as bus:
            bus.keep_connected(config, backoff=Backoff(first_s=0.001, max_s=0.01))
            await talk(bus)


def child(runtime: str, role: str, path: str, name: str) -> None:
    if runtime == "trio":
        from lahja_capn import TrioEndpoint as endpoint_class
    else:
        from lahja_capn import AsyncioEndpoint as endpoint_class  # type: ignore[assignment]
    try:
        run(runtime, lambda: victim(role, Path(path), name, endpoint_class))
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def main() -> None:
    import trio  # noqa: F401
    import uvloop  # noqa: F401

    from lahja_capn import TrioEndpoint  # noqa: F401

    # Killed children are nobody's business.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in iter(sys.stdin.readline, ""):
        pid = os.fork()
        if not pid:
            child(*line.split())
        print(pid, flush=True)


class Forker:
    """Starts and kills victims."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.process.forking"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._living: set[int] = set()

    def start(self, runtime: str, role: str, path: Path, name: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{runtime} {role} {path} {name}\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        self._living.add(pid)
        return pid

    def kill(self, pid: int) -> None:
        self._living.discard(pid)
        os.kill(pid, signal.SIGKILL)

    def end(self) -> str:
        """Kill what lives; returns what was written to stderr."""
        for pid in tuple(self._living):
            self.kill(pid)
        _, err = self._process.communicate(timeout=15)
        return err


@contextlib.contextmanager
def forker() -> Iterator[Forker]:
    started = Forker()
    try:
        yield started
    finally:
        assert started.end() == ""


if __name__ == "__main__":
    main()

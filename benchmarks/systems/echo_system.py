"""No event bus: bytes that come back over a bare Unix socket, by asyncio's reader callbacks.

The floor of the cases with requests. It has no framing beyond a fixed size, no types and no checks, and costs what
the socket, the wake-ups of two processes and asyncio's loop cost: what no bus on asyncio can be faster than.
"""

from __future__ import annotations

import asyncio
import platform
import socket
from collections import deque

from benchmarks.worker import Link
from benchmarks.workload import Job, Stopwatch

REQUIREMENTS: list[str] = []
KINDS: list[str] = ["requests"]

# A frame of this project with the benchmark's request in it, about.
MESSAGE_BYTES = 128
READ_BYTES = 256 * 1024


def versions() -> dict[str, str]:
    return {"asyncio": platform.python_version()}


def respond(job: Job, link: Link) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(job.path("echo")))
            listener.listen()
            listener.setblocking(False)
            link.ready()
            peer, _ = await loop.sock_accept(listener)
            with peer:
                loop.add_reader(peer, lambda: peer.send(peer.recv(READ_BYTES)))
                await asyncio.to_thread(link.wait_stop)
                loop.remove_reader(peer)

    asyncio.run(main())


def ask(job: Job, link: Link) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        waiting: deque[asyncio.Future[None]] = deque()
        received = 0

        with socket.socket(socket.AF_UNIX) as peer:
            link.connecting()
            peer.connect(str(job.path("echo")))
            peer.setblocking(False)

            def read() -> None:
                nonlocal received
                received += len(peer.recv(READ_BYTES))
                while received >= MESSAGE_BYTES:
                    received -= MESSAGE_BYTES
                    waiting.popleft().set_result(None)

            loop.add_reader(peer, read)
            message = bytes(MESSAGE_BYTES)
            await asyncio.to_thread(link.go)
            stopwatch = Stopwatch()
            numbers = iter(job.numbers)

            async def keep_asking() -> None:
                for _ in numbers:
                    began = stopwatch.start()
                    answered = loop.create_future()
                    waiting.append(answered)
                    peer.send(message)
                    await answered
                    stopwatch.stop(began)

            await asyncio.gather(*(keep_asking() for _ in range(job.in_flight)))
            link.report(stopwatch.facts())
            await asyncio.to_thread(link.wait_stop)
            loop.remove_reader(peer)

    asyncio.run(main())

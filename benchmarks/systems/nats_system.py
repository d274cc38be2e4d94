"""nats-py and msgspec through a real nats-server, over TCP of this machine.

NATS drops what a slow subscriber cannot take. So that all arrives, every consumer acknowledges each quarter of a window
(1000 events, or 16 MiB of large ones), and the publisher waits while a whole window is not acknowledged.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.environments import search_path
from benchmarks.systems.msgspec_events import Answer, Ask, Large, Receiver, Small, decode, encode, window
from benchmarks.worker import Link
from benchmarks.workload import (
    REQUEST_BYTES,
    VALUES,
    Job,
    Sink,
    Stopwatch,
    bursts,
    large_payload,
    small_values,
)

REQUIREMENTS = ["nats-py==2.*", "msgspec==0.22.*"]
PROGRAMS = ["nats-server"]
# The memory of connections and queues is the server's.
KINDS = ["small", "large", "selective", "fan-in", "paced", "requests", "start", "connect"]

SERVER_TIMEOUT_S = 10.0
# The server refuses messages above 64 MiB; a client that has more than `max_pending` waiting is disconnected.
SERVER_CONFIG = """
listen: "127.0.0.1:-1"
ports_file_dir: "{folder}"
max_payload: 67108864
max_pending: 536870912
write_deadline: "60s"
"""


def program() -> str:
    found = shutil.which("nats-server", path=search_path())
    if found is None:
        raise SystemExit("nats-server is not installed: apt-get install nats-server")
    return found


def versions() -> dict[str, str]:
    server = subprocess.run([program(), "--version"], capture_output=True, text=True, timeout=10, check=True)
    versions = {name: importlib.metadata.version(name) for name in ("nats-py", "msgspec")}
    return {**versions, "nats-server": server.stdout.split()[-1].lstrip("v")}


def serve(job: Job, link: Link) -> None:
    """Become the server. It says in a file which port it has."""
    config = job.path("nats.conf")
    config.write_text(SERVER_CONFIG.format(folder=job.folder))
    os.execv(program(), [program(), "-c", str(config)])


def server_url(job: Job) -> str | None:
    """Where the server listens; None until it has said so."""
    for file in Path(job.folder).glob("*.ports"):
        try:
            url: str = json.loads(file.read_text())["nats"][0]
        except (ValueError, LookupError):
            continue  # not written completely
        return url
    return None


async def connect(job: Job) -> Client:
    give_up_at = time.monotonic() + SERVER_TIMEOUT_S
    while True:
        url = server_url(job)
        if url is not None:
            return await nats.connect(url)
        if time.monotonic() > give_up_at:
            raise SystemExit("nats-server does not start")
        await asyncio.sleep(0.01)


def consume(job: Job, link: Link) -> None:
    async def main() -> None:
        full = asyncio.Event()
        sink = Sink(job, full.set)
        take = Receiver(job, sink).take
        client = await connect(job)
        quarter = max(1, window(job) // 4)
        received = 0
        index = str(job.index).encode()

        async def handle(message: Msg) -> None:
            nonlocal received
            take(message.data)
            received += 1
            if received % quarter == 0:
                await client.publish("acknowledged", index)

        async def here(message: Msg) -> None:
            await message.respond(index)

        await client.subscribe("events", cb=handle, pending_msgs_limit=0, pending_bytes_limit=0)
        await client.subscribe(f"here.{job.index}", cb=here)
        await client.flush()
        link.ready()
        await full.wait()
        link.report(sink.facts())
        await asyncio.to_thread(link.wait_stop)
        await client.close()

    asyncio.run(main())


class Window:
    """Holds a publisher back while a consumer is a window behind."""

    def __init__(self, job: Job) -> None:
        # What the consumers acknowledge are events of all producers together.
        self._size = window(job)
        self._quarter = max(1, self._size // 4)
        self._producers = job.producers
        self._acknowledged = [0] * job.consumers
        self._sent = 0
        self._moved = asyncio.Event()

    async def acknowledged(self, message: Msg) -> None:
        self._acknowledged[int(message.data)] += self._quarter
        self._moved.set()

    async def room(self) -> None:
        while self._sent * self._producers - min(self._acknowledged) >= self._size:
            self._moved.clear()
            await self._moved.wait()
        self._sent += 1


def publish(job: Job, link: Link) -> None:
    async def main() -> None:
        link.connecting()
        client = await connect(job)
        for index in range(job.consumers):
            await client.request(f"here.{index}", b"", timeout=SERVER_TIMEOUT_S)
        behind = Window(job)
        await client.subscribe("acknowledged", cb=behind.acknowledged)
        await client.flush()
        await asyncio.to_thread(link.go)
        first = await send(client, job, behind)
        await client.flush(timeout=60)
        link.report({"first": first})
        await asyncio.to_thread(link.wait_stop)
        await client.close()

    asyncio.run(main())


async def send(client: Client, job: Job, behind: Window) -> float:
    if job.is_large:
        payload = large_payload(job)
        first = time.monotonic()
        for number in job.numbers:
            await behind.room()
            await client.publish("events", encode(Large(number, payload)))
        return first
    values = small_values(job)
    first = time.monotonic()
    if job.kind == "paced":
        for due, numbers in bursts(job):
            if (left := due - time.monotonic()) > 0:
                await asyncio.sleep(left)
            for number in numbers:
                await behind.room()
                await client.publish("events", encode(Small(number, due, *values[number % VALUES][1:])))
    else:
        for number in job.numbers:
            await behind.room()
            await client.publish("events", encode(Small(number, *values[number % VALUES])))
    return first


def respond(job: Job, link: Link) -> None:
    async def main() -> None:
        client = await connect(job)

        async def answer(message: Msg) -> None:
            asked = decode(message.data)
            await message.respond(encode(Answer(asked.number, asked.payload)))

        await client.subscribe("ask", cb=answer)
        await client.flush()
        link.ready()
        await asyncio.to_thread(link.wait_stop)
        await client.close()

    asyncio.run(main())


def ask(job: Job, link: Link) -> None:
    async def main() -> None:
        payload = bytes(REQUEST_BYTES)
        link.connecting()
        client = await connect(job)
        await asyncio.to_thread(link.go)
        stopwatch = Stopwatch()
        numbers = iter(job.numbers)

        async def keep_asking() -> None:
            for number in numbers:
                began = stopwatch.start()
                reply = await client.request("ask", encode(Ask(number, payload)), timeout=60)
                answer = decode(reply.data)
                stopwatch.stop(began)
                if answer.number != number or len(answer.payload) != REQUEST_BYTES:
                    raise SystemExit(f"request {number} got the answer {answer}")

        await asyncio.gather(*(keep_asking() for _ in range(job.in_flight)))
        link.report(stopwatch.facts())
        await asyncio.to_thread(link.wait_stop)
        await client.close()

    asyncio.run(main())

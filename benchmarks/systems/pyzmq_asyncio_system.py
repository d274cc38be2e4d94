"""pyzmq's asyncio sockets and msgspec: what pyzmq_blocking_system.py does, in coroutines.

An XPUB socket with NODROP always polls as writable, and a send to a full queue then raises Again: it is tried again
soon, well before such a queue can be empty.
"""

from __future__ import annotations

import asyncio
import time

import zmq
import zmq.asyncio

from benchmarks.systems import pyzmq_blocking_system
from benchmarks.systems.msgspec_events import Answer, Ask, Large, Receiver, Small, decode, encode, window
from benchmarks.systems.pyzmq_blocking_system import address
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

REQUIREMENTS = ["pyzmq==27.*", "msgspec==0.22.*"]
# Memory is libzmq's, as in the blocking program.
KINDS = ["small", "large", "selective", "fan-in", "paced", "requests", "start", "connect"]

versions = pyzmq_blocking_system.versions


def consume(job: Job, link: Link) -> None:
    async def main() -> None:
        sink = Sink(job, lambda: None)
        take = Receiver(job, sink).take
        with zmq.asyncio.Context() as context, context.socket(zmq.SUB) as socket:
            socket.rcvhwm = window(job)
            socket.subscribe(b"")
            socket.bind(address(job, job.index))
            link.ready()
            if job.is_large:
                while sink.received < job.count:
                    take((await socket.recv(copy=False)).buffer)
            else:
                while sink.received < job.count:
                    take(await socket.recv())
            link.report(sink.facts())
            await asyncio.to_thread(link.wait_stop)

    asyncio.run(main())


def publish(job: Job, link: Link) -> None:
    async def main() -> None:
        with zmq.asyncio.Context() as context, context.socket(zmq.XPUB) as socket:
            link.connecting()
            socket.setsockopt(zmq.XPUB_NODROP, 1)
            socket.setsockopt(zmq.XPUB_VERBOSE, 1)
            socket.sndhwm = window(job)
            for index in range(job.consumers):
                socket.connect(address(job, index))
            for _ in range(job.consumers):
                if await socket.recv() != b"\x01":
                    raise SystemExit("something else than a subscription arrived")
            await asyncio.to_thread(link.go)
            first = await send(socket, job)
            link.report({"first": first})
            await asyncio.to_thread(link.wait_stop)

    asyncio.run(main())


RETRY_S = 0.0005


async def put(socket: zmq.asyncio.Socket, data: bytes, copy: bool = True) -> None:
    while True:
        try:
            await socket.send(data, copy=copy)
            return
        except zmq.Again:
            await asyncio.sleep(RETRY_S)


async def send(socket: zmq.asyncio.Socket, job: Job) -> float:
    if job.is_large:
        payload = large_payload(job)
        first = time.monotonic()
        for number in job.numbers:
            await put(socket, encode(Large(number, payload)), copy=False)
        return first
    values = small_values(job)
    first = time.monotonic()
    if job.kind == "paced":
        for due, numbers in bursts(job):
            if (left := due - time.monotonic()) > 0:
                await asyncio.sleep(left)
            for number in numbers:
                await put(socket, encode(Small(number, due, *values[number % VALUES][1:])))
    else:
        for number in job.numbers:
            await put(socket, encode(Small(number, *values[number % VALUES])))
    return first


def respond(job: Job, link: Link) -> None:
    async def main() -> None:
        with zmq.asyncio.Context() as context, context.socket(zmq.ROUTER) as socket:
            socket.bind(address(job, 0))
            link.ready()
            for _ in range(job.count):
                sender, data = await socket.recv_multipart()
                asked = decode(data)
                await socket.send_multipart((sender, encode(Answer(asked.number, asked.payload))))
            await asyncio.to_thread(link.wait_stop)

    asyncio.run(main())


def ask(job: Job, link: Link) -> None:
    async def main() -> None:
        payload = bytes(REQUEST_BYTES)
        waiting: dict[int, asyncio.Future[Answer]] = {}
        loop = asyncio.get_running_loop()
        with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as socket:
            link.connecting()
            socket.connect(address(job, 0))
            await asyncio.to_thread(link.go)
            stopwatch = Stopwatch()
            numbers = iter(job.numbers)

            async def take_answers() -> None:
                for _ in job.numbers:
                    answer = decode(await socket.recv())
                    waiting.pop(answer.number).set_result(answer)

            async def keep_asking() -> None:
                for number in numbers:
                    began = stopwatch.start()
                    answered = waiting[number] = loop.create_future()
                    await socket.send(encode(Ask(number, payload)))
                    answer = await answered
                    stopwatch.stop(began)
                    if answer.number != number or len(answer.payload) != REQUEST_BYTES:
                        raise SystemExit(f"request {number} got the answer {answer}")

            await asyncio.gather(take_answers(), *(keep_asking() for _ in range(job.in_flight)))
            link.report(stopwatch.facts())
            await asyncio.to_thread(link.wait_stop)

    asyncio.run(main())

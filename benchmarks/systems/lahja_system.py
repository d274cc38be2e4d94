"""lahja 0.17, its AsyncioEndpoint: what this project replaces."""

from __future__ import annotations

import asyncio
import importlib.metadata
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from lahja import (
    AsyncioEndpoint,
    BaseEvent,
    BaseRequestResponseEvent,
    BroadcastConfig,
    ConnectionConfig,
)

from benchmarks.worker import Link
from benchmarks.workload import (
    REQUEST_BYTES,
    SOURCE_SHIFT,
    VALUES,
    Job,
    Sink,
    Stopwatch,
    bursts,
    large_payload,
    small_values,
)

REQUIREMENTS = ["lahja==0.17.0"]


@dataclass
class Small(BaseEvent):
    number: int
    value: float
    payload: bytes
    text: str
    flag: bool


@dataclass
class Large(BaseEvent):
    number: int
    payload: bytes


@dataclass
class Answer(BaseEvent):
    number: int
    payload: bytes


@dataclass
class Ask(BaseRequestResponseEvent[Answer]):
    number: int
    payload: bytes

    @staticmethod
    def expected_response_type() -> type[Answer]:
        return Answer


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("lahja", "trio")}


def config(job: Job, index: int) -> ConnectionConfig:
    return ConnectionConfig.from_name(f"consumer-{index}", base_path=Path(job.folder))


def consume(job: Job, link: Link) -> None:
    async def main() -> None:
        full = asyncio.Event()
        sink = Sink(job, full.set)
        async with AsyncioEndpoint.serve(config(job, job.index)) as bus:
            if job.kind == "selective":
                take = sink.selective
                bus.subscribe(Large, lambda e: take(e.number))
            elif job.is_large:
                take_large = sink.take_large
                bus.subscribe(Large, lambda e: take_large(e.number, e.payload))
            else:
                take_small = sink.take_small
                bus.subscribe(Small, lambda e: take_small(e.number, e.value, e.payload, e.text, e.flag))
            link.ready()
            await full.wait()
            link.report(sink.facts())
            await asyncio.to_thread(link.wait_stop)

    asyncio.run(main())


def publish(job: Job, link: Link) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            link.connecting()
            count = job.count if job.kind == "connections" else 1
            buses = []
            for index in range(count):
                bus = await stack.enter_async_context(AsyncioEndpoint(f"publisher-{job.index}-{index}").run())
                await connect(bus, job)
                buses.append(bus)
            await asyncio.to_thread(link.go)
            if job.kind == "connections":
                first = time.monotonic()
                values = small_values(job)[0]
                for index, bus in enumerate(buses):
                    await bus.broadcast(Small(index << SOURCE_SHIFT, *values))
            else:
                first = await send(buses[0], job)
            link.report({"first": first})
            await asyncio.to_thread(link.wait_stop)

    asyncio.run(main())


async def connect(bus: AsyncioEndpoint, job: Job) -> None:
    consumers = [config(job, index) for index in range(job.consumers)]
    await bus.connect_to_endpoints(*consumers)
    event_type = Large if job.is_large else Small
    for consumer in consumers:
        await bus.wait_until_endpoint_subscribed_to(consumer.name, event_type)


async def send(bus: AsyncioEndpoint, job: Job) -> float:
    """Send the job's events; returns the time before the first."""
    if job.is_large:
        payload = large_payload(job)
        first = time.monotonic()
        for number in job.numbers:
            await bus.broadcast(Large(number, payload))
        return first
    values = small_values(job)
    first = time.monotonic()
    if job.kind == "paced":
        for due, numbers in bursts(job):
            if (left := due - time.monotonic()) > 0:
                await asyncio.sleep(left)
            for number in numbers:
                await bus.broadcast(Small(number, due, *values[number % VALUES][1:]))
    elif job.kind == "queued":
        for number in job.numbers:
            bus.broadcast_nowait(Small(number, *values[number % VALUES]))
    else:
        for number in job.numbers:
            await bus.broadcast(Small(number, *values[number % VALUES]))
    return first


def local(job: Job, link: Link) -> None:
    async def main() -> None:
        full = asyncio.Event()
        sink = Sink(job, full.set)
        values = small_values(job)
        async with AsyncioEndpoint("alone").run() as bus:
            take = sink.take_small
            bus.subscribe(Small, lambda e: take(e.number, e.value, e.payload, e.text, e.flag))
            internal = BroadcastConfig(internal=True)
            first = time.monotonic()
            for number in job.numbers:
                await bus.broadcast(Small(number, *values[number % VALUES]), internal)
            await full.wait()
            link.report({**sink.facts(), "first": first})
            await asyncio.to_thread(link.wait_stop)

    asyncio.run(main())


def respond(job: Job, link: Link) -> None:
    async def main() -> None:
        async with AsyncioEndpoint.serve(config(job, 0)) as bus:

            async def answer(asked: Ask) -> None:
                await bus.broadcast(Answer(asked.number, asked.payload), asked.broadcast_config())

            bus.subscribe(Ask, answer)
            link.ready()
            await asyncio.to_thread(link.wait_stop)

    asyncio.run(main())


def ask(job: Job, link: Link) -> None:
    async def main() -> None:
        payload = bytes(REQUEST_BYTES)
        async with AsyncioEndpoint("asker").run() as bus:
            link.connecting()
            await bus.connect_to_endpoints(config(job, 0))
            await bus.wait_until_any_endpoint_subscribed_to(Ask)
            await asyncio.to_thread(link.go)
            stopwatch = Stopwatch()
            numbers = iter(job.numbers)

            async def keep_asking() -> None:
                for number in numbers:
                    began = stopwatch.start()
                    answer = await bus.request(Ask(number, payload))
                    stopwatch.stop(began)
                    if answer.number != number or len(answer.payload) != REQUEST_BYTES:
                        raise SystemExit(f"request {number} got the answer {answer}")

            await asyncio.gather(*(keep_asking() for _ in range(job.in_flight)))
            link.report(stopwatch.facts())
            await asyncio.to_thread(link.wait_stop)

    asyncio.run(main())

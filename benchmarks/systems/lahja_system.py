"""lahja 0.17, its AsyncioEndpoint: what this project replaces."""

from __future__ import annotations

import asyncio
import importlib.metadata
import time
from dataclasses import dataclass
from pathlib import Path

from lahja import AsyncioEndpoint, BaseEvent, BaseRequestResponseEvent, ConnectionConfig

from benchmarks.worker import Link
from benchmarks.workload import SMALL_BYTES, VALUES, Job, Sink, Stopwatch, large_payload, small_values

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
        sink = Sink(job.count, full.set)
        async with AsyncioEndpoint.serve(config(job, job.index)) as bus:
            if job.kind == "large":
                take_large = sink.large
                bus.subscribe(Large, lambda e: take_large(e.number, e.payload))
            else:
                take_small = sink.small
                bus.subscribe(Small, lambda e: take_small(e.number, e.value, e.payload, e.text, e.flag))
            link.ready()
            await full.wait()
            link.report(sink.facts())
            await asyncio.to_thread(link.wait_stop)

    asyncio.run(main())


def publish(job: Job, link: Link) -> None:
    async def main() -> None:
        async with AsyncioEndpoint("publisher").run() as bus:
            consumers = [config(job, index) for index in range(job.consumers)]
            await bus.connect_to_endpoints(*consumers)
            event_type = Large if job.kind == "large" else Small
            for consumer in consumers:
                await bus.wait_until_endpoint_subscribed_to(consumer.name, event_type)
            if job.kind == "large":
                payload = large_payload(job.seed)
                first = time.monotonic()
                for number in range(job.count):
                    await bus.broadcast(Large(number, payload))
            else:
                values = small_values(job.seed)
                first = time.monotonic()
                for number in range(job.count):
                    await bus.broadcast(Small(number, *values[number % VALUES]))
            link.report({"first": first})
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
        payload = bytes(SMALL_BYTES)
        async with AsyncioEndpoint("asker").run() as bus:
            await bus.connect_to_endpoints(config(job, 0))
            await bus.wait_until_any_endpoint_subscribed_to(Ask)
            stopwatch = Stopwatch()
            numbers = iter(range(job.count))

            async def keep_asking() -> None:
                for number in numbers:
                    began = stopwatch.start()
                    answer = await bus.request(Ask(number, payload))
                    stopwatch.stop(began)
                    if answer.number != number or len(answer.payload) != SMALL_BYTES:
                        raise SystemExit(f"request {number} got the answer {answer}")

            await asyncio.gather(*(keep_asking() for _ in range(job.in_flight)))
            link.report(stopwatch.facts())
            await asyncio.to_thread(link.wait_stop)

    asyncio.run(main())

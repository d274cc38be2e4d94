"""This project, on asyncio; the program is the one for lahja with its events bound.

It uses anyio where it needs more of the loop than the bus gives, so that the same program runs on trio and uvloop.
"""

from __future__ import annotations

import importlib.metadata
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

import lahja_capn
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
from lahja_capn import (
    AsyncioEndpoint,
    BaseEvent,
    BaseRequestResponseEvent,
    BroadcastConfig,
    ConnectionConfig,
    DataView,
    EndpointAPI,
    bind,
)

REQUIREMENTS: list[str] = []

schema = lahja_capn.load(Path(__file__).parent.parent / "events.capnp")


@bind(schema.Small)
class Small(BaseEvent):
    number: int
    value: float
    payload: bytes
    text: str
    flag: bool


@bind(schema.Large)
class Large(BaseEvent):
    number: int
    payload: DataView


@bind(schema.Answer)
class Answer(BaseEvent):
    number: int
    payload: bytes


@bind(schema.Ask)
class Ask(BaseRequestResponseEvent[Answer]):
    number: int
    payload: bytes


def versions() -> dict[str, str]:
    others = {name: importlib.metadata.version(name) for name in ("pycapnp", "anyio")}
    return {"lahja_capn": lahja_capn.__version__, **others}


class Program:
    """The roles, on one kind of endpoint and loop."""

    def __init__(self, endpoint: type[Any] = AsyncioEndpoint, **loop: Any) -> None:
        self._endpoint = endpoint
        self._loop = loop

    def _config(self, job: Job, index: int) -> ConnectionConfig:
        return ConnectionConfig.from_name(f"consumer-{index}", base_path=Path(job.folder))

    def consume(self, job: Job, link: Link) -> None:
        async def main() -> None:
            full = anyio.Event()
            sink = Sink(job, full.set)
            async with self._endpoint.serve(self._config(job, job.index)) as bus:
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
                await anyio.to_thread.run_sync(link.wait_stop)

        anyio.run(main, **self._loop)

    def publish(self, job: Job, link: Link) -> None:
        async def main() -> None:
            async with AsyncExitStack() as stack:
                link.connecting()
                count = job.count if job.kind == "connections" else 1
                buses = []
                for index in range(count):
                    bus = await stack.enter_async_context(
                        self._endpoint(f"publisher-{job.index}-{index}").run()
                    )
                    await self._connect(bus, job)
                    buses.append(bus)
                await anyio.to_thread.run_sync(link.go)
                if job.kind == "connections":
                    first = time.monotonic()
                    value, data, text, flag = small_values(job)[0]
                    for index, bus in enumerate(buses):
                        await bus.broadcast(
                            Small(
                                number=index << SOURCE_SHIFT, value=value, payload=data, text=text, flag=flag
                            )
                        )
                else:
                    first = await self._send(buses[0], job)
                link.report({"first": first})
                await anyio.to_thread.run_sync(link.wait_stop)

        anyio.run(main, **self._loop)

    async def _connect(self, bus: EndpointAPI, job: Job) -> None:
        consumers = [self._config(job, index) for index in range(job.consumers)]
        await bus.connect_to_endpoints(*consumers)
        event_type: type[BaseEvent] = Large if job.is_large else Small
        for consumer in consumers:
            await bus.wait_until_endpoint_subscribed_to(consumer.name, event_type)

    async def _send(self, bus: EndpointAPI, job: Job) -> float:
        """Send the job's events; returns the time before the first."""
        if job.is_large:
            payload = large_payload(job)
            first = time.monotonic()
            for number in job.numbers:
                await bus.broadcast(Large(number=number, payload=payload))
            return first
        values = small_values(job)
        first = time.monotonic()
        if job.kind == "paced":
            for due, numbers in bursts(job):
                if (left := due - time.monotonic()) > 0:
                    await anyio.sleep(left)
                for number in numbers:
                    _, data, text, flag = values[number % VALUES]
                    await bus.broadcast(Small(number=number, value=due, payload=data, text=text, flag=flag))
        elif job.kind == "queued":
            for number in job.numbers:
                value, data, text, flag = values[number % VALUES]
                bus.broadcast_nowait(Small(number=number, value=value, payload=data, text=text, flag=flag))
        else:
            for number in job.numbers:
                value, data, text, flag = values[number % VALUES]
                await bus.broadcast(Small(number=number, value=value, payload=data, text=text, flag=flag))
        return first

    def local(self, job: Job, link: Link) -> None:
        async def main() -> None:
            full = anyio.Event()
            sink = Sink(job, full.set)
            values = small_values(job)
            async with self._endpoint("alone").run() as bus:
                take = sink.take_small
                bus.subscribe(Small, lambda e: take(e.number, e.value, e.payload, e.text, e.flag))
                config = BroadcastConfig(internal=True)
                first = time.monotonic()
                for number in job.numbers:
                    value, data, text, flag = values[number % VALUES]
                    event = Small(number=number, value=value, payload=data, text=text, flag=flag)
                    await bus.broadcast(event, config)
                await full.wait()
                link.report({**sink.facts(), "first": first})
                await anyio.to_thread.run_sync(link.wait_stop)

        anyio.run(main, **self._loop)

    def respond(self, job: Job, link: Link) -> None:
        async def main() -> None:
            async with self._endpoint.serve(self._config(job, 0)) as bus:

                async def answer(asked: Ask) -> None:
                    await bus.broadcast(
                        Answer(number=asked.number, payload=asked.payload), asked.broadcast_config()
                    )

                bus.subscribe(Ask, answer)
                link.ready()
                await anyio.to_thread.run_sync(link.wait_stop)

        anyio.run(main, **self._loop)

    def ask(self, job: Job, link: Link) -> None:
        async def main() -> None:
            payload = bytes(REQUEST_BYTES)
            async with self._endpoint("asker").run() as bus:
                link.connecting()
                await bus.connect_to_endpoints(self._config(job, 0))
                await bus.wait_until_any_endpoint_subscribed_to(Ask)
                await anyio.to_thread.run_sync(link.go)
                stopwatch = Stopwatch()
                numbers = iter(job.numbers)

                async def keep_asking() -> None:
                    for number in numbers:
                        began = stopwatch.start()
                        answer = await bus.request(Ask(number=number, payload=payload))
                        stopwatch.stop(began)
                        if answer.number != number or len(answer.payload) != REQUEST_BYTES:
                            raise SystemExit(f"request {number} got the answer {answer}")

                async with anyio.create_task_group() as tasks:
                    for _ in range(job.in_flight):
                        tasks.start_soon(keep_asking)
                link.report(stopwatch.facts())
                await anyio.to_thread.run_sync(link.wait_stop)

        anyio.run(main, **self._loop)


_program = Program()
consume = _program.consume
publish = _program.publish
local = _program.local
respond = _program.respond
ask = _program.ask

"""The two processes of a run of growth.py, on this project. ``job.kind`` is the curve, ``job.many`` what grows."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from contextlib import AsyncExitStack
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import lahja_capn
from benchmarks.systems.lahja_capn_system import Answer, Ask, Large, Small
from benchmarks.worker import Link
from benchmarks.workload import VALUES, Job, large_payload, small_values
from lahja_capn import AsyncioEndpoint, BaseEvent, ConnectionConfig, Limits, bind

# Queued on top of `many` events that wait already.
ON_TOP = 2000
POLL_S = 0.002
# Dataclasses that are constructed at least.
LEAST_BARE = 20_000

FIELDS = "number @0 :UInt64; value @1 :Float64; payload @2 :Data; text @3 :Text; flag @4 :Bool;"


def many_types(job: Job, process: str) -> list[type[Any]]:
    """Event classes as many as wanted, each of a struct of its own with the fields of ``Small``."""
    structs = "\n".join(f"struct Type{number} {{ {FIELDS} }}" for number in range(job.many))
    # Each process loads a file of its own: one may read while the other writes.
    folder = job.path(process)
    folder.mkdir()
    file = folder / "types.capnp"
    file.write_text(f"@0xd2ee06f5e1b0a7c4;\n{structs}\n")
    schema = lahja_capn.load(file)
    namespace = {
        "__annotations__": {"number": int, "value": float, "payload": bytes, "text": str, "flag": bool}
    }
    return [
        bind(getattr(schema, f"Type{number}"))(type(f"Type{number}", (BaseEvent,), dict(namespace)))
        for number in range(job.many)
    ]


def bare(job: Job, order: list[int]) -> float:
    """Seconds to construct an object of one of so many dataclasses and read it, with the fields of ``Small``."""
    fields = [("number", int), ("value", float), ("payload", bytes), ("text", str), ("flag", bool)]
    made: list[Any] = [make_dataclass(f"Bare{number}", fields) for number in range(job.many)]
    values = small_values(job)
    gc.collect()
    turn = order * max(1, LEAST_BARE // len(order))
    for _ in range(2):  # the second time is the one that counts
        began = time.monotonic()
        for number in turn:
            value, data, text, flag = values[number % VALUES]
            item = made[number](number=number, value=value, payload=data, text=text, flag=flag)
            _ = item.number, item.value, item.payload, item.text, item.flag
        seconds = time.monotonic() - began
    return seconds / len(turn)


def config(job: Job, index: int) -> ConnectionConfig:
    return ConnectionConfig.from_name(f"consumer-{index}", base_path=Path(job.folder))


def endpoints(job: Job) -> int:
    return job.many if job.kind == "peers" else 1


def classes(job: Job, process: str) -> list[type[Any]]:
    """The event classes of the run."""
    if job.kind == "types":
        return many_types(job, process)
    return [Large] if job.kind == "payload" else [Small]


def deliveries(job: Job) -> int:
    """Handler calls for what is timed."""
    return job.count * (job.many if job.kind in ("peers", "subscriptions") else 1)


def consume(job: Job, link: Link) -> None:
    async def main() -> None:
        received = 0
        last = 0.0

        def take_small(event: Small) -> None:
            nonlocal received, last
            _ = event.number, event.value, event.payload, event.text, event.flag
            received += 1
            last = time.monotonic()

        def take_large(event: Large) -> None:
            nonlocal received, last
            payload = event.payload
            _ = event.number, payload[0], payload[-1]
            received += 1
            last = time.monotonic()

        async with AsyncExitStack() as stack:
            for index in range(endpoints(job)):
                bus = await stack.enter_async_context(AsyncioEndpoint.serve(config(job, index)))

                async def answer(asked: Ask, bus: AsyncioEndpoint = bus) -> None:
                    if asked.number:
                        gc.collect()
                    # How many have come, and when the last one did, in nanoseconds.
                    await bus.respond(
                        asked, Answer(number=received, payload=int(last * 1e9).to_bytes(16, "big"))
                    )

                bus.subscribe(Ask, answer)
                take: Any = take_large if job.kind == "payload" else take_small
                for event_class in classes(job, f"consumer-{index}"):
                    for _ in range(job.many if job.kind == "subscriptions" else 1):
                        bus.subscribe(event_class, take)
            link.ready()
            await asyncio.to_thread(link.wait_stop)

    asyncio.run(main())


def publish(job: Job, link: Link) -> None:
    async def main() -> None:
        event_classes = classes(job, "publisher")
        gigabyte = 2**30
        limits = Limits(queued_per_peer_bytes=gigabyte, queued_per_endpoint_bytes=gigabyte)
        async with AsyncioEndpoint("publisher", limits=limits).run() as bus:
            link.connecting()
            await bus.connect_to_endpoints(*(config(job, index) for index in range(endpoints(job))))
            await asyncio.to_thread(link.go)
            values = small_values(job) if job.kind != "payload" else []
            payload = large_payload(job) if job.kind == "payload" else b""

            def make(number: int) -> Any:
                if job.kind == "payload":
                    return Large(number=number, payload=payload)
                value, data, text, flag = values[number % VALUES]
                event_class = event_classes[order[number % len(order)]]
                return event_class(number=number, value=value, payload=data, text=text, flag=flag)

            async def arrived(count: int) -> float:
                """Wait until so many have come to all consumers together; returns when the last one did."""
                while True:
                    answer = await bus.request(Ask(number=0, payload=b""))
                    if answer.number >= count:
                        return int.from_bytes(answer.payload, "big") / 1e9
                    await asyncio.sleep(POLL_S)

            # Types in turn, but not in the order of their declaration.
            order = list(range(len(event_classes)))
            random.Random(job.seed).shuffle(order)
            # The first event of each type declares it: that is paid once, and not timed.
            for number in order:
                await bus.broadcast(make(number))
            calls = deliveries(job)
            warm = len(order) * (calls // job.count)
            await arrived(warm)
            if job.kind == "types":
                # What making the classes has left behind is not looked through while the events are timed.
                gc.collect()
                await bus.request(Ask(number=1, payload=b""))
            if job.kind == "depth":
                facts = await deep(bus, make, arrived)
            else:
                first = time.monotonic()
                for number in range(job.count):
                    await bus.broadcast(make(number))
                facts = {"seconds": await arrived(warm + calls) - first, "events": float(calls)}
                if job.kind == "types":
                    facts["bare"] = bare(job, order)
            link.report(facts)
            await asyncio.to_thread(link.wait_stop)

    async def deep(bus: AsyncioEndpoint, make: Any, arrived: Any) -> dict[str, float]:
        """Queue without letting the loop run; then let it send everything."""
        for number in range(job.many):
            bus.broadcast_nowait(make(number))
        began = time.monotonic()
        for number in range(ON_TOP):
            bus.broadcast_nowait(make(number))
        queued = time.monotonic()
        count = job.many + ON_TOP
        drained = await arrived(1 + count) - queued
        return {"seconds": queued - began, "events": ON_TOP, "drained": drained / count}

    asyncio.run(main())

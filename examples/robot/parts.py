"""The robot's parts, each the main function of one process. Some are on asyncio and some on trio."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path as FilePath

import trio

from lahja_capn import AsyncioEndpoint, BroadcastConfig, ConnectionConfig, TrioEndpoint

from .events import GoHome, Halt, Path, PathQuery, Picture, Position, Reading, Step

PACED_READINGS = 1_000
PACED_PER_S = 500
BURST_READINGS = 50_000
QUERIES = 200
STEPS = 8
PICTURES = 10
PICTURE_BYTES = 16_000_000
TOO_HOT = 90.0


def say(text: str) -> None:
    print(text, flush=True)


def row(what: str, events: int, seconds: float, latencies_ns: list[int]) -> None:
    """One line of the summary table, for the parent."""
    latencies = sorted(latencies_ns)
    figures = {
        "what": what,
        "events": events,
        "rate": events / seconds if seconds > 0 else None,
        "p50_us": latencies[len(latencies) // 2] / 1e3 if latencies else None,
        "p99_us": latencies[min(len(latencies) - 1, len(latencies) * 99 // 100)] / 1e3 if latencies else None,
    }
    print("@row " + json.dumps(figures), flush=True)


async def monitor(folder: FilePath) -> None:
    """asyncio. Serves; watches everything, halts the wheels when it gets too hot, ends the demo."""
    latencies: list[int] = []
    burst: list[int] = []
    pictures: list[int] = []
    steps: list[int] = []
    halted = False

    async with AsyncioEndpoint.serve(ConnectionConfig.from_name("monitor", folder)) as endpoint:
        say(f"serves at {endpoint.ipc_path.name}")
        all_there = asyncio.Event()

        def look_if_done() -> None:
            if len(burst) == BURST_READINGS and len(pictures) == PICTURES and len(steps) == STEPS:
                all_there.set()

        async def on_reading(reading: Reading) -> None:
            nonlocal halted
            if not reading.paced:
                burst.append(time.monotonic_ns())
                if len(burst) % 10_000 == 0:
                    say(f"got {len(burst)} readings of the burst from {reading.get_origin()}")
                look_if_done()
                return
            latencies.append(time.monotonic_ns() - reading.sentNs)
            if reading.sequence % 250 == 0:
                say(f"reading {reading.sequence} of {reading.sensor}: {reading.celsius:.1f} C")
            if reading.celsius > TOO_HOT and not halted:
                halted = True
                say(f"{reading.celsius:.1f} C is too hot: halt, to the wheels only")
                await endpoint.broadcast(
                    Halt(cause="tooHot", celsius=reading.celsius), BroadcastConfig(filter_endpoint="wheels")
                )

        def on_picture(picture: Picture) -> None:
            # The label is read out of the received bytes; nobody copies the 16 MB behind it.
            pictures.append(time.monotonic_ns() - picture.sentNs)
            view = picture.pixels
            say(
                f"picture {picture.label!r}, {view.nbytes / 1e6:.0f} MB: first pixel {view[0]}, last {view[-1]}"
            )
            look_if_done()

        endpoint.subscribe(Reading, on_reading)
        endpoint.subscribe(Picture, on_picture)
        async for step in endpoint.stream(Step, num_events=STEPS):
            steps.append(time.monotonic_ns() - step.sentNs)
            say(f"step {step.number} at ({step.position.x:.1f}, {step.position.y:.1f})")
        look_if_done()
        await all_there.wait()
        say("everything has arrived, everybody may go home")
        await endpoint.broadcast(GoHome())
        while len(endpoint.get_connected_endpoints_and_subscriptions()) > 1:
            await endpoint.wait_until_connections_change()

    row("readings, paced", len(latencies), PACED_READINGS / PACED_PER_S, latencies)
    row("readings, burst", len(burst), (burst[-1] - burst[0]) / 1e9, [])
    row("steps, as a stream", len(steps), 0, steps)
    row("pictures of 16 MB", len(pictures), 0, pictures)


async def sensors(folder: FilePath) -> None:
    """trio. Publishes a paced series, then a burst as fast as it can."""
    async with TrioEndpoint("sensors").run() as endpoint:
        await endpoint.connect_to_endpoints(ConnectionConfig.from_name("monitor", folder))
        await endpoint.wait_until_any_endpoint_subscribed_to(Reading)
        raw = bytes(range(64))
        begin = trio.current_time()
        for sequence in range(PACED_READINGS):
            await trio.sleep_until(begin + sequence / PACED_PER_S)
            celsius = 20 + 75 * sequence / PACED_READINGS
            await endpoint.broadcast(
                Reading(
                    sensor="motor",
                    sequence=sequence,
                    celsius=celsius,
                    sentNs=time.monotonic_ns(),
                    paced=True,
                    raw=raw,
                )
            )
        say(f"now a burst of {BURST_READINGS} readings")
        go_home = endpoint.stream(GoHome, num_events=1)
        for sequence in range(BURST_READINGS):
            await endpoint.broadcast(
                Reading(sensor="motor", sequence=sequence, celsius=20.0, sentNs=0, paced=False, raw=raw)
            )
        async for _ in go_home:
            say("goes home")


async def planner(folder: FilePath) -> None:
    """trio. Answers requests."""
    async with TrioEndpoint.serve(ConnectionConfig.from_name("planner", folder)) as endpoint:
        await endpoint.connect_to_endpoints(ConnectionConfig.from_name("monitor", folder))

        async def plan(query: PathQuery) -> None:
            start, goal = query.start, query.goal
            steps = [
                Position(
                    x=start.x + (goal.x - start.x) * number / STEPS,
                    y=start.y + (goal.y - start.y) * number / STEPS,
                )
                for number in range(1, STEPS + 1)
            ]
            await endpoint.respond(query, Path(steps=steps))

        endpoint.subscribe(PathQuery, plan)
        await endpoint.wait_for(GoHome)
        say("goes home")


async def camera(folder: FilePath) -> None:
    """asyncio. Sends large events."""
    async with AsyncioEndpoint("camera").run() as endpoint:
        await endpoint.connect_to_endpoints(ConnectionConfig.from_name("monitor", folder))
        await endpoint.wait_until_any_endpoint_subscribed_to(Picture)
        go_home = endpoint.stream(GoHome, num_events=1)
        for number in range(PICTURES):
            pixels = bytes([number]) * PICTURE_BYTES
            sent_ns = time.monotonic_ns()
            await endpoint.broadcast(
                Picture(label=f"view-{number}", width=4000, height=4000, pixels=pixels, sentNs=sent_ns)
            )
            await asyncio.sleep(0.1)
        async for _ in go_home:
            say("goes home")


async def wheels(folder: FilePath) -> None:
    """asyncio. Asks the planner for a path, follows it, and obeys the monitor's halt."""
    async with AsyncioEndpoint("wheels").run() as endpoint:
        await endpoint.connect_to_endpoints(
            ConnectionConfig.from_name("monitor", folder), ConnectionConfig.from_name("planner", folder)
        )
        await endpoint.wait_until_endpoint_subscribed_to("planner", PathQuery)
        await endpoint.wait_until_endpoint_subscribed_to("monitor", Step)
        go_home = endpoint.stream(GoHome, num_events=1)
        halts = endpoint.stream(Halt, num_events=1)
        query = PathQuery(start=Position(x=0, y=0), goal=Position(x=4, y=2))
        latencies = []
        for _ in range(QUERIES):
            asked_ns = time.monotonic_ns()
            path = await endpoint.request(query)
            latencies.append(time.monotonic_ns() - asked_ns)
        say(f"asked the planner {QUERIES} times; its path has {len(path.steps)} steps")
        for number, position in enumerate(path.steps, 1):
            await endpoint.broadcast(Step(number=number, position=position, sentNs=time.monotonic_ns()))
        async for halt in halts:
            say(f"halts: {halt.cause} at {halt.celsius:.1f} C, says {halt.get_origin()}")
        async for _ in go_home:
            say("goes home")
    row("requests", len(latencies), sum(latencies) / 1e9, latencies)


PARTS: dict[str, tuple[str, Callable[[FilePath], Awaitable[None]]]] = {
    "monitor": ("asyncio", monitor),
    "planner": ("trio", planner),
    "sensors": ("trio", sensors),
    "camera": ("asyncio", camera),
    "wheels": ("asyncio", wheels),
}


def main(name: str, folder: FilePath) -> None:
    runtime, part = PARTS[name]
    if runtime == "trio":
        trio.run(part, folder)
    else:
        asyncio.run(part(folder))  # type: ignore[arg-type]  # these are coroutine functions


if __name__ == "__main__":
    main(sys.argv[1], FilePath(sys.argv[2]))

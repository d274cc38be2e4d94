"""Two processes tell each other what happened: lahja's first example, on lahja_capn.

Run it: ``python inter_process_ping_pong.py [ROUNDS]`` (3 if left out).
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import sys
import tempfile
from pathlib import Path

from lahja_capn import AsyncioEndpoint, BaseEvent, ConnectionConfig, EventStream, bind, load

schema = load(Path(__file__).with_name("things.capnp"))


@bind(schema.FirstThingHappened)
class FirstThingHappened(BaseEvent):
    payload: str


@bind(schema.SecondThingHappened)
class SecondThingHappened(BaseEvent):
    payload: str


def set_up_logging() -> None:
    logging.basicConfig(level=logging.INFO, format="%(processName)s  %(message)s")


def run_proc1(folder: Path, rounds: int) -> None:
    set_up_logging()
    asyncio.run(proc1_worker(folder, rounds))


async def proc1_worker(folder: Path, rounds: int) -> None:
    async with AsyncioEndpoint.serve(ConnectionConfig.from_name("e1", folder)) as server:
        server.subscribe(
            SecondThingHappened,
            lambda event: logging.info("received by subscribe(): %s", event.payload),
        )
        await server.wait_until_any_endpoint_subscribed_to(FirstThingHappened)

        for _ in range(rounds):
            logging.info("Hello from proc1")
            await server.broadcast(FirstThingHappened(payload="Hit from proc1"))
            await asyncio.sleep(0.5)


def run_proc2(folder: Path, rounds: int) -> None:
    set_up_logging()
    asyncio.run(proc2_worker(folder, rounds))


async def proc2_worker(folder: Path, rounds: int) -> None:
    async with AsyncioEndpoint("e2").run() as client:
        await client.connect_to_endpoints(ConnectionConfig.from_name("e1", folder))
        client.subscribe(
            FirstThingHappened,
            lambda event: logging.info("received by subscribe(): %s", event.payload),
        )
        # From this call on the stream takes events, whenever somebody begins to read it.
        display = asyncio.create_task(
            display_proc1_events(client.stream(FirstThingHappened, num_events=rounds))
        )
        await client.wait_until_any_endpoint_subscribed_to(SecondThingHappened)

        for _ in range(rounds):
            logging.info("Hello from proc2")
            # The first process may end first: then nobody listens any more, and that is all right.
            if client.is_any_endpoint_subscribed_to(SecondThingHappened):
                await client.broadcast(SecondThingHappened(payload="Hit from proc2"))
            await asyncio.sleep(0.5)
        await display


async def display_proc1_events(events: EventStream[FirstThingHappened]) -> None:
    async for event in events:
        logging.info("received by stream(): %s", event.payload)


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    # A forked event loop is no event loop: each process starts afresh.
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="lahja-") as folder:
        processes = [
            context.Process(target=function, name=name, args=(Path(folder), rounds))
            for name, function in (("proc1", run_proc1), ("proc2", run_proc2))
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    return max(abs(process.exitcode or 0) for process in processes)


if __name__ == "__main__":
    sys.exit(main())

"""One process asks, another answers: lahja's second example, on lahja_capn.

Run it: ``python request_api.py``.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import tempfile
from pathlib import Path

from lahja_capn import (
    AsyncioEndpoint,
    BaseEvent,
    BaseRequestResponseEvent,
    ConnectionConfig,
    bind,
    load,
)

schema = load(Path(__file__).with_name("things.capnp"))


@bind(schema.DeliverSomethingResponse)
class DeliverSomethingResponse(BaseEvent):
    payload: str


# The response type comes from the type argument; lahja's expected_response_type() is not needed.
@bind(schema.GetSomethingRequest)
class GetSomethingRequest(BaseRequestResponseEvent[DeliverSomethingResponse]):
    pass


def run_proc1(folder: Path) -> None:
    asyncio.run(proc1_worker(folder))


async def proc1_worker(folder: Path) -> None:
    async with AsyncioEndpoint.serve(ConnectionConfig.from_name("e1", folder)) as server:
        async for event in server.stream(GetSomethingRequest, num_events=3):
            await server.broadcast(DeliverSomethingResponse(payload="Yay"), event.broadcast_config())


def run_proc2(folder: Path) -> None:
    asyncio.run(proc2_worker(folder))


async def proc2_worker(folder: Path) -> None:
    async with AsyncioEndpoint("e2").run() as client:
        await client.connect_to_endpoints(ConnectionConfig.from_name("e1", folder))
        await client.wait_until_any_endpoint_subscribed_to(GetSomethingRequest)

        for _ in range(3):
            print("Requesting")
            result = await client.request(GetSomethingRequest())
            print(f"Got answer: {result.payload}")


def main() -> int:
    # A forked event loop is no event loop: each process starts afresh.
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="lahja-") as folder:
        processes = [
            context.Process(target=function, args=(Path(folder),)) for function in (run_proc1, run_proc2)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    return max(abs(process.exitcode or 0) for process in processes)


if __name__ == "__main__":
    sys.exit(main())

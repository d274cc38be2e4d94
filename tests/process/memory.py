"""Measures memory in a process of its own: ``python -m tests.process.memory WHAT [ARGUMENT]`` prints what it took.

In a process that has run other things before, freed memory would be taken for none.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from lahja_capn import AsyncioEndpoint, Limits
from tests.conftest import Runtime
from tests.scenario.events import Blob, Count
from tests.scenario.support import RawPeer, at, eventually, pair

QUEUE_BYTES = 4_000_000
# Frame size of a Blob without data: header 16, segment table 8, root pointer 8, data 8, pointer 8.
BLOB_BYTES = 48
SUBSCRIBERS = 10


def resident() -> int:
    """Bytes of memory that this process has."""
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def sender(folder: Path, size: int) -> None:
    """A peer that takes nothing: bytes of memory for each byte that is queued for it."""
    config = at(folder, "server")
    limits = Limits(queued_per_peer_bytes=QUEUE_BYTES, close_timeout_s=0.05)
    async with AsyncioEndpoint.serve(config, limits=limits) as server:
        peer = RawPeer(config.path, "raw", (Blob,), Limits(event_credit_bytes=8))
        await peer.connect()
        await server.wait_until_connected_to("raw")
        before = resident()
        number = 0
        while not server.get_peer_counters()["raw"].dropped:
            for _ in range(500):
                number += 1
                server.broadcast_nowait(Blob(number=number, data=bytes(size)))
            await asyncio.sleep(0)
        after = resident()
        counters = server.get_peer_counters()["raw"]
        assert QUEUE_BYTES <= counters.queued_bytes < QUEUE_BYTES + BLOB_BYTES + size + 8
        print((after - before) / counters.queued_bytes, counters.queued)
        peer.close()


async def receiver(folder: Path, size: int) -> None:
    """A subscription that nobody reads: bytes of memory for each byte of the window."""
    options: dict[str, Any] = {
        "server": {"limits": Limits(event_credit_bytes=QUEUE_BYTES, close_timeout_s=0.05)},
        # Next to nothing waits at the sender, which is the same process here.
        "client": {"limits": Limits(queued_per_peer_bytes=1_000, too_slow_s=60, close_timeout_s=0.05)},
    }
    async with pair(Runtime("asyncio"), folder, **options) as (server, client):
        async with server.stream(Blob) as events:
            await client.wait_until_endpoint_subscribed_to("server", Blob)
            before = resident()

            async def publish() -> None:
                number = 0
                while True:
                    await client.broadcast(Blob(number=number, data=bytes(size)))
                    number += 1

            task = asyncio.create_task(publish())
            full = client._peers.up["server"].session
            await eventually(lambda: full.event_credit <= 0)
            print((resident() - before) / QUEUE_BYTES, events.counters().queued)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def burst(folder: Path, count: int) -> None:
    """Events to ten subscribers: the most memory that it took, in bytes."""
    limits = Limits(queued_per_peer_bytes=200_000, event_credit_bytes=200_000)
    config = at(folder, "server")
    taken = [0] * SUBSCRIBERS

    def take_for(number: int) -> Any:
        def take(event: Count) -> None:
            assert event.number == taken[number]
            taken[number] += 1

        return take

    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(AsyncioEndpoint.serve(config, limits=limits))
        for number in range(SUBSCRIBERS):
            client = await stack.enter_async_context(AsyncioEndpoint(f"client-{number}", limits=limits).run())
            client.subscribe(Count, take_for(number))
            await client.connect_to_endpoints(config)
        before = peak = resident()
        for number in range(count):
            await server.broadcast(Count(number=number))
            if number % (count // 20) == 0:
                peak = max(peak, resident())
        while min(taken) < count:  # noqa: ASYNC110 - many handlers, one condition
            await asyncio.sleep(0.001)
        assert taken == [count] * SUBSCRIBERS
        print(peak - before, count)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        asyncio.run(globals()[sys.argv[1]](Path(made), int(sys.argv[2])))

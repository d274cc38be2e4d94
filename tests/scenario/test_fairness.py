"""Whoever takes events does not keep the loop from the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from lahja_capn import BroadcastConfig
from lahja_capn.endpoint.publishing import TURN_S
from tests.conftest import Runtime
from tests.scenario.events import Blob, Count
from tests.scenario.support import Collector, pair, scenario

EVENTS = 5000
# Far above what one turn handles (64), as a turn of the test and one of the handler need not alternate.
MOST_PER_TURN = 500


def test_an_async_handler_that_never_waits_leaves_turns_to_others(runtime: Runtime) -> None:
    async def main() -> None:
        async with runtime.endpoint_class("alone").run() as endpoint:
            got: list[int] = []

            async def take(event: Count) -> None:
                got.append(event.number)

            endpoint.subscribe(Count, take)
            for number in range(EVENTS):
                endpoint.broadcast_nowait(Count(number=number), BroadcastConfig(internal=True))
            most = 0
            while len(got) < EVENTS:
                before = len(got)
                await anyio.lowlevel.checkpoint()
                most = max(most, len(got) - before)
            assert got == list(range(EVENTS))
            assert most <= MOST_PER_TURN

    runtime.run(main, debug=False)


class EverythingLeaves:
    """A channel of which the socket takes all that it is given, at once."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def send(self, buffer: Any) -> int:
        return len(buffer)

    def send_many(self, buffers: Sequence[Any]) -> int:
        return sum(map(len, buffers))


@scenario
async def test_publisher_whose_events_all_leave_at_once_leaves_turns_to_others(
    runtime: Runtime, short_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("lahja_capn.endpoint.publishing.monotonic", lambda: now)
    async with pair(runtime, short_tmp_path) as (server, client):
        server.subscribe(Blob, Collector())
        await client.wait_until_endpoint_subscribed_to("server", Blob)
        (connection,) = client._peers.up.values()
        connection._channel = EverythingLeaves(connection._channel)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            await anyio.lowlevel.checkpoint()
            for in_a_turn in (4, 1):
                last = turns
                longest = events = 0
                for _ in range(40):
                    await client.broadcast(Blob(number=1, data=bytes(100_000)))
                    now += TURN_S / in_a_turn
                    events = events + 1 if turns == last else 1
                    last = turns
                    longest = max(longest, events)
                # No longer than a turn; but to make one after each of many small ones would cost more than they do.
                # Trio shuffles who is next: two turns of the publisher may follow each other.
                assert in_a_turn <= longest <= 2 * in_a_turn + 1
            tasks.cancel_scope.cancel()

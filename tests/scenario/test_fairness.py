"""Whoever takes events does not keep the loop from the others."""

from __future__ import annotations

import anyio

from lahja_capn import BroadcastConfig
from tests.conftest import Runtime
from tests.scenario.events import Count

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

"""kill -9 at random moments: before the handshake, in it, in the middle of a frame, while requests are open."""

from __future__ import annotations

import os
import random
from pathlib import Path

import anyio
import pytest

from lahja_capn import (
    Backoff,
    BroadcastConfig,
    Limits,
    NoSubscribers,
    RemoteDisconnected,
    RequestFailed,
)
from tests.conftest import RUNTIMES, Runtime
from tests.process.forking import Forker, forker
from tests.scenario.events import Blob, Count, Question, Reply
from tests.scenario.support import at, eventually

VICTIM = BroadcastConfig(filter_endpoint="victim")

# KILLS=1000 makes it long.
KILLS = int(os.environ.get("KILLS", "30"))


class Survivor:
    """Counts what comes, and asks without an end."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.answered = 0
        self.left = 0

    def take(self, event: Blob) -> None:
        assert len(event.data) == event.number * 7919 % 50_000
        self.numbers.append(event.number)

    async def talk(self, bus: object) -> None:
        number = 0
        while True:
            number += 1
            try:
                reply = await bus.request(Question(number=number), VICTIM, timeout=5)  # type: ignore[attr-defined]
                assert reply.number == number
                self.answered += 1
                await bus.broadcast(Count(number=number))  # type: ignore[attr-defined]
            except NoSubscribers:
                await anyio.sleep(0.001)
            except (RemoteDisconnected, RequestFailed):
                self.left += 1
                await anyio.sleep(0.0001)


@pytest.mark.slow
@pytest.mark.timeout(60 + KILLS)
@pytest.mark.parametrize("who", ["client is killed", "server is killed"])
def test_survivor_of_many_kills_has_whole_events_in_order_and_nothing_left(
    runtime: Runtime, who: str, short_tmp_path: Path, rng: random.Random, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(victims: Forker) -> None:
        survivor = Survivor()
        limits = Limits(event_credit_bytes=200_000, queued_per_peer_bytes=200_000)
        serves = who == "client is killed"
        ours, theirs = at(short_tmp_path, "survivor"), at(short_tmp_path, "victim")
        async with (
            runtime.endpoint_class.serve(ours, limits=limits)
            if serves
            else runtime.endpoint_class("survivor", limits=limits).run() as bus
        ):

            async def answer(question: Question) -> None:
                await bus.respond(question, Reply(number=question.number))

            bus.subscribe(Blob, survivor.take)
            bus.subscribe(Question, answer)
            if not serves:
                bus.keep_connected(theirs, backoff=Backoff(first_s=0.001, max_s=0.01))
            descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(survivor.talk, bus)
                delivered = 0
                for number in range(KILLS):
                    survivor.numbers.clear()
                    pid = victims.start(
                        rng.choice(RUNTIMES),
                        "connect" if serves else "serve",
                        ours.path if serves else theirs.path,
                        "victim",
                    )
                    # Some die while they start or shake hands, most in full traffic.
                    await meet(rng, bus, survivor, number)
                    victims.kill(pid)
                    await eventually(lambda: not bus._peers.up)
                    await eventually(lambda: not bus._peers.all)
                    assert survivor.numbers == list(range(len(survivor.numbers)))
                    delivered += len(survivor.numbers)
                    await eventually(lambda: len(bus._bus.deadlines) == 0)
                tasks.cancel_scope.cancel()
            print(
                f"{who}: {KILLS} kills, {delivered} events, {survivor.answered} requests answered, "
                f"{survivor.left} ended by a kill"
            )
            assert delivered > 5 * KILLS
            assert survivor.answered > KILLS / 2
            # Some hit a request that was open.
            assert survivor.left > KILLS / 10
            if descriptors:
                await eventually(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)
            # And the next one is as welcome as the first.
            pid = victims.start(
                "asyncio", "connect" if serves else "serve", (ours if serves else theirs).path, "victim"
            )
            await bus.wait_until_connected_to("victim")
            with anyio.fail_after(10):
                await bus.wait_until_any_endpoint_subscribed_to(Count)
                assert (await bus.request(Question(number=5), VICTIM, timeout=5)).number == 5
            victims.kill(pid)

    async def meet(rng: random.Random, bus: object, survivor: Survivor, number: int) -> None:
        if number % 3 == 0:
            await anyio.sleep(rng.random() * 0.06)
            return
        wanted = rng.randrange(1, 30)
        await eventually(lambda: len(survivor.numbers) >= wanted)
        await anyio.sleep(rng.random() * 0.01)

    with forker() as victims:
        runtime.run(main, victims, timeout=50 + KILLS, debug=False)
    errors = [record.getMessage() for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
    assert errors == []

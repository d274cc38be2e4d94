"""Streams of large events: each is received where the one before it lay, and nothing else is ever read from there."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lahja_capn.wire.decoder import _SAME_FRAMES
from lahja_capn.wire.memory import _last, memory_of_last
from tests.conftest import SEED, Runtime
from tests.scenario.events import Blob, Count
from tests.scenario.support import eventually, pair, scenario


@scenario
async def test_large_events_arrive_whole_whatever_comes_between_them(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    chance = random.Random(SEED)
    wanted = []
    for _ in range(60):
        size = chance.choice([0, 100, 70_000, 200_000, 200_000, 500_000])
        wanted += [(len(wanted) + n, size) for n in range(chance.choice([1, 2, _SAME_FRAMES + 3]))]
    async with pair(runtime, short_tmp_path) as (server, client):
        got: list[tuple[int, int]] = []

        def take(event: Blob) -> None:
            data = event.data
            # Each has its number all over.
            assert data == event.number.to_bytes(2, "little") * (len(data) // 2)
            got.append((event.number, len(data)))

        def count(event: Count) -> None:
            got.append((event.number, 0))

        client.subscribe(Count, count)
        await client.subscribe(Blob, take).acknowledged()
        for number, size in wanted:
            if size:
                await server.broadcast(Blob(number=number, data=number.to_bytes(2, "little") * (size // 2)))
            else:
                await server.broadcast(Count(number=number))
        await eventually(lambda: len(got) == len(wanted))
        assert got == wanted


@scenario
async def test_connection_that_is_idle_keeps_no_memory_for_another_large_event(
    runtime: Runtime, short_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        got: list[int] = []
        await client.subscribe(Blob, lambda event: got.append(len(event.data))).acknowledged()
        (connection,) = client._peers.all.values()
        decoder = connection.session._decoder
        offered = 0
        for number in range(3 * _SAME_FRAMES):
            await server.broadcast(Blob(number=number, data=bytes(200_000)))
            await eventually(lambda number=number: len(got) == number + 1)
            offered += decoder._same_large >= _SAME_FRAMES
            assert decoder._expected is None
        # It was expected indeed.
        assert offered == 2 * _SAME_FRAMES
        assert len(_last) == 1
        size = _last[0].getbuffer().nbytes
        assert memory_of_last(size) is not None

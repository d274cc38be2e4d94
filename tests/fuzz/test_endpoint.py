"""Hostile bytes through a real socket, into a real endpoint that has an honest peer as well."""

from __future__ import annotations

import contextlib
import logging
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import anyio
import pytest

from lahja_capn import ConnectionConfig, EventFieldError, LahjaError, Limits, NoSubscribers
from lahja_capn.session.control import Subscriptions
from tests.conftest import Runtime
from tests.fuzz.reading import read_in_full
from tests.fuzz.seeded import inputs
from tests.fuzz.sessions import BYTES, CONNECTOR, Sessions, rich, unpack
from tests.scenario.rawpeer import Talker, accept, listen_at, talk_to
from tests.scenario.support import DEADLINE_S, Collector, at, eventually, pair, scenario
from tests.vectors import bound

_LIMITS = Limits(frame_bytes=1 << 20, handshake_timeout_s=2.0, close_timeout_s=0.5)
_Count: Any = bound.Count
_Ask: Any = bound.Ask
_Answer: Any = bound.Answer


def streams(seed: int, count: int, connector: bool) -> list[list[bytes]]:
    """Return what hostile peers of one kind say, in parts: half of them get far, half say anything."""
    target = Sessions()
    found = [data for data in rich() if bool(data[0] & CONNECTOR) == connector]
    rng = Random(seed)
    chosen = []
    for _ in range(count // 2):
        data = rng.choice(found)
        # Its first part is what makes the connection come up.
        chosen.append(said(data)[:1] + said(target.mutate(data, rng.getrandbits(64)))[1:])
    seeds = len(target.seeds())
    for data in islice(inputs(target, seed), seeds, None):
        if len(chosen) == count:
            return chosen
        if bool(data[0] & CONNECTOR) == connector and said(data):
            chosen.append(said(data))
    raise AssertionError("inputs() ends")


def said(data: bytes) -> list[bytes]:
    return [content for kind, content in unpack(data)[1] if kind == BYTES]


async def say(talker: Talker, parts: list[bytes]) -> None:
    """Send the first part, then, when the other side has said what it subscribes to (if it does), the rest."""
    await talker.send(parts[0])
    with anyio.move_on_after(0.1):
        while not talker.ended and not any(isinstance(said, Subscriptions) for said in talker._messages):
            await talker._receive()
    await talker.send(b"".join(parts[1:]))


async def until_it_ends(talker: Talker) -> None:
    """Read until the other side ends the stream. What it sends must be frames."""
    with anyio.fail_after(DEADLINE_S):
        while not talker.ended:
            await talker._receive()


@pytest.mark.slow
@scenario
async def test_hostile_peers_that_connect_harm_nobody(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = 0
    numbers: list[int] = []

    def count(event: Any) -> None:
        if event.get_origin() == "client":
            numbers.append(event.number)

    def read(event: Any) -> None:
        nonlocal parts
        try:
            parts += read_in_full(event)
        except EventFieldError:
            raise AssertionError("read_in_full reads on") from None

    async with pair(runtime, short_tmp_path, server={"limits": _LIMITS}) as (server, client):
        for kind in (bound.Everything, bound.Blob, bound.Evolving):
            server.subscribe(kind, read)

        async def answer(request: Any) -> None:
            read(request)
            # The hostile ones may be gone by now.
            with contextlib.suppress(NoSubscribers):
                await server.respond(request, _Answer(number=7))

        server.subscribe(_Ask, answer)
        server.subscribe(_Count, count)
        await client.wait_until_any_endpoint_subscribed_to(_Count)
        await client.wait_until_any_endpoint_subscribed_to(_Ask)
        hostile = streams(11, 80, connector=False)
        sent = 0
        for number, data in enumerate(hostile):
            with talk_to(server.ipc_path) as talker:
                await say(talker, data)
                if number % 3:
                    await client.broadcast(_Count(number=number))
                    sent += 1
                else:
                    assert (await client.request(_Ask(number=number))).number == 7
                talker._socket.shutdown(1)
                await until_it_ends(talker)
            await eventually(lambda: len(server._peers.all) == 1)
        await eventually(lambda: len(numbers) == sent)
        assert numbers == sorted(numbers)
        assert server.is_connected_to("client")
    # Of what came with the hostile events: many were read, and most parts of them.
    assert parts > 500
    assert [record for record in caplog.records if record.exc_info] == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.slow
@scenario
async def test_hostile_endpoints_that_are_connected_to_harm_nobody(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = short_tmp_path / "hostile.ipc"
    config = at(short_tmp_path, "honest")
    async with (
        runtime.endpoint_class.serve(config) as honest,
        runtime.endpoint_class("client", limits=_LIMITS).run() as client,
    ):
        await client.connect_to_endpoints(config)
        got = Collector()
        honest.subscribe(_Count, got)
        await client.wait_until_any_endpoint_subscribed_to(_Count)
        with listen_at(path) as listener:
            for number, data in enumerate(streams(12, 50, connector=True)):

                async def connect() -> None:
                    # Either it is refused, or was up for as long as the stream lasted.
                    with contextlib.suppress(LahjaError):
                        await client.connect_to_endpoints(ConnectionConfig("vector", path))

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(connect)
                    stranger = await accept(listener)
                    await say(stranger, data)
                    await client.broadcast(_Count(number=number))
                    stranger._socket.shutdown(1)
                    await until_it_ends(stranger)
                    stranger.close()
                await eventually(lambda: not client.is_connected_to("vector"))
        assert await got.until(50) == list(range(50))
    assert [record for record in caplog.records if record.exc_info] == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []

"""Handlers at work for an asker that has gone: left to end, and in nobody's way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from lahja_capn.endpoint.handlers import CONCURRENT_REQUESTS
from tests.conftest import Runtime
from tests.scenario.events import Question, Reply
from tests.scenario.support import RawPeer, at, eventually, join, raw_peer, scenario, turns

KINDS = ("async", "lambda returning an awaitable")


class Hanging:
    """Answers number 0 at once, and others when told to."""

    def __init__(self, server: Any, kind: str) -> None:
        self.server = server
        self.at_work = 0
        self.most_at_work = 0
        self.go_on = anyio.Event()
        handler: Any = self.answer if kind == "async" else lambda question: self.answer(question)
        self.counters = server.subscribe(Question, handler).counters

    async def answer(self, question: Question) -> None:
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        if question.number:
            await self.go_on.wait()
        await self.server.respond(question, Reply(number=question.number))
        self.at_work -= 1


async def ask(peer: RawPeer, count: int) -> None:
    await peer.read(lambda: peer.session.remote_subscriptions)
    for _ in range(count):
        question = Question(number=1)
        peer.session.send_request(question._event_type, question._event_type.encode(question))
    await peer.write()


@pytest.mark.parametrize("kind", KINDS)
@scenario
async def test_handlers_that_hang_for_askers_that_left_keep_the_subscription_from_nobody(
    runtime: Runtime, short_tmp_path: Path, kind: str
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config) as server, runtime.endpoint_class("other").run() as other:
        hanging = Hanging(server, kind)
        await join(other, server, config)
        for times in (1, 2, 3):
            async with raw_peer(server) as asker:
                await ask(asker, CONCURRENT_REQUESTS + 20)
                await eventually(lambda times=times: hanging.at_work == times * CONCURRENT_REQUESTS)
                await eventually(lambda: hanging.counters().queued == 20)
            # Those that were not begun are not; those at work are, and counted apart.
            await eventually(lambda times=times: hanging.counters().abandoned == times * CONCURRENT_REQUESTS)
            assert (await other.request(Question(number=0))).number == 0
            assert hanging.at_work == times * CONCURRENT_REQUESTS
        hanging.go_on.set()
        await eventually(lambda: hanging.counters().abandoned == 0)
        assert hanging.at_work == 0
        assert (await other.request(Question(number=1))).number == 1
        # No more at a time than before: the places of the abandoned have gone with them.
        hanging.go_on = anyio.Event()
        hanging.most_at_work = 0
        async with raw_peer(server) as asker:
            await ask(asker, CONCURRENT_REQUESTS + 20)
            await eventually(lambda: hanging.counters().queued == 20)
            await turns()
            assert hanging.most_at_work == CONCURRENT_REQUESTS
            hanging.go_on.set()
            await eventually(lambda: hanging.at_work == 0 and not hanging.counters().queued)


@pytest.mark.parametrize("kind", KINDS)
@scenario
async def test_abandoned_handlers_are_bounded(
    runtime: Runtime, short_tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("lahja_capn.endpoint.handlers.MOST_ABANDONED", 10)
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config) as server:
        hanging = Hanging(server, kind)
        for at_work in (CONCURRENT_REQUESTS, CONCURRENT_REQUESTS + 10, CONCURRENT_REQUESTS + 10):
            async with raw_peer(server) as asker:
                await ask(asker, CONCURRENT_REQUESTS + 20)
                await eventually(lambda at_work=at_work: hanging.at_work == at_work)
                await eventually(lambda: hanging.counters().queued >= 20)
                await turns()
                assert hanging.at_work == at_work
            await eventually(lambda at_work=at_work: hanging.counters().abandoned == at_work)
        hanging.go_on.set()
        await eventually(lambda: hanging.at_work == 0)


@pytest.mark.parametrize("kind", KINDS)
@scenario
async def test_requests_that_wait_go_on_when_an_asker_before_them_has_left(
    runtime: Runtime, short_tmp_path: Path, kind: str
) -> None:
    """Without anything else that happens: no handler ends, no request arrives."""
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config) as server, raw_peer(server, name="patient") as patient:
        hanging = Hanging(server, kind)
        patients = hanging.go_on
        await ask(patient, 10)
        await eventually(lambda: hanging.at_work == 10)
        async with raw_peer(server) as asker:
            hanging.go_on = askers = anyio.Event()
            await ask(asker, CONCURRENT_REQUESTS - 10)
            await eventually(lambda: hanging.at_work == CONCURRENT_REQUESTS)
            await ask(patient, 150)
            await eventually(lambda: hanging.counters().queued == 150)
            hanging.go_on = patients
        # 90 places are free again.
        await eventually(lambda: hanging.counters().queued == 60)
        assert hanging.counters().abandoned == CONCURRENT_REQUESTS - 10
        await eventually(lambda: hanging.at_work == 2 * CONCURRENT_REQUESTS - 10)
        # Those who end now leave no place behind: theirs is taken.
        askers.set()
        await eventually(lambda: hanging.counters().abandoned == 0)
        await turns()
        assert hanging.at_work == CONCURRENT_REQUESTS
        assert hanging.counters().queued == 60
        patients.set()
        await eventually(lambda: hanging.at_work == 0 and not hanging.counters().queued)

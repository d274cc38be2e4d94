"""subscribe: kinds of handlers, order, concurrency, and the end of a subscription."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import anyio
import pytest

from lahja_capn import BroadcastConfig, Limits, NoSubscribers
from tests.conftest import Runtime
from tests.scenario.events import Count, Other, Question, Reply
from tests.scenario.support import DEADLINE_S, Collector, at, eventually, pair, raw_peer, scenario, turns

INTERNAL = BroadcastConfig(internal=True)


class Methods:
    """One handler of each kind; each keeps what it got."""

    def __init__(self) -> None:
        self.got: list[int] = []

    def plain(self, event: Count) -> None:
        self.got.append(event.number)

    async def coroutine(self, event: Count) -> None:
        await anyio.lowlevel.checkpoint()
        self.got.append(event.number)

    def with_extra(self, extra: str, event: Count) -> None:
        assert extra == "extra"
        self.got.append(event.number)

    async def coroutine_with_extra(self, extra: str, event: Count) -> None:
        assert extra == "extra"
        await self.coroutine(event)


class PlainObject(Methods):
    def __call__(self, event: Count) -> None:
        self.plain(event)


class AsyncObject(Methods):
    async def __call__(self, event: Count) -> None:
        await self.coroutine(event)


def kinds() -> dict[str, Any]:
    def make(get: Any, cls: type[Methods] = Methods) -> Any:
        def made() -> tuple[Any, list[int]]:
            methods = cls()
            return get(methods), methods.got

        return made

    return {
        "plain": make(lambda m: m.plain),
        "async": make(lambda m: m.coroutine),
        "lambda": make(lambda m: lambda event: m.plain(event)),
        "lambda returning an awaitable": make(lambda m: lambda event: m.coroutine(event)),
        "partial": make(lambda m: functools.partial(m.with_extra, "extra")),
        "partial of async": make(lambda m: functools.partial(m.coroutine_with_extra, "extra")),
        "object": make(lambda m: m, PlainObject),
        "object with async call": make(lambda m: m, AsyncObject),
        "partial of an object with async call": make(lambda m: functools.partial(m), AsyncObject),
    }


KINDS = kinds()


@pytest.mark.parametrize("where", ["local", "remote"])
@pytest.mark.parametrize("kind", KINDS)
@scenario
async def test_every_kind_of_handler_gets_every_event_in_order(
    runtime: Runtime, short_tmp_path: Path, kind: str, where: str
) -> None:
    handler, got = KINDS[kind]()
    async with pair(runtime, short_tmp_path) as (server, client):
        receiver = client if where == "local" else server
        subscription = receiver.subscribe(Count, handler)
        await subscription.acknowledged()
        for number in range(50):
            await client.broadcast(Count(number=number))
        await eventually(lambda: len(got) == 50)
        assert got == list(range(50))
        counters = subscription.counters()
        assert (counters.delivered, counters.dropped, counters.queued, counters.failed) == (50, 0, 0, 0)


@pytest.mark.parametrize("kind", ["async", "lambda returning an awaitable"])
@scenario
async def test_events_are_handled_one_at_a_time(runtime: Runtime, kind: str) -> None:
    running = peak = done = 0

    async def handle(event: Count) -> None:
        nonlocal running, peak, done
        running += 1
        peak = max(peak, running)
        await turns(3)
        running -= 1
        done += 1

    handler: Any = handle if kind == "async" else lambda event: handle(event)
    async with runtime.endpoint_class("alone").run() as endpoint:
        endpoint.subscribe(Count, handler)
        for number in range(10):
            await endpoint.broadcast(Count(number=number))
        await eventually(lambda: done == 10)
        assert peak == 1


@pytest.mark.parametrize("kind", ["async", "lambda returning an awaitable"])
@pytest.mark.parametrize("where", ["local", "remote"])
@scenario
async def test_requests_are_handled_up_to_100_at_a_time(
    runtime: Runtime, short_tmp_path: Path, where: str, kind: str
) -> None:
    running = peak = 0
    go_on = anyio.Event()

    async with pair(runtime, short_tmp_path) as (server, client):
        responder = client if where == "local" else server

        async def handle(question: Question) -> None:
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            await go_on.wait()
            running -= 1
            await responder.respond(question, Reply(number=question.number))

        handler: Any = handle if kind == "async" else lambda event: handle(event)
        subscription = responder.subscribe(Question, handler)
        await subscription.acknowledged()
        replies: list[int] = []

        async def ask(number: int) -> None:
            replies.append((await client.request(Question(number=number))).number)

        async with anyio.create_task_group() as tasks:
            for number in range(150):
                tasks.start_soon(ask, number)
            await eventually(lambda: running == 100 and subscription.counters().queued == 50)
            await turns()
            assert running == 100
            go_on.set()
        assert sorted(replies) == list(range(150))
        assert peak == 100
        # And it goes on afterwards.
        assert (await client.request(Question(number=7))).number == 7


@scenario
async def test_subscriptions_do_not_wait_for_each_other(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        blocked = []

        async def block(event: Any) -> None:
            blocked.append(event.number)
            await anyio.sleep_forever()

        same, other = Collector(), Collector()
        server.subscribe(Count, block)
        server.subscribe(Count, same)
        await server.subscribe(Other, other).acknowledged()
        for number in range(3):
            await client.broadcast(Count(number=number))
            await client.broadcast(Other(number=number))
        assert await same.until(3) == [0, 1, 2]
        assert await other.until(3) == [0, 1, 2]
        assert blocked == [0]


@scenario
async def test_local_broadcast_does_not_wait_for_a_handler(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        started = anyio.Event()

        async def block(event: Count) -> None:
            started.set()
            await anyio.sleep_forever()

        endpoint.subscribe(Count, block)
        await endpoint.broadcast(Count(number=1))
        await endpoint.broadcast(Count(number=2))
        await started.wait()


@scenario
async def test_plain_handler_that_broadcasts_its_own_type_does_not_nest(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        order: list[tuple[str, int]] = []

        def handle(event: Count) -> None:
            order.append(("in", event.number))
            if event.number < 2000:
                endpoint.broadcast_nowait(Count(number=event.number + 1))
            order.append(("out", event.number))

        endpoint.subscribe(Count, handle)
        await endpoint.broadcast(Count(number=0))
        await eventually(lambda: len(order) == 2 * 2001)
        assert order[:4] == [("in", 0), ("out", 0), ("in", 1), ("out", 1)]
        assert order[-1] == ("out", 2000)


@scenario
async def test_plain_handler_that_feeds_itself_for_ever_does_not_keep_the_loop(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        seen = 0

        def handle(event: Count) -> None:
            nonlocal seen
            seen += 1
            endpoint.broadcast_nowait(Count(number=1))

        subscription = endpoint.subscribe(Count, handle)
        await endpoint.broadcast(Count(number=0))
        await turns()
        subscription.unsubscribe()
        assert seen > 0
        before = seen
        await turns()
        assert seen == before


# --- the end of a subscription ----------------------------------------------------------------------------


@scenario
async def test_unsubscribe_ends_delivery_and_is_idempotent(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        got, other = Collector(), Collector()
        subscription = server.subscribe(Count, got)
        await server.subscribe(Count, other).acknowledged()
        assert subscription.event_type is Count
        await client.broadcast(Count(number=1))
        assert await got.until(1) == [1]
        subscription.unsubscribe()
        subscription.unsubscribe()
        assert repr(subscription) == "<Subscription to Count: ended>"
        await client.broadcast(Count(number=2))
        assert await other.until(2) == [1, 2]
        assert got.numbers == [1]
        assert server.get_subscribed_events() == {Count}


@scenario
async def test_unsubscribe_while_the_handler_runs_lets_it_finish(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        go_on, ran = anyio.Event(), []

        async def handle(event: Count) -> None:
            ran.append(("start", event.number))
            await go_on.wait()
            ran.append(("end", event.number))

        subscription = endpoint.subscribe(Count, handle)
        await endpoint.broadcast(Count(number=1))
        await endpoint.broadcast(Count(number=2))
        await eventually(lambda: ran)
        subscription.unsubscribe()
        go_on.set()
        await eventually(lambda: len(ran) == 2)
        await turns()
        assert ran == [("start", 1), ("end", 1)]


@pytest.mark.parametrize("kind", ["plain", "async"])
@scenario
async def test_handler_that_unsubscribes_itself_gets_one_event(runtime: Runtime, kind: str) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        got = []

        def plain(event: Count) -> None:
            got.append(event.number)
            subscription.unsubscribe()

        async def coroutine(event: Count) -> None:
            plain(event)

        subscription = endpoint.subscribe(Count, plain if kind == "plain" else coroutine)
        last = Collector()
        endpoint.subscribe(Count, last)
        for number in range(3):
            await endpoint.broadcast(Count(number=number))
        await eventually(lambda: got)
        await turns()
        assert got == [0]
        assert last.numbers == [0, 1, 2]


@pytest.mark.parametrize("kind", ["plain", "async", "stream"])
@pytest.mark.parametrize("where", ["local", "remote"])
@scenario
async def test_subscription_ended_by_an_earlier_handler_does_not_get_the_event(
    runtime: Runtime, short_tmp_path: Path, where: str, kind: str
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        receiver = client if where == "local" else server
        got: list[int] = []

        async def coroutine(event: Count) -> None:
            got.append(event.number)

        def end_the_other(event: Count) -> None:
            (other._inbox.close if kind == "stream" else other.unsubscribe)()

        receiver.subscribe(Count, end_the_other)
        other: Any = (
            receiver.stream(Count)
            if kind == "stream"
            else receiver.subscribe(
                Count, coroutine if kind == "async" else lambda event: got.append(event.number)
            )
        )
        last = Collector()
        await receiver.subscribe(Count, last).acknowledged()
        await client.broadcast(Count(number=1))
        await last.until(1)
        if kind == "stream":
            got += [event.number async for event in other]
        await turns()
        assert got == []
        assert other.counters().delivered == 0


@scenario
async def test_acknowledged_returns_when_every_peer_has_applied_it(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        subscription = server.subscribe(Count, print)
        assert not client.is_endpoint_subscribed_to("server", Count)
        await subscription.acknowledged()
        assert client.is_endpoint_subscribed_to("server", Count)
        await subscription.acknowledged()
        # Not the type's first: nothing needs to be told.
        await server.subscribe(Count, print).acknowledged()


@scenario
async def test_acknowledged_without_peers_returns_at_once(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        await endpoint.subscribe(Count, print).acknowledged()


@scenario
async def test_acknowledged_waits_for_the_peer_that_has_not_answered(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    from tests.scenario.support import at, raw_peer

    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:
        async with raw_peer(server) as peer:
            subscription = server.subscribe(Count, print)
            with anyio.move_on_after(0.02) as scope:
                await subscription.acknowledged()
            assert scope.cancelled_caught
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(peer.read, lambda: peer.session.is_closed)
                await subscription.acknowledged()
                tasks.cancel_scope.cancel()


@scenario
async def test_peer_that_never_acknowledges_is_disconnected_and_the_others_are_waited_for(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = at(short_tmp_path, "server")
    async with (
        runtime.endpoint_class.serve(config, limits=Limits(request_timeout_s=0.2)) as server,
        runtime.endpoint_class("other").run() as other,
        raw_peer(server, name="mute") as mute,
    ):
        await other.connect_to_endpoints(config)
        with anyio.fail_after(DEADLINE_S):
            await server.subscribe(Count, Collector()).acknowledged()
        assert other.is_endpoint_subscribed_to("server", Count)
        assert server.is_connected_to("other")
        assert not server.is_connected_to("mute")
        await mute.read(lambda: mute.closed)
        assert mute.closed is not None
        assert mute.closed.code == "protocolError"
        assert "not acknowledged within 0.2 s" in mute.closed.text
        # For the next one nobody is waited for in vain.
        await server.subscribe(Other, Collector()).acknowledged()
    assert "'mute' is disconnected: subscriptions were not acknowledged within 0.2 s" in caplog.text


@scenario
async def test_code_for_a_plain_event_is_made_when_it_is_subscribed_to_or_expected_as_a_response(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when the first one comes: nothing that a peer sends makes this process compile anything."""
    bindings: Any = [cls._binding for cls in (Count, Reply)]
    for binding in bindings:
        for name in ("init", "encode", "decode"):
            monkeypatch.setattr(binding, name, None)
    async with runtime.endpoint_class("alone").run() as endpoint:
        endpoint.subscribe(Count, lambda event: None)
        assert bindings[0].decode is not None
        with pytest.raises(NoSubscribers):
            await endpoint.request(Question(number=1))
        assert bindings[1].decode is not None

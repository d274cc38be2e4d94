"""broadcast: who gets an event, what they get, and what happens when nobody does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from lahja_capn import BaseEvent, BindError, BroadcastConfig, LahjaError, NoSubscribers
from lahja_capn.endpoint.publishing import TURN_S
from tests.conftest import Runtime
from tests.scenario.events import Blob, Count, Numbered, Other, Special, schema
from tests.scenario.support import Collector, at, eventually, join, pair, scenario, turns


async def marked(sender: Any, got: Collector) -> list[int]:
    """All that ``got`` has received before an event sent now."""
    await sender.broadcast(Count(number=999))
    await eventually(lambda: 999 in got.numbers)
    return got.numbers[:-1]


@scenario
async def test_event_goes_to_local_and_remote_subscribers_once(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        here, there, there_too = Collector(), Collector(), Collector()
        client.subscribe(Count, here)
        server.subscribe(Count, there)
        server.subscribe(Count, there_too)
        await client.wait_until_endpoint_subscribed_to("server", Count)
        for number in range(3):
            await client.broadcast(Count(number=number))
        assert here.numbers == [0, 1, 2]
        assert await marked(client, there) == [0, 1, 2]
        assert there_too.numbers == [0, 1, 2, 999]


@scenario
async def test_event_goes_to_subscribers_of_exactly_its_class(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        counts, specials, own = Collector(), Collector(), Collector()
        server.subscribe(Count, counts)
        server.subscribe(Special, specials)
        client.subscribe(Special, own)
        await client.wait_until_endpoint_subscribed_to("server", Special)
        await client.broadcast(Special(number=1))
        assert await marked(client, counts) == []
        assert specials.numbers == [1]
        assert own.numbers == [1]


@scenario
async def test_unbound_base_or_subclass_is_refused(runtime: Runtime) -> None:
    class Unbound(Count):
        pass

    async with runtime.endpoint_class("alone").run() as endpoint:
        endpoint.subscribe(Count, print)
        for use in (
            lambda: endpoint.subscribe(Numbered, print),
            lambda: endpoint.subscribe(Unbound, print),
            lambda: endpoint.stream(Numbered),
            lambda: endpoint.broadcast_nowait(Unbound(number=1)),
            lambda: endpoint.is_any_endpoint_subscribed_to(Unbound),
        ):
            with pytest.raises(BindError):
                use()


@scenario
async def test_peer_without_a_subscription_gets_nothing(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (_, client):
        client.subscribe(Count, print)
        await client.broadcast(Count(number=1))
        assert client.get_peer_counters()["server"].sent == 0


@scenario
async def test_internal_event_stays_here(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        here, there = Collector(), Collector()
        client.subscribe(Count, here)
        server.subscribe(Count, there)
        await client.wait_until_endpoint_subscribed_to("server", Count)
        for number in range(3):
            await client.broadcast(Count(number=number), BroadcastConfig(internal=True))
        client.broadcast_nowait(Count(number=3), BroadcastConfig(internal=True))
        assert here.numbers == [0, 1, 2, 3]
        assert await marked(client, there) == []


@scenario
async def test_targeted_event_goes_to_its_target_only(runtime: Runtime, short_tmp_path: Path) -> None:
    async with (
        pair(runtime, short_tmp_path) as (server, client),
        runtime.endpoint_class("third").run() as third,
    ):
        await join(third, server, at(short_tmp_path, "server"))
        got = {endpoint.name: Collector() for endpoint in (server, client, third)}
        for endpoint in (server, client, third):
            endpoint.subscribe(Count, got[endpoint.name])
        await server.wait_until_all_endpoints_subscribed_to(Count)
        await server.broadcast(Count(number=1), BroadcastConfig(filter_endpoint="client"))
        await server.broadcast(Count(number=2), BroadcastConfig(filter_endpoint="third"))
        await server.broadcast(Count(number=3), BroadcastConfig(filter_endpoint="server"))
        server.broadcast_nowait(Count(number=4), BroadcastConfig(filter_endpoint="client"))
        assert await marked(server, got["client"]) == [1, 4]
        assert [number for number in await marked(server, got["third"]) if number != 999] == [2]
        assert [number for number in got["server"].numbers if number != 999] == [3]


@scenario
async def test_internal_events_follow_subscriptions_that_come_and_go(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    internal = BroadcastConfig(internal=True)
    async with runtime.endpoint_class("alone").run() as endpoint:
        first, second = Collector(), Collector()
        subscription = endpoint.subscribe(Count, first)
        await endpoint.broadcast(Count(number=1), internal)
        endpoint.subscribe(Count, second)
        await endpoint.broadcast(Count(number=2), internal)
        subscription.unsubscribe()
        await endpoint.broadcast(Count(number=3), internal)
    assert (first.numbers, second.numbers) == ([1, 2], [2, 3])


@scenario
async def test_internal_with_a_target_is_refused(runtime: Runtime) -> None:
    with pytest.raises(ValueError, match="internal=True"):
        BroadcastConfig(internal=True, filter_endpoint="server")


NOBODY = {
    "all": (None, "Nobody subscribes to Count here or at the 1 connected endpoints (server). Wait with"),
    "target": (
        BroadcastConfig(filter_endpoint="server"),
        "Nobody subscribes to Count at 'server'. Wait with",
    ),
    "own": (BroadcastConfig(filter_endpoint="client"), "Nobody subscribes to Count at 'client'. Wait with"),
    "unconnected": (
        BroadcastConfig(filter_endpoint="stranger"),
        "Nobody subscribes to Count at 'stranger', which is not connected. Wait with",
    ),
    "internal": (
        BroadcastConfig(internal=True),
        "Nobody subscribes to Count in 'client' itself (the config is internal). Wait with",
    ),
}


@pytest.mark.parametrize("case", NOBODY)
@scenario
async def test_event_for_nobody_is_refused_and_says_who_was_asked(
    runtime: Runtime, short_tmp_path: Path, case: str
) -> None:
    config, text = NOBODY[case]
    async with pair(runtime, short_tmp_path) as (server, client):
        # Subscribed to another type: that does not count.
        server.subscribe(Other, print)
        await client.wait_until_endpoint_subscribed_to("server", Other)
        with pytest.raises(NoSubscribers) as raised:
            await client.broadcast(Count(number=1), config)
        assert str(raised.value).startswith(text)
        assert raised.value.event == "Count"
        assert raised.value.endpoint == (None if config is None else config.filter_endpoint)
        with pytest.raises(NoSubscribers):
            client.broadcast_nowait(Count(number=1), config)
        with pytest.raises(NoSubscribers):
            client.maybe_raise_no_subscribers_exception(config, Count)


@scenario
async def test_event_for_nobody_passes_when_no_subscriber_is_required(runtime: Runtime) -> None:
    config = BroadcastConfig(require_subscriber=False)
    async with runtime.endpoint_class("alone").run() as endpoint:
        await endpoint.broadcast(Count(number=1), config)
        endpoint.broadcast_nowait(Count(number=1), config)
        endpoint.maybe_raise_no_subscribers_exception(config, Count)
        with pytest.raises(NoSubscribers):
            await endpoint.broadcast(Count(number=1), BroadcastConfig(require_subscriber=True))


@scenario
async def test_subscriber_that_exists_satisfies_the_check(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        server.subscribe(Count, print)
        await client.wait_until_endpoint_subscribed_to("server", Count)
        client.maybe_raise_no_subscribers_exception(None, Count)
        client.maybe_raise_no_subscribers_exception(BroadcastConfig(filter_endpoint="server"), Count)
        with pytest.raises(NoSubscribers):
            client.maybe_raise_no_subscribers_exception(BroadcastConfig(internal=True), Count)


@scenario
async def test_subscribers_check_follows_every_change(runtime: Runtime, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class("client").run() as client:
        async with runtime.endpoint_class.serve(config) as server:
            await join(client, server, config)
            for _ in range(2):
                subscription = server.subscribe(Count, print)
                await client.wait_until_endpoint_subscribed_to("server", Count)
                client.maybe_raise_no_subscribers_exception(None, Count)
                subscription.unsubscribe()
                await client.wait_until_endpoint_subscriptions_change()
                with pytest.raises(NoSubscribers):
                    client.maybe_raise_no_subscribers_exception(None, Count)
            own = client.subscribe(Count, print)
            client.maybe_raise_no_subscribers_exception(None, Count)
            own.unsubscribe()
            with pytest.raises(NoSubscribers):
                client.maybe_raise_no_subscribers_exception(None, Count)
            server.subscribe(Count, print)
            await client.wait_until_endpoint_subscribed_to("server", Count)
        while client.is_connected_to("server"):
            await client.wait_until_connections_change()
        with pytest.raises(NoSubscribers):
            client.maybe_raise_no_subscribers_exception(None, Count)


@scenario
async def test_broadcast_nowait_reaches_local_and_remote_subscribers(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        here, there = Collector(), Collector()
        client.subscribe(Count, here)
        server.subscribe(Count, there)
        await client.wait_until_endpoint_subscribed_to("server", Count)
        for number in range(100):
            client.broadcast_nowait(Count(number=number))
        assert here.numbers == list(range(100))
        assert await there.until(100) == list(range(100))


@scenario
async def test_local_delivery_hands_over_the_identical_object_without_encoding(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lahja_capn.binding import EventType

    def refuse(*_: Any) -> None:
        raise AssertionError("encoded")

    async with runtime.endpoint_class("alone").run() as endpoint:
        got, too = Collector(), Collector()
        endpoint.subscribe(Count, got)
        endpoint.subscribe(Count, too)
        event = Count(number=1)
        monkeypatch.setattr(EventType, "encode", refuse)
        await endpoint.broadcast(event)
        endpoint.broadcast_nowait(event)
        assert [item is event for item in got.events + too.events] == [True] * 4


@scenario
async def test_event_from_a_builder_is_delivered_from_its_encoded_bytes(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        here, there = Collector(), Collector()
        client.subscribe(Blob, here)
        server.subscribe(Blob, there)
        await client.wait_until_endpoint_subscribed_to("server", Blob)
        builder = schema.Blob.new_message(number=1, data=b"before")
        event = Blob.from_builder(builder)
        builder.data = b"after!"
        await client.broadcast(event)
        builder.number = 2
        assert await there.until(1) == [1]
        assert there.events[0].data == b"before"
        assert (here.events[0].number, here.events[0].data) == (1, b"before")


@scenario
async def test_origin_of_an_event_that_only_one_subscription_here_gets(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        received, here = Collector(), Collector()
        subscription = server.subscribe(Count, received)
        await client.wait_until_endpoint_subscribed_to("server", Count)
        await client.broadcast(Count(number=1))
        await received.until(1)
        subscription.unsubscribe()
        server.subscribe(Count, here)
        for event, origin in ((Count(number=2), "server"), (received.events[0], "client")):
            await server.broadcast(event, BroadcastConfig(internal=True))
            assert event.get_origin() == origin
        assert [event.get_origin() for event in here.events] == ["server", "client"]


@scenario
async def test_event_that_goes_nowhere_has_no_origin(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as alone:
        event = Count(number=1)
        with pytest.raises(NoSubscribers):
            await alone.broadcast(event)
        await alone.broadcast(event, BroadcastConfig(require_subscriber=False))
        assert not event.is_bound


@scenario
async def test_origin_is_the_sender_and_stays_when_the_event_is_sent_on(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        at_client, at_server, passed_on = Collector(), Collector(), Collector()
        client.subscribe(Count, at_client)
        server.subscribe(Count, at_server)
        await client.wait_until_all_endpoints_subscribed_to(Count)
        await server.wait_until_all_endpoints_subscribed_to(Count)
        event = Count(number=1)
        assert not event.is_bound
        with pytest.raises(AttributeError):
            event.get_origin()
        await client.broadcast(event)
        assert event.get_origin() == "client"
        assert at_client.events[0].get_origin() == "client"
        await at_server.until(1)
        received = at_server.events[0]
        assert received.get_origin() == "client"

        # Sent on, a received event keeps its origin here; the next peer sees who it came from: the connection.
        server.subscribe(Count, passed_on)
        await server.broadcast(received)
        assert passed_on.events[0] is received
        assert received.get_origin() == "client"
        assert await at_client.until(2) == [1, 1]
        assert at_client.events[1].get_origin() == "server"
        assert at_client.events[1] == event


@scenario
async def test_the_same_event_can_be_sent_again(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        got = Collector()
        server.subscribe(Count, got)
        await client.wait_until_endpoint_subscribed_to("server", Count)
        event = Count(number=1)
        await client.broadcast(event)
        await client.broadcast(event)
        client.broadcast_nowait(event)
        assert await got.until(3) == [1, 1, 1]


@scenario
async def test_reply_address_made_by_hand_is_refused(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        config = BroadcastConfig(filter_event_id="17")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="cannot be made by hand"):
            await endpoint.broadcast(Count(number=1), config)
        with pytest.raises(TypeError, match="cannot be made by hand"):
            endpoint.broadcast_nowait(Count(number=1), config)


@scenario
async def test_what_is_no_event_is_refused(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        with pytest.raises((LahjaError, TypeError)):
            await endpoint.broadcast(object())  # type: ignore[arg-type]
        with pytest.raises((LahjaError, TypeError)):
            endpoint.subscribe(int, print)  # type: ignore[type-var]
        with pytest.raises(BindError):
            endpoint.subscribe(BaseEvent, print)


@pytest.mark.parametrize("subscriptions", [1, 2])
@scenario
async def test_local_broadcasts_alone_let_other_tasks_run(
    runtime: Runtime, subscriptions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Now and then: a turn of the loop costs as much as many of them."""
    now = 1.0
    monkeypatch.setattr("lahja_capn.endpoint.publishing.monotonic", lambda: now)
    ran = []

    async def other() -> None:
        while True:
            ran.append(1)
            await anyio.lowlevel.checkpoint()

    async with runtime.endpoint_class("alone").run() as endpoint, anyio.create_task_group() as tasks:
        for _ in range(subscriptions):
            endpoint.subscribe(Count, lambda event: None)
        tasks.start_soon(other)
        await turns()
        for event_s, least, most in ((TURN_S / 16, 8, 32), (0.0, 0, 2)):
            ran.clear()
            for number in range(1024):
                await endpoint.broadcast(Count(number=number))
                now += event_s
            assert least <= len(ran) <= most
        tasks.cancel_scope.cancel()


@scenario
async def test_type_bound_after_connecting_is_declared_before_its_first_event(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        # Neither side's table has Special when the connection comes up: subscribing and sending add it.
        got = Collector()
        await server.subscribe(Special, got).acknowledged()
        await client.broadcast(Special(number=7))
        assert await got.until(1) == [7]


@scenario
async def test_peer_counters_count_what_was_sent_and_received(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        got = Collector()
        await server.subscribe(Count, got).acknowledged()
        for number in range(5):
            await client.broadcast(Count(number=number))
        await got.until(5)
        sent, received = client.get_peer_counters()["server"], server.get_peer_counters()["client"]
        assert (sent.sent, sent.dropped, sent.queued) == (5, 0, 0)
        assert (received.received, received.skipped) == (5, 0)
        assert sent.sent_bytes == received.received_bytes > 0

"""Waits for peers and subscriptions: already true, becoming true, missed in between, and the endpoint's stop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from lahja_capn import EndpointAPI, LifecycleError
from tests.conftest import Runtime
from tests.scenario.events import Count, Other
from tests.scenario.support import at, eventually, join, pair, scenario, turns

Wait = Callable[[EndpointAPI], Awaitable[Any]]

WAITS: dict[str, Wait] = {
    "connected_to": lambda endpoint: endpoint.wait_until_connected_to("client"),
    "endpoint_subscribed_to": lambda endpoint: endpoint.wait_until_endpoint_subscribed_to("client", Count),
    "any_endpoint_subscribed_to": lambda endpoint: endpoint.wait_until_any_endpoint_subscribed_to(Count),
    "all_endpoints_subscribed_to": lambda endpoint: endpoint.wait_until_all_endpoints_subscribed_to(Count),
    "connections_change": lambda endpoint: endpoint.wait_until_connections_change(),
    "endpoint_subscriptions_change": lambda endpoint: endpoint.wait_until_endpoint_subscriptions_change(),
    "wait_for": lambda endpoint: endpoint.wait_for(Other),
}


class Task:
    """A wait in the background and what became of it."""

    def __init__(self) -> None:
        self.outcome: list[Any] = []

    async def run(self, wait: Wait, endpoint: EndpointAPI) -> None:
        try:
            self.outcome.append(await wait(endpoint))
        except Exception as error:
            self.outcome.append(error)


@pytest.mark.parametrize("name", WAITS)
@scenario
async def test_wait_ends_with_lifecycle_error_when_the_endpoint_stops(
    runtime: Runtime, short_tmp_path: Path, name: str
) -> None:
    task = Task()
    async with anyio.create_task_group() as tasks:
        async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:
            tasks.start_soon(task.run, WAITS[name], server)
            await turns()
            assert task.outcome == []
        await eventually(lambda: task.outcome)
    assert isinstance(task.outcome[0], LifecycleError)
    assert "stopped" in str(task.outcome[0])


@pytest.mark.parametrize("name", [name for name in WAITS if name != "wait_for"])
@scenario
async def test_wait_returns_when_it_becomes_true(runtime: Runtime, short_tmp_path: Path, name: str) -> None:
    task = Task()
    config = at(short_tmp_path, "server")
    async with (
        runtime.endpoint_class.serve(config) as server,
        runtime.endpoint_class("client").run() as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(task.run, WAITS[name], server)
        await turns()
        assert task.outcome == []
        await client.connect_to_endpoints(config)
        client.subscribe(Count, print)
        if "all" in name:
            server.subscribe(Count, print)
        await eventually(lambda: task.outcome)
        assert task.outcome[0] is None or task.outcome[0] > 0


@pytest.mark.parametrize("name", [name for name in WAITS if "change" not in name and name != "wait_for"])
@scenario
async def test_wait_returns_at_once_when_it_is_true_already(
    runtime: Runtime, short_tmp_path: Path, name: str
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        client.subscribe(Count, print)
        server.subscribe(Count, print)
        await server.wait_until_endpoint_subscribed_to("client", Count)
        assert await WAITS[name](server) is None


@pytest.mark.parametrize(
    "name", ["any_endpoint_subscribed_to", "all_endpoints_subscribed_to", "endpoint_subscriptions_change"]
)
@scenario
async def test_wait_returns_when_this_endpoint_itself_subscribes(runtime: Runtime, name: str) -> None:
    task = Task()
    async with runtime.endpoint_class("alone").run() as endpoint, anyio.create_task_group() as tasks:
        tasks.start_soon(task.run, WAITS[name], endpoint)
        await turns()
        assert task.outcome == []
        endpoint.subscribe(Count, print)
        await eventually(lambda: task.outcome)


@scenario
async def test_cancelled_wait_leaves_no_waiter(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await endpoint.wait_until_connected_to("server")
        with anyio.move_on_after(0.01):
            await endpoint.wait_until_any_endpoint_subscribed_to(Count)
        assert endpoint._peers.connections_changed._waiters == set()
        assert endpoint._peers.subscriptions_changed._waiters == set()


@scenario
async def test_connections_change_between_look_and_wait_is_not_missed(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with (
        runtime.endpoint_class.serve(config) as server,
        runtime.endpoint_class("client").run() as client,
    ):
        seen = server.connections_version
        await join(client, server, config)
        # The change is in the past; without the version this would wait for ever.
        after = await server.wait_until_connections_change(since=seen)
        assert after == server.connections_version > seen
        # Nothing new since then.
        with anyio.move_on_after(0.01) as scope:
            await server.wait_until_connections_change(since=after)
        assert scope.cancelled_caught


@scenario
async def test_subscriptions_change_between_look_and_wait_is_not_missed(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        seen = server.subscriptions_version
        client.subscribe(Count, print)
        await server.wait_until_endpoint_subscribed_to("client", Count)
        after = await server.wait_until_endpoint_subscriptions_change(since=seen)
        assert after == server.subscriptions_version > seen


@scenario
async def test_change_wait_without_version_waits_for_the_next_change(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        before = server.subscriptions_version
        with anyio.move_on_after(0.01) as scope:
            await server.wait_until_endpoint_subscriptions_change()
        assert scope.cancelled_caught
        async with anyio.create_task_group() as tasks:
            task = Task()
            tasks.start_soon(task.run, WAITS["endpoint_subscriptions_change"], server)
            await turns()
            client.subscribe(Count, print)
        assert task.outcome[0] > before


@scenario
async def test_peer_that_goes_changes_both_versions(runtime: Runtime, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config) as server:
        async with runtime.endpoint_class("client").run() as client:
            await join(client, server, config)
            connections, subscriptions = server.connections_version, server.subscriptions_version
        await server.wait_until_connections_change(since=connections)
        await server.wait_until_endpoint_subscriptions_change(since=subscriptions)
        await eventually(lambda: not server.is_connected_to("client"))


@scenario
async def test_subscriptions_and_their_end_are_seen_by_the_peer(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        assert not server.is_endpoint_subscribed_to("client", Count)
        first = client.subscribe(Count, print)
        second = client.subscribe(Count, print)
        await server.wait_until_endpoint_subscribed_to("client", Count)
        assert dict(server.get_connected_endpoints_and_subscriptions()) == {
            "server": set(),
            "client": {Count},
        }
        first.unsubscribe()
        client.subscribe(Other, print)
        await server.wait_until_endpoint_subscribed_to("client", Other)
        # One of two subscriptions has ended: the type is still wanted.
        assert server.is_endpoint_subscribed_to("client", Count)
        second.unsubscribe()
        await eventually(lambda: not server.is_endpoint_subscribed_to("client", Count))
        assert dict(server.get_connected_endpoints_and_subscriptions()) == {
            "server": set(),
            "client": {Other},
        }


@scenario
async def test_subscribing_again_in_the_same_turn_ends_subscribed(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        client.subscribe(Count, print).unsubscribe()
        again = client.subscribe(Count, print)
        await again.acknowledged()
        assert server.is_endpoint_subscribed_to("client", Count)
        again.unsubscribe()
        client.subscribe(Count, print).unsubscribe()
        await client.subscribe(Other, print).acknowledged()
        assert not server.is_endpoint_subscribed_to("client", Count)


@scenario
async def test_who_listens_counts_this_endpoint_and_every_peer(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        assert not server.is_any_endpoint_subscribed_to(Count)
        assert not server.are_all_endpoints_subscribed_to(Count)
        own = server.subscribe(Count, print)
        assert server.get_subscribed_events() == {Count}
        assert server.is_any_endpoint_subscribed_to(Count)
        assert server.is_endpoint_subscribed_to("server", Count)
        assert not server.are_all_endpoints_subscribed_to(Count)
        client.subscribe(Count, print)
        await server.wait_until_all_endpoints_subscribed_to(Count)
        assert server.are_all_endpoints_subscribed_to(Count)
        own.unsubscribe()
        assert server.get_subscribed_events() == set()
        assert server.is_any_endpoint_subscribed_to(Count)
        assert not server.is_endpoint_subscribed_to("server", Count)
        assert not server.are_all_endpoints_subscribed_to(Count)
        assert server.are_all_endpoints_subscribed_to(Count, include_self=False)
        await server.wait_until_all_endpoints_subscribed_to(Count, include_self=False)
        assert not server.is_endpoint_subscribed_to("stranger", Count)


@scenario
async def test_all_without_self_is_true_of_nobody(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        assert endpoint.are_all_endpoints_subscribed_to(Count, include_self=False)
        assert not endpoint.are_all_endpoints_subscribed_to(Count, include_self=True)


@scenario
async def test_stream_and_wait_for_count_as_subscriptions(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        stream = client.stream(Count)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.wait_for, Other)
            await server.wait_until_endpoint_subscribed_to("client", Count)
            await server.wait_until_endpoint_subscribed_to("client", Other)
            assert client.get_subscribed_events() == {Count, Other}
            tasks.cancel_scope.cancel()
        await stream.aclose()
        assert client.get_subscribed_events() == set()

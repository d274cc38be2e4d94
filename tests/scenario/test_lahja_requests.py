"""lahja 0.17's defects in asking and answering: L1, L3, L8. None may come back.

Each test is named after the failure that lahja's users met. Tests of two endpoints run on every pair of
runtimes, each endpoint in a thread and an event loop of its own.
"""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from lahja_capn import (
    BroadcastConfig,
    Limits,
    NoSubscribers,
    RemoteDisconnected,
    RequestTimeout,
)
from tests.conftest import Runtime
from tests.scenario.events import Count, Question, Reply
from tests.scenario.mixed import Meeting, Pair, every_pair
from tests.scenario.support import at, eventually, scenario

# --- L1: any BroadcastConfig switched the check for subscribers off; a request to nobody hung ---------------


@scenario
async def test_L1_config_does_not_switch_the_subscriber_check_off(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        for config in (
            BroadcastConfig(require_subscriber=True),
            BroadcastConfig(filter_endpoint="nobody", require_subscriber=True),
            BroadcastConfig(filter_endpoint="nobody"),
            BroadcastConfig(internal=True),
        ):
            with pytest.raises(NoSubscribers):
                await endpoint.broadcast(Count(number=1), config)
            with pytest.raises(NoSubscribers):
                endpoint.broadcast_nowait(Count(number=1), config)
        await endpoint.broadcast(Count(number=1), BroadcastConfig(require_subscriber=False))


@scenario
async def test_L1_request_to_nobody_fails_at_once_whatever_the_config(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        for config in (
            None,
            BroadcastConfig(),
            BroadcastConfig(filter_endpoint="nobody"),
            BroadcastConfig(require_subscriber=False),
        ):
            with pytest.raises(NoSubscribers) as caught:
                await endpoint.request(Question(number=1), config)
            assert caught.value.event == "Question"


@every_pair
def test_L1_request_to_a_connected_endpoint_without_handler_fails_at_once(
    pair: Pair, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class.serve(config):
            await meeting.told("done")

    async def ask(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class("client").run() as client:
            await client.connect_to_endpoints(config)
            with pytest.raises(NoSubscribers) as caught:
                await client.request(Question(number=1), BroadcastConfig(filter_endpoint="server"))
            assert caught.value.endpoint == "server"
            meeting.tell("done")

    pair.run(serve, ask)


# --- L3: a request had no timeout and did not fail when its responder left ----------------------------------


@every_pair
def test_L3_request_fails_when_the_responder_leaves(pair: Pair, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class.serve(config) as server:
            await server.wait_for(Question)

    async def ask(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class("client").run() as client:
            await client.connect_to_endpoints(config)
            await client.wait_until_endpoint_subscribed_to("server", Question)
            with pytest.raises(RemoteDisconnected) as caught:
                await client.request(Question(number=1), timeout=60)
            assert caught.value.peer == "server"
            assert "Question" in str(caught.value)

    pair.run(serve, ask)


@every_pair
def test_L3_request_without_an_answer_ends_in_time(pair: Pair, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class.serve(config) as server:
            stream = server.stream(Question)
            await meeting.told("done")
            await stream.aclose()

    async def ask(runtime: Runtime, meeting: Meeting) -> None:
        limits = Limits(request_timeout_s=0.05)
        async with runtime.endpoint_class("client", limits=limits).run() as client:
            await client.connect_to_endpoints(config)
            await client.wait_until_endpoint_subscribed_to("server", Question)
            for timeout in (None, 0.04):
                with pytest.raises(RequestTimeout) as caught:
                    await client.request(Question(number=1), timeout=timeout)
                assert caught.value.waiting_for == ("server",)
            meeting.tell("done")

    pair.run(serve, ask)


# --- L8: a cancelled request leaked; num_events=0 gave an event ---------------------------------------------


@every_pair
def test_L8_cancelled_request_leaves_nothing_and_its_late_answer_is_counted(
    pair: Pair, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class.serve(config) as server:
            request = await server.wait_for(Question)
            meeting.tell("asked")
            await meeting.told("cancelled")
            await server.respond(request, Reply(number=1))
            await meeting.told("done")

    async def ask(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class("client").run() as client:
            await client.connect_to_endpoints(config)
            await client.wait_until_endpoint_subscribed_to("server", Question)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.request, Question(number=1))
                await meeting.told("asked")
                tasks.cancel_scope.cancel()
            (connection,) = client._peers.up.values()
            assert connection.pending == {}
            meeting.tell("cancelled")
            await eventually(lambda: client.get_peer_counters()["server"].late == 1)
            meeting.tell("done")

    pair.run(serve, ask)


@scenario
async def test_L8_cancelled_local_request_leaves_nothing(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        stream = endpoint.stream(Question)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(endpoint.request, Question(number=1))
            request = await anext(stream)
            tasks.cancel_scope.cancel()
        assert not endpoint._bus._local_pending
        assert not endpoint._bus._local_open
        await endpoint.respond(request, Reply(number=1))
        assert endpoint._bus.late_answers == 1
        await stream.aclose()


@scenario
async def test_L8_stream_of_zero_events_gives_none(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        stream = endpoint.stream(Count, num_events=0)
        await endpoint.broadcast(Count(number=1), BroadcastConfig(require_subscriber=False))
        assert [event async for event in stream] == []
        assert endpoint.get_subscribed_events() == set()

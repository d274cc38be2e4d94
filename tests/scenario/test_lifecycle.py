"""Starting and stopping: what an endpoint says about itself, and when it refuses to be used."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path

import anyio
import pytest

from lahja_capn import AsyncioEndpoint, LifecycleError, TrioEndpoint
from tests.conftest import Runtime
from tests.scenario.events import Count, Question
from tests.scenario.support import Collector, at, eventually, pair, scenario, turns


@scenario
async def test_run_goes_from_new_over_running_to_stopped(runtime: Runtime) -> None:
    endpoint = runtime.endpoint_class("alone")
    assert (endpoint.is_running, endpoint.is_stopped, endpoint.is_serving) == (False, False, False)
    async with endpoint.run() as running:
        assert running is endpoint
        assert (endpoint.is_running, endpoint.is_stopped, endpoint.is_serving) == (True, False, False)
    assert (endpoint.is_running, endpoint.is_stopped, endpoint.is_serving) == (False, True, False)


@scenario
async def test_serve_serves_inside_the_context_and_removes_the_socket_file(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config) as endpoint:
        assert endpoint.name == "server"
        assert endpoint.is_running
        assert endpoint.is_serving
        assert not endpoint.is_server_stopped
        assert endpoint.ipc_path == config.path
        assert config.path.is_socket()
    assert not endpoint.is_serving
    assert endpoint.is_server_stopped
    assert endpoint.is_stopped
    assert list(short_tmp_path.iterdir()) == []


@scenario
async def test_ipc_path_of_one_that_does_not_serve_is_refused(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        with pytest.raises(LifecycleError, match=r"'alone' does not serve.*serve\(config\)"):
            endpoint.ipc_path
        assert not endpoint.is_server_stopped


@scenario
async def test_wait_started_and_wait_stopped_return_when_it_is_so(runtime: Runtime) -> None:
    endpoint = runtime.endpoint_class("alone")
    seen: list[str] = []

    async def watch() -> None:
        await endpoint.wait_started()
        seen.append(f"started running={endpoint.is_running}")
        await endpoint.wait_stopped()
        seen.append(f"stopped={endpoint.is_stopped}")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await turns()
        assert seen == []
        async with endpoint.run():
            await eventually(lambda: seen)
            await endpoint.wait_started()
            await turns()
            assert seen == ["started running=True"]
    assert seen[1:] == ["stopped=True"]
    await endpoint.wait_stopped()


@scenario
async def test_run_twice_at_a_time_is_refused(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        with pytest.raises(LifecycleError, match="'alone' is running already"):
            async with endpoint.run():
                pass
        assert endpoint.is_running


@scenario
async def test_run_after_stop_is_refused(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        pass
    with pytest.raises(LifecycleError, match=r"has stopped.*make a new one"):
        async with endpoint.run():
            pass


USES = {
    "broadcast": lambda endpoint, folder: endpoint.broadcast(Count(number=1)),
    "request": lambda endpoint, folder: endpoint.request(Question(number=1)),
    "connect_to_endpoints": lambda endpoint, folder: endpoint.connect_to_endpoints(at(folder, "server")),
    "wait_for": lambda endpoint, folder: endpoint.wait_for(Count),
    "wait_until_connected_to": lambda endpoint, folder: endpoint.wait_until_connected_to("server"),
    "wait_until_connections_change": lambda endpoint, folder: endpoint.wait_until_connections_change(),
    "wait_until_endpoint_subscriptions_change": lambda endpoint, folder: (
        endpoint.wait_until_endpoint_subscriptions_change()
    ),
    "wait_until_endpoint_subscribed_to": lambda endpoint, folder: endpoint.wait_until_endpoint_subscribed_to(
        "server", Count
    ),
    "wait_until_any_endpoint_subscribed_to": lambda endpoint, folder: (
        endpoint.wait_until_any_endpoint_subscribed_to(Count)
    ),
    "wait_until_all_endpoints_subscribed_to": lambda endpoint, folder: (
        endpoint.wait_until_all_endpoints_subscribed_to(Count)
    ),
}


@pytest.mark.parametrize("use", USES)
@scenario
async def test_use_before_start_and_after_stop_is_refused(
    runtime: Runtime, short_tmp_path: Path, use: str
) -> None:
    endpoint = runtime.endpoint_class("alone")
    with pytest.raises(LifecycleError, match="'alone' has not been started: enter"):
        await USES[use](endpoint, short_tmp_path)
    async with endpoint.run():
        pass
    with pytest.raises(LifecycleError, match="'alone' has stopped"):
        await USES[use](endpoint, short_tmp_path)


@scenario
async def test_plain_calls_before_start_and_after_stop_are_refused(runtime: Runtime) -> None:
    endpoint = runtime.endpoint_class("alone")
    calls = (
        lambda: endpoint.subscribe(Count, print),
        lambda: endpoint.stream(Count),
        lambda: endpoint.broadcast_nowait(Count(number=1)),
    )
    for call in calls:
        with pytest.raises(LifecycleError, match="has not been started"):
            call()
    async with endpoint.run():
        pass
    for call in calls:
        with pytest.raises(LifecycleError, match="has stopped"):
            call()
    assert endpoint.get_subscribed_events() == set()


@scenario
async def test_use_from_another_thread_is_refused(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        got = Collector()
        endpoint.subscribe(Count, got)
        refused: list[BaseException] = []

        def use() -> None:
            for call in (
                lambda: endpoint.broadcast_nowait(Count(number=1)),
                lambda: endpoint.subscribe(Count, print),
                # The check comes before the first await.
                lambda: endpoint.broadcast(Count(number=1)).send(None),
                lambda: endpoint.request(Question(number=1)).send(None),
            ):
                try:
                    call()
                except BaseException as error:
                    refused.append(error)

        thread = threading.Thread(target=use)
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        assert [type(error) for error in refused] == [LifecycleError] * 4
        assert "'alone' runs in another thread" in str(refused[0])
        await endpoint.broadcast(Count(number=2))
        assert got.numbers == [2]


@scenario
async def test_use_in_a_forked_child_is_refused(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        got = Collector()
        server.subscribe(Count, got)
        await client.wait_until_endpoint_subscribed_to("server", Count)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                assert not client.is_running
                assert not server.is_serving
                try:
                    client.broadcast_nowait(Count(number=13))
                except LifecycleError as error:
                    code = 0 if "parent process: make a new endpoint after the fork" in str(error) else 2
            finally:
                os._exit(code)
        _, status = await anyio.to_thread.run_sync(os.waitpid, pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        # The parent's is unharmed, and so are its connection and its socket file.
        await client.broadcast(Count(number=1))
        assert await got.until(1) == [1]
        assert server.ipc_path.is_socket()


def test_asyncio_endpoint_under_trio_is_refused() -> None:
    async def main() -> None:
        with pytest.raises(LifecycleError, match=r"running asyncio event loop.*TrioEndpoint under trio"):
            async with AsyncioEndpoint("alone").run():
                pass

    Runtime("trio").run(main)


def test_trio_endpoint_under_asyncio_is_refused(asyncio_runtime: Runtime) -> None:
    async def main() -> None:
        with pytest.raises(LifecycleError, match=r"inside trio\.run\(\).*AsyncioEndpoint under asyncio"):
            async with TrioEndpoint("alone").run():
                pass

    asyncio_runtime.run(main)


@scenario
async def test_pickle_is_refused_with_the_way_out(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        with pytest.raises(TypeError, match="cannot be pickled: send its ConnectionConfig"):
            pickle.dumps(endpoint)


@scenario
async def test_repr_and_str_name_the_endpoint(runtime: Runtime) -> None:
    endpoint = runtime.endpoint_class("alone")
    assert str(endpoint) == "Endpoint[alone]"
    assert repr(endpoint) == f"<{runtime.endpoint_class.__name__} alone new>"
    async with endpoint.run():
        assert repr(endpoint) == f"<{runtime.endpoint_class.__name__} alone running>"


class OwnError(Exception):
    pass


@pytest.mark.parametrize("how", ["run", "serve"])
@scenario
async def test_error_in_the_body_comes_out_as_itself(
    runtime: Runtime, short_tmp_path: Path, how: str
) -> None:
    context = (
        runtime.endpoint_class("alone").run()
        if how == "run"
        else runtime.endpoint_class.serve(at(short_tmp_path, "alone"))
    )
    error = OwnError("mine")
    cause = KeyError("before")
    with pytest.raises(OwnError) as raised:  # noqa: PT012 - one statement would not show what is meant
        async with context:
            try:
                raise cause
            except KeyError:
                raise error  # noqa: B904 - the context is what is looked at
    assert raised.value is error
    # Nothing of ours in the report either: no group, and the user's own context still there.
    assert error.__context__ is cause
    assert error.__cause__ is None
    assert not error.__suppress_context__
    assert list(short_tmp_path.iterdir()) == []


@scenario
async def test_group_raised_in_the_body_comes_out_as_itself(runtime: Runtime) -> None:
    group = ExceptionGroup("mine", [OwnError("a"), OwnError("b")])
    with pytest.raises(ExceptionGroup) as raised:
        async with runtime.endpoint_class("alone").run():
            raise group
    assert raised.value is group


@scenario
async def test_error_in_the_body_of_nested_endpoints_comes_out_as_itself(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    error = OwnError("mine")
    with pytest.raises(OwnError) as raised:
        async with pair(runtime, short_tmp_path) as (server, client):
            raise error
    assert raised.value is error
    assert client.is_stopped
    assert server.is_stopped

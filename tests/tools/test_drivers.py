"""Drivers: every action, on every runner."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from lahja_capn import BroadcastConfig, ConnectionConfig, EndpointAPI, NoSubscribers
from lahja_capn.errors import LifecycleError
from lahja_capn.tools.drivers import (
    SyncAction,
    broadcast,
    checkpoint,
    connect_to_endpoints,
    driver,
    request,
    run_endpoint,
    serve_endpoint,
    serve_request,
    throws,
    wait_any_then_broadcast,
    wait_for,
    wait_until_any_endpoint_subscribed_to,
    wait_until_connected_to,
)
from lahja_capn.tools.engine import EngineAPI
from lahja_capn.tools.runner import (
    AsyncioRunner,
    DriversFailed,
    IsolatedHeterogenousRunner,
    IsolatedHomogenousRunner,
    RunnerAPI,
    TrioRunner,
)
from tests.tools.events import Answer, Ask, Ping, Pong

RUNNERS: dict[str, Callable[[], RunnerAPI]] = {
    "asyncio": AsyncioRunner,
    "asyncio+uvloop": lambda: AsyncioRunner(uvloop.new_event_loop),
    "trio": TrioRunner,
    "asyncio-isolated": lambda: IsolatedHomogenousRunner(AsyncioRunner()),
    "trio-isolated": lambda: IsolatedHomogenousRunner(TrioRunner()),
    "mixed-isolated": lambda: IsolatedHeterogenousRunner(TrioRunner(), AsyncioRunner()),
}


@pytest.fixture(params=RUNNERS)
def runner(request: pytest.FixtureRequest) -> RunnerAPI:
    return RUNNERS[request.param]()


@pytest.fixture
def server(short_tmp_path: Path) -> ConnectionConfig:
    return ConnectionConfig.from_name("server", base_path=short_tmp_path)


def expect(number: int) -> Callable[[EndpointAPI, Any], None]:
    """A handler that fails its driver if the event carries another number."""

    def check(endpoint: EndpointAPI, event: Any) -> None:
        assert event.number == number

    return check


def hold(condition: Callable[[EndpointAPI], bool]) -> SyncAction:
    """An action that fails its driver unless ``condition`` holds at that moment."""

    def check(engine: EngineAPI, endpoint: EndpointAPI) -> None:
        assert condition(endpoint)

    return SyncAction(check)


def test_a_broadcast_arrives(runner: RunnerAPI, server: ConnectionConfig) -> None:
    runner(
        driver(serve_endpoint(server), wait_for(Ping, on_event=expect(7))),
        driver(run_endpoint("client"), connect_to_endpoints(server), wait_any_then_broadcast(Ping(number=7))),
    )


def test_waiting_for_a_subscriber_and_broadcasting_are_also_actions_of_their_own(
    runner: RunnerAPI, server: ConnectionConfig
) -> None:
    runner(
        # The server listens for Ping only once it has Pong: so there is something to wait for.
        driver(serve_endpoint(server), wait_for(Pong), wait_for(Ping)),
        driver(
            run_endpoint("client"),
            connect_to_endpoints(server),
            wait_any_then_broadcast(Pong(number=1)),
            wait_until_any_endpoint_subscribed_to(Ping),
            hold(lambda endpoint: endpoint.is_any_endpoint_subscribed_to(Ping)),
            broadcast(Ping(number=7), BroadcastConfig(filter_endpoint="server")),
        ),
    )


def test_a_wrong_event_fails_the_run_wherever_it_was_noticed(
    runner: RunnerAPI, server: ConnectionConfig
) -> None:
    # lahja's isolated runners let this pass: nobody read the child's exit code.
    with pytest.raises((AssertionError, DriversFailed), match="assert 7 == 8"):
        runner(
            driver(serve_endpoint(server), wait_for(Ping, on_event=expect(8))),
            driver(
                run_endpoint("client"), connect_to_endpoints(server), wait_any_then_broadcast(Ping(number=7))
            ),
        )


def test_a_request_gets_its_response(runner: RunnerAPI, server: ConnectionConfig) -> None:
    runner(
        driver(
            serve_endpoint(server),
            serve_request(Ask, lambda endpoint, asked: Answer(number=asked.number + 1)),
        ),
        driver(
            run_endpoint("client"),
            connect_to_endpoints(server),
            wait_until_any_endpoint_subscribed_to(Ask),
            request(Ask(number=41), on_response=expect(42)),
        ),
    )


def test_handlers_may_be_async_functions_and_partials_of_them(
    runner: RunnerAPI, server: ConnectionConfig
) -> None:
    async def answer(plus: int, endpoint: EndpointAPI, asked: Any) -> Answer:
        return Answer(number=asked.number + plus)

    async def check(endpoint: EndpointAPI, answer: Any) -> None:
        assert answer.number == 43

    runner(
        driver(serve_endpoint(server), serve_request(Ask, functools.partial(answer, 2))),
        driver(
            run_endpoint("client"),
            connect_to_endpoints(server),
            wait_until_any_endpoint_subscribed_to(Ask),
            request(Ask(number=41), BroadcastConfig(filter_endpoint="server"), on_response=check),
        ),
    )


def test_both_sides_can_wait_until_they_are_connected(runner: RunnerAPI, server: ConnectionConfig) -> None:
    runner(
        driver(
            serve_endpoint(server),
            wait_until_connected_to("client"),
            hold(lambda endpoint: endpoint.is_connected_to("client")),
            wait_any_then_broadcast(Pong(number=1)),
        ),
        driver(
            run_endpoint("client"),
            connect_to_endpoints(server),
            wait_until_connected_to("server"),
            wait_for(Pong),
        ),
    )


def test_a_checkpoint_holds_each_driver_until_the_other_has_come(
    runner: RunnerAPI, short_tmp_path: Path
) -> None:
    here, there = short_tmp_path / "here", short_tmp_path / "there"

    def leave(path: Path) -> SyncAction:
        def leave(engine: EngineAPI, endpoint: EndpointAPI) -> None:
            path.touch()

        return SyncAction(leave)

    left, right = checkpoint("both were here")
    runner(
        driver(run_endpoint("a"), leave(here), left, hold(lambda endpoint: there.exists())),
        driver(run_endpoint("b"), leave(there), right, hold(lambda endpoint: here.exists())),
    )


def test_a_checkpoint_that_the_other_driver_never_reaches_times_out() -> None:
    left, _right = checkpoint("nobody comes")
    with pytest.raises(TimeoutError, match="nobody comes"):
        AsyncioRunner()(driver(run_endpoint("a"), left, action_timeout=0.05))


def test_throws_passes_when_the_action_raises_what_was_expected(runner: RunnerAPI) -> None:
    runner(driver(run_endpoint("alone"), throws(broadcast(Ping(number=1)), NoSubscribers)))


def test_throws_fails_the_run_when_the_action_raises_nothing(runner: RunnerAPI) -> None:
    quiet = broadcast(Ping(number=1), BroadcastConfig(require_subscriber=False))
    with pytest.raises(Exception, match="ended without raising NoSubscribers"):
        runner(driver(run_endpoint("alone"), throws(quiet, NoSubscribers)))


def test_throws_lets_another_error_through() -> None:
    with pytest.raises(NoSubscribers):
        AsyncioRunner()(
            driver(run_endpoint("alone"), throws(broadcast(Ping(number=1)), LifecycleError)),
        )


def test_throws_takes_plain_actions_too() -> None:
    def fail(engine: EngineAPI, endpoint: EndpointAPI) -> None:
        raise KeyError("expected")

    AsyncioRunner()(driver(run_endpoint("alone"), throws(SyncAction(fail), KeyError)))


def test_an_action_that_takes_too_long_is_named_in_the_error(runner: RunnerAPI) -> None:
    with pytest.raises(
        (TimeoutError, DriversFailed), match=r"action 1, wait_for\(Ping\), did not end within 0\.2 s"
    ):
        runner(
            driver(
                run_endpoint("alone"),
                throws(broadcast(Ping(number=1)), NoSubscribers),
                wait_for(Ping),
                action_timeout=0.2,
            )
        )


def test_an_action_that_raises_is_named_in_a_note() -> None:
    with pytest.raises(NoSubscribers) as caught:
        AsyncioRunner()(driver(run_endpoint("alone"), broadcast(Ping(number=1))))
    assert any("in action 0: broadcast(" in note for note in caught.value.__notes__)


def test_the_text_of_a_driver_names_its_endpoint_and_its_actions(server: ConnectionConfig) -> None:
    text = str(
        driver(serve_endpoint(server), wait_for(Ping, on_event=expect(1)), wait_until_connected_to("x"))
    )
    assert text == "<Driver serve_endpoint(server) > wait_for(Ping) > wait_until_connected_to('x')>"


def test_what_is_no_action_is_refused_when_the_driver_is_made() -> None:
    with pytest.raises(TypeError, match=r"Action 1 .* got <function"):
        driver(run_endpoint("alone"), wait_for(Ping), lambda engine, endpoint: None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="throws"):
        throws(print, KeyError)  # type: ignore[arg-type]

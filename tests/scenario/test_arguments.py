"""Arguments of the wrong kind are refused where they are given, and the message says what to write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lahja_capn import BroadcastConfig, ConfigError, LifecycleError, Policy
from tests.conftest import Runtime
from tests.scenario.events import Count, Question, Reply
from tests.scenario.support import at, eventually, pair, scenario


@scenario
async def test_policy_that_does_not_exist_is_refused_everywhere(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    wrong: Any = "nonsense"
    text = re.escape("no policy 'nonsense'")
    with pytest.raises(ConfigError, match=text):
        runtime.endpoint_class("alone", peer_policy=wrong)
    async with runtime.endpoint_class("alone").run() as endpoint:
        with pytest.raises(ConfigError, match=text):
            endpoint.subscribe(Count, print, policy=wrong)
        with pytest.raises(ConfigError, match=text):
            endpoint.stream(Count, policy=wrong)
        with pytest.raises(ConfigError, match=text):
            endpoint.set_peer_policy("other", wrong)
        assert endpoint.get_subscribed_events() == set()


@scenario
async def test_policy_by_its_value_is_that_policy_and_loses_nothing(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    by_value: Any = Policy.WAIT.value
    async with runtime.endpoint_class("alone").run() as endpoint:
        stream = endpoint.stream(Count, policy=by_value, queue=3)
        for number in range(2):
            await endpoint.broadcast(Count(number=number))
        assert stream.counters().queued == 2
        assert stream.counters().dropped == 0
        await stream.aclose()


@pytest.mark.parametrize(
    "options",
    [
        {"limits": {"segments": 1}},
        {"connect_timeout_s": "3"},
        {"connect_timeout_s": 0},
        *({"allowed_uids": uids} for uids in ("root", 0, ["root"], [-1], [True], [])),
    ],
)
def test_option_of_the_wrong_kind_is_refused_by_the_constructor(
    asyncio_runtime: Runtime, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        asyncio_runtime.endpoint_class("alone", **options)


@scenario
async def test_class_for_an_event_and_event_for_a_class_are_told_apart(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    a_class: Any = Count
    an_event: Any = Count(number=1)
    async with runtime.endpoint_class("alone").run() as endpoint:
        endpoint.subscribe(Count, print)
        with pytest.raises(TypeError, match=re.escape("got the class Count: write Count(...)")):
            await endpoint.broadcast(a_class)
        with pytest.raises(TypeError, match=re.escape("write Count(...)")):
            endpoint.broadcast_nowait(a_class)
        with pytest.raises(TypeError, match=re.escape("write Question(...)")):
            await endpoint.request(Question)  # type: ignore[arg-type]
        for method in (lambda: endpoint.subscribe(an_event, print), lambda: endpoint.stream(an_event)):
            with pytest.raises(TypeError, match="takes an event class, got an event of Count"):
                method()
        with pytest.raises(TypeError, match="wait_for"):
            await endpoint.wait_for(an_event)


@scenario
async def test_name_for_a_config_is_refused_with_the_config_to_write(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    name: Any = "hub"
    async with runtime.endpoint_class("alone").run() as endpoint:
        endpoint.subscribe(Count, print)
        for attempt in (
            endpoint.broadcast(Count(number=1), name),
            endpoint.request(Question(number=1), name),
        ):
            with pytest.raises(TypeError, match=re.escape('BroadcastConfig(filter_endpoint="name")')):
                await attempt
        with pytest.raises(TypeError, match="BroadcastConfig"):
            endpoint.broadcast_nowait(Count(number=1), name)
        with pytest.raises(TypeError, match="from_name"):
            await endpoint.connect_to_endpoints(name)
    with pytest.raises(TypeError, match="from_name"):
        async with runtime.endpoint_class.serve(name):
            pass


@scenario
async def test_endpoint_entered_without_run_says_so(runtime: Runtime, short_tmp_path: Path) -> None:
    endpoint: Any = runtime.endpoint_class("alone")
    with pytest.raises(LifecycleError, match=re.escape(".run()")):
        async with endpoint:
            pass


@scenario
async def test_respond_refuses_what_was_never_asked(runtime: Runtime, short_tmp_path: Path) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        swapped: Any = Reply(number=1)
        with pytest.raises(TypeError, match="the request first"):
            await endpoint.respond(swapped, Question(number=1))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="never received"):
            await endpoint.respond(Question(number=1), Reply(number=1))


@scenario
async def test_answer_that_a_handler_returns_instead_of_sending_is_warned_of(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):

        async def later(question: Question) -> Reply:
            return Reply(number=question.number)

        for handler in (lambda question: Reply(number=question.number), later):
            caplog.clear()
            subscription = server.subscribe(Question, handler)
            await subscription.acknowledged()
            with pytest.raises(TimeoutError):
                await client.request(Question(number=1), BroadcastConfig("server"), timeout=0.05)
            await eventually(lambda: "returned Reply, which goes nowhere" in caplog.text)
            subscription.unsubscribe()
            await eventually(lambda: not client.is_endpoint_subscribed_to("server", Question))


@scenario
async def test_timeout_names_the_absolute_path(
    runtime: Runtime, short_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(short_tmp_path)
    config = at(Path(), "late")
    async with runtime.endpoint_class("client", connect_timeout_s=0.02).run() as client:
        with pytest.raises(TimeoutError, match=re.escape(str(short_tmp_path / "late.ipc"))):
            await client.connect_to_endpoints(config)

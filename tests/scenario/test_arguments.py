"""Arguments of the wrong kind are refused where they are given, and the message says what to write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lahja_capn import (
    BaseEvent,
    BaseRequestResponseEvent,
    BindError,
    BroadcastConfig,
    ConfigError,
    ConnectionConfig,
    EventArgumentError,
    InvalidEndpointName,
    LifecycleError,
    Limits,
    Policy,
    bind,
)
from tests.conftest import Runtime
from tests.scenario.events import Blob, Count, Question, Reply, schema
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


# --- what the caller gets wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "path", "wanted", "got"),
    [
        ({"number": "seven"}, "number", "int", "'seven'"),
        ({"number": -1}, "number", "0", "-1"),
        ({"number": 2**32}, "number", str(2**32 - 1), str(2**32)),
        ({"number": 1.5}, "number", "int", "1.5"),
        ({"number": None}, "number", "int", "None"),
        ({"nummer": 1}, "nummer", "number", "nummer"),
    ],
)
def test_wrong_argument_names_event_field_wanted_and_got(
    arguments: dict[str, Any], path: str, wanted: str, got: str
) -> None:
    with pytest.raises(EventArgumentError) as caught:
        Count(**arguments)
    error = caught.value
    assert (error.event, error.path) == ("Count", path)
    text = str(error)
    assert "Count" in text
    assert path in text
    assert wanted in error.wanted + text
    assert got in error.got + text


def test_positional_arguments_and_text_for_data_are_refused() -> None:
    with pytest.raises(TypeError):
        Count(1)  # type: ignore[call-arg,misc]
    with pytest.raises(EventArgumentError) as caught:
        Blob(number=1, data="aGVsbG8=")
    assert (caught.value.event, caught.value.path) == ("Blob", "data")


class NeverBound(BaseEvent):
    pass


class NeverBoundRequest(BaseRequestResponseEvent[Reply]):
    pass


class OnlyInherits(Count):
    pass


@scenario
async def test_unbound_classes_are_refused_everywhere_with_the_fix(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        for cls in (NeverBound, NeverBoundRequest, OnlyInherits):
            for use in (
                cls,
                lambda cls=cls: endpoint.subscribe(cls, print),
                lambda cls=cls: endpoint.stream(cls),
                lambda cls=cls: endpoint.is_any_endpoint_subscribed_to(cls),
            ):
                with pytest.raises(BindError) as caught:
                    use()
                assert caught.value.event == cls.__qualname__
                assert "bind" in str(caught.value)
            with pytest.raises(BindError):
                await endpoint.wait_for(cls)
        for thing in ("text", 7, object()):
            with pytest.raises(BindError):
                await endpoint.broadcast(thing)  # type: ignore[arg-type]
            with pytest.raises(BindError):
                endpoint.broadcast_nowait(thing)  # type: ignore[arg-type]
        assert endpoint.get_subscribed_events() == set()


@scenario
async def test_subscribe_refuses_what_cannot_handle_events(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        for handler in (None, "print", 7):
            with pytest.raises(TypeError, match="handler") as caught:
                endpoint.subscribe(Count, handler)  # type: ignore[arg-type]
            assert repr(handler) in str(caught.value)
        for queue in (0, -1, 1.5, None):
            with pytest.raises(ConfigError, match="queue") as refused:
                endpoint.subscribe(Count, print, queue=queue)  # type: ignore[arg-type]
            assert repr(queue) in str(refused.value)
            with pytest.raises(ConfigError, match="queue"):
                endpoint.stream(Count, queue=queue)  # type: ignore[arg-type]
        assert endpoint.get_subscribed_events() == set()


@scenario
async def test_request_takes_a_request_and_a_reply_address_is_never_made_by_hand(runtime: Runtime) -> None:
    async with runtime.endpoint_class("alone").run() as endpoint:
        endpoint.subscribe(Count, print)
        with pytest.raises(TypeError, match="BaseRequestResponseEvent"):
            await endpoint.request(Count(number=1))  # type: ignore[arg-type]
        for token in ("abc", 7, (0, 1)):
            with pytest.raises(TypeError, match="by hand"):
                await endpoint.broadcast(Count(number=1), BroadcastConfig(filter_event_id=token))
    with pytest.raises(ValueError, match="internal"):
        BroadcastConfig(filter_endpoint="a", internal=True)


BAD_NAMES = [
    "",
    " ",
    "a b",
    "a/b",
    "../a",
    ".hidden",
    "-flag",
    "_x",
    "a\n",
    "a\0b",
    "k\u00fcche",
    "\u0661",
    "a" * 101,
    None,
    7,
    b"bytes",
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_invalid_endpoint_name_is_refused_wherever_it_appears(runtime: Runtime, name: Any) -> None:
    with pytest.raises(InvalidEndpointName) as caught:
        runtime.endpoint_class(name)
    assert caught.value.name == name
    text = str(caught.value)
    assert repr(name) in text
    assert "1 to 100" in text
    with pytest.raises(InvalidEndpointName):
        ConnectionConfig.from_name(name)

    async def connect() -> None:
        async with runtime.endpoint_class("a").run() as endpoint:
            with pytest.raises(InvalidEndpointName):
                await endpoint.connect_to_endpoints(ConnectionConfig(name, Path("/nowhere/x.ipc")))
        with pytest.raises(InvalidEndpointName):
            async with runtime.endpoint_class.serve(ConnectionConfig(name, Path("/nowhere/x.ipc"))):
                pass

    runtime.run(connect)


@pytest.mark.parametrize("name", ["a", "0", "A.b-c_d", "a" * 100])
def test_valid_endpoint_names(runtime: Runtime, name: str) -> None:
    assert runtime.endpoint_class(name).name == name


@pytest.mark.parametrize(
    "options",
    [
        {"frame_bytes": 0},
        {"frame_bytes": 2**31},
        {"request_timeout_s": 0},
        {"request_timeout_s": float("nan")},
        {"keepalive_s": -1},
        {"queued_per_peer_bytes": 0},
        {"segments": 513},
    ],
    ids=repr,
)
def test_impossible_limit_is_refused_when_it_is_made(options: dict[str, Any]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(ConfigError) as caught:
        Limits(**options)
    assert name in str(caught.value)
    assert repr(value) in str(caught.value)


def test_two_classes_for_one_struct_are_refused() -> None:
    with pytest.raises(BindError, match="One class per struct"):

        @bind(schema.Count)
        class Second(BaseEvent):
            pass

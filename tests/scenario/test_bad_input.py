"""Bad input, from the caller and from the wire: its own exception, a message that helps, and nobody else harmed."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import ssl
import stat
from pathlib import Path
from typing import Any

import anyio
import pytest

from lahja_capn import (
    AddressInUse,
    BaseEvent,
    BaseRequestResponseEvent,
    BindError,
    BroadcastConfig,
    ConfigError,
    ConnectionConfig,
    ConnectTimeout,
    EventArgumentError,
    HandshakeTimeout,
    IncompatibleLayout,
    InvalidEndpointName,
    LahjaError,
    Limits,
    NotAPeer,
    RemoteDisconnected,
    RemoteProtocolError,
    RequestFailed,
    SocketPathTooLong,
    UnsupportedVersion,
    bind,
)
from lahja_capn.binding import event_type
from lahja_capn.session import FailedArrived, ResponseArrived
from lahja_capn.session.control import Goodbye, Hello, Subscriptions
from lahja_capn.wire import FrameKind
from tests.conftest import Runtime
from tests.scenario.events import Blob, Count, Other, Question, Reply, schema
from tests.scenario.rawpeer import (
    accept,
    event_frame,
    frame_of,
    hello,
    listen_at,
    send_raw,
    shake_hands,
    strange_type,
    talk_to,
)
from tests.scenario.support import Collector, RawPeer, at, eventually, pair, raw_peer, scenario

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


# --- paths --------------------------------------------------------------------------------------------------


@scenario
async def test_path_too_long_is_refused_on_both_sides(runtime: Runtime, short_tmp_path: Path) -> None:
    config = ConnectionConfig("server", short_tmp_path / ("x" * 100))
    with pytest.raises(SocketPathTooLong) as caught:
        async with runtime.endpoint_class.serve(config):
            pass
    error = caught.value
    assert error.path == os.fspath(config.path)
    assert error.size == len(os.fspath(config.path)) > error.limit
    assert str(error.limit) in str(error)
    async with runtime.endpoint_class("client").run() as client:
        with pytest.raises(SocketPathTooLong):
            await client.connect_to_endpoints(config)


@scenario
async def test_path_of_a_living_endpoint_is_left_to_it(runtime: Runtime, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    async with pair(runtime, short_tmp_path) as (server, client):
        for name in ("server", "other"):
            with pytest.raises(AddressInUse) as caught:
                async with runtime.endpoint_class.serve(ConnectionConfig(name, config.path)):
                    pass
            assert caught.value.path == os.fspath(config.path)
            assert "living" in str(caught.value)
        # Nobody noticed anything, and the path still leads to the first.
        got = Collector()
        await server.subscribe(Count, got).acknowledged()
        await client.broadcast(Count(number=1))
        assert await got.until(1) == [1]
        async with runtime.endpoint_class("second").run() as second:
            await second.connect_to_endpoints(config)


@scenario
async def test_stale_socket_file_is_replaced_and_a_regular_file_is_not(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    with listen_at(config.path):
        pass
    assert config.path.is_socket()
    async with runtime.endpoint_class.serve(config), runtime.endpoint_class("client").run() as client:
        await client.connect_to_endpoints(config)
    assert not config.path.exists()
    config.path.write_text("precious")
    with pytest.raises(AddressInUse, match="is no socket"):
        async with runtime.endpoint_class.serve(config):
            pass
    assert config.path.read_text() == "precious"


@scenario
async def test_missing_folder_is_made_for_us_alone(runtime: Runtime, short_tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        config = ConnectionConfig("server", short_tmp_path / "new" / "deep" / "s.ipc")
        async with runtime.endpoint_class.serve(config):
            modes = [stat.S_IMODE(os.stat(p).st_mode) for p in (config.path, *config.path.parents[:2])]
            assert modes == [0o600, 0o700, 0o700]
    finally:
        os.umask(before)


@scenario
async def test_nobody_at_the_path_ends_in_a_timeout_that_names_it(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "nobody")
    async with runtime.endpoint_class("client", connect_timeout_s=0.1).run() as client:
        with pytest.raises(ConnectTimeout) as caught:
            await client.connect_to_endpoints(config)
    error = caught.value
    assert isinstance(error, TimeoutError)
    assert (error.peer, error.path, error.timeout_s) == ("nobody", os.fspath(config.path), 0.1)
    for part in ("'client'", "'nobody'", os.fspath(config.path), "0.1 s", "serve()"):
        assert part in str(error)


# --- strangers that connect to us ---------------------------------------------------------------------------

STRANGERS = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n",
    "short http": b"GET / HTTP/1.0\r\n\r\n",
    "one line": b"hello\r\n",
    "zeros": bytes(64),
    "ones": b"\xff" * 64,
    "lahja": (90).to_bytes(4, "little") + b"\x80\x04\x95" + bytes(90),
}


def tls_client_hello() -> bytes:
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("kind", [*STRANGERS, "tls"])
def test_stranger_is_turned_away_and_the_log_says_why(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    caplog.set_level(logging.WARNING, "lahja_capn")
    data = tls_client_hello() if kind == "tls" else STRANGERS[kind]

    async def main() -> None:
        async with pair(runtime, short_tmp_path) as (server, client):
            with talk_to(server.ipc_path) as stranger:
                await stranger.send(data)
                assert (await stranger.goodbye()).code == "protocolError"
            await eventually(lambda: len(server._peers.all) == 1)
            await still_works(server, client)

    runtime.run(main)
    (record,) = (record for record in caplog.records if record.name.startswith("lahja_capn"))
    text = record.getMessage()
    assert "no frame of this protocol" in text
    assert repr(data[:4])[2:-1] in text
    assert "same address" in text
    if "http" in kind or kind == "tls":
        assert ("HTTP" if "http" in kind else "TLS") in text


async def still_works(server: Any, client: Any) -> None:
    got = Collector()
    subscription = server.subscribe(Count, got)
    await subscription.acknowledged()
    await client.broadcast(Count(number=1))
    assert await got.until(1) == [1]
    subscription.unsubscribe()


@scenario
async def test_random_bytes_harm_nobody(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(20)
    async with pair(runtime, short_tmp_path, server={"limits": Limits(handshake_timeout_s=1)}) as (
        server,
        client,
    ):
        valid = shake_hands(name="noise") + event_frame(1, (bytes(16),))
        for number in range(60):
            with talk_to(server.ipc_path) as stranger:
                data = bytearray(rng.randbytes(rng.randrange(1, 400)) if number % 2 else valid)
                if not number % 2:
                    # Something valid with some bytes changed: it gets further.
                    for _ in range(rng.randrange(1, 6)):
                        data[rng.randrange(len(data))] = rng.randrange(256)
                await stranger.send(bytes(data))
        await eventually(lambda: len(server._peers.all) == 1)
        await still_works(server, client)
        assert server.is_running
    # Every refusal is a refusal; an exception of ours would be logged with its traceback.
    assert [record for record in caplog.records if record.exc_info] == []


@scenario
async def test_client_that_connects_and_leaves_at_once_harms_nobody(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):
        for _ in range(50):
            with talk_to(server.ipc_path):
                pass
        await eventually(lambda: len(server._peers.all) == 1)
        await still_works(server, client)


@pytest.mark.parametrize("said", ["nothing", "part of hello", "hello", "hello and part of more"])
def test_half_open_handshake_times_out_and_holds_up_nobody(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture, said: str
) -> None:
    caplog.set_level(logging.WARNING, "lahja_capn")
    whole = frame_of(hello(name="mute"))
    opening = {
        "nothing": b"",
        "part of hello": whole[:50],
        "hello": whole,
        "hello and part of more": whole + frame_of(Subscriptions(1, (), (), False, False))[:20],
    }[said]

    async def main() -> None:
        limits = Limits(handshake_timeout_s=0.2)
        async with pair(runtime, short_tmp_path, server={"limits": limits}) as (server, client):
            with talk_to(server.ipc_path) as mute:
                await mute.send(opening)
                await eventually(lambda: len(server._peers.all) == 2)
                await still_works(server, client)
                assert not server.is_connected_to("mute")
                goodbye = await mute.goodbye()
                assert goodbye.code == "handshakeTimeout"
                assert "0.2 s" in goodbye.text
            await eventually(lambda: len(server._peers.all) == 1)
            # Its name is free again.
            with talk_to(server.ipc_path) as again:
                await again.send(shake_hands(name="mute"))
                await server.wait_until_connected_to("mute")

    runtime.run(main)
    texts = [record.getMessage() for record in caplog.records if record.name.startswith("lahja_capn")]
    missing = "what it subscribes to" if said.startswith("hello") else "has not said hello"
    assert any("handshake_timeout_s" in text and missing in text for text in texts)


# --- strangers that we connect to ---------------------------------------------------------------------------


async def connect_to(runtime: Runtime, folder: Path, answer: bytes | None, **limits: Any) -> LahjaError:
    """What connect_to_endpoints raises where somebody answers our hello with these bytes, or (None) leaves."""
    path = folder / "stranger.ipc"
    raised: list[LahjaError] = []
    async with runtime.endpoint_class("client", limits=Limits(**limits)).run() as client:
        with listen_at(path) as listener:

            async def connect() -> None:
                with pytest.raises(LahjaError) as caught:
                    await client.connect_to_endpoints(ConnectionConfig("server", path))
                raised.append(caught.value)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(connect)
                stranger = await accept(listener)
                await stranger.next_of(Hello)
                if answer is None:
                    stranger.close()
                else:
                    await stranger.send(answer)
                await eventually(lambda: raised)
                stranger.close()
        assert not client.is_connected_to("server")
        await eventually(lambda: not client._peers.all)
    text = str(raised[0])
    assert "'client'" in text
    assert "'server'" in text
    assert os.fspath(path) in text
    return raised[0]


@scenario
async def test_connecting_to_an_http_server_is_not_a_peer(runtime: Runtime, short_tmp_path: Path) -> None:
    answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    error = await connect_to(runtime, short_tmp_path, answer)
    assert isinstance(error, NotAPeer)
    assert (error.got, error.peer) == (answer[:16], "server")
    assert "HTTP" in str(error)
    assert "same address" in str(error)


@scenario
async def test_connecting_to_who_hangs_up_is_told_so(runtime: Runtime, short_tmp_path: Path) -> None:
    error = await connect_to(runtime, short_tmp_path, None)
    assert isinstance(error, RemoteDisconnected)
    assert error.peer == "server"
    assert "during the handshake" in str(error)


@scenario
async def test_connecting_to_who_says_nothing_times_out(runtime: Runtime, short_tmp_path: Path) -> None:
    error = await connect_to(runtime, short_tmp_path, b"", handshake_timeout_s=0.1)
    assert isinstance(error, HandshakeTimeout)
    assert isinstance(error, TimeoutError)
    assert error.timeout_s == 0.1
    assert "has not said hello" in str(error)


@scenario
async def test_connecting_to_who_breaks_the_protocol(runtime: Runtime, short_tmp_path: Path) -> None:
    answer = frame_of(hello(name="server")) + frame_of(hello(name="server"))
    error = await connect_to(runtime, short_tmp_path, answer)
    assert isinstance(error, RemoteProtocolError)
    assert "hello while introduced" in str(error)


# --- another version ----------------------------------------------------------------------------------------


@scenario
async def test_peer_of_another_version_that_connects_is_refused(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "lahja_capn")
    async with pair(runtime, short_tmp_path) as (server, client):
        for version in (0, 2, 65535):
            with talk_to(server.ipc_path) as talker:
                await talker.send(frame_of(hello(protocol_version=version)))
                goodbye = await talker.goodbye()
                assert goodbye.code == "unsupportedVersion"
                assert f"version {version}" in goodbye.text
                assert "speaks 1" in goodbye.text
        await still_works(server, client)
    assert "protocol version 65535" in caplog.text


@scenario
async def test_server_of_another_version_is_unsupported(runtime: Runtime, short_tmp_path: Path) -> None:
    error = await connect_to(runtime, short_tmp_path, frame_of(hello(protocol_version=2)))
    assert isinstance(error, UnsupportedVersion)
    assert (error.theirs, error.ours, error.peer) == (2, 1, "server")
    assert "versions of the library" in str(error)


@scenario
async def test_server_that_refuses_our_version_is_unsupported(runtime: Runtime, short_tmp_path: Path) -> None:
    answer = frame_of(Goodbye("unsupportedVersion", "this endpoint speaks 2 to 3"))
    error = await connect_to(runtime, short_tmp_path, answer)
    assert isinstance(error, UnsupportedVersion)
    assert (error.theirs, error.ours, error.peer) == (None, 1, "server")
    assert "speaks 2 to 3" in str(error)


# --- another layout -----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def peer_with_another_layout(server: Any, *types: type[BaseEvent]) -> Any:
    """A peer that holds other versions of ``types``: the last field of each differs from ours."""
    peer = RawPeer(server.ipc_path, "raw", (*types, Other))
    for cls in types:
        row = event_type(cls).row
        layout = (*row.layout[:-1], row.layout[-1] ^ 1)
        peer.table.wire_id(strange_type(row.type_id, row.name, layout, is_request=event_type(cls).is_request))
    try:
        await peer.connect()
        await server.wait_until_connected_to("raw")
        yield peer
    finally:
        peer.close()


@scenario
async def test_incompatible_layout_is_refused_with_its_ordinal_and_other_types_go_on(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "lahja_capn")
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:
        blobs, others = Collector(), Collector()
        server.subscribe(Blob, blobs)
        server.subscribe(Other, others)
        async with peer_with_another_layout(server, Blob) as peer:
            # Said at once and loudly, not when the first event is lost.
            (record,) = [r for r in caplog.records if "not exchanged" in r.getMessage()]
            assert "'raw'" in record.getMessage()
            assert "ordinal 1" in record.getMessage()
            assert not server.is_endpoint_subscribed_to("raw", Blob)
            assert server.is_endpoint_subscribed_to("raw", Other)
            # To that peer alone it raises ...
            with pytest.raises(IncompatibleLayout) as caught:
                await server.broadcast(Blob(number=1), BroadcastConfig(filter_endpoint="raw"))
            error = caught.value
            assert (error.event, error.endpoint, error.peers) == ("Blob", "raw", ("raw",))
            assert "ordinal 1" in error.detail
            assert error.detail in str(error)
            assert "one schema" in str(error)
            # ... and who understands it gets it.
            await server.broadcast(Blob(number=2))
            assert blobs.numbers == [2]
            # Theirs are skipped, counted; other types pass in both directions.
            bound = event_type(Other)
            theirs, other = 1, peer.table.wire_id(bound)
            await send_raw(peer, event_frame(theirs, event_type(Blob).encode(Blob(number=3))))
            await send_raw(peer, event_frame(other, bound.encode(Other(number=4))))
            assert await others.until(1) == [4]
            assert blobs.numbers == [2]
            assert server.get_peer_counters()["raw"].skipped == 1
            await server.broadcast(Other(number=5), BroadcastConfig(filter_endpoint="raw"))
            await peer.read(lambda: peer.session.counters.received)


@scenario
async def test_nobody_but_an_incompatible_peer_listens(runtime: Runtime, short_tmp_path: Path) -> None:
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:
        async with peer_with_another_layout(server, Blob, Question):
            for config in (None, BroadcastConfig(filter_endpoint="raw")):
                with pytest.raises(IncompatibleLayout):
                    await server.broadcast(Blob(number=1), config)
                with pytest.raises(IncompatibleLayout) as caught:
                    await server.request(Question(number=1), config)
                assert "ordinal 1" in str(caught.value)
            await server.broadcast(Blob(number=1), BroadcastConfig(require_subscriber=False))


@scenario
async def test_request_of_an_incompatible_layout_is_answered_as_failed(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:
        asked = Collector()
        server.subscribe(Question, asked)
        async with peer_with_another_layout(server, Question) as peer:
            frame = event_frame(1, event_type(Question).encode(Question(number=1)), FrameKind.REQUEST, 1)
            peer.session._outgoing.new()
            peer.session._outbox.requests_sent_to = 1
            await send_raw(peer, frame)
            await peer.read(lambda: peer.of(FailedArrived))
            (failed,) = peer.of(FailedArrived)
            assert failed.code == "incompatibleType"
            assert "ordinal 1" in failed.text
        assert asked.events == []


@scenario
async def test_unreadable_request_is_answered_as_failed_and_the_connection_lives(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:

        async def answer(request: Question) -> None:
            await server.respond(request, Reply(number=request.number))

        server.subscribe(Question, answer)
        async with raw_peer(server) as peer:
            wire_id = peer.table.wire_id(event_type(Question))
            # A root pointer that points outside its message.
            wild = (0x7FFF_FFF0).to_bytes(4, "little") + (1).to_bytes(2, "little") + bytes(2) + bytes(8)
            for number in (1, 2):
                peer.session._outgoing.new()
                peer.session._outbox.requests_sent_to = number
            await peer.write()
            await send_raw(peer, event_frame(wire_id, (wild,), FrameKind.REQUEST, 1))
            good = event_type(Question).encode(Question(number=5))
            await send_raw(peer, event_frame(wire_id, good, FrameKind.REQUEST, 2))
            await peer.read(lambda: peer.of(FailedArrived) and peer.of(ResponseArrived))
            (failed,) = peer.of(FailedArrived)
            assert (failed.number, failed.code) == (1, "unreadable")
            assert failed.type_name == "EventFieldError"


# --- names from the wire, seen by the other side ------------------------------------------------------------


@scenario
async def test_failing_responders_are_told_apart(runtime: Runtime, short_tmp_path: Path) -> None:
    async with pair(runtime, short_tmp_path) as (server, client):

        def refuse(request: Question) -> None:
            raise LookupError("no such number")

        await server.subscribe(Question, refuse).acknowledged()
        with pytest.raises(RequestFailed) as caught:
            await client.request(Question(number=1))
        (failure,) = caught.value.failures
        assert (failure.endpoint, failure.code, failure.type_name, failure.text) == (
            "server",
            "handlerRaised",
            "LookupError",
            "no such number",
        )
        assert "server" in str(caught.value)


def test_two_classes_for_one_struct_are_refused() -> None:
    with pytest.raises(BindError, match="One class per struct"):

        @bind(schema.Count)
        class Second(BaseEvent):
            pass

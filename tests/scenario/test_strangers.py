"""Who is no peer, or one of another version, on either side: turned away, told why, and nobody else harmed."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import ssl
from pathlib import Path
from typing import Any

import anyio
import pytest

from lahja_capn import (
    ConnectionConfig,
    HandshakeTimeout,
    LahjaError,
    Limits,
    NotAPeer,
    RemoteDisconnected,
    RemoteProtocolError,
    UnsupportedVersion,
)
from lahja_capn.session.control import Goodbye, Hello, Subscriptions
from tests.conftest import Runtime
from tests.scenario.events import Count
from tests.scenario.rawpeer import (
    accept,
    event_frame,
    frame_of,
    hello,
    listen_at,
    shake_hands,
    talk_to,
)
from tests.scenario.support import Collector, eventually, pair, scenario

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

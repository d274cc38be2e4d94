"""TCP, under TLS with certificates on both sides and plain: what works, and who may connect."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import socket
import ssl
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from lahja_capn import (
    TLS,
    AddressInUse,
    BroadcastConfig,
    ConfigError,
    ConnectionAttemptRejected,
    ConnectionConfig,
    ConnectTimeout,
    DuplicateConnection,
    EndpointAPI,
    LahjaError,
    LifecycleError,
    Limits,
    NameInUse,
    RemoteDisconnected,
    TLSFailed,
)
from tests.conftest import Runtime
from tests.scenario.certificates import Authority
from tests.scenario.events import Blob, Count, Other, Question, Reply
from tests.scenario.support import DEADLINE_S, Collector, at, eventually, scenario, turns

ANY = "tcp://127.0.0.1:0"


def plain(name: str, url: str = ANY) -> ConnectionConfig:
    return ConnectionConfig.from_url(name, url, plaintext=True)


def secured(name: str, tls: TLS, url: str = ANY) -> ConnectionConfig:
    return ConnectionConfig.from_url(name, url, tls=tls)


def reaching(server: EndpointAPI, tls: TLS | None) -> ConnectionConfig:
    """What a client with this certificate connects to."""
    return server.serving_at._replace(tls=tls, plaintext=tls is None)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server_tls(authority: Authority) -> TLS:
    return authority.issue("server", "127.0.0.1", "localhost")


@pytest.fixture
def client_tls(authority: Authority) -> TLS:
    return authority.issue("client")


# --- what works ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protected", [True, False], ids=["tls", "plain"])
def test_everything_that_works_on_a_unix_socket_works_on_tcp(
    runtime: Runtime, server_tls: TLS, client_tls: TLS, protected: bool
) -> None:
    async def main() -> None:
        config = secured("server", server_tls) if protected else plain("server")
        async with (
            runtime.endpoint_class.serve(config) as server,
            runtime.endpoint_class("client").run() as client,
        ):
            got, blobs = Collector(), Collector()
            server.subscribe(Count, got)
            server.subscribe(Blob, blobs)

            async def answer(ask: Question) -> None:
                await server.respond(ask, Reply(number=2 * ask.number))

            server.subscribe(Question, answer)
            back = Collector()
            client.subscribe(Other, back)
            await client.connect_to_endpoints(reaching(server, client_tls if protected else None))
            for number in range(2000):
                await client.broadcast(Count(number=number))
            assert await got.until(2000) == list(range(2000))
            assert (await client.request(Question(number=21))).number == 42
            # More than one record, and more than the socket's buffers hold.
            data = bytes(range(256)) * 40_000
            for _ in range(3):
                await client.broadcast(Blob(data=data))
            await eventually(lambda: len(blobs.events) == 3)
            assert all(bytes(blob.data) == data for blob in blobs.events)
            await server.broadcast(Other(number=7), BroadcastConfig(filter_endpoint="client"))
            assert await back.until(1) == [7]
        await eventually(lambda: not client.is_connected_to("server"))

    runtime.run(main)


@scenario
async def test_one_endpoint_has_peers_on_both_kinds_of_sockets(
    runtime: Runtime, short_tmp_path: Path, server_tls: TLS, client_tls: TLS
) -> None:
    async with (
        runtime.endpoint_class.serve(secured("far", server_tls)) as far,
        runtime.endpoint_class.serve(at(short_tmp_path, "near")) as near,
        runtime.endpoint_class("client").run() as client,
    ):
        got = Collector()
        far.subscribe(Count, got)
        near.subscribe(Count, got)
        await client.connect_to_endpoints(reaching(far, client_tls), near.serving_at)
        await client.broadcast(Count(number=1))
        assert await got.until(2) == [1, 1]


@scenario
async def test_served_config_names_the_port_that_was_chosen(runtime: Runtime) -> None:
    async with runtime.endpoint_class.serve(plain("server")) as server:
        host, port = server.serving_at.host_and_port
        assert (host, port > 0) == ("127.0.0.1", True)
        with pytest.raises(LifecycleError, match=r"serves at tcp://127\.0\.0\.1:\d+, not at a path"):
            _ = server.ipc_path


@scenario
async def test_ipv6(runtime: Runtime, authority: Authority, client_tls: TLS) -> None:
    async with (
        runtime.endpoint_class.serve(
            secured("server", authority.issue("six", "::1"), "tcp://[::1]:0")
        ) as server,
        runtime.endpoint_class("client").run() as client,
    ):
        assert server.serving_at.url.startswith("tcp://[::1]:")
        await client.connect_to_endpoints(reaching(server, client_tls))
        assert client.is_connected_to("server")


@scenario
async def test_client_that_starts_first_waits_until_somebody_serves(runtime: Runtime) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        url = f"tcp://127.0.0.1:{holder.getsockname()[1]}"
    connected = anyio.Event()

    async def serve_later() -> None:
        await turns()
        async with runtime.endpoint_class.serve(plain("server", url)):
            await connected.wait()

    async with runtime.endpoint_class("client").run() as client, anyio.create_task_group() as tasks:
        tasks.start_soon(serve_later)
        await client.connect_to_endpoints(plain("server", url))
        connected.set()


@scenario
async def test_keepalive_is_shorter_than_on_a_unix_socket(runtime: Runtime, short_tmp_path: Path) -> None:
    async with (
        runtime.endpoint_class.serve(plain("far")) as far,
        runtime.endpoint_class.serve(at(short_tmp_path, "near")) as near,
        runtime.endpoint_class("client").run() as client,
    ):
        await client.connect_to_endpoints(reaching(far, None), near.serving_at)
        told: Any = {name: peer.session.peer.keepalive_s for name, peer in client._peers.up.items()}  # type: ignore[attr-defined]
        assert told == {"far": 15.0, "near": 60.0}


# --- who may connect ----------------------------------------------------------------------------------------


async def refused(runtime: Runtime, served: ConnectionConfig, tls: TLS | None) -> LahjaError:
    """The error of a client with this certificate; an honest client's request works before, meanwhile and after."""
    async with (
        runtime.endpoint_class.serve(served) as server,
        runtime.endpoint_class("stranger", connect_timeout_s=DEADLINE_S).run() as stranger,
    ):
        with pytest.raises((ConnectionAttemptRejected, RemoteDisconnected)) as caught:
            await stranger.connect_to_endpoints(reaching(server, tls))
        assert server.get_connected_endpoints_and_subscriptions()[1:] == ()
        return caught.value


@scenario
async def test_server_of_another_authority_is_refused(
    runtime: Runtime, tmp_path: Path, authority: Authority, server_tls: TLS
) -> None:
    other = Authority(tmp_path, "other")
    client = authority.issue("client", trusts=other.path)
    error = await refused(runtime, secured("server", server_tls), client)
    assert isinstance(error, TLSFailed)
    assert "certificate refused: " in error.reason


@scenario
async def test_client_of_another_authority_is_refused(
    runtime: Runtime, tmp_path: Path, authority: Authority, server_tls: TLS, caplog: pytest.LogCaptureFixture
) -> None:
    other = Authority(tmp_path, "other")
    client = other.issue("client", trusts=authority.path)
    error = await refused(runtime, secured("server", server_tls), client)
    # Its own handshake ends before the server has judged it: what it sees is a closed connection.
    assert isinstance(error, RemoteDisconnected)
    assert "refused a connection: 127.0.0.1 port" in caplog.text
    assert "certificate refused: unable to get local issuer certificate" in caplog.text


@scenario
async def test_expired_server_is_refused(runtime: Runtime, authority: Authority, client_tls: TLS) -> None:
    expired = authority.issue("old", "127.0.0.1", expired=True)
    error = await refused(runtime, secured("server", expired), client_tls)
    assert isinstance(error, TLSFailed)
    assert "certificate has expired" in error.reason


@scenario
async def test_expired_client_is_refused(
    runtime: Runtime, authority: Authority, server_tls: TLS, caplog: pytest.LogCaptureFixture
) -> None:
    error = await refused(runtime, secured("server", server_tls), authority.issue("old", expired=True))
    assert isinstance(error, RemoteDisconnected)
    assert "certificate has expired" in caplog.text


@scenario
async def test_server_of_another_name_is_refused(
    runtime: Runtime, authority: Authority, client_tls: TLS
) -> None:
    error = await refused(
        runtime, secured("server", authority.issue("elsewhere", "elsewhere.example")), client_tls
    )
    assert isinstance(error, TLSFailed)
    assert "IP address mismatch, certificate is not valid for '127.0.0.1'" in error.reason


@scenario
async def test_server_of_the_name_that_the_client_expects_is_accepted(
    runtime: Runtime, authority: Authority
) -> None:
    served = secured("server", authority.issue("elsewhere", "elsewhere.example"))
    client_tls = authority.issue("client", server_name="elsewhere.example")
    async with (
        runtime.endpoint_class.serve(served) as server,
        runtime.endpoint_class("client").run() as client,
    ):
        await client.connect_to_endpoints(reaching(server, client_tls))


@scenario
async def test_plain_client_does_not_get_into_a_tls_server(runtime: Runtime, server_tls: TLS) -> None:
    assert isinstance(await refused(runtime, secured("server", server_tls), None), RemoteDisconnected)


@scenario
async def test_tls_client_does_not_talk_to_a_plain_server(runtime: Runtime, client_tls: TLS) -> None:
    assert isinstance(await refused(runtime, plain("server"), client_tls), TLSFailed)


def hello_of_a_foreign_client(context: ssl.SSLContext, port: int) -> str:
    """What becomes of a client that is not one of ours. Blocks: to be called in a thread."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as raw:
        try:
            with context.wrap_socket(raw, server_hostname="127.0.0.1") as tls:
                return f"{tls.version()}, then {tls.recv(1)!r}"
        except ssl.SSLError as error:
            return str(error.reason)


@scenario
async def test_client_without_a_certificate_is_refused(
    runtime: Runtime, authority: Authority, server_tls: TLS
) -> None:
    context = ssl.create_default_context(cafile=str(authority.path))
    async with runtime.endpoint_class.serve(secured("server", server_tls)) as server:
        said = await anyio.to_thread.run_sync(
            hello_of_a_foreign_client, context, server.serving_at.host_and_port[1]
        )
    assert said == "TLSV13_ALERT_CERTIFICATE_REQUIRED"


@scenario
async def test_older_tls_is_refused(
    runtime: Runtime, authority: Authority, server_tls: TLS, client_tls: TLS
) -> None:
    context = ssl.create_default_context(cafile=str(authority.path))
    context.load_cert_chain(client_tls.certificate, client_tls.key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with runtime.endpoint_class.serve(secured("server", server_tls)) as server:
        said = await anyio.to_thread.run_sync(
            hello_of_a_foreign_client, context, server.serving_at.host_and_port[1]
        )
    assert said == "TLSV1_ALERT_PROTOCOL_VERSION"


@scenario
async def test_client_that_never_finishes_its_tls_handshake_is_hung_up_in_time(
    runtime: Runtime, server_tls: TLS, client_tls: TLS
) -> None:
    limits = Limits(handshake_timeout_s=0.2)
    async with (
        runtime.endpoint_class.serve(secured("server", server_tls), limits=limits) as server,
        runtime.endpoint_class("client").run() as client,
    ):
        with socket.create_connection(("127.0.0.1", server.serving_at.host_and_port[1])) as silent:
            silent.setblocking(False)
            # It holds up nobody else meanwhile.
            await client.connect_to_endpoints(reaching(server, client_tls))

            def hung_up() -> bool:
                try:
                    return silent.recv(1) == b""
                except BlockingIOError:
                    return False

            await eventually(hung_up)
        assert client.is_connected_to("server")


@scenario
async def test_tls_handshakes_that_do_not_end_are_bounded_and_keep_nobody_out(
    runtime: Runtime, server_tls: TLS, client_tls: TLS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lahja_capn.endpoint.handshakes.HANDSHAKE_PATIENCE_S", 0.2)
    async with (
        runtime.endpoint_class.serve(secured("server", server_tls), limits=Limits(handshakes=2)) as server,
        runtime.endpoint_class("client").run() as client,
        contextlib.AsyncExitStack() as stack,
    ):
        most = []
        take = server._take_channel

        def counted(channel: Any) -> None:
            take(channel)
            most.append(len(server._handshakes))

        server._take_channel = counted
        for _ in range(8):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.serving_at.host_and_port[1])))
        await client.connect_to_endpoints(reaching(server, client_tls))
        assert max(most) == 2
        assert len(most) == 9


@scenario
async def test_name_is_not_given_to_a_peer_with_another_certificate(
    runtime: Runtime, authority: Authority, server_tls: TLS
) -> None:
    owner_tls, other_tls = authority.issue("owner"), authority.issue("other")
    async with (
        runtime.endpoint_class.serve(secured("server", server_tls)) as server,
        runtime.endpoint_class("name").run() as owner,
    ):
        await owner.connect_to_endpoints(reaching(server, owner_tls))
        for tls, reason in (
            (other_tls, "by a peer of another user or certificate"),
            # A second claimant of the owner's own is judged by whether the first one lives.
            (owner_tls, "another, living endpoint is connected"),
        ):
            async with runtime.endpoint_class("name").run() as claimant:
                with pytest.raises(NameInUse, match=reason):
                    await claimant.connect_to_endpoints(reaching(server, tls))
        assert server.is_connected_to("name")


# --- mistakes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "tcp://", "tcp://host", "tcp://:80", "host:80", "tls://host:80", "tcp://host:port", "tcp://host:70000",
        "tcp://host:80/path", "tcp://host:80?x=1", "tcp://host:80#x", "tcp://user@host:80", "tcp://[::1:80",
    ],
)  # fmt: skip
def test_url_that_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="wanted tcp://host:port") as caught:
        plain("server", url)
    assert caught.value.facts["url"] == url


def test_tcp_is_protected_unless_the_user_writes_otherwise(server_tls: TLS) -> None:
    with pytest.raises(ConfigError, match="plaintext=True"):
        ConnectionConfig.from_url("server", ANY)
    with pytest.raises(ConfigError, match="not both"):
        ConnectionConfig.from_url("server", ANY, tls=server_tls, plaintext=True)


@scenario
async def test_config_made_by_hand_is_protected_too(runtime: Runtime, server_tls: TLS) -> None:
    async with runtime.endpoint_class("client").run() as client:
        for config, message in (
            (ConnectionConfig("server", Path(), ANY), "has no certificates"),
            (ConnectionConfig("server", Path(), ANY, server_tls, True), "exclude each other"),
        ):
            with pytest.raises(ConfigError, match=message):
                await client.connect_to_endpoints(config)
            with pytest.raises(ConfigError, match=message):
                async with runtime.endpoint_class.serve(config):
                    raise AssertionError("it served")


@scenario
async def test_files_that_cannot_be_used_are_named(
    runtime: Runtime, tmp_path: Path, server_tls: TLS, client_tls: TLS
) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no PEM\n")
    for change, message in (
        ({"certificate": tmp_path / "absent.pem"}, "no file for certificate="),
        ({"key": tmp_path / "absent.key"}, "no file for key="),
        ({"authorities": tmp_path / "absent.pem"}, "no file for authorities="),
        ({"certificate": nonsense}, "cannot be used"),
        ({"authorities": nonsense}, "cannot be used"),
        # The key of another certificate.
        ({"key": client_tls.key}, "cannot be used"),
    ):
        with pytest.raises(ConfigError, match=message):
            async with runtime.endpoint_class.serve(
                secured("server", dataclasses.replace(server_tls, **change))
            ):  # type: ignore[arg-type]
                raise AssertionError("it served")


@scenario
async def test_port_that_is_served_already_is_refused(runtime: Runtime) -> None:
    async with runtime.endpoint_class.serve(plain("one")) as one:
        url = one.serving_at.url
        with pytest.raises(AddressInUse, match=f"Another process serves at {url}") as caught:
            async with runtime.endpoint_class.serve(plain("two", url)):
                raise AssertionError("it served")
        assert caught.value.path == url
        with pytest.raises(DuplicateConnection, match="cannot connect to itself"):
            await one.connect_to_endpoints(plain("other", url))


@scenario
async def test_port_that_nobody_serves_is_named_in_the_timeout(runtime: Runtime) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        url = f"tcp://127.0.0.1:{holder.getsockname()[1]}"
    async with runtime.endpoint_class("client", connect_timeout_s=0.1).run() as client:
        with pytest.raises(ConnectTimeout, match=f"nobody serves at '{url}'"):
            await client.connect_to_endpoints(plain("server", url))


@scenario
async def test_http_to_a_tls_port_ends_that_connection_only(
    runtime: Runtime, server_tls: TLS, client_tls: TLS, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with (
        runtime.endpoint_class.serve(secured("server", server_tls)) as server,
        runtime.endpoint_class("client").run() as client,
    ):
        await client.connect_to_endpoints(reaching(server, client_tls))
        with socket.create_connection(("127.0.0.1", server.serving_at.host_and_port[1])) as browser:
            browser.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await eventually(lambda: "http request" in caplog.text)
        assert client.is_connected_to("server")

"""The system refuses: no file descriptors, no space, no permission."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lahja_capn import AddressInUse, Backoff
from tests.conftest import Runtime
from tests.scenario.events import Count
from tests.scenario.support import Collector, at, eventually, join, scenario


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """As many descriptors as are in use now: not one more can be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.open(os.devnull, os.O_RDONLY)
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@scenario
async def test_server_without_descriptors_keeps_its_peers_and_accepts_again_when_there_are_some(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lahja_capn.endpoint.connecting.ACCEPT_REST_S", 0.01)
    caplog.set_level(logging.ERROR)
    config = at(short_tmp_path, "server")
    async with (
        runtime.endpoint_class.serve(config) as server,
        runtime.endpoint_class("client").run() as client,
        runtime.endpoint_class("late").run() as late,
    ):
        await join(client, server, config)
        got = Collector()
        await client.subscribe(Count, got).acknowledged()
        tries = []
        accept = server._listener.accept
        server._listener.accept = lambda: (tries.append(1), accept())[1]
        strangers = [socket.socket(socket.AF_UNIX) for _ in range(20)]
        with contextlib.ExitStack() as closing:
            for stranger in strangers:
                closing.callback(stranger.close)
            # Not one connection can be accepted.
            with no_descriptors():
                for stranger in strangers:
                    stranger.connect(os.fspath(config.path))
                await eventually(lambda: len(tries) >= 5)
                # Who is connected does not notice.
                for number in range(100):
                    await server.broadcast(Count(number=number))
                assert await got.until(100) == list(range(100))
                assert len(server._peers.all) == 1
        await late.connect_to_endpoints(config)
        assert late.is_connected_to("server")
        await eventually(lambda: len(server._peers.all) == 2)
    # Once, however often it was tried.
    assert [record.getMessage() for record in caplog.records] == [
        "server: cannot accept connections now: [Errno 24] Too many open files"
    ]


@scenario
async def test_client_without_descriptors_keeps_its_peers_and_connects_when_there_are_some(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    one, two, three = (at(short_tmp_path, name) for name in ("one", "two", "three"))
    async with (
        runtime.endpoint_class.serve(one) as peer,
        runtime.endpoint_class.serve(two),
        runtime.endpoint_class.serve(three),
        runtime.endpoint_class("client").run() as client,
    ):
        got = Collector()
        client.subscribe(Count, got)
        await join(client, peer, one)
        await peer.wait_until_endpoint_subscribed_to("client", Count)
        with no_descriptors():
            with pytest.raises(OSError, match="Too many open files"):
                await client.connect_to_endpoints(two)
            kept = client.keep_connected(three, backoff=Backoff(first_s=0.01, max_s=0.01))
            tries = []
            open_channel = client._open_channel
            client._open_channel = lambda *args: (tries.append(1), open_channel(*args))[1]
            await eventually(lambda: len(tries) >= 5)
            # Who is connected does not notice, and nothing was refused for good.
            for number in range(100):
                await peer.broadcast(Count(number=number))
            assert await got.until(100) == list(range(100))
            assert kept.errors == {}
            assert len(client._peers.all) == 1
        await client.connect_to_endpoints(two)
        await kept.connected()
        assert client.is_connected_to("two")
        assert client.is_connected_to("three")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS], ids=errno.errorcode.get)
@scenario
async def test_path_that_cannot_be_bound_is_an_error_that_names_it_and_leaves_nothing(
    runtime: Runtime, short_tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    class Refusing(socket.socket):
        def bind(self, address: Any) -> None:
            raise OSError(code, os.strerror(code))

    config = at(short_tmp_path, "server")
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with monkeypatch.context() as patched:
        patched.setattr("lahja_capn.transport.unix.socket.socket", Refusing)
        with pytest.raises(OSError, match=str(config.path)) as caught:
            async with runtime.endpoint_class.serve(config):
                raise AssertionError("it serves")
    assert caught.value.errno == code
    if before:
        await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert list(short_tmp_path.iterdir()) == []
    async with runtime.endpoint_class.serve(config):
        pass


@scenario
async def test_folder_without_permission_is_an_error_that_names_it(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    folder = short_tmp_path / "closed"
    folder.mkdir(mode=0o500)
    config = at(folder, "server")
    # The superuser may write everywhere.
    expected = (
        contextlib.nullcontext() if os.geteuid() == 0 else pytest.raises(PermissionError, match="closed")
    )
    with expected:
        async with runtime.endpoint_class.serve(config):
            with pytest.raises(AddressInUse):
                async with runtime.endpoint_class.serve(config):
                    pass

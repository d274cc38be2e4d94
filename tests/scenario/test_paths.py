"""Paths to serve at and to connect to: too long, taken, stale, missing, nobody there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lahja_capn import (
    AddressInUse,
    ConnectionConfig,
    ConnectTimeout,
    SocketPathTooLong,
)
from tests.conftest import Runtime
from tests.scenario.events import Count
from tests.scenario.rawpeer import (
    listen_at,
)
from tests.scenario.support import Collector, at, pair, scenario

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

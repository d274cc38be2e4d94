"""lahja 0.17's defects in what comes over the wire: L14, L15, L16, L19. None may come back.

Each test is named after the failure that lahja's users met. Tests of two endpoints run on every pair of
runtimes, each endpoint in a thread and an event loop of its own.
"""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from lahja_capn import (
    ConnectionConfig,
    InvalidEndpointName,
    Limits,
    WrongName,
)
from lahja_capn.binding import event_type
from tests.conftest import Runtime
from tests.scenario.events import Blob, Count, Other, Question, Reply
from tests.scenario.mixed import Meeting, Pair, every_pair
from tests.scenario.rawpeer import (
    event_frame,
    frame_of,
    hello,
    send_raw,
    shake_hands,
    strange_type,
    talk_to,
)
from tests.scenario.support import Collector, at, eventually, raw_peer, scenario, turns

# --- L14: one pickled event ran code; bytes that could not be decoded surfaced only at shutdown -------------


class Bomb:
    """Unpickling it makes a folder: the sign that something was executed."""

    def __init__(self, path: Path) -> None:
        self.path = os.fspath(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@every_pair
def test_L14_pickle_from_a_peer_is_never_loaded_and_ends_only_its_connection(
    pair: Pair, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    sign = short_tmp_path / "executed"
    bomb = pickle.dumps(Bomb(sign))

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class.serve(config) as server:
            got, blobs = Collector(), Collector()
            server.subscribe(Count, got)
            server.subscribe(Blob, blobs)
            await server.wait_until_connected_to("client")
            # As lahja framed it, before and after the handshake.
            framed = len(bomb).to_bytes(4, "little") + bomb
            for opening in (b"", shake_hands()):
                with talk_to(config.path) as talker:
                    await talker.send(opening + framed)
                    goodbye = await talker.goodbye()
                    assert goodbye.code == "protocolError"
            # As the content of a valid event.
            meeting.tell("go")
            assert await got.until(1) == [1]
            (event,) = blobs.events
            assert event.data == bomb
            meeting.tell("done")
        assert not sign.exists()

    async def publish(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class("client").run() as client:
            await client.connect_to_endpoints(config)
            await meeting.told("go")
            await client.broadcast(Blob(number=1, data=bomb))
            await client.broadcast(Count(number=1))
            await meeting.told("done")

    pair.run(serve, publish)


@scenario
async def test_L14_undecodable_bytes_are_reported_when_they_come(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:
        with talk_to(server.ipc_path) as talker:
            await talker.send(shake_hands() + b"\xff" * 64)
            await talker.goodbye()
        assert any("connection to 'raw' ended" in record.getMessage() for record in caplog.records)
    # Leaving serve() raised nothing.


# --- L15: any length was believed, there was no version, names were not checked -----------------------------


@scenario
async def test_L15_length_over_the_limit_is_refused_before_memory_is_spent(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    limits = Limits(frame_bytes=1 << 20)
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server"), limits=limits) as server:
        for opening, length, code in (
            (b"", (1 << 20) + 4, "protocolError"),
            (shake_hands(), (1 << 20) + 4, "frameTooLarge"),
            (shake_hands(), (1 << 31) - 12, "frameTooLarge"),
        ):
            with talk_to(server.ipc_path) as talker:
                # The header alone: the refusal does not wait for the bytes that it announces.
                header = length.to_bytes(4, "little") + bytes(12) + bytes(16)
                await talker.send(opening + header)
                assert (await talker.goodbye()).code == code


@scenario
async def test_L15_other_version_and_wrong_name_are_refused(runtime: Runtime, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    async with (
        runtime.endpoint_class.serve(config) as server,
        runtime.endpoint_class("client").run() as client,
    ):
        with talk_to(server.ipc_path) as talker:
            await talker.send(frame_of(hello(protocol_version=2)))
            assert (await talker.goodbye()).code == "unsupportedVersion"
        with pytest.raises(WrongName) as caught:
            await client.connect_to_endpoints(ConnectionConfig("billing", config.path))
        assert (caught.value.wanted, caught.value.got) == ("billing", "server")


# --- L16: one class that the other side did not know killed the link ----------------------------------------


@every_pair
def test_L16_types_that_one_side_does_not_know_do_not_kill_the_link(pair: Pair, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")
    strange = strange_type(0xD00DFEED_00000001, "theirs.capnp:Strange", (1, 2, 3))

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class.serve(config) as server:
            got = Collector()
            server.subscribe(Count, got)
            await server.wait_until_connected_to("client")
            async with raw_peer(server, Other, name="stranger") as stranger:
                # It declares a type that is not bound here, subscribes to it, and sends events of it.
                bound = event_type(Count)
                known, unknown = stranger.table.wire_id(bound), stranger.table.wire_id(strange)
                stranger.session._find = lambda type_id: strange
                stranger.session.update_subscriptions([strange.type_id], ack_wanted=True)
                await stranger.write()
                await stranger.read(lambda: len(stranger.events) > 1)
                for number in range(3):
                    await send_raw(stranger, event_frame(unknown, (bytes(16),)))
                    await send_raw(stranger, event_frame(known, bound.encode(Count(number=number))))
                assert await got.until(3) == [0, 1, 2]
                assert server.get_peer_counters()["stranger"].skipped == 3
                subscribed = dict(server.get_connected_endpoints_and_subscriptions())
                assert subscribed["stranger"] == {Other}
                await server.broadcast(Other(number=1))
                meeting.tell("done")
                await meeting.told("looked")

    async def watch(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class("client").run() as client:
            client.subscribe(Other, Collector())
            await client.connect_to_endpoints(config)
            await meeting.told("done")
            assert client.is_connected_to("server")
            meeting.tell("looked")

    pair.run(serve, watch)


# --- L19: names, request numbers, callable objects ----------------------------------------------------------


@scenario
async def test_L19_non_ascii_name_is_refused_here_and_from_a_peer(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    with pytest.raises(InvalidEndpointName):
        runtime.endpoint_class("k\u00fcche")
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:
        with talk_to(server.ipc_path) as talker:
            await talker.send(frame_of(hello(name="k\u00fcche")))
            goodbye = await talker.goodbye()
            assert goodbye.code == "invalidName"
            assert "k\u00fcche" in goodbye.text
        assert server.is_running


@every_pair
def test_L19_request_numbers_go_on_after_32_bits(pair: Pair, short_tmp_path: Path) -> None:
    config = at(short_tmp_path, "server")

    async def serve(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class.serve(config) as server:

            async def answer(request: Question) -> None:
                await server.respond(request, Reply(number=request.number))

            server.subscribe(Question, answer)
            await meeting.told("done")

    async def ask(runtime: Runtime, meeting: Meeting) -> None:
        async with runtime.endpoint_class("client").run() as client:
            await client.connect_to_endpoints(config)
            await client.wait_until_endpoint_subscribed_to("server", Question)
            (connection,) = client._peers.up.values()
            connection.session._outgoing.last = 2**32 - 2
            for number in range(5):
                assert (await client.request(Question(number=number))).number == number
            assert connection.session._outgoing.last == 2**32 + 3
            meeting.tell("done")

    pair.run(serve, ask)


@scenario
async def test_L19_object_with_async_call_is_awaited(runtime: Runtime) -> None:
    class Handler:
        def __init__(self) -> None:
            self.numbers: list[int] = []

        async def __call__(self, event: Count) -> None:
            await turns(1)
            self.numbers.append(event.number)

    async with runtime.endpoint_class("alone").run() as endpoint:
        handler = Handler()
        endpoint.subscribe(Count, handler)
        await endpoint.broadcast(Count(number=1))
        await endpoint.broadcast(Count(number=2))
        await eventually(lambda: handler.numbers == [1, 2])

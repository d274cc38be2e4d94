"""A peer that comes back: what its former connections sent is still handled, and does not add up."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import anyio
import pytest

from lahja_capn import Limits, RemoteDisconnected
from lahja_capn.binding import event_type
from lahja_capn.session.control import Credit, Goodbye, Hello, Subscriptions
from lahja_capn.wire import FrameKind, encode_frame, frame_size
from tests.conftest import Runtime
from tests.scenario.events import Count, Question, Reply
from tests.scenario.rawpeer import frame_of, hello, talk_to
from tests.scenario.support import Collector, at, eventually, raw_peer, scenario, turns

# Frame size of a Count: header 16, segment table 8, root pointer 8, data 8.
COUNT_BYTES = 40
WINDOW = 10 * COUNT_BYTES


@pytest.mark.parametrize("who", ["connects", "serves"])
@scenario
async def test_events_of_former_connections_count_against_the_new_window(
    runtime: Runtime, short_tmp_path: Path, who: str
) -> None:
    """A slow subscription held another window with each connection: 600 MB after two hundred."""
    ours, theirs = at(short_tmp_path, "slow"), at(short_tmp_path, "publisher")
    # What does not leave at the end of a connection is dropped at once.
    hurried = Limits(close_timeout_s=0.02, too_slow_s=60)
    async with runtime.endpoint_class.serve(ours, limits=Limits(event_credit_bytes=WINDOW)) as slow:
        stream = slow.stream(Count)
        number = 0
        for _ in range(8):
            async with runtime.endpoint_class.serve(theirs, limits=hurried) as publisher:
                if who == "connects":
                    await publisher.connect_to_endpoints(ours)
                else:
                    await slow.connect_to_endpoints(theirs)
                for _ in range(4):
                    publisher.broadcast_nowait(Count(number=number))
                    number += 1
                await turns()
            await eventually(lambda: not slow.is_connected_to("publisher"))
            # One frame may go over.
            assert stream.counters().queued * COUNT_BYTES <= WINDOW + COUNT_BYTES
        waiting = stream.counters().queued
        assert waiting * COUNT_BYTES >= WINDOW - COUNT_BYTES

        # All that arrived is delivered; as it is taken, the peer may send again, at last a whole window.
        async with runtime.endpoint_class.serve(theirs, limits=Limits(too_slow_s=60)) as publisher:
            if who == "connects":
                await publisher.connect_to_endpoints(ours)
            else:
                await slow.connect_to_endpoints(theirs)
            connection = slow._peers.up["publisher"]
            assert connection.withheld == WINDOW
            await publisher.broadcast(Count(number=1000))
            await turns()
            assert publisher.get_peer_counters()["slow"].sent == 0
            got = [(await anext(stream)).number for _ in range(waiting)]
            assert got == sorted(got)
            assert (await anext(stream)).number == 1000
            assert connection.withheld == 0
            assert slow._peers._left == {}
            for number in range(20):
                await publisher.broadcast(Count(number=number))
            await eventually(lambda: stream.counters().queued >= 10)
            assert [(await anext(stream)).number for _ in range(20)] == list(range(20))
            sent = publisher.get_peer_counters()["slow"].sent
            assert sent == 21
        await stream.aclose()


@scenario
async def test_peers_that_come_under_new_names_leave_no_more_than_the_limit_behind(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of them had a window of its own, and a slow subscription held them all."""
    most = 200_000
    limits = Limits(event_credit_bytes=WINDOW, left_events_bytes=most)
    count = event_type(Count)
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server"), limits=limits) as server:
        streams = [server.stream(Count), server.stream(Count)]

        async def leave(name: str, numbers: range) -> None:
            queued = streams[0].counters().queued
            async with raw_peer(server, name=name) as peer:
                await peer.read(lambda: peer.session.remote_subscriptions)
                wire_id = peer.table.wire_id(count)
                for number in numbers:
                    frame = encode_frame(wire_id, FrameKind.EVENT, 0, count.encode(Count(number=number)))
                    peer.session.offer_event(count, frame_size(frame), frame)
                await peer.write()
                await eventually(lambda: streams[0].counters().queued == queued + len(numbers))
            await eventually(lambda: not server.is_connected_to(name))
            assert server._peers._left_bytes <= most

        await leave("honest", range(1))
        for number in range(30):
            await leave(f"new-{number}", range(1000 + number, 1010 + number))
        for stream in streams:
            counters = stream.counters()
            assert counters.queued + counters.dropped == 1 + 30 * 10
            assert counters.queued <= 1 + 12 * 10
        # Who left least keeps it.
        for stream in streams:
            assert (await anext(stream)).number == 0
        # What is remembered of a connection is not what its peer made us remember.
        await eventually(lambda: not server._peers.all)
        for connection in server._peers._left_by:
            assert len(connection.session.receive_buffer()) == 0
        while streams[0].counters().queued:
            for stream in streams:
                await anext(stream)
        assert server._peers._left == {}
        assert server._peers._left_by == {}
        assert server._peers._left_bytes == 0
        for stream in streams:
            await stream.aclose()
    assert "peers that have gone left more here than Limits.left_events_bytes" in caplog.text


@scenario
async def test_one_connection_may_leave_a_whole_window_whatever_the_limit(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    window = 20_000
    limits = Limits(event_credit_bytes=window, left_events_bytes=0)
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config, limits=limits) as server:
        stream = server.stream(Count)
        async with runtime.endpoint_class("client").run() as client:
            await client.connect_to_endpoints(config)
            for number in range(400):
                await client.broadcast(Count(number=number))
        await eventually(lambda: not server.is_connected_to("client"))
        assert stream.counters().queued == 400
        await stream.aclose()


@scenario
async def test_credit_for_what_is_taken_during_the_handshake_is_not_lost(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    limits = Limits(event_credit_bytes=WINDOW)
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server"), limits=limits) as server:
        stream = server.stream(Count)
        async with raw_peer(server) as old:
            await old.read(lambda: old.session.remote_subscriptions)
            count = event_type(Count)
            frame = encode_frame(old.table.wire_id(count), FrameKind.EVENT, 0, count.encode(Count(number=1)))
            for _ in range(10):
                old.session.offer_event(count, frame_size(frame), frame)
            await old.write()
            await eventually(lambda: stream.counters().queued == 10)
        await eventually(lambda: not server.is_connected_to("raw"))
        with talk_to(server.ipc_path) as new:
            await new.send(frame_of(hello()))
            assert (await new.next_of(Hello)).event_credit == 0
            for _ in range(10):
                await anext(stream)
            await new.send(frame_of(Subscriptions(1, (), (), False, False)))
            assert (await new.next_of(Credit)).events == WINDOW
        await stream.aclose()


@scenario
async def test_peer_that_has_taken_everything_gets_a_whole_window_again(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config, limits=Limits(event_credit_bytes=WINDOW)) as server:
        got = Collector()
        server.subscribe(Count, got)
        for _ in range(3):
            async with runtime.endpoint_class("client").run() as client:
                await client.connect_to_endpoints(config)
                for number in range(25):
                    await client.broadcast(Count(number=number))
        assert await got.until(75) == [*range(25)] * 3
        assert server._peers._left == {}


@pytest.mark.parametrize("how", ["handler", "stream"])
@scenario
async def test_requests_that_wait_when_their_asker_goes_are_dropped_and_counted(
    runtime: Runtime, short_tmp_path: Path, how: str
) -> None:
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config) as server:
        begun = []
        go_on = anyio.Event()

        async def answer(question: Question) -> None:
            begun.append(question.number)
            await go_on.wait()
            await server.respond(question, Reply(number=question.number))

        if how == "handler":
            counters = server.subscribe(Question, answer).counters
            at_work = 100
        else:
            counters = server.stream(Question).counters
            at_work = 0
        async with raw_peer(server) as asker, runtime.endpoint_class("other").run() as other:
            await other.connect_to_endpoints(config)
            await asker.read(lambda: asker.session.remote_subscriptions)
            for number in range(150):
                question = Question(number=number)
                asker.session.send_request(question._event_type, question._event_type.encode(question))
            await asker.write()
            await eventually(lambda: counters().queued == 150 - at_work and len(begun) == at_work)
            async with anyio.create_task_group() as tasks:

                async def ask() -> None:
                    if how == "handler":
                        assert (await other.request(Question(number=7))).number == 7
                    else:
                        with pytest.raises(RemoteDisconnected):
                            await other.request(Question(number=7))

                tasks.start_soon(ask)
                await eventually(lambda: counters().queued == 151 - at_work)
                asker.close()
                await eventually(lambda: counters().dropped == 150 - at_work)
                if how == "handler":
                    # Those at work are left to end, and that of the other asker does not wait for them.
                    await eventually(lambda: len(begun) == at_work + 1)
                    go_on.set()
                else:
                    # That of the other asker still waits.
                    assert counters().queued == 1
                    server._peers.up["other"].say_goodbye("shutdown", "")
            await eventually(lambda: counters().queued == 0)


@scenario
async def test_peer_that_comes_and_goes_in_one_breath_takes_nothing_of_the_next_ones_window(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    """Its window was never granted, and counted as full: the next peer of its name could not send one event."""
    config = at(short_tmp_path, "server")
    async with runtime.endpoint_class.serve(config) as server:
        got = Collector()
        server.subscribe(Count, got)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(os.fspath(config.path))
            sock.sendall(frame_of(hello(name="client")) + frame_of(Goodbye("shutdown", "")))
            await eventually(lambda: server._peers._serial == 1 and not server._peers.all)
        assert server._peers._left == {}
        async with runtime.endpoint_class("client").run() as client:
            await client.connect_to_endpoints(config)
            assert client._peers.up["server"].session.event_credit == Limits().event_credit_bytes
            await client.broadcast(Count(number=1))
            assert await got.until(1) == [1]

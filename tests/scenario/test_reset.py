"""A peer that goes without having read what we sent: the kernel reports an error, and what it sent before counts."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from lahja_capn import BroadcastConfig, NoSubscribers
from lahja_capn.binding import event_type
from lahja_capn.session import Offer
from lahja_capn.wire import encode_frame, frame_size
from tests.conftest import Runtime
from tests.scenario.events import Blob, Count
from tests.scenario.support import Collector, at, eventually, raw_peer, scenario


@scenario
async def test_peer_that_resets_the_connection_is_gone_and_its_last_events_have_arrived(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:
        got = Collector()
        server.subscribe(Blob, got)
        async with raw_peer(server, Count) as peer:
            await peer.read(lambda: event_type(Blob).type_id in peer.session.remote_subscriptions)
            await server.broadcast(Count(number=1))
            await eventually(lambda: server.get_peer_counters()["raw"].sent == 1)
            blob = event_type(Blob)
            for number in range(3):
                frame = encode_frame(
                    peer.table.wire_id(blob), 0, 0, blob.encode(Blob(number=number, data=bytes(1000)))
                )
                assert peer.session.offer_event(blob, frame_size(frame), frame) is Offer.QUEUED
            # No turn of the loop between the last event and the reset.
            await peer.write()
            peer.close()
            await eventually(lambda: not server._peers.all)
        assert got.numbers == [0, 1, 2]


@scenario
async def test_all_that_the_kernel_holds_arrives_though_the_peer_can_no_longer_be_written_to(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    """However many reads that takes: of frames just above 64 KiB the beginning is received by itself."""
    events = 25
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:
        got = Collector()
        server.subscribe(Blob, got)
        async with raw_peer(server, Count) as peer:
            await peer.read(lambda: event_type(Blob).type_id in peer.session.remote_subscriptions)
            peer._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
            blob = event_type(Blob)
            for number in range(events):
                frame = encode_frame(
                    peer.table.wire_id(blob), 0, 0, blob.encode(Blob(number=number, data=bytes(70_000)))
                )
                assert peer.session.offer_event(blob, frame_size(frame), frame) is Offer.QUEUED
            await peer.write()
            peer.close()
            # No turn of the loop: the server finds out when it writes.
            for number in range(10):
                server.broadcast_nowait(Count(number=number))
            (connection,) = server._peers.all.values()
            connection.flush()
            await eventually(lambda: not server._peers.all)
        assert got.numbers == list(range(events))


@scenario
async def test_events_stay_in_order_if_a_handler_finds_out_that_their_sender_has_gone(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    """What the kernel still held was read inside the handler's broadcast, and overtook what had been read before."""
    got = []
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:
        answer = Blob(number=0, data=bytes(100_000))  # so much that it is sent at once

        def take(event: Blob) -> None:
            got.append(event.number)
            with contextlib.suppress(NoSubscribers):
                server.broadcast_nowait(answer, BroadcastConfig(filter_endpoint="raw"))

        server.subscribe(Blob, take)
        async with raw_peer(server, Blob) as peer:
            await peer.read(lambda: event_type(Blob).type_id in peer.session.remote_subscriptions)
            blob = event_type(Blob)
            for number in range(100):
                frame = encode_frame(
                    peer.table.wire_id(blob), 0, 0, blob.encode(Blob(number=number, data=bytes(1000)))
                )
                assert peer.session.offer_event(blob, frame_size(frame), frame) is Offer.QUEUED
            await peer.write()
            peer.close()
            await eventually(lambda: not server._peers.all)
    assert len(got) > 20
    assert got == list(range(len(got)))

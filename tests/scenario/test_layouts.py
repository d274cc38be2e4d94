"""A peer that holds another layout of a struct: that type is refused with the ordinal, and all else goes on."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any

import pytest

from lahja_capn import (
    BaseEvent,
    BroadcastConfig,
    IncompatibleLayout,
)
from lahja_capn.binding import event_type
from lahja_capn.session import FailedArrived
from lahja_capn.wire import FrameKind
from tests.conftest import Runtime
from tests.scenario.events import Blob, Other, Question
from tests.scenario.rawpeer import (
    event_frame,
    send_raw,
    strange_type,
)
from tests.scenario.support import Collector, RawPeer, at, scenario

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

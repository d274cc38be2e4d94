"""A peer that is too slow: each policy of the sender does what it says, with exact counts, and others do not suffer.

The peers here grant credit for one event and give it back only when they are told to read, so what is queued
does not depend on the size of a socket's buffer.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from lahja_capn import EndpointAPI, FrameTooLarge, Limits, NoSubscribers, Policy
from lahja_capn.binding import event_type
from lahja_capn.endpoint import waiting
from lahja_capn.session import PeerDropped
from lahja_capn.session.control import Dropped, Ping
from tests.conftest import Runtime
from tests.scenario.events import Blob, Count, Other
from tests.scenario.rawpeer import frame_of, send_raw
from tests.scenario.support import (
    Collector,
    RawPeer,
    at,
    eventually,
    join,
    pair,
    raw_peer,
    scenario,
    time_passes,
    turns,
)

# Frame size of a Count: header 16, segment table 8, root pointer 8, data 8.
COUNT_BYTES = 40
# There is room below the limit, so this holds three.
QUEUE = Limits(queued_per_peer_bytes=100)
ONE_CREDIT = Limits(event_credit_bytes=8)


@contextlib.asynccontextmanager
async def publisher(
    runtime: Runtime, folder: Path, policy: Policy = Policy.WAIT, limits: Limits = QUEUE
) -> AsyncIterator[EndpointAPI]:
    config = at(folder, "server")
    async with runtime.endpoint_class.serve(config, limits=limits, peer_policy=policy) as server:
        yield server


async def use_up_credit(server: EndpointAPI) -> None:
    """Send event 0: it leaves, and with it the peer's credit."""
    await server.broadcast(Count(number=0))
    await eventually(lambda: server.get_peer_counters()["raw"].sent == 1)


POLICIES = {
    Policy.DROP_NEWEST: ([0, 1, 2, 3], 6),
    Policy.DROP_OLDEST: ([0, 7, 8, 9], 6),
    Policy.NEWEST_ONLY: ([0, 9], 8),
}


@pytest.mark.parametrize("how", ["await", "nowait"])
@pytest.mark.parametrize("policy", POLICIES)
@scenario
async def test_policy_that_drops_keeps_and_counts_exactly(
    runtime: Runtime, short_tmp_path: Path, policy: Policy, how: str
) -> None:
    expected, dropped = POLICIES[policy]
    async with publisher(runtime, short_tmp_path, policy) as server:
        async with raw_peer(server, Count, limits=ONE_CREDIT) as peer:
            await use_up_credit(server)
            for number in range(1, 10):
                if how == "await":
                    await server.broadcast(Count(number=number))
                else:
                    server.broadcast_nowait(Count(number=number))
            counters = server.get_peer_counters()["raw"]
            assert counters.dropped == dropped
            assert counters.dropped_bytes == dropped * COUNT_BYTES
            assert counters.dropped_by_type == {event_type(Count).type_id: dropped}
            assert counters.queued == len(expected) - 1
            assert counters.queued_bytes == (len(expected) - 1) * COUNT_BYTES
            # The peer gets the rest, in order, and is told what it did not get.
            await peer.read(lambda: len(peer.numbers) == len(expected) and peer.of(PeerDropped))
            assert peer.numbers == expected
            assert [notice.counts for notice in peer.of(PeerDropped)] == [
                {event_type(Count).type_id: dropped}
            ]


@scenario
async def test_newest_only_keeps_one_of_each_type(runtime: Runtime, short_tmp_path: Path) -> None:
    async with publisher(runtime, short_tmp_path, Policy.NEWEST_ONLY) as server:
        async with raw_peer(server, Count, Other, limits=ONE_CREDIT) as peer:
            await use_up_credit(server)
            for number in range(1, 6):
                await server.broadcast(Count(number=number))
                await server.broadcast(Other(number=10 + number))
            assert server.get_peer_counters()["raw"].dropped == 8
            await peer.read(lambda: len(peer.numbers) == 3)
            assert peer.numbers == [0, 5, 15]


@scenario
async def test_wait_loses_nothing_and_waits(runtime: Runtime, short_tmp_path: Path) -> None:
    async with publisher(runtime, short_tmp_path) as server, anyio.create_task_group() as tasks:
        async with raw_peer(server, Count, limits=ONE_CREDIT) as peer:
            await use_up_credit(server)
            done = []

            async def publish() -> None:
                for number in range(1, 50):
                    await server.broadcast(Count(number=number))
                    done.append(number)

            tasks.start_soon(publish)
            await eventually(lambda: len(done) == 3)
            await turns()
            assert done == [1, 2, 3]
            await peer.read(lambda: len(peer.numbers) == 50)
            assert peer.numbers == list(range(50))
            await eventually(lambda: len(done) == 49)
            assert server.get_peer_counters()["raw"].dropped == 0


@scenario
async def test_nowait_drops_for_a_full_peer_under_wait_too(runtime: Runtime, short_tmp_path: Path) -> None:
    async with publisher(runtime, short_tmp_path) as server:
        async with raw_peer(server, Count, limits=ONE_CREDIT) as peer:
            await use_up_credit(server)
            for number in range(1, 10):
                server.broadcast_nowait(Count(number=number))
            assert server.get_peer_counters()["raw"].dropped == 6
            await peer.read(lambda: len(peer.numbers) == 4 and peer.of(PeerDropped))
            assert peer.numbers == [0, 1, 2, 3]


@scenario
async def test_disconnect_says_goodbye_to_the_full_peer(runtime: Runtime, short_tmp_path: Path) -> None:
    async with publisher(runtime, short_tmp_path, Policy.DISCONNECT) as server:
        async with raw_peer(server, Count, limits=ONE_CREDIT) as peer:
            await use_up_credit(server)
            counters = server._peers.up["raw"].session.counters
            for number in range(1, 5):
                assert server.is_connected_to("raw")
                await server.broadcast(Count(number=number))
            assert not server.is_connected_to("raw")
            # The one that found no room, and the three that were queued.
            assert (counters.sent, counters.dropped) == (1, 4)
            await peer.read(lambda: peer.closed)
            assert peer.closed is not None
            assert peer.closed.code == "tooSlow"
            assert peer.closed.text == "120 bytes are queued and the policy is disconnect"
            with pytest.raises(NoSubscribers):
                await server.broadcast(Count(number=5))


@scenario
async def test_disconnect_under_nowait(runtime: Runtime, short_tmp_path: Path) -> None:
    async with publisher(runtime, short_tmp_path, Policy.DISCONNECT) as server:
        async with raw_peer(server, Count, limits=ONE_CREDIT):
            await use_up_credit(server)
            for number in range(1, 5):
                server.broadcast_nowait(Count(number=number))
            assert not server.is_connected_to("raw")


@pytest.mark.parametrize("policy", list(Policy))
@scenario
async def test_others_get_everything_whatever_the_slow_one_does(
    runtime: Runtime, short_tmp_path: Path, policy: Policy
) -> None:
    config = at(short_tmp_path, "server")
    async with (
        publisher(runtime, short_tmp_path) as server,
        runtime.endpoint_class("quick").run() as quick,
        raw_peer(server, Count, limits=ONE_CREDIT),
        anyio.create_task_group() as tasks,
    ):
        server.set_peer_policy("raw", policy)
        here, there = Collector(), Collector()
        server.subscribe(Count, here)
        quick.subscribe(Count, there)
        await join(quick, server, config)
        await server.wait_until_endpoint_subscribed_to("quick", Count)
        await use_up_credit(server)

        async def publish() -> None:
            for number in range(1, 20):
                await server.broadcast(Count(number=number))

        tasks.start_soon(publish)
        # Under `wait` the publisher waits at the fourth, which the others have got by then.
        expected = list(range(5 if policy is Policy.WAIT else 20))
        assert await there.until(len(expected)) == expected
        assert here.numbers == expected
        assert server.get_peer_counters()["quick"].dropped == 0
        tasks.cancel_scope.cancel()


@scenario
async def test_peer_that_takes_nothing_is_disconnected_after_too_slow_s(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    limits = Limits(queued_per_peer_bytes=100, too_slow_s=0.05)
    async with publisher(runtime, short_tmp_path, limits=limits) as server:
        async with raw_peer(server, Count, limits=ONE_CREDIT) as peer:
            await use_up_credit(server)
            counters = server._peers.up["raw"].session.counters
            for number in range(1, 5):
                await server.broadcast(Count(number=number))
            assert not server.is_connected_to("raw")
            assert counters.sent == 1
            await peer.read(lambda: peer.closed)
            assert peer.closed is not None
            assert peer.closed.code == "tooSlow"
            assert peer.closed.text.startswith(
                "took nothing of what waits for it for 0.05 s (Limits.too_slow_s) while 120 bytes were queued"
            )


@scenario
async def test_peer_that_was_idle_for_long_gets_its_full_time(
    runtime: Runtime, short_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(queued_per_peer_bytes=100, too_slow_s=0.5)
    async with (
        publisher(runtime, short_tmp_path, limits=limits) as server,
        anyio.create_task_group() as tasks,
    ):
        async with raw_peer(server, Count, limits=ONE_CREDIT) as peer:
            await use_up_credit(server)
            for number in range(1, 4):
                await server.broadcast(Count(number=number))
            # It has taken nothing for long; only now somebody waits for it.
            time_passes(monkeypatch, waiting, 1.1 * limits.too_slow_s)
            tasks.start_soon(server.broadcast, Count(number=4))
            await turns()
            assert server.is_connected_to("raw")
            await peer.read(lambda: len(peer.numbers) == 5)
            assert peer.numbers == [0, 1, 2, 3, 4]


@scenario
async def test_publisher_that_waits_goes_on_when_the_peer_leaves(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with publisher(runtime, short_tmp_path) as server:
        done = []
        async with raw_peer(server, Count, limits=ONE_CREDIT) as peer, anyio.create_task_group() as tasks:
            await use_up_credit(server)

            async def publish() -> None:
                for number in range(1, 5):
                    await server.broadcast(Count(number=number))
                done.append(True)

            tasks.start_soon(publish)
            await turns()
            assert done == []
            peer.close()
        assert done == [True]


@scenario
async def test_cancelled_publisher_leaves_the_connection_usable(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with publisher(runtime, short_tmp_path) as server:
        async with raw_peer(server, Count, limits=ONE_CREDIT) as peer:
            await use_up_credit(server)
            for number in range(1, 4):
                await server.broadcast(Count(number=number))
            with anyio.move_on_after(0.01) as scope:
                await server.broadcast(Count(number=4))
            assert scope.cancelled_caught
            await peer.read(lambda: len(peer.numbers) == 4)
            await server.broadcast(Count(number=5))
            await peer.read(lambda: len(peer.numbers) == 5)
            assert peer.numbers == [0, 1, 2, 3, 5]


@scenario
async def test_policy_of_one_peer_can_be_chosen(runtime: Runtime, short_tmp_path: Path) -> None:
    async with publisher(runtime, short_tmp_path) as server:
        server.set_peer_policy("raw", Policy.DROP_OLDEST)
        async with raw_peer(server, Count, limits=ONE_CREDIT):
            await use_up_credit(server)
            for number in range(1, 10):
                await server.broadcast(Count(number=number))
            assert server.get_peer_counters()["raw"].dropped == 6


@scenario
async def test_peer_that_was_sent_less_than_it_wants_says_so_in_its_log(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with pair(runtime, short_tmp_path, server={"limits": ONE_CREDIT}, client={"limits": QUEUE}) as (
        server,
        client,
    ):
        stream = server.stream(Count)
        await client.wait_until_endpoint_subscribed_to("server", Count)
        await client.broadcast(Count(number=0))
        await eventually(lambda: client.get_peer_counters()["server"].sent == 1)
        for number in range(1, 10):
            client.broadcast_nowait(Count(number=number))
        dropped = client.get_peer_counters()["server"].dropped
        assert dropped == 6
        await eventually(lambda: server.get_peer_counters()["client"].dropped_by_peer == dropped)
        [warning] = [record.getMessage() for record in caplog.records if "dropped" in record.getMessage()]
        assert warning == (
            "server: 'client' dropped events for this endpoint, because its queue for us was full or they are "
            "over our Limits.frame_bytes: 6 of Count"
        )
        await stream.aclose()


@scenario
async def test_notices_of_drops_do_not_flood_the_log(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with publisher(runtime, short_tmp_path) as server:
        async with raw_peer(server) as peer:

            def lines() -> list[str]:
                return [
                    r.getMessage().split("frame_bytes: ")[1] for r in caplog.records if "dropped" in r.msg
                ]

            many = Dropped(tuple((0x9000_0000_0000_0000 + n, n) for n in range(1, 60_001)))
            await send_raw(peer, frame_of(many))
            await eventually(lambda: lines())
            assert lines()[0].startswith("60000 of 0x900000000000ea60, 59999 of 0x900000000000ea5f, ")
            assert lines()[0].count(" of 0x9") == 10
            assert lines()[0].endswith(f", {sum(range(59_991))} of other types")
            for _ in range(100):
                await send_raw(peer, frame_of(Dropped(((event_type(Count).type_id, 3),))))
            so_many = sum(range(60_001)) + 300
            await eventually(lambda: server.get_peer_counters()["raw"].dropped_by_peer == so_many)
            assert len(lines()) == 1
            # Some time later there is one more line, which makes up for the others.
            server._peers.up["raw"].log_drops_at = 0.0
            await send_raw(peer, frame_of(Dropped(((event_type(Count).type_id, 4),))))
            await eventually(lambda: len(lines()) == 2)
            assert lines()[1] == "4 of Count, 300 since the last such message"
            await send_raw(peer, frame_of(Dropped(((event_type(Count).type_id, 5),))))
            await eventually(lambda: server.get_peer_counters()["raw"].dropped_by_peer == so_many + 9)
        await eventually(lambda: len(lines()) == 3)
        assert lines()[2] == "5 since the last such message"


@scenario
async def test_pings_and_notices_of_drops_come_at_intervals_however_much_is_dropped(
    runtime: Runtime, short_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interval_s = 0.2
    monkeypatch.setattr("lahja_capn.session.session.DROP_NOTICE_S", interval_s)
    pings: list[Ping] = []

    def ping() -> Ping:
        pings.append(Ping())
        return pings[-1]

    monkeypatch.setattr("lahja_capn.session.session.Ping", ping)
    limits = Limits(queued_per_peer_bytes=100, keepalive_s=interval_s)
    async with (
        publisher(runtime, short_tmp_path, Policy.DROP_NEWEST, limits) as server,
        raw_peer(server, Count, limits=ONE_CREDIT) as peer,
    ):
        await use_up_credit(server)
        # It reads all the time and takes no event: all but the first few are dropped, and each drop is to be told.
        peer.gives_credit = False
        pings.clear()
        began = time.monotonic()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(peer.read, lambda: len(peer.of(PeerDropped)) == 4)
            while len(peer.of(PeerDropped)) < 4:
                for number in range(100):
                    await server.broadcast(Count(number=number))
                await anyio.sleep(0.001)
        took_s = time.monotonic() - began
        told = sum(sum(notice.counts.values()) for notice in peer.of(PeerDropped))
        print(
            f"{told} drops told in {len(peer.of(PeerDropped))} notices, {len(pings)} pings, in {took_s:.2f} s"
        )
        assert told > 1000
        # The first notice goes out at once.
        assert took_s >= 3 * interval_s
        # It says nothing by itself, so it is asked.
        assert 1 <= len(pings) <= took_s / interval_s + 1


# --- the limit of the whole endpoint -----------------------------------------------------------------------

DATA = bytes(100_000)
ENDPOINT_LIMIT = Limits(queued_per_endpoint_bytes=350_000)


async def two_stuck_peers(server: EndpointAPI, stack: contextlib.AsyncExitStack) -> tuple[RawPeer, RawPeer]:
    one = await stack.enter_async_context(raw_peer(server, Blob, name="one", limits=ONE_CREDIT))
    two = await stack.enter_async_context(raw_peer(server, Blob, name="two", limits=ONE_CREDIT))
    await server.broadcast(Blob(number=0, data=DATA))
    for name in ("one", "two"):
        await eventually(lambda name=name: server.get_peer_counters()[name].sent == 1)
    return one, two


@scenario
async def test_queued_bytes_of_all_peers_together_are_bounded(runtime: Runtime, short_tmp_path: Path) -> None:
    async with (
        publisher(runtime, short_tmp_path, limits=ENDPOINT_LIMIT) as server,
        contextlib.AsyncExitStack() as stack,
        anyio.create_task_group() as tasks,
    ):
        one, two = await two_stuck_peers(server, stack)
        done = []

        async def publish() -> None:
            for number in range(1, 8):
                await server.broadcast(Blob(number=number, data=DATA))
                done.append(number)

        tasks.start_soon(publish)
        await eventually(lambda: done)
        await turns()
        # Twice 200 kB are queued, and none of the two queues is full by itself: the second broadcast waits.
        assert done == [1]
        tasks.start_soon(one.read, lambda: len(one.numbers) == 8)
        tasks.start_soon(two.read, lambda: len(two.numbers) == 8)
        await eventually(lambda: len(done) == 7)
        await eventually(lambda: one.numbers == two.numbers == list(range(8)))
        assert server.get_peer_counters()["one"].dropped == 0


@scenario
async def test_nowait_over_the_limit_of_all_peers_together_drops(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    async with (
        publisher(runtime, short_tmp_path, limits=ENDPOINT_LIMIT) as server,
        contextlib.AsyncExitStack() as stack,
    ):
        one, two = await two_stuck_peers(server, stack)
        for number in range(1, 6):
            server.broadcast_nowait(Blob(number=number, data=DATA))
        assert [server.get_peer_counters()[name].dropped for name in ("one", "two")] == [3, 3]
        await one.read(lambda: len(one.numbers) == 3 and one.of(PeerDropped))
        await two.read(lambda: len(two.numbers) == 3 and two.of(PeerDropped))
        assert one.numbers == two.numbers == [0, 1, 2]


# --- size --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["await", "nowait"])
@scenario
async def test_event_over_one_peers_frame_limit_reaches_the_others_and_is_counted(
    runtime: Runtime, short_tmp_path: Path, how: str
) -> None:
    config = at(short_tmp_path, "server")
    async with (
        publisher(runtime, short_tmp_path, limits=Limits()) as server,
        runtime.endpoint_class("large").run() as large,
        raw_peer(server, Blob, limits=Limits(frame_bytes=1024)) as small,
    ):
        got = Collector()
        large.subscribe(Blob, got)
        await join(large, server, config)
        await server.wait_until_endpoint_subscribed_to("large", Blob)
        event = Blob(number=1, data=bytes(2000))
        if how == "await":
            await server.broadcast(event)
        else:
            server.broadcast_nowait(event)
        assert await got.until(1) == [1]
        assert server.get_peer_counters()["raw"].dropped == 1
        await small.read(lambda: small.of(PeerDropped))
        assert small.numbers == []


@pytest.mark.parametrize("how", ["await", "nowait"])
@scenario
async def test_event_that_nobody_can_take_is_refused(
    runtime: Runtime, short_tmp_path: Path, how: str
) -> None:
    small = Limits(frame_bytes=1024)
    async with pair(runtime, short_tmp_path, server={"limits": small}) as (server, client):
        got = Collector()
        await server.subscribe(Blob, got).acknowledged()
        event = Blob(number=1, data=bytes(2000))

        async def send() -> None:
            if how == "await":
                await client.broadcast(event)
            else:
                client.broadcast_nowait(event)

        with pytest.raises(FrameTooLarge) as raised:
            await send()
        error = raised.value
        assert (error.event, error.peer, error.limit) == ("Blob", "server", 1024)
        assert error.size > 2000
        assert f"encodes to {error.size} bytes but 'server' accepts 1024" in str(error)
        # With a subscriber here somebody can take it.
        own = Collector()
        client.subscribe(Blob, own)
        await send()
        assert own.numbers == [1]
        await client.broadcast(Blob(number=2))
        assert await got.until(1) == [2]


@scenario
async def test_event_of_exactly_the_frame_limit_passes_and_one_word_more_does_not(
    runtime: Runtime, short_tmp_path: Path
) -> None:
    # Header 16, table 8, root pointer 8, number 8, pointer to the data 8: 48 bytes around it.
    small = Limits(frame_bytes=1024)
    async with pair(runtime, short_tmp_path, server={"limits": small}) as (server, client):
        got = Collector()
        await server.subscribe(Blob, got).acknowledged()
        await client.broadcast(Blob(number=1, data=bytes(1024 - 48)))
        assert await got.until(1) == [1]
        with pytest.raises(FrameTooLarge):
            await client.broadcast(Blob(number=1, data=bytes(1024 - 48 + 1)))

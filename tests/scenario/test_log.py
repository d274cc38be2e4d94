"""What peers can make an endpoint log: each kind of line a few times in a while, and how many were left out."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lahja_capn.binding import event_type
from lahja_capn.endpoint.limitedlog import LOG_LINES
from lahja_capn.session import FailedArrived
from lahja_capn.session.control import Dropped, Goodbye
from tests.conftest import Runtime
from tests.scenario.events import Blob, Count, Question, Reply
from tests.scenario.rawpeer import event_frame, frame_of, send_raw, shake_hands, strange_type, talk_to
from tests.scenario.support import RawPeer, at, eventually, raw_peer, scenario

# How often a peer does what is logged.
TIMES = 30

Harm = Callable[[Any, RawPeer], Awaitable[None]]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged; asyncio has its own to say on a slow machine."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("lahja_capn")]


async def send_unreadable_events(server: Any, peer: RawPeer) -> None:
    """Events whose own fields a handler cannot read: one traceback each."""
    wire_id = peer.table.wire_id(event_type(Blob))
    await peer.write()
    # A list pointer that leaves the message.
    broken = bytes.fromhex("00000000 01000200".replace(" ", "")) + bytes(8) + b"\xff" * 8 + b"\xff" * 8
    for _ in range(TIMES):
        await send_raw(peer, event_frame(wire_id, (broken,)))
    await eventually(lambda: server.failures() == TIMES)


async def ask_what_fails(server: Any, peer: RawPeer) -> None:
    for _ in range(TIMES):
        question = Question(number=1)
        peer.session.send_request(question._event_type, question._event_type.encode(question))
    await peer.read(lambda: len(peer.of(FailedArrived)) == TIMES)


async def send_garbage(server: Any, peer: RawPeer) -> None:
    for _ in range(TIMES):
        with talk_to(server.ipc_path) as stranger:
            await stranger.send(b"\xff" * 64)
            assert isinstance(await stranger.goodbye(), Goodbye)


async def come_and_go(server: Any, name: str, rows: Any = (), more: bytes = b"") -> None:
    with talk_to(server.ipc_path) as talker:
        await talker.send(shake_hands(name=name, rows=rows) + more)
        await server.wait_until_connected_to(name)
        await talker.send(frame_of(Goodbye("shutdown", "")))
        await eventually(lambda: len(server._peers.all) == 1)


async def say_that_events_were_dropped(server: Any, peer: RawPeer) -> None:
    """Each time on a new connection, of which nothing was logged yet."""
    for number in range(TIMES):
        await come_and_go(server, f"dropping-{number}", more=frame_of(Dropped(((1, 1),))))


async def declare_what_does_not_fit(server: Any, peer: RawPeer) -> None:
    """Each time on a new connection."""
    row = event_type(Count).row
    other = strange_type(row.type_id, row.name, (*row.layout[:-1], row.layout[-1] ^ 1)).row
    for number in range(TIMES):
        await come_and_go(server, f"other-{number}", rows=((1, other),))


HARM: dict[str, tuple[Harm, str]] = {
    "unreadable events": (send_unreadable_events, "raised on Blob"),
    "failing requests": (ask_what_fails, "raised on Question"),
    "garbage": (send_garbage, "ended: "),
    "dropped": (say_that_events_were_dropped, "dropped events for this endpoint"),
    "layouts": (declare_what_does_not_fit, "not exchanged"),
}


@pytest.mark.parametrize("kind", HARM)
@scenario
async def test_peer_cannot_fill_the_log(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    caplog.set_level(logging.INFO, "lahja_capn")
    harm, text = HARM[kind]
    async with runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server:
        subscription = server.subscribe(Blob, lambda blob: blob.data)

        async def answer(question: Question) -> None:
            raise ValueError(question.number)

        server.subscribe(Question, answer)
        server.subscribe(Count, lambda count: None)
        server.failures = lambda: subscription.counters().failed
        async with raw_peer(server) as peer:
            await peer.read(lambda: len(peer.session.remote_subscriptions) == 3)
            await harm(server, peer)
            said = lines(caplog)
            assert len([line for line in said if text in line]) == LOG_LINES
            assert len(said) == LOG_LINES
    # At the end at the latest it is said how many there were.
    (last,) = lines(caplog)[LOG_LINES:]
    assert f"{TIMES - LOG_LINES} more messages" in last


@scenario
async def test_lines_that_were_left_out_are_told_with_the_next_one(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "lahja_capn")
    async with (
        runtime.endpoint_class.serve(at(short_tmp_path, "server")) as server,
        raw_peer(server) as peer,
    ):
        await send_garbage(server, peer)
        server._log_ended._window_ends = 0.0
        await send_garbage(server, peer)
        said = lines(caplog)
        assert len(said) == 2 * LOG_LINES
        assert said[LOG_LINES].endswith(f"(and {TIMES - LOG_LINES} more such messages, not logged)")
        assert not any("more such" in line for line in said[LOG_LINES + 1 :])


@scenario
async def test_asker_that_leaves_before_its_answers_is_no_error_of_the_responder(
    runtime: Runtime, short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lahja_capn")
    failed = []
    async with runtime.endpoint_class.serve(
        at(short_tmp_path, "server"), on_handler_error=lambda event, error: failed.append(error)
    ) as server:
        begun: list[int] = []
        waiting: list[Any] = []

        async def answer(question: Question) -> None:
            begun.append(question.number)
            waiter = server._runtime.new_waiter()
            waiting.append(waiter)
            await waiter.wait()
            await server.respond(question, Reply(number=1))

        subscription = server.subscribe(Question, answer)
        for total in (5, 10, 15):
            async with raw_peer(server) as asker:
                await asker.read(lambda: asker.session.remote_subscriptions)
                for number in range(5):
                    question = Question(number=number)
                    asker.session.send_request(question._event_type, question._event_type.encode(question))
                await asker.write()
                await eventually(lambda total=total: len(begun) == total)
            await eventually(lambda: not server._peers.all)
            while waiting:
                waiting.pop().wake(None)
            await eventually(lambda total=total: server._bus.late_answers == total)
        assert subscription.counters().failed == 0
    assert failed == []
    assert lines(caplog) == []

"""What the children run: ``python program.py ROLE RUNTIME PATH NAME [ARGUMENT]``. Each says what it does on stdout."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

from lahja_capn import AsyncioEndpoint, ConnectionConfig, Limits
from lahja_capn.binding import event_type
from tests.scenario.events import Blob, Count, Question, Reply
from tests.scenario.rawpeer import event_frame, frame_of, hello
from tests.scenario.support import eventually

# A slow machine is not what these tests are about.
logging.getLogger("asyncio").setLevel(logging.ERROR)

Endpoint: Any


def say(*words: object) -> None:
    print(*words, flush=True)


async def until_left_alone(endpoint: Any) -> None:
    """Wait until the server has gone."""
    while endpoint.is_connected_to("server"):
        await endpoint.wait_until_connections_change(endpoint.connections_version)
    say("alone")


async def idle(config: ConnectionConfig, name: str, _: str) -> None:
    """Connect, and end when the server has."""
    async with Endpoint(name).run() as endpoint:
        await endpoint.connect_to_endpoints(config)
        say("connected")
        await until_left_alone(endpoint)


async def hold_request(config: ConnectionConfig, name: str, _: str) -> None:
    """Take requests, and never answer."""
    async with Endpoint(name).run() as endpoint:
        endpoint.subscribe(Question, lambda _: say("asked"))
        stream = endpoint.stream(Question)
        await endpoint.connect_to_endpoints(config)
        say("connected")
        await until_left_alone(endpoint)
        await stream.aclose()


async def consume(config: ConnectionConfig, name: str, count: str) -> None:
    """Take so many events, which must come in order from 0; endless if count is 0."""
    expected = 0
    enough = anyio.Event()
    async with Endpoint(name).run() as endpoint:

        def take(event: Count) -> None:
            nonlocal expected
            assert event.number == expected, f"got {event.number}, expected {expected}"
            expected += 1
            if expected == int(count):
                enough.set()

        def report(error_of: Any, error: Exception) -> None:
            say("wrong:", error)
            os._exit(4)

        endpoint.on_handler_error = report
        endpoint.subscribe(Count, take)
        endpoint.subscribe(Blob, lambda event: say("blob", event.number))
        await endpoint.connect_to_endpoints(config)
        say("connected")
        if int(count):
            await enough.wait()
            say("got", expected)
        await until_left_alone(endpoint)


async def flood(config: ConnectionConfig, name: str, _: str) -> None:
    """Publish large events for ever, of bytes that no buffer has before they came."""
    async with Endpoint(name).run() as endpoint:
        await endpoint.connect_to_endpoints(config)
        await endpoint.wait_until_endpoint_subscribed_to("server", Blob)
        number = 0
        while True:
            await endpoint.broadcast(Blob(number=number, data=b"x" * 4_000_000))
            number += 1


async def half_a_frame(config: ConnectionConfig, name: str, _: str) -> None:
    """Send a whole event and half of another one, and hang."""
    from lahja_capn.session.control import Declare, Subscriptions

    bound = event_type(Count)
    frame = event_frame(1, bound.encode(Count(number=1)))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(os.fspath(config.path))
        sock.sendall(frame_of(hello(name=name)) + frame_of(Declare(((1, bound.row),))))
        sock.sendall(frame_of(Subscriptions(1, (), (), False, False)))
        assert sock.recv(1)
        sys.stdin.readline()
        sock.sendall(frame + frame[: len(frame) // 2])
        say("half")
        sys.stdin.readline()


async def serve(config: ConnectionConfig, name: str, interrupt: str) -> None:
    """Serve, answer requests, and end with the line "stop" on stdin."""
    async with Endpoint.serve(config) as endpoint:

        async def answer(request: Question) -> None:
            await endpoint.respond(request, Reply(number=request.number))

        endpoint.subscribe(Question, answer)
        # anyio imports what it needs for this loop when it is first used; an interrupt in there is another story.
        await anyio.lowlevel.checkpoint()
        say("serving")
        if interrupt:
            await anyio.sleep_forever()
        await anyio.to_thread.run_sync(sys.stdin.readline)


async def serve_until_terminated(config: ConnectionConfig, name: str, _: str) -> None:
    """Serve, and end in good order on SIGTERM."""
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async with Endpoint.serve(config) as endpoint:
            endpoint.subscribe(Count, lambda event: anyio.sleep_forever())
            say("serving")
            await anext(aiter(signals))


async def interrupted_inside(config: ConnectionConfig, name: str, _: str) -> None:
    """Ctrl-C hits while one of the endpoint's own tasks runs."""

    def interrupt(event: Count) -> None:
        signal.raise_signal(signal.SIGINT)

    async with Endpoint.serve(config) as endpoint, Endpoint(name).run() as peer:
        endpoint.subscribe(Count, interrupt)
        await peer.connect_to_endpoints(config)
        await peer.broadcast(Count(number=1))
        await anyio.sleep_forever()


async def ask(config: ConnectionConfig, name: str, count: str) -> None:
    """Ask so many questions at the same time; every answer must be its own."""
    async with Endpoint(name).run() as endpoint:
        await endpoint.connect_to_endpoints(config)
        await endpoint.wait_until_endpoint_subscribed_to("server", Question)
        answered = 0

        async def ask_one(number: int) -> None:
            nonlocal answered
            answer = await endpoint.request(Question(number=number, data=bytes(number % 3000)))
            assert answer.number == number
            answered += 1

        async with anyio.create_task_group() as tasks:
            for number in range(int(count)):
                tasks.start_soon(ask_one, number)
        say("answered", answered)


async def publish(config: ConnectionConfig, name: str, argument: str) -> None:
    """Serve, wait for so many subscribers, publish so many events, and end when all of it is on its way."""
    subscribers, count = map(int, argument.split(","))
    async with Endpoint.serve(config) as endpoint:
        await eventually(lambda: len(endpoint._peers.up) == subscribers)
        assert endpoint.are_all_endpoints_subscribed_to(Count, include_self=False)
        for number in range(count):
            await endpoint.broadcast(Count(number=number))
        say("published", count)


async def stay_connected(config: ConnectionConfig, name: str, argument: str) -> None:
    """Connect with a short keepalive, and say how the connection ended."""
    limits = Limits(keepalive_s=float(argument))
    async with Endpoint(name, limits=limits).run() as endpoint:
        await endpoint.connect_to_endpoints(config)
        say("connected")
        await until_left_alone(endpoint)


def run(runtime: str, main: Callable[[], Awaitable[None]]) -> None:
    global Endpoint
    if runtime == "trio":
        import trio

        from lahja_capn import TrioEndpoint

        Endpoint = TrioEndpoint
        trio.run(main)
        return
    Endpoint = AsyncioEndpoint
    loop_factory = None
    if runtime == "asyncio+uvloop":
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())  # type: ignore[arg-type]


if __name__ == "__main__":
    # Whoever was started in the background of a shell inherits that it ignores the signal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    role, runtime, path, name = sys.argv[1:5]
    argument = sys.argv[5] if len(sys.argv) > 5 else ""
    part = globals()[role]
    config = ConnectionConfig("server", Path(path))
    if argument == "catch":
        try:
            run(runtime, lambda: part(config, name, argument))
        except KeyboardInterrupt:
            say("interrupted")
    else:
        run(runtime, lambda: part(config, name, argument))

"""``conformance peer``: an endpoint that does what JSON lines say. peers/README.md has the protocol."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel

from lahja_capn import (
    AsyncioEndpoint,
    BaseEvent,
    BroadcastConfig,
    ConnectionConfig,
    LahjaError,
    Limits,
    NoSubscribers,
    RemoteDisconnected,
    RequestFailed,
    RequestTimeout,
    Subscription,
    TrioEndpoint,
    UnexpectedResponse,
)
from tests.vectors.bound import TYPES, Answer, Ask, Blob, Count, build, read

from .watching import watched

logger = logging.getLogger("conformance")

Command = dict[str, Any]

EVENTS = {name: found.event_class for name, found in TYPES.items()}
# Every type but Late stands in hello.
DECLARED = tuple(event for name, event in EVENTS.items() if name != "Late")


def blob_data(number: int, size: int) -> bytes:
    """Byte k is (31 k + number) mod 256."""
    period = bytes((31 * k + number) % 256 for k in range(256))
    return (period * (size // 256 + 1))[:size]


class Counted:
    """The Count events that arrived, and who waits for how many."""

    def __init__(self) -> None:
        self.events = 0
        self.in_order = True
        self._last: int | None = None
        self._waiting: list[tuple[int, anyio.Event]] = []

    def add(self, number: int) -> None:
        self.in_order = self.in_order and self._last in (None, number - 1)
        self._last = number
        self.events += 1
        if self._waiting:
            for count, reached in self._waiting:
                if self.events >= count:
                    reached.set()
            self._waiting = [(count, reached) for count, reached in self._waiting if not reached.is_set()]

    async def reach(self, count: int) -> None:
        if self.events < count:
            reached = anyio.Event()
            self._waiting.append((count, reached))
            await reached.wait()


class Peer:
    """One endpoint, one remote peer at a time (the latest that came up), and the commands."""

    def __init__(self, limits: Limits, runtime: str) -> None:
        self._limits = limits
        self._class = watched(TrioEndpoint if runtime == "trio" else AsyncioEndpoint, self._say)  # type: ignore[arg-type]
        self._ups = 0
        self._remote = ""
        self._remote_wants: set[str] = set()
        self._subscriptions: dict[str, Subscription] = {}
        self._counted = Counted()
        # Set while events are not to be taken: handlers wait for it.
        self._held: anyio.Event | None = None

    def _say(self, line: dict[str, Any]) -> None:
        if line["is"] == "up":
            self._ups += 1
            self._remote = line["peer"]
            self._remote_wants = set()
        elif line["is"] == "down" and not self._bus.is_connected_to(line["peer"]):
            self._remote = ""
        sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
        sys.stdout.flush()

    async def run(self, name: str, serve: Path | None, connect: Path | None, expect: str) -> None:
        """Live until ``stop`` or the end of standard input."""
        async with self._endpoint(name, serve) as self._bus, anyio.create_task_group() as self._tasks:
            # The rows of every type stand in hello. The API has no word for it, but whoever asks about a type's
            # subscribers is about to send it.
            for event in DECLARED:
                with contextlib.suppress(NoSubscribers):
                    self._bus.maybe_raise_no_subscribers_exception(None, event)
            self._tasks.start_soon(self._watch_subscriptions)
            if serve is not None:
                self._say({"is": "listening"})
            if connect is not None:
                self._tasks.start_soon(self._connect, ConnectionConfig(expect, connect))
            stopped = await self._obey()
            self._tasks.cancel_scope.cancel()
        if stopped:
            self._say({"is": "stopped"})

    def _endpoint(
        self, name: str, serve: Path | None
    ) -> contextlib.AbstractAsyncContextManager[AsyncioEndpoint]:
        if serve is None:
            return self._class(name, limits=self._limits).run()
        return self._class.serve(ConnectionConfig(name, serve), limits=self._limits)

    async def _connect(self, config: ConnectionConfig) -> None:
        try:
            await self._bus.connect_to_endpoints(config)
        except LahjaError as error:
            # Said on standard output, too, when there was somebody to refuse us.
            logger.error("%s", error)

    async def _watch_subscriptions(self) -> None:
        version = 0
        while True:
            version = await self._bus.wait_until_endpoint_subscriptions_change(since=version)
            endpoints = dict(self._bus.get_connected_endpoints_and_subscriptions())
            if self._remote not in endpoints:
                continue
            now = {event.__name__ for event in endpoints[self._remote]}
            before, self._remote_wants = self._remote_wants, now
            for type_name in sorted(now - before):
                self._say({"is": "peer_subscribed", "type": type_name})
            for type_name in sorted(before - now):
                self._say({"is": "peer_unsubscribed", "type": type_name})

    # --- commands -------------------------------------------------------------------------------------

    async def _obey(self) -> bool:
        """Do what standard input says; True after ``stop``, False at its end."""
        async with _input_lines() as lines:
            async for line in lines:
                command: Command = {}
                try:
                    command = json.loads(line)
                    if command["do"] == "stop":
                        return True
                    await self._do(command)
                except Exception as error:
                    logger.debug("command failed: %s", line, exc_info=error)
                    self._say({"is": "error", "text": f"{type(error).__name__}: {error}", "command": command})
        return False

    async def _do(self, command: Command) -> None:
        what = command["do"]
        if what == "subscribe":
            for type_name in command["types"]:
                if type_name not in self._subscriptions:
                    self._subscriptions[type_name] = self._bus.subscribe(EVENTS[type_name], self._take)
            for type_name in command["types"]:
                await self._subscriptions[type_name].acknowledged()
            self._say({"is": "subscribed"})
        elif what == "unsubscribe":
            await self._unsubscribe(command["types"])
            self._say({"is": "unsubscribed"})
        elif what == "broadcast":
            await self._broadcast(build(command["type"], command["value"]))
            self._say({"is": "sent"})
        elif what == "blob":
            number, size = command["id"], command["size"]
            await self._broadcast(Blob(id=number, data=blob_data(number, size)))
            self._say({"is": "sent"})
        elif what == "count":
            self._tasks.start_soon(self._count, command)
        elif what == "await_count":
            self._tasks.start_soon(self._await_count, command)
        elif what == "request":
            self._tasks.start_soon(self._request, command)
        elif what == "hold":
            self._held = self._held or anyio.Event()
            self._say({"is": "holding"})
        elif what == "resume":
            if self._held is not None:
                self._held.set()
                self._held = None
            self._say({"is": "resumed"})
        elif what == "serve_requests":
            if "Ask" not in self._subscriptions:
                self._subscriptions["Ask"] = self._bus.subscribe(Ask, self._answer)
            await self._subscriptions["Ask"].acknowledged()
            self._say({"is": "serving"})
        elif what == "status":
            self._say(self._status())
        else:
            raise ValueError(f"there is no command {what!r}")

    async def _unsubscribe(self, types: list[str]) -> None:
        for type_name in types:
            if type_name in self._subscriptions:
                self._subscriptions.pop(type_name).unsubscribe()
        # The API acknowledges subscribing alone; but a peer that has applied a later change has applied this one.
        # A second subscription to a type that we have anyway is no message to the peer.
        later = EVENTS[next(iter(self._subscriptions), "Answer")]
        subscription = self._bus.subscribe(later, lambda event: None)
        await subscription.acknowledged()
        subscription.unsubscribe()

    def _status(self) -> dict[str, Any]:
        counters = self._bus.get_peer_counters().get(self._remote)
        return {
            "is": "status",
            "sent_events": counters.sent if counters else 0,
            "received_events": counters.received if counters else 0,
            "skipped": counters.skipped if counters else 0,
            # The balance itself is not public. What stays queued while the peer reads its stream lacks credit.
            "waiting_for_credit": bool(counters and counters.queued),
        }

    # --- events ---------------------------------------------------------------------------------------

    def _to_remote(self) -> BroadcastConfig:
        # Not to our own subscriptions; and to nobody if nobody is there or wants it.
        return BroadcastConfig(filter_endpoint=self._remote, require_subscriber=False)

    async def _broadcast(self, event: BaseEvent) -> None:
        if self._remote:
            await self._bus.broadcast(event, self._to_remote())

    async def _take(self, event: BaseEvent) -> None:
        if self._held is not None:
            await self._held.wait()
        if isinstance(event, Count):
            self._counted.add(event.number)
        elif isinstance(event, Blob):
            data = event.data
            self._say({"is": "received_blob", "id": event.id, "size": len(data), "sum": sum(data) % 2**32})
        else:
            self._say({"is": "received", "type": type(event).__name__, "value": read(event)})

    async def _count(self, command: Command) -> None:
        connection = self._ups
        for number in range(command["from"], command["to"]):
            if self._ups != connection or not self._remote:
                break  # the rest would go nowhere, or surprise the next peer
            await self._broadcast(Count(number=number))
        self._say({"is": "counted", "tag": command["tag"]})

    async def _await_count(self, command: Command) -> None:
        await self._counted.reach(command["count"])
        self._say(
            {
                "is": "count_reached",
                "tag": command["tag"],
                "count": command["count"],
                "in_order": self._counted.in_order,
            }
        )

    # --- requests -------------------------------------------------------------------------------------

    async def _answer(self, request: Ask) -> None:
        if request.mode == "answer":
            number = request.number
            await self._bus.respond(request, Answer(number=number * 2 % 2**64, text=f"twice {number}"))
        elif request.mode == "fail":
            raise ValueError("asked to fail")
        # silence: never answered

    async def _request(self, command: Command) -> None:
        tag = {"tag": command["tag"]}
        ask = Ask(number=int(command["number"]), mode=command["mode"])
        failed = {"is": "failed", **tag, "code": "noHandler", "type_name": "", "text": ""}
        try:
            answer = await self._bus.request(ask, self._to_remote(), timeout=command["timeout_ms"] / 1000)
        except RequestFailed as error:
            failure = error.failures[0]
            line = {**failed, "code": failure.code, "type_name": failure.type_name, "text": failure.text}
        except UnexpectedResponse as error:
            line = {**failed, "code": "", "text": str(error)}
        except NoSubscribers as error:
            line = {**failed, "text": str(error)}
        except RequestTimeout:
            line = {"is": "timed_out", **tag}
        except RemoteDisconnected:
            line = {"is": "lost", **tag}
        else:
            line = {"is": "answered", **tag, "number": str(answer.number), "text": answer.text}
        self._say(line)


@contextlib.asynccontextmanager
async def _input_lines() -> AsyncIterator[Any]:
    """Lines of standard input, whatever kind of file it is, on every runtime."""
    send, receive = anyio.create_memory_object_stream[bytes](1000)
    token = anyio.lowlevel.current_token()

    def read() -> None:
        # Not sys.stdin: a daemon thread that waits in its buffer's lock makes the interpreter abort at exit.
        rest = b""
        with contextlib.suppress(anyio.BrokenResourceError, anyio.RunFinishedError):
            while chunk := os.read(0, 65536):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.strip():
                        anyio.from_thread.run(send.send, line, token=token)
            anyio.from_thread.run_sync(send.close, token=token)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    async with receive:
        yield receive

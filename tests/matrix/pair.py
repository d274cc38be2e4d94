"""Two programs that talk to each other: one serves, the other connects."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from peers.languages import FOREIGN, PEERS

from .program import Program

# Windows for events, small, so that an ordinary burst exhausts them: 1,638 and 6,553 Count events of 40 bytes. Two
# sizes, as a program that confuses the two directions would not show with one.
SERVER_EVENT_CREDIT = 65_536
CLIENT_EVENT_CREDIT = 262_144

# For a new process, whose runtime and libraries may have to be read from a busy disk.
START_LIMIT_S = 30.0


@dataclass(frozen=True)
class Side:
    """One row or column of the matrix: a language, and for Python a runtime."""

    key: str
    title: str
    command: tuple[str, ...]
    options: tuple[str, ...] = ()

    def start(self, name: str, *options: str) -> Program:
        return Program(
            name,
            self.title,
            [*self.command, "peer", "--name", name, *options, *self.options],
            # Python's launcher asks for it; the others do not care.
            {"PYTHON": sys.executable},
        )


_PYTHON = (os.fspath(PEERS / "python" / "bin" / "conformance"),)

PYTHON_SIDES = (
    Side("asyncio", "Python/asyncio", _PYTHON, ("--runtime", "asyncio")),
    Side("trio", "Python/trio", _PYTHON, ("--runtime", "trio")),
)
UVLOOP = Side("uvloop", "Python/uvloop", _PYTHON, ("--runtime", "uvloop"))
FOREIGN_SIDES = {
    language.key: Side(language.key, language.title, (os.fspath(language.program),)) for language in FOREIGN
}
ALL_SIDES = (*PYTHON_SIDES, *FOREIGN_SIDES.values())


class Pair:
    """A server and a connector that are up with each other, and what both have been told so far."""

    def __init__(self, serving: Side, connecting: Side, folder: Path) -> None:
        self.serving = serving
        self.connecting = connecting
        self.path = folder / "s.ipc"
        self.started: list[Program] = []
        # Count events that were broadcast to a program; the next one continues the row.
        self._counted: dict[Program, int] = {}
        self._subscribed: dict[Program, set[str]] = {}

    def start(self) -> None:
        self.start_server()
        self.start_client()

    def start_server(self, *options: str) -> None:
        self.server_options = options
        self.server = self._start(
            self.serving,
            "server",
            "--serve",
            os.fspath(self.path),
            "--event-credit",
            str(SERVER_EVENT_CREDIT),
            *options,
        )
        self.server.wait("listening", limit_s=START_LIMIT_S)

    def start_client(self) -> None:
        """Start a connector and wait until both sides say that they are up."""
        mark = self.server.mark()
        self.client = self.new_client()
        self.client.wait("up", limit_s=START_LIMIT_S, peer="server")
        self.server.wait("up", mark, peer="client")

    def new_client(self) -> Program:
        """Start a connector, of the name that they all have, and wait for nothing."""
        options = {
            "--connect": os.fspath(self.path),
            "--expect": "server",
            "--event-credit": str(CLIENT_EVENT_CREDIT),
        }
        return self._start(
            self.connecting, "client", *(word for option in options.items() for word in option)
        )

    def _start(self, side: Side, name: str, *options: str) -> Program:
        program = side.start(name, *options)
        self.started.append(program)
        self._counted[program] = 0
        self._subscribed[program] = set()
        return program

    @property
    def both_ways(self) -> tuple[tuple[Program, Program], tuple[Program, Program]]:
        """Sender and receiver, in both directions."""
        return (self.server, self.client), (self.client, self.server)

    def other(self, program: Program) -> Program:
        return self.client if program is self.server else self.server

    def subscribe(self, receiver: Program, *types: str) -> None:
        """Subscribe to what is not subscribed yet; returns when both sides have said that they know."""
        subscribed = self._subscribed[receiver]
        if new := [type_name for type_name in types if type_name not in subscribed]:
            receiver.do("subscribe", "subscribed", types=new)
            subscribed.update(new)
        self._wait_until_known(self.other(receiver), *types)

    def serve_requests(self, responder: Program) -> None:
        """The same for requests."""
        if "Ask" not in self._subscribed[responder]:
            responder.do("serve_requests", "serving")
            self._subscribed[responder].add("Ask")
        self._wait_until_known(self.other(responder), "Ask")

    def unsubscribed(self, receiver: Program, type_name: str) -> None:
        """The receiver was told to leave the type, and the other side has said that it knows."""
        self._subscribed[receiver].remove(type_name)

    def _wait_until_known(self, sender: Program, *types: str) -> None:
        for type_name in types:
            # What was said before the connection came up, or before the type was left, counts no more.
            since = sender.last("up") + 1
            since = max(since, sender.last("peer_unsubscribed", type=type_name) + 1)
            sender.wait("peer_subscribed", since, type=type_name)

    def count(self, sender: Program, receiver: Program, events: int) -> tuple[str, int]:
        """Begin to broadcast the next Count events; returns the tag and how many the receiver has then got in all."""
        first = self._counted[receiver]
        self._counted[receiver] = first + events
        tag = sender.tag()
        sender.send("count", **{"from": first, "to": first + events, "tag": tag})
        return tag, first + events

    def report(self) -> str:
        return "\n".join(program.report() for program in self.started[-4:])

    def close(self) -> None:
        for program in self.started:
            program.close()

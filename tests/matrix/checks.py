"""What is checked between every two languages, in this order, mostly in one pair of processes.

Each check finds the pair up, subscribes to what it needs, and leaves the pair up.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

from .pair import CLIENT_EVENT_CREDIT, SERVER_EVENT_CREDIT, START_LIMIT_S, Pair
from .program import LIMIT_S, Program, Trouble
from .values import VALUES

# The frame of a Count event: 16 header, 8 segment table, root pointer, one word. No writer can make it smaller.
COUNT_FRAME_BYTES = 40

MANY = 50_000
MANY_LIMIT_S = 60.0

BLOB_BYTES = 1_000_000

# docs/wire.md allows the receiver 1 s; the rest is for a busy machine.
OWED_LIMIT_S = 2.5

# A process that was killed is noticed by its end of stream.
DOWN_LIMIT_S = 5.0

# Of the server that follows the killed one. After three of them a connector is dead for it.
KEEPALIVE = ("--keepalive-ms", "300")

MAX_U64 = 2**64 - 1


def _equal(what: str, got: Any, wanted: Any) -> None:
    if got == wanted:
        return
    if isinstance(got, dict) and isinstance(wanted, dict):
        differing = sorted(
            key for key in {*got, *wanted} if got.get(key, "(absent)") != wanted.get(key, "(absent)")
        )
        facts = "; ".join(
            f"{key}: wanted {wanted.get(key, '(absent)')!r}, got {got.get(key, '(absent)')!r}"
            for key in differing
        )
        raise Trouble(f"{what}: {facts}"[:2000])
    raise Trouble(f"{what}: wanted {wanted!r}, got {got!r}"[:2000])


def handshake(pair: Pair) -> None:
    """Both came up under the names they have; nobody was refused or came up twice."""
    for program in (pair.server, pair.client):
        # An answer of each: what it had to say before has been said.
        program.do("status", "status")
        _equal(f"{program.title}: times up", len(program.said("up")), 1)
        _equal(f"{program.title}: refusals and ends", program.said("refused") + program.said("down"), [])


def every_field(pair: Pair) -> None:
    """Each value arrives as it was sent, in both directions."""
    types = sorted({type_name for _, type_name, _, _ in VALUES})
    for sender, receiver in pair.both_ways:
        pair.subscribe(receiver, *types)
        for name, type_name, build, value in VALUES:
            mark = receiver.mark()
            sender.do("broadcast", "sent", type=type_name, value=build)
            line = receiver.wait("received", mark)
            what = f"{receiver.title}: values/{name} from {sender.title}"
            _equal(f"{what}: type", line.get("type"), type_name)
            _equal(what, line.get("value"), value)


def requests(pair: Pair) -> None:
    """Answers come to the request they belong to, also while others are open; silence ends in the time-out."""
    for asker, responder in pair.both_ways:
        pair.serve_requests(responder)
        silent = asker.ask(1, mode="silence", timeout_ms=300)
        numbers = [0, 21, 2**63 + 5, MAX_U64]
        tags = [asker.ask(number) for number in numbers]
        for number, tag in zip(numbers, tags, strict=True):
            _equal(
                f"{asker.title}: answer of {responder.title} to {number}",
                asker.outcome(tag),
                {
                    "is": "answered",
                    "tag": tag,
                    "number": str(2 * number % 2**64),
                    "text": f"twice {number}",
                },
            )
        _equal(
            f"{asker.title}: a request that is never answered",
            asker.outcome(silent),
            {"is": "timed_out", "tag": silent},
        )


def failed_response(pair: Pair) -> None:
    """A request whose handler raised fails with the code, the exception's name and its text."""
    for asker, responder in pair.both_ways:
        pair.serve_requests(responder)
        tag = asker.ask(3, mode="fail")
        _equal(
            f"{asker.title}: failure at {responder.title}",
            asker.outcome(tag),
            {
                "is": "failed",
                "tag": tag,
                "code": "handlerRaised",
                "type_name": "ValueError",
                "text": "asked to fail",
            },
        )


def late_declare(pair: Pair) -> None:
    """A type that stood in nobody's hello: one side declares it to subscribe, the other to send; and the reverse."""
    for sender, receiver in pair.both_ways:
        pair.subscribe(receiver, "Late")
        mark = receiver.mark()
        text = f"better late, {receiver.title}"
        sender.do("broadcast", "sent", type="Late", value={"text": text})
        _equal(
            f"{receiver.title}: Late from {sender.title}",
            receiver.wait("received", mark, type="Late")["value"],
            {"text": text},
        )


def unsubscribe(pair: Pair) -> None:
    """In the middle of a stream of events: none after the acknowledgement, and all again after subscribing again."""
    for sender, receiver in pair.both_ways:
        pair.subscribe(receiver, "Evolving", "Late")
        mark = receiver.mark()
        heard = sender.mark()
        for number in range(100):
            sender.send("broadcast", type="Evolving", value={"number": number})
        receiver.wait("received", mark, type="Evolving")
        receiver.send("unsubscribe", types=["Evolving"])
        for number in range(100, 300):
            sender.send("broadcast", type="Evolving", value={"number": number})
        receiver.wait("unsubscribed", mark)
        sender.wait("peer_unsubscribed", heard, type="Evolving")
        pair.unsubscribed(receiver, "Evolving")
        sender.send("broadcast", type="Evolving", value={"number": 300})
        # What overtakes nothing here: an event of another type behind it.
        sender.send("broadcast", type="Late", value={"text": "end"})
        receiver.wait("received", mark, type="Late", value={"text": "end"})
        pair.subscribe(receiver, "Evolving")
        again = receiver.mark()
        sender.send("broadcast", type="Evolving", value={"number": 301})
        line = receiver.wait("received", again, type="Evolving")
        _equal(f"{receiver.title}: first event after subscribing again", line["value"].get("number"), 301)
        lines = receiver.lines[mark:]
        end = lines.index({"is": "unsubscribed"})
        numbers = [line["value"]["number"] for line in lines if line.get("type") == "Evolving"]
        before = len([line for line in lines[:end] if line.get("type") == "Evolving"])
        _equal(f"{receiver.title}: events of a stream that was left", numbers, [*range(before), 301])


def large_event(pair: Pair) -> None:
    """1 MB passes, also through a window of 64 KiB, with every byte in its place."""
    for number, (sender, receiver) in enumerate(pair.both_ways, 1):
        pair.subscribe(receiver, "Blob")
        # Not a multiple of 8, so that padding shows.
        for size in (BLOB_BYTES, BLOB_BYTES + 3):
            mark = receiver.mark()
            sender.do("blob", "sent", id=number, size=size)
            _equal(
                f"{receiver.title}: Blob from {sender.title}",
                receiver.wait("received_blob", mark),
                {
                    "is": "received_blob",
                    "id": number,
                    "size": size,
                    "sum": sum((k * 31 + number) % 256 for k in range(size)) % 2**32,
                },
            )


def credit(pair: Pair) -> None:
    """The receiver takes nothing: the sender stops at its window, requests pass, and then everything arrives.

    Before that it took less than half of the window, and did not say so: the sender gets that within a second.
    """
    for program in (pair.client, pair.server):
        pair.serve_requests(program)
    # Both directions at once: the second in which credit has to come is the same for them.
    streams = (
        _Exhausted(pair, pair.client, pair.server, SERVER_EVENT_CREDIT),
        _Exhausted(pair, pair.server, pair.client, CLIENT_EVENT_CREDIT),
    )
    for stream in streams:
        stream.fill()
    for stream in streams:
        stream.get_what_is_owed()
    for asker in (pair.client, pair.server):
        answer = asker.outcome(asker.ask(5))
        _equal(f"{asker.title}: a request while events wait for credit", answer.get("text"), "twice 5")
    for stream in streams:
        stream.recover()


class _Exhausted:
    """Count events from a sender to a receiver that takes none of them."""

    def __init__(self, pair: Pair, sender: Program, receiver: Program, window_bytes: int) -> None:
        self.pair = pair
        self.sender = sender
        self.receiver = receiver
        # In events: the last one takes the balance below zero.
        self.window = window_bytes // COUNT_FRAME_BYTES + 1

    def _sent(self) -> int:
        return int(self.sender.do("status", "status")["sent_events"]) - self.before

    def fill(self) -> None:
        sender, receiver = self.sender, self.receiver
        self.pair.subscribe(receiver, "Count")
        # Taken, but too few for their credit to come back at once, unless it makes up a half with what was owed before.
        tag, total = self.pair.count(sender, receiver, self.window // 4)
        reached = receiver.tag()
        receiver.do("await_count", "count_reached", count=total, tag=reached)
        sender.wait("counted", tag=tag)
        self.before = 0
        self.before = self._sent()
        receiver.do("hold", "holding")
        self.tag, self.total = self.pair.count(sender, receiver, 4 * self.window)
        _wait_for_status(sender, "waiting for credit", lambda status: status["waiting_for_credit"])

    def get_what_is_owed(self) -> None:
        """The balance and what is owed are the whole window together, as everything sent before was taken."""
        _wait_for_status(
            self.sender,
            f"given what {self.receiver.title} owes it, so that it has sent {self.window} events",
            lambda status: status["sent_events"] - self.before >= self.window,
            OWED_LIMIT_S,
        )
        # Where a handler waits, the event in it counts as taken.
        if (sent := self._sent()) > self.window + 1:
            raise Trouble(f"{self.sender.title}: sent {sent} events into a window of {self.window}")

    def recover(self) -> None:
        sender, receiver = self.sender, self.receiver
        reached = receiver.tag()
        receiver.send("await_count", count=self.total, tag=reached)
        if receiver.said("count_reached", tag=reached):
            raise Trouble(f"{receiver.title}: took events while it held")
        receiver.do("resume", "resumed")
        _equal(
            f"{receiver.title}: Count events after it resumed",
            receiver.wait("count_reached", tag=reached),
            {"is": "count_reached", "tag": reached, "count": self.total, "in_order": True},
        )
        sender.wait("counted", tag=self.tag)
        _wait_for_status(
            sender, "no longer waiting for credit", lambda status: not status["waiting_for_credit"]
        )
        _equal(f"{sender.title}: events sent", self._sent(), 4 * self.window)


def _wait_for_status(
    program: Program, what: str, reached: Callable[[dict[str, Any]], bool], limit_s: float = LIMIT_S
) -> None:
    """Ask for the status until it is as wanted."""
    until = time.monotonic() + limit_s
    while not reached(status := program.do("status", "status")):
        if time.monotonic() > until:
            raise Trouble(f"{program.title}: was not {what} within {limit_s:g} s, but {status}")
        # So that the asking does not take the processor from what is asked about.
        time.sleep(0.005)


def many_events(pair: Pair) -> None:
    """50,000 events in each direction at the same time: none lost, all in order."""
    waits = []
    for _, receiver in pair.both_ways:
        pair.subscribe(receiver, "Count")
    for sender, receiver in pair.both_ways:
        tag, total = pair.count(sender, receiver, MANY)
        reached = receiver.tag()
        receiver.send("await_count", count=total, tag=reached)
        waits.append((sender, tag, receiver, reached, total))
    for sender, tag, receiver, reached, total in waits:
        _equal(
            f"{receiver.title}: Count events from {sender.title}",
            receiver.wait("count_reached", tag=reached, limit_s=MANY_LIMIT_S),
            {"is": "count_reached", "tag": reached, "count": total, "in_order": True},
        )
        sender.wait("counted", tag=tag)
        status = receiver.do("status", "status")
        if status["received_events"] < total:
            raise Trouble(f"{receiver.title}: counts {status['received_events']} received events of {total}")


def killed_connector(pair: Pair) -> None:
    """SIGKILL in the middle of traffic: the server says so, and the next connector of that name works at once."""
    _kill(pair, victim=pair.client, survivor=pair.server)
    pair.start_client()
    _works(pair)


def killed_server(pair: Pair) -> None:
    """The same to the server. Another one takes its name and its socket file, which is still there."""
    survivor = pair.client
    _kill(pair, victim=pair.server, survivor=survivor)
    survivor.stop()
    pair.start_server(*KEEPALIVE)
    pair.start_client()
    _works(pair)


def _kill(pair: Pair, victim: Program, survivor: Program) -> None:
    pair.subscribe(survivor, "Count")
    pair.subscribe(victim, "Count")
    mark = survivor.mark()
    pair.serve_requests(victim)
    pending = survivor.ask(1, mode="silence", timeout_ms=60_000)
    # Requests keep their order: with this answer the silent one has arrived too.
    _equal(f"{survivor.title}: answer", survivor.outcome(survivor.ask(2)).get("text"), "twice 2")
    counting, _ = pair.count(survivor, victim, 1_000_000)
    # Fewer this way: what has arrived is the survivor's to read, however long it takes.
    pair.count(victim, survivor, 100_000)
    flowing = survivor.do("status", "status")["received_events"] + 1000
    _wait_for_status(survivor, "receiving", lambda status: status["received_events"] > flowing)
    victim.kill()
    down = survivor.wait("down", mark, limit_s=DOWN_LIMIT_S)
    _equal(
        f"{survivor.title}: end of {victim.title}",
        down,
        {"is": "down", "peer": victim.name, "code": "", "by_peer": True},
    )
    lost = survivor.outcome(pending)
    _equal(f"{survivor.title}: the request that was open", lost, {"is": "lost", "tag": pending})
    survivor.wait("counted", tag=counting, limit_s=LIMIT_S)


def _works(pair: Pair) -> None:
    """A fresh connection carries an event and a request in both directions."""
    for sender, receiver in pair.both_ways:
        pair.subscribe(receiver, "Evolving")
        pair.serve_requests(receiver)
        heard = receiver.mark()
        sender.do("broadcast", "sent", type="Evolving", value={"text": "again"})
        line = receiver.wait("received", heard, type="Evolving")
        _equal(f"{receiver.title}: event after the restart", line["value"].get("text"), "again")
        answer = sender.outcome(sender.ask(8))
        _equal(f"{sender.title}: request after the restart", answer.get("text"), "twice 8")


def claimed_name(pair: Pair) -> None:
    """A second connector of a name is refused while the first one lives, and takes over from one that is frozen."""
    holder = pair.client
    pair.serve_requests(pair.server)
    mark = pair.server.mark()
    claimant = pair.new_client()
    claimant.wait("refused", limit_s=START_LIMIT_S, code="nameInUse")
    claimant.stop()
    answer = holder.outcome(holder.ask(9))
    _equal(f"{holder.title}: request while its name was claimed", answer.get("text"), "twice 9")
    _equal(f"{pair.server.title}: ends while a name was claimed", pair.server.said("down", mark), [])
    holder.signal(signal.SIGSTOP)
    pair.start_client()
    _equal(
        f"{pair.server.title}: end of the frozen connector",
        pair.server.wait("down", mark),
        {"is": "down", "peer": "client", "code": "replaced", "by_peer": False},
    )
    _works(pair)
    holder.signal(signal.SIGCONT)
    _equal(
        f"{holder.title}: what it hears when it goes on",
        holder.wait("down"),
        {"is": "down", "peer": "server", "code": "replaced", "by_peer": True},
    )
    holder.stop()


def silence(pair: Pair) -> None:
    """A connector that is frozen answers no ping: the server takes it for dead."""
    if pair.server_options != KEEPALIVE:
        pair.client.stop()
        pair.server.stop()
        pair.start_server(*KEEPALIVE)
        pair.start_client()
    mark = pair.server.mark()
    pair.client.signal(signal.SIGSTOP)
    _equal(
        f"{pair.server.title}: end of the frozen connector",
        pair.server.wait("down", mark),
        {"is": "down", "peer": "client", "code": "keepaliveTimeout", "by_peer": False},
    )
    pair.client.signal(signal.SIGCONT)
    _equal(
        f"{pair.client.title}: what it hears when it goes on",
        pair.client.wait("down"),
        {"is": "down", "peer": "server", "code": "keepaliveTimeout", "by_peer": True},
    )
    pair.client.stop()
    pair.start_client()


def goodbye(pair: Pair) -> None:
    """Who stops says goodbye, ends with exit code 0, and is reported as gone on purpose."""
    mark = pair.server.mark()
    pair.client.stop()
    _equal(
        f"{pair.server.title}: end of the connector",
        pair.server.wait("down", mark),
        {"is": "down", "peer": "client", "code": "shutdown", "by_peer": True},
    )
    pair.start_client()
    mark = pair.client.mark()
    pair.server.stop()
    _equal(
        f"{pair.client.title}: end of the server",
        pair.client.wait("down", mark),
        {"is": "down", "peer": "server", "code": "shutdown", "by_peer": True},
    )
    pair.client.end_input()


CHECKS = (
    handshake,
    every_field,
    requests,
    failed_response,
    late_declare,
    unsubscribe,
    large_event,
    credit,
    many_events,
    killed_connector,
    claimed_name,
    killed_server,
    silence,
    goodbye,
)

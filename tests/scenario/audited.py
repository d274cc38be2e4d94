"""The audited process of test_audit.py: ``python -m tests.scenario.audited RUNTIME FOLDER``.

Warms up first, so that what Python itself imports lazily is not taken for something that a peer caused; then
arms the hook, sends everything again, and reports what the hook saw.
"""

from __future__ import annotations

import functools
import json
import logging
import marshal
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lahja_capn
from lahja_capn import AnyPointer, BaseEvent, bind
from lahja_capn.binding import event_type
from lahja_capn.session.control import Declare, Goodbye, Subscriptions
from lahja_capn.wire import FrameKind
from tests.conftest import Runtime
from tests.scenario.events import Blob, Count, Other, Question, Reply
from tests.scenario.rawpeer import event_frame, frame_of, hello, send_raw, shake_hands, strange_type, talk_to
from tests.scenario.support import Collector, at, eventually, raw_peer

assert AnyPointer

# Refusals are expected here by the dozen, and stderr is for what is not.
logging.getLogger("lahja_capn").setLevel(logging.CRITICAL)


@bind(type_id=0x9F0AB1C2D3E4F506)
class Custom(BaseEvent):
    """Serializes itself: its own code runs, and nothing else."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data

    @classmethod
    def deserialize(cls, data: bytes) -> Custom:
        return cls(bytes(data))


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = os.fspath(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


# --- the hook -----------------------------------------------------------------------------------------------

FORBIDDEN = {
    "import": "import",
    "exec": "exec",
    "compile": "compile",
    "pickle.find_class": "pickle",
    "marshal.loads": "marshal",
    "marshal.load": "marshal",
    "subprocess.Popen": "subprocess",
    "os.system": "subprocess",
    "os.exec": "subprocess",
    "os.posix_spawn": "subprocess",
    "os.fork": "subprocess",
    "ctypes.dlopen": "import",
    "code.__new__": "compile",
    "function.__new__": "compile",
}


class Auditor:
    """Counts what happens while it is armed, and keeps what must not."""

    def __init__(self) -> None:
        self.armed = False
        self.seen = 0
        self.forbidden: list[tuple[str, str]] = []
        sys.addaudithook(self.hook)

    def hook(self, name: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        self.seen += 1
        kind = FORBIDDEN.get(name)
        if name == "open" and str(arguments[0]).endswith(".capnp"):
            kind = "schema"
        if kind is not None:
            self.forbidden.append((kind, repr(arguments)[:200]))

    def what_is_caught(self, folder: Path) -> list[str]:
        """Do each forbidden thing once: a hook that is silent because it is deaf proves nothing."""
        schema = folder / "late.capnp"
        schema.write_text("@0xdeadbeefdeadbeef; struct Late {}")
        pickled = pickle.dumps(Count)
        code = compile("1", "here", "eval")
        things: list[Callable[[], Any]] = [
            lambda: pickle.loads(pickled),  # noqa: S301
            lambda: exec(code),  # noqa: S102
            lambda: compile("1", "there", "eval"),
            lambda: __import__("wave" if "wave" not in sys.modules else "sndhdr"),
            lambda: marshal.loads(marshal.dumps(1)),  # noqa: S302
            lambda: subprocess.run([sys.executable, "-c", ""], check=True),
            lambda: schema.read_text(),
        ]
        self.forbidden = []
        self.armed = True
        for thing in things:
            thing()
        self.armed = False
        caught = sorted({kind for kind, _ in self.forbidden})
        self.forbidden = []
        return caught


# --- what is sent -------------------------------------------------------------------------------------------


def hostile_bytes(bomb: bytes) -> list[bytes]:
    """What no peer should send: each ends its connection."""
    rng = random.Random(3)
    framed = len(bomb).to_bytes(4, "little") + bomb
    up = shake_hands(name="hostile")
    cls = "types.capnp:" + "os.system"
    control = [
        frame_of(hello(name="__import__('os').system('true')")),
        frame_of(hello(name="hostile", protocol_version=7)),
        up + frame_of(hello(name="hostile")),
        up + frame_of(Subscriptions(2, (0xABCDEF,), (), False, True)),
        up + frame_of(Declare(((1, strange_type(0, cls).row),))),
    ]
    return [
        framed,
        up + framed,
        up + event_frame(7, (bytes(16),)),
        up + b"\xff" * 64,
        b"import os\nos.mkdir('executed')\n" * 4,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(40),
        *control,
        *(b"\xff" * 8 + rng.randbytes(300) for _ in range(20)),
    ]


async def send_everything(server: Any, path: Path, bomb: bytes) -> dict[str, int]:
    counts, blobs, customs = Collector(), Collector(), Collector()
    subscriptions = [
        server.subscribe(Count, counts),
        server.subscribe(Blob, blobs),
        server.subscribe(Custom, customs),
    ]

    async def answer(request: Question) -> None:
        await server.respond(request, Reply(number=request.number))

    subscriptions.append(server.subscribe(Question, answer))
    goodbyes = 0
    async with raw_peer(server, Other, Question) as peer:
        wire_id = {cls: peer.table.wire_id(event_type(cls)) for cls in (Count, Blob, Custom, Question, Reply)}
        # Types that this process does not know, with names that would mean something to an importer.
        for number, name in enumerate(("os:system", "builtins:eval", "../../etc/passwd", "evil.capnp:Evil")):
            unknown = peer.table.wire_id(strange_type(0xE000_0000_0000_0001 + number, name, (1, 2)))
        await peer.write()
        await send_raw(peer, event_frame(unknown, (bomb + bytes(-len(bomb) % 8),)))
        await send_raw(peer, event_frame(wire_id[Count], event_type(Count).encode(Count(number=1))))
        for number in range(2):
            event = Blob(number=number, data=bomb)
            await send_raw(peer, event_frame(wire_id[Blob], event_type(Blob).encode(event)))
        await send_raw(peer, event_frame(wire_id[Custom], event_type(Custom).encode(Custom(bomb))))
        # Bytes that are no message at all, as an event and as a custom one.
        for cls in (Count, Custom):
            await send_raw(peer, event_frame(wire_id[cls], (b"\x7f" * 64,)))
        await eventually(lambda: len(blobs.events) == 2 and len(customs.events) >= 1)
        for blob in blobs.events:
            assert blob.data == bomb
        assert customs.events[0].data == bomb
        assert counts.events[0].number == 1
        repr(blobs.events[0])
        # A request of theirs, and one of ours that they answer.
        peer.session._outgoing.new()
        peer.session._outbox.requests_sent_to = 1
        question = event_type(Question).encode(Question(number=1))
        await send_raw(peer, event_frame(wire_id[Question], question, FrameKind.REQUEST, 1))
        await peer.read(lambda: peer.session.counters.responses_received)
        requests = peer.session.counters.responses_received
        answers = await ask(server, peer)
        await server.broadcast(Other(number=1))
        assert server.get_connected_endpoints_and_subscriptions()
    for data in hostile_bytes(bomb):
        with talk_to(path) as talker:
            await talker.send(data)
            assert isinstance(await talker.goodbye(), Goodbye)
            goodbyes += 1
    for subscription in subscriptions:
        subscription.unsubscribe()
    return {
        "counts": sum(1 for event in counts.events[:1] if event.number == 1),
        "blobs": len(blobs.events),
        "opaque": len(customs.events),
        "requests": requests,
        "answers": answers,
        "goodbyes": goodbyes,
    }


async def ask(server: Any, peer: Any) -> int:
    """A request to the raw peer, which answers it."""
    import anyio

    from lahja_capn import BroadcastConfig
    from lahja_capn.session import Arrived

    answers: list[Reply] = []

    async def request() -> None:
        config = BroadcastConfig(filter_endpoint="raw")
        answers.append(await server.request(Question(number=2), config))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(request)
        await peer.read(lambda: peer.of(Arrived))
        (arrived,) = peer.of(Arrived)
        reply = event_type(Reply)
        assert peer.session.send_response(arrived.number, reply, reply.encode(Reply(number=2)))
        await peer.write()
    return len(answers)


async def main(runtime: Runtime, folder: Path, auditor: Auditor) -> dict[str, Any]:
    bomb = pickle.dumps(Bomb(folder / "executed"))
    config = at(folder, "server")
    async with runtime.endpoint_class.serve(config) as server:
        await send_everything(server, config.path, bomb)
        auditor.armed = True
        received = await send_everything(server, config.path, bomb)
        auditor.armed = False
    return {
        "received": received,
        "hostile": len(hostile_bytes(bomb)),
        "forbidden": auditor.forbidden,
        "seen": auditor.seen,
    }


if __name__ == "__main__":
    runtime, folder = Runtime(sys.argv[1]), Path(sys.argv[2])
    assert lahja_capn.__version__
    auditor = Auditor()
    caught = auditor.what_is_caught(folder)
    auditor.seen = 0
    report = runtime.run(functools.partial(main, runtime, folder, auditor), debug=False)
    print(json.dumps({**report, "caught": caught}))

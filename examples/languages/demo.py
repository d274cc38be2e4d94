"""Five languages in one conversation: a Python endpoint, and programs in C++, Rust, Go and TypeScript.

The hub, in Python, counts. Each program says, in an event of its own, that it has seen the number, asks the hub
something, and answers what the hub asks. Printed as it happens. Run it with ``make demo-languages``. A program that is
not built is said to be missing, with the way to get it. Ends by itself; exit code 0 if everybody did their part.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from lahja_capn import (
    AsyncioEndpoint,
    BaseEvent,
    BaseRequestResponseEvent,
    BroadcastConfig,
    ConnectionConfig,
    EventStream,
    bind,
    load,
)

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, os.fspath(ROOT))

from peers.languages import FOREIGN, Language  # noqa: E402

NUMBERS = (1, 2, 3)
TIME_LIMIT_S = 50.0

schema = load(ROOT / "tests" / "vectors" / "conformance.capnp")
started = time.monotonic()


@bind(schema.Count)
class Count(BaseEvent):
    number: int


@bind(schema.Evolving)
class Evolving(BaseEvent):
    number: int
    text: str


@bind(schema.Answer)
class Answer(BaseEvent):
    number: int
    text: str


@bind(schema.Ask)
class Ask(BaseRequestResponseEvent[Answer]):
    number: int


def say(who: str, what: str) -> None:
    print(f"{time.monotonic() - started:6.2f} s  {who:12}{what}", flush=True)


class Guest:
    """A program in another language, in a process of its own."""

    def __init__(self, language: Language) -> None:
        self.name = language.key
        self.title = language.title
        self._program = os.fspath(language.example)
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []

    async def start(self, hub: ConnectionConfig) -> None:
        options = ["--connect", os.fspath(hub.path), "--expect", hub.name, "--name", self.name]
        self._process = await asyncio.create_subprocess_exec(
            self._program,
            *options,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # so that whatever it starts can be ended with it
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            asyncio.create_task(self._show(self._process.stdout, "")),
            asyncio.create_task(self._show(self._process.stderr, "(stderr) ")),
        ]

    async def _show(self, lines: asyncio.StreamReader, prefix: str) -> None:
        async for line in lines:
            say(self.title, prefix + line.decode(errors="replace").rstrip())

    async def ended(self) -> int:
        """Its exit code, when all that it said is shown."""
        assert self._process is not None
        await asyncio.gather(*self._readers)
        return await self._process.wait()

    async def leave_nothing_behind(self) -> None:
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        await self.ended()


async def converse(hub: AsyncioEndpoint, seen: EventStream[Evolving], guests: list[Guest]) -> None:
    """The hub's part."""
    titles = {guest.name: guest.title for guest in guests}
    for guest in guests:
        await hub.wait_until_connected_to(guest.name)
        say("Python", f"is connected to {guest.title}")
        await hub.wait_until_endpoint_subscribed_to(guest.name, Count)
        await hub.wait_until_endpoint_subscribed_to(guest.name, Ask)
    for number in NUMBERS:
        say("Python", f"counts {number}, to everybody")
        await hub.broadcast(Count(number=number), BroadcastConfig(require_subscriber=False))
        left = {guest.name for guest in guests}
        while left:
            event = await anext(seen)
            say("Python", f'hears from {titles[event.get_origin()]}: "{event.text}"')
            if event.number == number:
                left.discard(event.get_origin())
    for number, guest in enumerate(guests, 4):
        say("Python", f"asks {guest.title} for twice {number}")
        response = await hub.request(Ask(number=number), BroadcastConfig(filter_endpoint=guest.name))
        say("Python", f'is told by {guest.title}: "{response.text}" is {response.number}')
    say("Python", "says goodbye")


async def run(guests: list[Guest], folder: Path) -> dict[str, int]:
    """The whole conversation; returns the exit codes."""
    config = ConnectionConfig("hub", folder / "hub.ipc")
    async with asyncio.timeout(TIME_LIMIT_S):
        async with AsyncioEndpoint.serve(config) as hub:
            titles = {guest.name: guest.title for guest in guests}

            async def answer(request: Ask) -> None:
                say("Python", f"is asked by {titles[request.get_origin()]} for twice {request.number}")
                await hub.respond(request, Answer(number=2 * request.number, text=f"twice {request.number}"))

            # Before the guests come: from their first moment they may ask, and be heard.
            hub.subscribe(Ask, answer)
            seen = hub.stream(Evolving)
            for guest in guests:
                await guest.start(config)
            talk = asyncio.ensure_future(converse(hub, seen, guests))
            ends = [asyncio.ensure_future(guest.ended()) for guest in guests]
            # Nobody leaves before the hub does.
            await asyncio.wait([talk, *ends], return_when=asyncio.FIRST_COMPLETED)
            if not talk.done():
                gone = [guest.title for guest, end in zip(guests, ends, strict=True) if end.done()]
                talk.cancel()
                say("Python", f"stops: {', '.join(gone)} ended in the middle")
            else:
                talk.result()
        return {guest.title: await end for guest, end in zip(guests, ends, strict=True)}


async def main() -> int:
    missing = {language: trouble for language in FOREIGN if (trouble := language.trouble(language.example))}
    guests = [Guest(language) for language in FOREIGN if language not in missing]
    codes: dict[str, int] = {}
    trouble = ""
    # Short, because a socket's path may have about a hundred bytes; closed to other users by mkdtemp.
    with tempfile.TemporaryDirectory(prefix="lahja-") as folder:
        try:
            codes = await run(guests, Path(folder))
        except TimeoutError:
            trouble = f"not done after {TIME_LIMIT_S:g} s"
        finally:
            for guest in guests:
                await guest.leave_nothing_behind()
        if left := os.listdir(folder):
            trouble = trouble or f"left behind {left}"
    if failed := {title: code for title, code in codes.items() if code}:
        trouble = trouble or f"exit codes {failed}"
    print()
    for language, why in missing.items():
        print(f"{language.title} did not take part, {why}")
    if trouble:
        print(f"FAILED: {trouble}", file=sys.stderr)
        return 1
    languages = ["Python", *codes]
    print(f"{', '.join(languages)}: {time.monotonic() - started:.1f} s, all ended well, nothing left behind")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

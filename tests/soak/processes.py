"""The processes of a soak run: started, told, listened to, killed."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.soak.worker import Setup
from tests.unmeasured import environment

ROOT = Path(__file__).parents[2]


@dataclass
class Member:
    """A name that somebody has in every moment, or will soon have again."""

    name: str
    runtime: str
    path: str
    url: str
    # It is never killed: what grows can be seen only in a process that lives long.
    survives: bool
    connects_to: list[Member] = field(default_factory=list)
    lives: int = 0

    @property
    def address(self) -> list[str]:
        return [self.name, self.path, self.url]


class Process:
    """One incarnation of a member."""

    def __init__(
        self, member: Member, folder: Path, seed: str, pace: float, sabotage: str, inbox: Any
    ) -> None:
        member.lives += 1
        self.member = member
        self.name = member.name
        self.label = f"{member.name}.{member.lives}"
        self.ledger = folder / f"{self.label}.ledger"
        # Its incarnation, once it serves.
        self.run = 0
        self.killed_at = 0.0
        self.ended_at = 0.0
        self.stopping = False
        self.stopped_until = 0.0
        # When it was last stopped or blocked: until then.
        self.held_until = 0.0
        setup = Setup(
            runtime=member.runtime,
            ledger=os.fspath(self.ledger),
            seed=f"{seed} {self.label}",
            pace=pace,
            own=member.address,
            others=[other.address for other in member.connects_to],
            sabotage=sabotage,
        )
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed when the process has ended
        self._inbox = inbox
        self._popen = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.soak.worker", json.dumps(asdict(setup))],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=environment(),
        )
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def alive(self) -> bool:
        return not self.ended_at

    def _listen(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            if line.endswith("\n"):
                self._inbox.put((self, json.loads(line)))
        code = self._popen.wait()
        self._stderr.seek(0)
        self._inbox.put((self, {"what": "exit", "code": code, "stderr": self._stderr.read()}))
        for stream in (self._stderr, self._popen.stdout, self._popen.stdin):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]

    def tell(self, line: str) -> None:
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(line + "\n")
            self._popen.stdin.flush()
        except (OSError, ValueError):
            pass  # it has ended: its exit is on the way

    def kill(self) -> None:
        self.killed_at = time.monotonic()
        self._popen.kill()

    def stop(self) -> None:
        """Ask it to leave in good order."""
        self.stopping = True
        self.tell("stop")

    def freeze(self, until: float) -> None:
        self.stopped_until = self.held_until = until
        self._popen.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.stopped_until = 0.0
        self.held_until = time.monotonic()
        self._popen.send_signal(signal.SIGCONT)


Inbox = queue.SimpleQueue[tuple[Process, dict[str, Any]]]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port

"""One running conformance program: commands go in, what it says comes out, nothing is waited for without a limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.unmeasured import environment

# Long enough for a slow machine, short enough that a hang is told from patience. Nothing ever takes so long.
LIMIT_S = 15.0

Line = dict[str, Any]


class Trouble(AssertionError):
    """A program did not do what it had to."""


class Program:
    """A conformance program in a process of its own.

    ``lines`` is everything that it said. A wait names what it is for; when it fails, the error shows that, the
    last lines, and what the program wrote to standard error.
    """

    def __init__(
        self, name: str, title: str, command: Sequence[str], env: dict[str, str] | None = None
    ) -> None:
        self.name = name
        self.title = f"{name} ({title})"
        self.lines: list[Line] = []
        self._heard = threading.Condition()
        self._stderr: list[str] = []
        self._broken = ""
        self._ended = False
        self._tags = 0
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="backslashreplace",
            env=environment(**(env or {})),
            # What it starts itself (a launcher's child) must die with it.
            start_new_session=True,
        )
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._read_stdout, self._read_stderr)
        ]
        for thread in self._threads:
            thread.start()

    # --- out --------------------------------------------------------------------------------------------

    def _read_stdout(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            for text in stdout:
                line: Any = None
                try:
                    line = json.loads(text)
                except ValueError:
                    pass
                with self._heard:
                    if isinstance(line, dict) and isinstance(line.get("is"), str):
                        self.lines.append(line)
                    else:
                        self._broken = f"it wrote a line that is no JSON object with `is`: {text[:300]!r}"
                    self._heard.notify_all()
        with self._heard:
            self._ended = True
            self._heard.notify_all()

    def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            for text in stderr:
                self._stderr.append(text)

    def report(self) -> str:
        """How the program stands: its last words and its standard error."""
        code = self._process.poll()
        state = "runs" if code is None else f"ended with {code}"
        with self._heard:
            said = [json.dumps(line)[:240] for line in self.lines[-12:]]
        errors = "".join(self._stderr)[-3000:].rstrip()
        return "\n".join(
            [
                f"--- {self.title} ({state}) said last:",
                *(said or ["(nothing)"]),
                f"--- {self.title}, standard error:",
                errors or "(nothing)",
            ]
        )

    # --- waits ------------------------------------------------------------------------------------------

    def mark(self) -> int:
        """A place in ``lines`` to wait from."""
        with self._heard:
            return len(self.lines)

    def find(
        self, what: str, matches: Callable[[Line], bool], since: int = 0, limit_s: float = LIMIT_S
    ) -> Line:
        """The first line from ``since`` on that matches, waited for."""
        until = time.monotonic() + limit_s
        seen = since
        with self._heard:
            while True:
                for line in self.lines[seen:]:
                    if matches(line):
                        return line
                    if line["is"] == "error":
                        raise Trouble(f"{self.title}: {what}: it answered {line}")
                seen = max(since, len(self.lines))
                if self._broken:
                    raise Trouble(f"{self.title}: {what}: {self._broken}")
                if self._ended:
                    raise Trouble(f"{self.title}: {what}: its output ended instead")
                left = until - time.monotonic()
                if left <= 0:
                    raise Trouble(f"{self.title}: {what}: not within {limit_s:g} s")
                self._heard.wait(left)

    def wait(self, is_: str, since: int = 0, limit_s: float = LIMIT_S, **fields: Any) -> Line:
        """The first line from ``since`` on with this ``is`` and these fields."""
        wanted = {"is": is_, **fields}
        return self.find(
            f"waited for {json.dumps(wanted)}",
            lambda line: all(line.get(key) == value for key, value in wanted.items()),
            since,
            limit_s,
        )

    def said(self, is_: str, since: int = 0, **fields: Any) -> list[Line]:
        """The lines so far, from ``since`` on, with this ``is`` and these fields."""
        wanted = {"is": is_, **fields}
        with self._heard:
            return [
                line
                for line in self.lines[since:]
                if all(line.get(key) == value for key, value in wanted.items())
            ]

    def last(self, is_: str, **fields: Any) -> int:
        """Where in ``lines`` this was said last; -1 if never."""
        wanted = {"is": is_, **fields}
        with self._heard:
            for at in range(len(self.lines) - 1, -1, -1):
                if all(self.lines[at].get(key) == value for key, value in wanted.items()):
                    return at
        return -1

    # --- in ---------------------------------------------------------------------------------------------

    def send(self, do: str, **arguments: Any) -> int:
        """Give a command; returns the mark before it."""
        mark = self.mark()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise Trouble(f"{self.title}: could not be told to {do}: {error}") from error
        return mark

    def do(self, do: str, answer: str, **arguments: Any) -> Line:
        """Give a command and wait for its answer."""
        return self.wait(answer, self.send(do, **arguments))

    def tag(self) -> str:
        """A tag that was not used before."""
        self._tags += 1
        return f"t{self._tags}"

    def ask(self, number: int, mode: str = "answer", timeout_ms: int = 10_000) -> str:
        """Send a request; returns its tag."""
        tag = self.tag()
        self.send("request", number=str(number), mode=mode, timeout_ms=timeout_ms, tag=tag)
        return tag

    def outcome(self, tag: str) -> Line:
        """What became of a request."""
        outcomes = ("answered", "failed", "timed_out", "lost")
        return self.find(
            f"waited for the outcome of the request {tag}",
            lambda line: line.get("tag") == tag and line["is"] in outcomes,
        )

    # --- end --------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Tell it to stop; it must say so, and end with exit code 0."""
        self.do("stop", "stopped")
        self.wait_exit(0)

    def end_input(self) -> None:
        """Close its standard input; it must end with exit code 0."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.wait_exit(0)

    def wait_exit(self, wanted: int) -> None:
        try:
            code = self._process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            raise Trouble(
                f"{self.title}: waited {LIMIT_S:g} s for it to end with exit code {wanted}"
            ) from None
        if code != wanted:
            raise Trouble(f"{self.title}: ended with exit code {code}, wanted {wanted}")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and whatever it started."""
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            pass

    def kill(self) -> None:
        """SIGKILL: it gets no time for anything it may want to do."""
        self.signal(signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        self.kill()
        for thread in self._threads:
            thread.join(5)
        if self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except OSError:
                pass

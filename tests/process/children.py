"""Child processes: started with every warning an error, watched line by line, and never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio

ROOT = Path(__file__).parents[2]

# The runtime of a test's own endpoint -> that of its children, so that most pairs are mixed.
OTHER = {"asyncio": "trio", "asyncio+uvloop": "asyncio", "trio": "asyncio+uvloop"}


class Child:
    """One running ``program.py``."""

    def __init__(self, role: str, runtime: str, path: Path, name: str, argument: str = "") -> None:
        self.role = role
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-X",
                "dev",
                "-W",
                "error",
                "-m",
                "tests.process.program",
                role,
                runtime,
                os.fspath(path),
                name,
                argument,
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def _stdout(self) -> Any:
        return self._process.stdout

    def next_line(self) -> str:
        """The next line it says; what it wrote to stderr instead, if it ended."""
        line: str = self._stdout.readline().rstrip()
        if not line:
            raise AssertionError(f"{self.role} ended and wrote:\n{self._process.stderr.read()}")  # type: ignore[union-attr]
        return line

    def expect(self, line: str) -> None:
        """Wait until it says ``line``, next of all."""
        got = self.next_line()
        assert got == line, f"{self.role} said {got!r} instead of {line!r}"

    async def says(self, line: str) -> None:
        """:meth:`expect`, while the event loop of the test goes on."""
        await anyio.to_thread.run_sync(self.expect, line, abandon_on_cancel=True)

    def tell(self, line: str = "") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it, and wait until the kernel has taken everything it held."""
        self._process.kill()
        self._process.wait()

    def end(self) -> tuple[int, str, str]:
        """Wait for its end: exit code, and what was left to read on stdout and on stderr."""
        out, err = self._process.communicate(timeout=15)
        return self._process.returncode, out, err

    async def ends_well(self) -> None:
        code, _, err = await anyio.to_thread.run_sync(self.end, abandon_on_cancel=True)
        assert (code, err) == (0, ""), f"{self.role}: exit code {code}\n{err}"

    def stop(self) -> None:
        """Whatever happened, it is gone afterwards."""
        if self._process.poll() is None:
            self._process.kill()
        with contextlib.suppress(ValueError):
            self._process.communicate()


@contextlib.contextmanager
def child(role: str, runtime: str, path: Path, name: str = "child", argument: object = "") -> Iterator[Child]:
    started = Child(role, runtime, path, name, str(argument))
    try:
        yield started
    finally:
        started.stop()

"""Runners: run drivers to their end, in this process or each in its own.

The isolated runners fork, because drivers hold lambdas and checkpoints that no other start method can hand
over (and because nothing here pickles). Fork copies only the calling thread, so call an isolated runner from
a plain test function: not inside a running event loop (refused), and not while other threads hold locks.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import signal
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from multiprocessing.connection import Connection, wait

from ..errors import LahjaError, LifecycleError
from .engine import AsyncioEngine, Driver, TrioEngine, name_of

# A traceback longer than this loses its beginning. Below the 64 KiB that a pipe holds, so that a failing
# child never waits for its parent to read.
REPORT_BYTES = 32 * 1024
# What the other drivers get to end by themselves once one has failed.
GRACE_S = 1.0
# A child that died while a process that it left behind holds its pipe open is noticed this late.
POLL_S = 0.2


class DriverFailure:
    """Why one isolated driver failed: ``driver``, ``reason`` (a line), ``report`` (a traceback, or "")."""

    __slots__ = ("driver", "exit_code", "reason", "report")

    def __init__(self, driver: str, reason: str, report: str, exit_code: int | None) -> None:
        self.driver = driver
        self.reason = reason
        self.report = report
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.driver} {self.reason}\n{self.report}".rstrip()

    def __repr__(self) -> str:
        return f"<DriverFailure {self.driver} {self.reason}>"


class DriversFailed(LahjaError):
    """Isolated drivers failed. Attribute: ``failures`` (:class:`DriverFailure`), with a traceback first."""

    failures: tuple[DriverFailure, ...]


class RunnerAPI(ABC):
    """Runs drivers: ``runner(*drivers)`` returns when all have ended well, and raises otherwise."""

    @abstractmethod
    def __call__(self, *drivers: Driver) -> None: ...


class AsyncioRunner(RunnerAPI):
    """All drivers in one asyncio event loop, made for the call.

    Args:
        loop_factory: makes the loop, for example ``uvloop.new_event_loop``.
    """

    def __init__(self, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
        self._engine = AsyncioEngine()
        self._loop_factory = loop_factory

    def __call__(self, *drivers: Driver) -> None:
        with asyncio.Runner(loop_factory=self._loop_factory) as runner:
            runner.run(self._engine.run_drivers(*drivers))


class TrioRunner(RunnerAPI):
    """All drivers in one ``trio.run``. Making one needs no trio, calling it does."""

    def __init__(self) -> None:
        self._engine = TrioEngine()

    def __call__(self, *drivers: Driver) -> None:
        import trio

        trio.run(self._engine.run_drivers, *drivers)


class BaseIsolatedProcessRunner(RunnerAPI):
    """Each driver in a process of its own.

    Args:
        timeout: seconds until drivers that have not ended count as failed and are killed.
    """

    def __init__(self, *, timeout: float = 30.0) -> None:
        self._timeout = timeout

    @abstractmethod
    def get_runner(self) -> RunnerAPI:
        """The runner for the next driver."""

    def __call__(self, *drivers: Driver) -> None:
        """Run ``drivers``; no process is left when this returns or raises.

        Raises:
            DriversFailed: a driver raised, its process ended early or with an exit code, or it did not end in
                time. Once one has failed the others get a second, then they are killed.
            LifecycleError: called inside a running event loop, which a fork must not copy.
        """
        _refuse_inside_a_running_loop()
        children: list[_Child] = []
        try:
            for driver in drivers:
                children.append(_Child(driver, self.get_runner()))
            _watch(children, time.monotonic() + self._timeout)
        finally:
            for child in children:
                child.stop()
        failures = [failure for child in children if (failure := child.failure(self._timeout))]
        if failures:
            # A driver that was killed because another had failed tells the least.
            failures.sort(key=lambda failure: not failure.report)
            raise DriversFailed(
                f"{len(failures)} of {len(children)} drivers failed:\n" + "\n\n".join(map(str, failures)),
                failures=tuple(failures),
            )


class IsolatedHomogenousRunner(BaseIsolatedProcessRunner):
    """Each driver in a process of its own, all run by ``runner``."""

    def __init__(self, runner: RunnerAPI, *, timeout: float = 30.0) -> None:
        super().__init__(timeout=timeout)
        self._runner = runner

    def get_runner(self) -> RunnerAPI:
        return self._runner


class IsolatedHeterogenousRunner(BaseIsolatedProcessRunner):
    """Each driver in a process of its own, run by ``choices`` in turn: the first driver by the first of them.

    Raises:
        ValueError: no choices.
    """

    def __init__(self, *choices: RunnerAPI, timeout: float = 30.0) -> None:
        super().__init__(timeout=timeout)
        if not choices:
            raise ValueError("IsolatedHeterogenousRunner needs at least one runner to choose from")
        self._choices = choices
        self._turns = itertools.cycle(choices)

    def __call__(self, *drivers: Driver) -> None:
        # Anew for each call, so that the same drivers run on the same runtimes every time.
        self._turns = itertools.cycle(self._choices)
        super().__call__(*drivers)

    def get_runner(self) -> RunnerAPI:
        return next(self._turns)


class _Child:
    """One forked process and what is known of it."""

    def __init__(self, driver: Driver, runner: RunnerAPI) -> None:
        self._driver = name_of(driver)
        self._reason = ""
        self._report = ""
        self.ended_well = False
        fork = multiprocessing.get_context("fork")
        self.receiver, sender = fork.Pipe(duplex=False)
        self.process = fork.Process(target=_run_in_child, args=(sender, runner, driver))
        self.process.start()
        # Only the child may hold the sending end: then its death is an end of file here.
        sender.close()

    @property
    def running(self) -> bool:
        return not self.receiver.closed

    def look(self, readable: bool) -> None:
        """Take the child's report if it came, or note that it died without one."""
        if readable:
            try:
                report = self.receiver.recv_bytes()
            except EOFError:
                self._end("ended without finishing its driver")
                return
            if report:
                self._end("failed", report.decode("utf-8", "replace").rstrip())
            else:
                self.ended_well = True
                self._end("")
        elif not self.process.is_alive():
            self._end("ended without finishing its driver")

    def _end(self, reason: str, report: str = "") -> None:
        self._reason = reason
        self._report = report
        self.receiver.close()

    def stop(self) -> None:
        """Wait for the process if it has reported, else kill it. Afterwards it is gone."""
        if self.running:
            self.process.terminate()
        self.process.join(GRACE_S)
        if self.process.is_alive():
            if self.ended_well:
                self.ended_well = False
                self._reason = f"finished its driver, but its process did not end within {GRACE_S:g} s"
            self.process.kill()
            self.process.join()

    def failure(self, timeout: float) -> DriverFailure | None:
        """What went wrong, once the process is gone."""
        exit_code = self.process.exitcode
        reason = self._reason
        if self.running:
            reason = f"was stopped: over {timeout:g} s, or {GRACE_S:g} s after another failed"
            self.receiver.close()
        elif self.ended_well and exit_code == 0:
            self.process.close()
            return None
        if self.ended_well:
            reason = "finished its driver, but its process failed afterwards"
        self.process.close()
        return DriverFailure(self._driver, f"{reason} ({_say_exit_code(exit_code)})", self._report, exit_code)


def _watch(children: list[_Child], deadline: float) -> None:
    """Return when every child has reported or died, or at ``deadline``, or soon after the first failure."""
    while running := [child for child in children if child.running]:
        left = deadline - time.monotonic()
        if left <= 0:
            return
        readable = wait([child.receiver for child in running], min(left, POLL_S))
        for child in running:
            child.look(child.receiver in readable)
            if not child.running and not child.ended_well:
                deadline = min(deadline, time.monotonic() + GRACE_S)


def _run_in_child(sender: Connection, runner: RunnerAPI, driver: Driver) -> None:
    """The child's main function: run, and report nothing (success) or a traceback."""
    try:
        runner(driver)
    except BaseException as error:  # also SystemExit: a driver that exits has not finished
        report = "".join(traceback.format_exception(error)).encode("utf-8", "replace")
        sender.send_bytes(report[-REPORT_BYTES:])
        sys.exit(1)
    sender.send_bytes(b"")


def _say_exit_code(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"


def _refuse_inside_a_running_loop() -> None:
    try:
        asyncio.get_running_loop()
        loop = "asyncio"
    except RuntimeError:
        # If trio was never imported it does not run either.
        trio = sys.modules.get("trio")
        if trio is None or not trio.lowlevel.in_trio_run():
            return
        loop = "trio"
    raise LifecycleError(
        f"An isolated runner forks, and a running event loop ({loop}) must not be copied into its children. "
        "Call it from a plain function."
    )

"""Runners with plain async functions as drivers: what they run, and what they make of a driver that fails."""

from __future__ import annotations

import asyncio
import multiprocessing.util
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from lahja_capn.errors import LifecycleError
from lahja_capn.tools.engine import AsyncioEngine, Driver, EngineAPI, TrioEngine
from lahja_capn.tools.runner import (
    AsyncioRunner,
    DriversFailed,
    IsolatedHeterogenousRunner,
    IsolatedHomogenousRunner,
    RunnerAPI,
    TrioRunner,
)

IN_PROCESS: dict[str, Callable[[], RunnerAPI]] = {
    "asyncio": AsyncioRunner,
    "asyncio+uvloop": lambda: AsyncioRunner(uvloop.new_event_loop),
    "trio": TrioRunner,
}
ISOLATED: dict[str, Callable[[], RunnerAPI]] = {
    "asyncio-isolated": lambda: IsolatedHomogenousRunner(AsyncioRunner()),
    "trio-isolated": lambda: IsolatedHomogenousRunner(TrioRunner()),
    "mixed-isolated": lambda: IsolatedHeterogenousRunner(TrioRunner(), AsyncioRunner()),
}


@pytest.fixture(params=[*IN_PROCESS, *ISOLATED])
def runner(request: pytest.FixtureRequest) -> RunnerAPI:
    return {**IN_PROCESS, **ISOLATED}[request.param]()


@pytest.fixture(params=IN_PROCESS)
def in_process(request: pytest.FixtureRequest) -> RunnerAPI:
    return IN_PROCESS[request.param]()


@pytest.fixture(params=ISOLATED)
def isolated(request: pytest.FixtureRequest) -> RunnerAPI:
    return ISOLATED[request.param]()


class WrongAnswer(Exception):
    pass


async def fail(engine: EngineAPI) -> None:
    await engine.sleep(0)
    raise WrongAnswer("got 41, wanted 42")


async def hang(engine: EngineAPI) -> None:
    await engine.sleep(3600)


def runtime_of(engine: EngineAPI) -> str:
    """The runtime that really runs, not the one the engine says."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return "trio" if "trio" in sys.modules and sys.modules["trio"].lowlevel.in_trio_run() else "none"
    return "asyncio"


def note(folder: Path) -> Driver:
    """A driver that leaves one file in ``folder``: its runtime as the name's end, its process id inside."""

    async def driver(engine: EngineAPI) -> None:
        await engine.sleep(0)
        file = folder / f"{os.getpid()}-{time.monotonic_ns()}.{runtime_of(engine)}"
        file.write_text(str(os.getpid()))

    return driver


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- all went well --------------------------------------------------------------------------------------


def test_every_driver_runs_to_its_end(runner: RunnerAPI, tmp_path: Path) -> None:
    runner(*[note(tmp_path) for _ in range(3)])
    assert len(list(tmp_path.iterdir())) == 3


def test_no_drivers_is_nothing_to_do(runner: RunnerAPI) -> None:
    runner()


def test_drivers_in_one_process_run_at_the_same_time(in_process: RunnerAPI) -> None:
    order: list[str] = []

    async def first(engine: EngineAPI) -> None:
        order.append("first waits")
        while "second came" not in order:
            await engine.sleep(0)
        order.append("first goes on")

    async def second(engine: EngineAPI) -> None:
        while "first waits" not in order:
            await engine.sleep(0)
        order.append("second came")

    in_process(first, second)
    assert order == ["first waits", "second came", "first goes on"]


def test_an_engine_event_wakes_another_driver(in_process: RunnerAPI) -> None:
    events = []

    async def waiter(engine: EngineAPI) -> None:
        event = engine.Event()
        assert not event.is_set()
        events.append(event)
        await event.wait()
        assert event.is_set()

    async def setter(engine: EngineAPI) -> None:
        while not events:
            await engine.sleep(0)
        events[0].set()

    in_process(waiter, setter)


def test_isolated_drivers_run_in_processes_of_their_own(isolated: RunnerAPI, tmp_path: Path) -> None:
    isolated(*[note(tmp_path) for _ in range(3)])
    assert len({path.read_text() for path in tmp_path.iterdir()} - {str(os.getpid())}) == 3


@pytest.mark.parametrize(
    ("runner", "wanted"),
    [
        (AsyncioRunner(), ["asyncio", "asyncio"]),
        (TrioRunner(), ["trio", "trio"]),
        (IsolatedHomogenousRunner(AsyncioRunner()), ["asyncio", "asyncio"]),
        (IsolatedHomogenousRunner(TrioRunner()), ["trio", "trio"]),
        (IsolatedHeterogenousRunner(TrioRunner(), AsyncioRunner()), ["asyncio", "trio"]),
    ],
    ids=["asyncio", "trio", "asyncio-isolated", "trio-isolated", "mixed-isolated"],
)
def test_drivers_run_on_the_runtime_that_the_runner_names(
    runner: RunnerAPI, wanted: list[str], tmp_path: Path
) -> None:
    # lahja's own suite ran trio in the case that it called asyncio-isolated.
    runner(note(tmp_path), note(tmp_path))
    assert sorted(path.suffix[1:] for path in tmp_path.iterdir()) == wanted


def test_a_heterogenous_runner_starts_with_its_first_choice_every_time(tmp_path: Path) -> None:
    runner = IsolatedHeterogenousRunner(TrioRunner(), AsyncioRunner())
    runner(note(tmp_path))
    runner(note(tmp_path))
    assert [path.suffix for path in tmp_path.iterdir()] == [".trio", ".trio"]


def test_a_heterogenous_runner_without_choices_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one runner"):
        IsolatedHeterogenousRunner()


# --- a driver fails -------------------------------------------------------------------------------------


def test_a_failing_driver_fails_the_run(runner: RunnerAPI, tmp_path: Path) -> None:
    with pytest.raises((WrongAnswer, DriversFailed), match="got 41, wanted 42"):
        runner(note(tmp_path), fail)


def test_one_failure_in_one_process_is_raised_as_it_is_and_says_which_driver(in_process: RunnerAPI) -> None:
    with pytest.raises(WrongAnswer) as caught:
        in_process(hang, fail)
    assert caught.value.__notes__ == ["in driver fail"]


def test_several_failures_in_one_process_are_raised_together_the_first_one_first(
    in_process: RunnerAPI,
) -> None:
    async def fail_on_the_way_out(engine: EngineAPI) -> None:
        try:
            await engine.sleep(3600)
        finally:
            raise KeyError("second")

    with pytest.raises(ExceptionGroup) as caught:
        in_process(fail_on_the_way_out, fail)
    assert [type(error) for error in caught.value.exceptions] == [WrongAnswer, KeyError]


def test_a_failing_child_is_reported_with_its_driver_and_its_traceback(isolated: RunnerAPI) -> None:
    with pytest.raises(DriversFailed) as caught:
        isolated(fail)
    (failure,) = caught.value.failures
    assert failure.driver == "fail"
    assert failure.exit_code == 1
    assert failure.reason == "failed (exit code 1)"
    assert 'raise WrongAnswer("got 41, wanted 42")' in failure.report
    assert failure.report in str(caught.value)


def test_when_one_child_fails_the_others_are_stopped_and_none_is_left(
    isolated: RunnerAPI, tmp_path: Path
) -> None:
    async def hang_with_a_note(engine: EngineAPI) -> None:
        await note(tmp_path)(engine)
        await hang(engine)

    async def fail_when_the_other_runs(engine: EngineAPI) -> None:
        while not list(tmp_path.iterdir()):
            await engine.sleep(0.001)
        await fail(engine)

    began = time.monotonic()
    with pytest.raises(DriversFailed) as caught:
        isolated(hang_with_a_note, fail_when_the_other_runs)
    assert time.monotonic() - began < 10  # and not the 30 s that a run may take
    cause, stopped = caught.value.failures
    assert "WrongAnswer" in cause.report
    assert "was stopped" in stopped.reason
    assert "SIGTERM" in stopped.reason  # it had a chance to clean up
    (pid,) = [int(path.read_text()) for path in tmp_path.iterdir()]
    assert not is_alive(pid)


def test_a_child_killed_by_a_signal_fails_the_run() -> None:
    async def die(engine: EngineAPI) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(DriversFailed, match=r"ended without finishing its driver \(killed by SIGKILL\)"):
        IsolatedHomogenousRunner(AsyncioRunner())(die)


def test_a_child_that_leaves_with_exit_code_zero_before_its_end_fails_the_run() -> None:
    async def leave(engine: EngineAPI) -> None:
        os._exit(0)

    with pytest.raises(DriversFailed, match=r"ended without finishing its driver \(exit code 0\)"):
        IsolatedHomogenousRunner(AsyncioRunner())(leave)


def test_a_child_that_calls_sys_exit_fails_the_run() -> None:
    async def leave(engine: EngineAPI) -> None:
        sys.exit(0)

    with pytest.raises(DriversFailed, match="SystemExit"):
        IsolatedHomogenousRunner(AsyncioRunner())(leave)


def test_a_child_that_dies_while_its_own_child_holds_the_pipe_is_noticed(tmp_path: Path) -> None:
    async def leave_an_orphan(engine: EngineAPI) -> None:
        orphan = os.fork()
        if orphan == 0:
            signal.pause()
        (tmp_path / "orphan").write_text(str(orphan))
        os._exit(3)

    began = time.monotonic()
    try:
        with pytest.raises(DriversFailed, match="exit code 3"):
            IsolatedHomogenousRunner(AsyncioRunner())(leave_an_orphan)
    finally:
        os.kill(int((tmp_path / "orphan").read_text()), signal.SIGKILL)
    assert time.monotonic() - began < 10


def test_a_child_that_does_not_end_in_time_is_killed_even_if_it_ignores_sigterm(tmp_path: Path) -> None:
    async def ignore(engine: EngineAPI) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        await note(tmp_path)(engine)
        await hang(engine)

    with pytest.raises(DriversFailed, match=r"over 0\.5 s") as caught:
        IsolatedHomogenousRunner(AsyncioRunner(), timeout=0.5)(ignore)
    assert "killed by SIGKILL" in str(caught.value)
    (pid,) = [int(path.read_text()) for path in tmp_path.iterdir()]
    assert not is_alive(pid)


def test_a_child_whose_process_outlives_its_driver_fails_the_run() -> None:
    async def leave_a_thread(engine: EngineAPI) -> None:
        threading.Thread(target=signal.sigwait, args=([signal.SIGUSR1],)).start()

    with pytest.raises(DriversFailed, match="its process did not end"):
        IsolatedHomogenousRunner(AsyncioRunner())(leave_a_thread)


def test_a_child_whose_process_fails_after_its_driver_fails_the_run() -> None:
    async def fail_at_the_end(engine: EngineAPI) -> None:
        multiprocessing.util.Finalize(None, os._exit, args=(5,), exitpriority=1)

    with pytest.raises(DriversFailed, match=r"failed afterwards \(exit code 5\)") as caught:
        IsolatedHomogenousRunner(AsyncioRunner())(fail_at_the_end)
    assert "fail_at_the_end finished its driver" in repr(caught.value.failures)


def test_a_long_traceback_keeps_its_end() -> None:
    async def fail_at_length(engine: EngineAPI) -> None:
        raise WrongAnswer("x" * 200_000 + " the end")

    with pytest.raises(DriversFailed) as caught:
        IsolatedHomogenousRunner(AsyncioRunner())(fail_at_length)
    assert caught.value.failures[0].report.rstrip().splitlines()[0].startswith("xxx")
    assert " the end" in caught.value.failures[0].report


@pytest.mark.parametrize("outer", IN_PROCESS)
def test_an_isolated_runner_inside_a_running_loop_is_refused(outer: str, tmp_path: Path) -> None:
    async def call(engine: EngineAPI) -> None:
        IsolatedHomogenousRunner(AsyncioRunner())(note(tmp_path))

    with pytest.raises(LifecycleError, match="must not be copied"):
        IN_PROCESS[outer]()(call)
    assert not list(tmp_path.iterdir())


# --- the engines ----------------------------------------------------------------------------------------


def test_run_with_timeout_stops_what_takes_too_long(in_process: RunnerAPI) -> None:
    async def driver(engine: EngineAPI) -> None:
        with pytest.raises(TimeoutError, match=r"did not end within 0\.01 s"):
            await engine.run_with_timeout(engine.sleep, 3600, timeout=0.01)

    in_process(driver)


def test_a_timeout_error_from_inside_is_not_taken_for_the_timeout(in_process: RunnerAPI) -> None:
    async def raise_timeout() -> None:
        raise TimeoutError("from inside")

    async def driver(engine: EngineAPI) -> None:
        with pytest.raises(TimeoutError, match="from inside"):
            await engine.run_with_timeout(raise_timeout, timeout=5)

    in_process(driver)


@pytest.mark.parametrize(
    ("engine", "name"), [(AsyncioEngine, "AsyncioEndpoint"), (TrioEngine, "TrioEndpoint")]
)
def test_an_engine_knows_its_endpoint_class(engine: type[EngineAPI], name: str) -> None:
    assert engine.endpoint_class.__name__ == name
    assert engine().endpoint_class is engine.endpoint_class

"""One run of one case: its processes are started, told to go, asked what they saw, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import shutil
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.cases import Case
from benchmarks.environments import HERE, has_server, process_environment
from benchmarks.workload import Job, expected_checksum

ROOT = HERE.parent
# A run of one case takes a second or two; whatever takes this long hangs.
RUN_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 10.0
PERCENTILES = ("p50", "p99", "p999")


class RunFailed(Exception):
    """One run of one case gave no figure."""


class Process:
    """One process of a run, started; speaks lines of JSON."""

    def __init__(self, role: str, process: asyncio.subprocess.Process, errors: Path) -> None:
        self.role = role
        self.process = process
        self.began = time.monotonic()
        self._errors = errors

    @classmethod
    async def start(cls, python: Path, system: str, role: str, job: Job) -> Process:
        began = time.monotonic()
        errors = job.path(f"{role}-{job.index}.err")
        with errors.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(str(python), "-m", "benchmarks.worker", system, role, job.to_json()),
                cwd=ROOT,
                env=process_environment(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
            )
        started = cls(role, process, errors)
        started.began = began
        return started

    async def expect(self, key: str) -> Any:
        """The next line's ``key``."""
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        try:
            return json.loads(line)[key]
        except (ValueError, KeyError):
            said = self._errors.read_text(errors="replace")[-4000:]
            raise RunFailed(f"{self.role} said {line!r} instead of {key}; its errors:\n{said}") from None

    def order_go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")

    def order_stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def end(self) -> None:
        """Kill it if it is still there. How it ends is not measured."""
        if self.process.returncode is None:
            self.signal(signal.SIGKILL)
        await self.process.wait()


class Run:
    """The processes of one run."""

    def __init__(self, python: Path, system: str, case: Case, job: Job) -> None:
        self._python = python
        self._system = system
        self._case = case
        self._job = job
        self._servers: list[Process] = []
        self._processes: list[Process] = []

    async def _start(self, role: str, index: int = 0) -> Process:
        process = await Process.start(self._python, self._system, role, replace(self._job, index=index))
        self._processes.append(process)
        return process

    async def measure(self) -> dict[str, float]:
        """What this case measures; the processes are still there."""
        if has_server(self._system):
            # It ends when it is killed: it is not one of ours, and reads no orders.
            self._servers.append(await Process.start(self._python, self._system, "serve", self._job))
        match self._case.kind:
            case "requests":
                return await self._requests()
            case "local":
                report = await (await self._start("local")).expect("report")
                check(self._job, [report])
                return {"value": self._case.rate(self._job.count, report["last"] - report["first"])}
            case "start":
                process = await self._start("consume")
                await process.expect("ready")
                return {"value": (time.monotonic() - process.began) * 1e3}
            case _:
                return await self._events()

    async def _requests(self) -> dict[str, float]:
        await (await self._start("respond")).expect("ready")
        asking = await self._start("ask")
        await asking.expect("connected")
        asking.order_go()
        sent = await asking.expect("report")
        rate = self._case.rate(self._job.count, sent["seconds"])
        processor = sent["processor"] / self._job.count
        return {"value": rate, "processor": processor, **{name: sent[name] for name in PERCENTILES}}

    async def _events(self) -> dict[str, float]:
        job, kind = self._job, self._case.kind
        consumers = [await self._start("consume", index) for index in range(job.consumers)]
        for consumer in consumers:
            await consumer.expect("ready")
        producers = [await self._start("publish", index) for index in range(job.producers)]
        connected = [await producer.expect("connected") for producer in producers]
        if kind == "queued":
            for consumer in consumers:
                consumer.signal(signal.SIGSTOP)
        for producer in producers:
            producer.order_go()
        sent = [await producer.expect("report") for producer in producers]
        if kind == "queued":
            for consumer in consumers:
                consumer.signal(signal.SIGCONT)
        reports = [await consumer.expect("report") for consumer in consumers]
        check(job, reports)
        if kind == "connect":
            return {"value": connected[0] * 1e3}
        if kind == "connections":
            return {"value": reports[0]["memory"] / job.count / 1024}
        if kind == "queued":
            return {"value": sent[0]["memory"] / job.count}
        if kind == "paced":
            return {
                "value": reports[0]["p50"] * 1e6,
                "pace": job.rate,
                **{name: reports[0][name] for name in PERCENTILES},
            }
        first = min(one["first"] for one in sent)
        return {
            "value": self._case.rate(job.count, max(report["last"] for report in reports) - first),
            "processor": sum(one["processor"] for one in sent + reports) / job.count,
        }

    async def stop(self) -> None:
        """Order all to stop, and wait for them a while."""
        if self._case.kind == "start":
            return  # nothing was sent, and they wait for it
        for process in self._processes:
            process.order_stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                for process in self._processes:
                    await process.process.wait()

    async def end(self) -> None:
        for process in self._processes + self._servers:
            await process.end()


async def run_once(
    python: Path, system: str, case: Case, count: int, seed: int, rate: float = 0.0
) -> dict[str, float]:
    """One run: start the processes, wait for what they report, stop them.

    Args:
        rate: of a paced case, events per second.

    Returns:
        ``value`` in the case's unit; where there are latencies ``p50``, ``p99`` and ``p999`` (seconds), ``pace`` where
        events were paced, and ``processor``: seconds of processor time per event of all processes that report.

    Raises:
        RunFailed: a process failed, took too long, or did not get what was sent.
    """
    folder = tempfile.mkdtemp(prefix="lcb-", dir="/tmp")
    run = Run(python, system, case, case.job(folder, count, seed, rate))
    try:
        async with asyncio.timeout(RUN_TIMEOUT_S):
            result = await run.measure()
        await run.stop()
        return result
    except TimeoutError:
        raise RunFailed(f"took longer than {RUN_TIMEOUT_S:g} s") from None
    finally:
        await run.end()
        shutil.rmtree(folder, ignore_errors=True)


def check(job: Job, reports: list[dict[str, float]]) -> None:
    """A figure counts only if every consumer got everything, whole and in order."""
    wanted = expected_checksum(job)
    for report in reports:
        whole = math.isclose(report["checksum"], wanted, rel_tol=1e-9)
        if report["received"] != job.count or report["out_of_order"] or not whole:
            raise RunFailed(f"a consumer got something else than was sent: {report}, checksum {wanted}")

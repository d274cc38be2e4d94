"""A soak run: processes under load, random faults, and quiet points at which the books must balance.

Six processes, two for each runtime, half of them on Unix sockets and half on TCP, all connected with each other. Three
live for the whole run, so that what grows can be seen; the others are killed and started again.

Now and then everything pauses. Then the connections must be complete again, everything that was sent on living
connections must be there, and the processes that live for the whole run must have as many descriptors, tasks and
entries as at the first quiet point after the warm-up.
"""

from __future__ import annotations

import queue
import random
import shutil
import statistics
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from tests.soak import hostile
from tests.soak.ledger import Pages, compare, read
from tests.soak.processes import Inbox, Member, Process, free_port
from tests.soak.report import EXACT, SHOWN, STALL_S, note, print_report

# Mean time between two faults.
FAULT_S = 0.4
# Everything must have arrived so long after the last publisher paused; a machine may be slow.
QUIET_S = 90.0
# A fault explains what happens until so long after its end.
AFTER_S = 30.0

# How much more the processes that live for the whole run may have at the end than after the warm-up.
MORE_BYTES = 24 * 1024 * 1024
MORE_OBJECTS = 3000
MORE_EVENTS = 50

# Log records of WARNING and above that belong to the faults; all others are wrong.
# How they begin: a line may end with how many more there were.
EXPECTED_LOGS = (
    "%s: connection to %r ended: %s",
    "%s: refused a connection: %s",
    "%s: not connected to %r for %.0f s, after %d attempts: %s",
    "%s: %d more messages about %s were not logged",
)

FAULTS = ("kill", "restart", "freeze", "slow", "block", "raise", "attack", "storm")
WEIGHTS = (4, 2, 4, 3, 3, 2, 6, 1)


class Soak:
    """One run.

    Args:
        quiet_every_s: seconds of load between two quiet points; by default 30, or a sixth of a short run.
        sabotage: damage in one of the processes, see ``sabotage``; the run must then fail.
    """

    def __init__(
        self,
        seconds: float,
        seed: str,
        pace: float = 1.0,
        sabotage: str = "",
        quiet_every_s: float | None = None,
    ) -> None:
        self.seconds = seconds
        self.seed = seed
        self.rng = random.Random(seed)
        self.pace = pace
        self.sabotage = sabotage
        self.quiet_every_s = min(30.0, seconds / 6) if quiet_every_s is None else quiet_every_s
        self.folder = Path(tempfile.mkdtemp(prefix="soak-", dir="/tmp"))
        self.inbox: Inbox = queue.SimpleQueue()
        self.members = self._members()
        self.now: dict[str, Process] = {}
        self.all: list[Process] = []
        # Processes that lived at or after the last quiet point.
        self.recent: list[Process] = []
        self.to_start: list[tuple[float, Member]] = []
        self.wrong: list[str] = []
        self.faults: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.logs: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.timeouts = 0
        self.samples: dict[str, list[dict[str, Any]]] = defaultdict(list)
        # How each connection ended, by publisher's incarnation and serial.
        self.closed: dict[tuple[int, int], dict[str, Any]] = {}
        self.delivered: dict[tuple[int, int], int] = {}
        self.lost: dict[tuple[int, int, int], tuple[str, int]] = {}
        self.hostile: list[threading.Thread] = []
        self.stalls: list[float] = []
        self.looked_at = time.monotonic()
        self.worst_stall = 0.0
        self.waiting: dict[str, dict[Process, dict[str, Any]]] = {}
        self.quiet_points = 0
        self.dials_both: set[frozenset[str]] = set()

    def _members(self) -> list[Member]:
        kinds = [
            ("a-asyncio", "asyncio", False, True),
            ("b-uvloop", "asyncio+uvloop", True, True),
            ("c-trio", "trio", False, True),
            ("d-asyncio", "asyncio", True, False),
            ("e-uvloop", "asyncio+uvloop", False, False),
            ("f-trio", "trio", True, False),
        ]
        members = [
            Member(
                name,
                runtime,
                "" if tcp else str(self.folder / f"{name}.ipc"),
                f"tcp://127.0.0.1:{free_port()}" if tcp else "",
                survives,
            )
            for name, runtime, tcp, survives in kinds
        ]
        for index, one in enumerate(members):
            for other in members[index + 1 :]:
                first, second = self.rng.sample((one, other), 2)
                first.connects_to.append(second)
        return members

    # --- the run ------------------------------------------------------------------------------------------

    def run(self) -> int:
        began = time.monotonic()
        note(
            f"soak: {self.seconds / 60:g} min, seed {self.seed}, pace {self.pace:g}"
            + (f", sabotage {self.sabotage}" if self.sabotage else "")
        )
        try:
            for member in self.members:
                self.start(member)
            self.wait_for("serving", self.all, 60)
            ends_at = began + self.seconds
            while time.monotonic() < ends_at and not self.is_hopeless():
                self.load(min(ends_at, time.monotonic() + self.quiet_every_s))
                self.quiet(time.monotonic() - began)
            self.check_growth()
            self.stop_all()
        except KeyboardInterrupt:
            self.fail("interrupted")
        finally:
            for process in self.all:
                if process.alive:
                    process.kill()
            while any(process.alive for process in self.all):
                self.listen(0.1)
            print_report(self, time.monotonic() - began)
            shutil.rmtree(self.folder, ignore_errors=True)
        return 1 if self.wrong else 0

    def fail(self, text: str) -> None:
        self.wrong.append(text)
        if len(self.wrong) <= SHOWN:
            note(f"WRONG: {text[:2000].rstrip()}")

    def is_hopeless(self) -> bool:
        return len(self.wrong) >= 20

    def start(self, member: Member) -> None:
        sabotage = self.sabotage if member is self.members[0] else ""
        process = Process(member, self.folder, self.seed, self.pace, sabotage, self.inbox)
        self.now[member.name] = process
        self.all.append(process)
        self.recent.append(process)

    def load(self, until: float) -> None:
        """Load and faults until then."""
        for process in self.now.values():
            process.tell("go")
        next_fault = time.monotonic() + self.rng.expovariate(1 / FAULT_S)
        # The faults end before the quiet point, so that there is some load without any.
        while (now := time.monotonic()) < until and not self.is_hopeless():
            if now >= next_fault:
                self.fault()
                next_fault = now + self.rng.expovariate(1 / FAULT_S)
            self.listen(min(next_fault, until) - now)

    def quiet(self, elapsed: float) -> None:
        """Stop the faults and the load, and balance the books."""
        for process in self.now.values():
            if process.stopped_until:
                process.thaw()
        self.to_start = [(0.0, member) for _, member in self.to_start]
        give_up_at = time.monotonic() + QUIET_S
        self.listen(0.05)
        while (
            any(process.stopping or not process.alive for process in self.now.values())
            or self.to_start
            or any(thread.is_alive() for thread in self.hostile)
        ):
            if self.gave_up(
                give_up_at, "processes that were to be restarted did not end, or hostile connections"
            ):
                return
            self.listen(0.05)
        self.hostile = []
        self.wait_for("serving", [process for process in self.now.values() if not process.run], QUIET_S)
        living = list(self.now.values())
        runs = {process.name: process.run for process in living}
        problem = ""
        wrong_before = len(self.wrong)
        while True:
            paused = self.ask("pause", "paused", living)
            problem = self.not_connected(paused, runs)
            if not problem:
                problem = self.balance(paused)
            if not problem or len(self.wrong) > wrong_before:
                break
            if time.monotonic() >= give_up_at:
                self.fail(f"{QUIET_S:g} s after the last fault: {problem}")
                break
            self.listen(0.3)
        for process, sample in self.ask("sample", "sample", living).items():
            self.samples[process.label].append(sample)
            if sample["peers"] != sorted(set(runs) - {process.name}) and not self.wrong:
                self.fail(f"{process.label} has lost a connection while nothing happened")
            if sample["left"]:
                self.fail(f"{process.label} counts {sample['left']} bytes as waiting, and nothing waits")
        self.check_progress()
        self.recent = living
        self.quiet_points += 1
        note(
            f"{elapsed:6.0f} s  {sum(self.delivered.values()):>10,} events delivered  "
            f"{sum(self.faults.values()):>5} faults  {sum(self.ends.values()):>5} connections ended  "
            f"{sum(count for _, count in self.lost.values()):>6,} lost with them  "
            f"rss MB {' '.join(map(self.newest_rss, self.survivors()))}"
            + (f"  WRONG: {len(self.wrong)}" if self.wrong else "")
        )

    def survivors(self) -> list[list[dict[str, Any]]]:
        return [self.samples[f"{member.name}.1"] for member in self.members if member.survives]

    @staticmethod
    def newest_rss(samples: list[dict[str, Any]]) -> str:
        # One that was to survive and ended before the first look has none.
        return format(samples[-1]["rss"] / 1e6, ".0f") if samples else "-"

    def gave_up(self, at: float, why: str) -> bool:
        if time.monotonic() < at:
            return False
        self.fail(why)
        return True

    def not_connected(self, paused: dict[Process, dict[str, Any]], runs: dict[str, int]) -> str:
        for process, answer in paused.items():
            up = {name: run for name, (_, run) in answer["up"].items() if not name.startswith("raw-")}
            if up != {name: run for name, run in runs.items() if name != process.name}:
                missing = [name for name, run in runs.items() if name != process.name and up.get(name) != run]
                return f"{process.label} is not connected to {', '.join(missing)}"
            if answer["connections"] != len(up):
                return f"{process.label} has {answer['connections']} connections to {len(up)} peers"
        return ""

    def stop_all(self) -> None:
        for process in self.now.values():
            process.stop()
        give_up_at = time.monotonic() + QUIET_S
        while any(process.alive for process in self.now.values()):
            if self.gave_up(give_up_at, "processes did not end in good order"):
                return
            self.listen(0.1)

    # --- messages -----------------------------------------------------------------------------------------

    def listen(self, for_s: float) -> None:
        """Take in what the processes say, and do what is due."""
        until = time.monotonic() + for_s
        while True:
            now = time.monotonic()
            stall = now - self.looked_at
            if stall > STALL_S:
                self.stalls.append(now)
                self.worst_stall = max(self.worst_stall, stall)
            self.looked_at = now
            for process in self.now.values():
                if process.stopped_until and now >= process.stopped_until and process.alive:
                    process.thaw()
            due = [entry for entry in self.to_start if entry[0] <= now]
            for entry in due:
                self.to_start.remove(entry)
                self.start(entry[1])
            if now >= until:
                return
            try:
                process, said = self.inbox.get(timeout=min(until - now, 0.1))
            except queue.Empty:
                continue
            self.hear(process, said)

    def hear(self, process: Process, said: dict[str, Any]) -> None:
        what = said.pop("what")
        if what in self.waiting:
            self.waiting[what][process] = said
        if what == "serving":
            process.run = said["run"]
            if self.quiet_points or process.member.lives > 1:
                process.tell("go")
        elif what == "wrong":
            self.fail(f"{process.label}: {said['text']}")
        elif what == "closed":
            self.on_closed(process, said)
        elif what == "log":
            self.on_log(process, said)
        elif what == "timeout":
            self.timeouts += 1
            if not self.was_held(process.name) and not self.was_held(said["to"]):
                self.fail(f"{process.label}: a request to {said['to']} timed out")
        elif what == "exit":
            self.on_exit(process, said)

    def wait_for(
        self, what: str, processes: list[Process], timeout_s: float
    ) -> dict[Process, dict[str, Any]]:
        """Wait until each has said ``what``."""
        heard = self.waiting.setdefault(what, {})
        give_up_at = time.monotonic() + timeout_s
        while any(process not in heard for process in processes):
            if any(not process.alive for process in processes):
                break  # its exit was noted
            silent = [process.label for process in processes if process not in heard]
            if self.gave_up(give_up_at, f"{', '.join(silent)} did not say {what!r} within {timeout_s:g} s"):
                break
            self.listen(0.02)
        return self.waiting.pop(what)

    def ask(self, command: str, what: str, processes: list[Process]) -> dict[Process, dict[str, Any]]:
        self.waiting[what] = {}
        for process in processes:
            process.tell(command)
        return self.wait_for(what, processes, QUIET_S)

    # --- what is expected ---------------------------------------------------------------------------------

    def incarnations(self, name: str) -> list[Process]:
        return [process for process in self.all if process.name == name]

    def was_killed(self, name: str) -> bool:
        return any(p.killed_at and p.killed_at > time.monotonic() - AFTER_S for p in self.incarnations(name))

    def has_left(self, name: str) -> bool:
        recent = time.monotonic() - AFTER_S
        return any(p.stopping and (p.alive or p.ended_at > recent) for p in self.incarnations(name))

    def was_held(self, name: str) -> bool:
        """It was stopped or blocked, or the whole machine was."""
        recent = time.monotonic() - AFTER_S
        return any(p.held_until > recent for p in self.incarnations(name)) or bool(
            self.stalls and self.stalls[-1] > recent
        )

    def on_closed(self, process: Process, said: dict[str, Any]) -> None:
        peer, code = said["peer"], said["code"]
        self.closed[process.run, said["serial"]] = said
        if peer not in self.now:
            self.ends[f"hostile: {code or 'lost'}"] += 1
            return
        self.ends[code or "lost"] += 1
        ends = (process.name, peer)
        if code == "" and not said["error"]:
            fine = any(map(self.was_killed, ends)) or any(map(self.was_held, ends))
        elif code in ("tooSlow", "keepaliveTimeout", "replaced", "handshakeTimeout"):
            fine = any(map(self.was_held, ends))
        elif code == "shutdown":
            fine = any(map(self.has_left, ends))
        else:
            fine = False
        if not fine:
            self.fail(
                f"{process.label}: connection to {peer} ended without a reason: {code or 'lost'} {said['text']} "
                f"{said['error']}"
            )

    def on_log(self, process: Process, said: dict[str, Any]) -> None:
        if said["level"] == "INFO":
            return
        self.logs[said["template"]] += 1
        deliberate = said["template"].startswith("Handler %s raised") and said["error"] == "Deliberate"
        if not deliberate and (not said["template"].startswith(EXPECTED_LOGS) or said["error"]):
            self.fail(f"{process.label} logged: {said['level']} {said['text']} {said['trace']}")

    def on_exit(self, process: Process, said: dict[str, Any]) -> None:
        process.ended_at = time.monotonic()
        wanted = -9 if process.killed_at else 0
        if said["code"] != wanted or (not process.killed_at and not process.stopping):
            self.fail(f"{process.label} ended with exit code {said['code']}")
        if said["stderr"]:
            self.fail(f"{process.label} wrote to stderr: {said['stderr'][-3000:]}")
        if self.now.get(process.name) is process and not all(p.stopping for p in self.now.values()):
            self.to_start.append((time.monotonic() + self.rng.random() * 1.5, process.member))

    # --- faults -------------------------------------------------------------------------------------------

    def fault(self) -> None:
        (kind,) = self.rng.choices(FAULTS, WEIGHTS)
        process = self.rng.choice(list(self.now.values()))
        if not process.alive or not process.run or process.stopping:
            return
        now = time.monotonic()
        if kind in ("kill", "restart") and process.member.survives:
            return
        if kind == "kill":
            process.kill()
        elif kind == "restart":
            if process.stopped_until:
                return
            process.stop()
        elif kind == "freeze":
            # Some so long that their peers take them for dead or too slow.
            for_s = self.rng.uniform(5, 10) if self.rng.random() < 0.15 else self.rng.uniform(0.05, 1.5)
            process.freeze(now + for_s)
        elif kind == "slow":
            process.tell(f"slow {self.rng.uniform(0.5, 4)}")
        elif kind == "block":
            for_s = self.rng.uniform(0.1, 1)
            process.held_until = max(process.held_until, now + for_s)
            process.tell(f"block {for_s}")
        elif kind == "raise":
            process.tell(f"raise {self.rng.randrange(1, 50)}")
        elif kind == "attack":
            kind, thread = hostile.attack(process.member.address, self.rng)
            self.hostile.append(thread)
        else:
            self.hostile.append(hostile.storm(process.member.address, self.rng))
        self.faults[kind] += 1

    # --- the books ----------------------------------------------------------------------------------------

    def balance(self, paused: dict[Process, dict[str, Any]]) -> str:
        """Compare all ledgers. Returns what is not there yet; what can never be right any more is noted as wrong."""
        books: dict[Process, Pages] = {
            process: read(process.ledger) for process in self.recent if process.run
        }
        missing = ""
        for one, its in books.items():
            up = [serial for serial, _ in paused[one]["up"].values()] if one in paused else []
            for other, others in books.items():
                if one.name == other.name:
                    continue
                found = compare((one.run, its), (other.run, others), up, f"{one.label} to {other.label}")
                self.delivered[one.run, other.run] = found.delivered
                for text in found.wrong:
                    self.fail(text)
                if found.missing:
                    missing = f"{found.missing} events of {one.label} have not come to {other.label}"
                for serial, count in found.lost.items():
                    self.lost[one.run, other.run, serial] = self.excuse(one, other, serial), count
        for (_, _, serial), (excuse, count) in self.lost.items():
            if not excuse:
                self.fail(f"{count} events on connection {serial} were lost without an excuse")
        return missing

    def excuse(self, publisher: Process, receiver: Process, serial: int) -> str:
        """Why the end of what was sent on a connection did not arrive."""
        if publisher.killed_at:
            return "publisher killed"
        if receiver.killed_at:
            return "receiver killed"
        if receiver.stopping:
            return "receiver left"
        closed = self.closed.get((publisher.run, serial))
        if closed is None:
            return ""
        if closed["code"] == "shutdown" and not closed["by_peer"]:
            # It left in good order: what was queued goes first. Unless the other one was held up for too long.
            return "publisher left, receiver held up" if receiver.held_until else ""
        return f"disconnected: {closed['code'] or 'lost'}"

    def check_progress(self) -> None:
        """Nobody has stopped delivering."""
        for process in self.now.values():
            samples = self.samples[process.label]
            if not samples:
                # It has ended instead of answering, which is said elsewhere.
                continue
            if len(samples) > 1 and samples[-1]["received"] == samples[-2]["received"]:
                self.fail(f"{process.label} has received nothing since the last quiet point")
            for what, count in samples[-1]["counts"].items():
                self.requests[what] += count - (samples[-2]["counts"][what] if len(samples) > 1 else 0)

    def warm(self) -> int:
        """The quiet point with which the end is compared."""
        return max(1, self.quiet_points // 5)

    def check_growth(self) -> None:
        for member in self.members:
            if not member.survives:
                continue
            samples = self.samples[f"{member.name}.1"][self.warm() :]
            if len(samples) < 2:
                continue
            first, last = samples[0], samples[-1]
            for what in EXACT:
                # More than at the end of the warm-up, in the end and all the time before: no coincidence.
                if last[what] > first[what]:
                    self.fail(f"{member.name}: {what} grew from {first[what]} to {last[what]}")
            third = max(1, len(samples) // 3)
            for what, more in (("rss", MORE_BYTES), ("objects", MORE_OBJECTS), ("events", MORE_EVENTS)):
                before = statistics.median(sample[what] for sample in samples[:third])
                after = statistics.median(sample[what] for sample in samples[-third:])
                if after > before + more:
                    self.fail(
                        f"{member.name}: {what} grew from {before:,.0f} to {after:,.0f}, bound +{more:,}"
                    )

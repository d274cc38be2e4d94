"""One process of a run: ``python -m benchmarks.worker SYSTEM ROLE JOB``. Talks to the runner in lines of JSON.

SYSTEM is a name or, with a dot in it, a module.
"""

from __future__ import annotations

import importlib
import json
import sys
import time

from benchmarks.workload import Job, memory_bytes

ROLES = ("versions", "serve", "consume", "publish", "respond", "ask", "local")


class Link:
    """This process's line to the runner: facts go out, the orders to go and to stop come in."""

    def __init__(self) -> None:
        self._connecting = 0.0
        self._memory = 0
        self._processor = 0.0

    def _say(self, facts: dict[str, object]) -> None:
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()

    def ready(self) -> None:
        """Others may connect now, and what they send will be received."""
        self._memory = memory_bytes()
        self._processor = time.process_time()
        self._say({"ready": True})

    def connecting(self) -> None:
        """This process begins to connect."""
        self._connecting = time.monotonic()

    def go(self) -> None:
        """Connected, and every receiver is known to listen: wait until all producers are. Blocks."""
        self._say({"connected": time.monotonic() - self._connecting})
        sys.stdin.readline()
        self._memory = memory_bytes()
        self._processor = time.process_time()

    def report(self, facts: dict[str, float]) -> None:
        """What this process has measured, once.

        Added: what it has grown by, and the processor time it has taken, since ready() or go().
        """
        used = {"memory": memory_bytes() - self._memory, "processor": time.process_time() - self._processor}
        self._say({"report": {**facts, **used}})

    def wait_stop(self) -> None:
        """Block until the run is over. In an event loop: in a thread."""
        sys.stdin.read()


def main(system: str, role: str, job: str) -> None:
    module = importlib.import_module(system if "." in system else f"benchmarks.systems.{system}_system")
    if role not in ROLES:
        raise SystemExit(f"no such role: {role}; there are {', '.join(ROLES)}")
    if role == "versions":
        print(json.dumps({"python": sys.version.split()[0], **module.versions()}))
    else:
        getattr(module, role)(Job.from_json(job), Link())


if __name__ == "__main__":
    main(*sys.argv[1:])

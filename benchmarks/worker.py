"""One process of a run: ``python -m benchmarks.worker SYSTEM ROLE JOB``. Talks to run.py in lines of JSON."""

from __future__ import annotations

import importlib
import json
import sys

from benchmarks.workload import Job

ROLES = ("versions", "consume", "publish", "respond", "ask")


class Link:
    """This process's line to run.py: facts go out, the order to stop comes in."""

    def _say(self, facts: dict[str, object]) -> None:
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()

    def ready(self) -> None:
        """Others may connect now, and what they send will be received."""
        self._say({"ready": True})

    def report(self, facts: dict[str, float]) -> None:
        """What this process has measured, once."""
        self._say({"report": facts})

    def wait_stop(self) -> None:
        """Block until the run is over. In an event loop: in a thread."""
        sys.stdin.read()


def main(system: str, role: str, job: str) -> None:
    module = importlib.import_module(f"benchmarks.systems.{system}_system")
    if role not in ROLES:
        raise SystemExit(f"no such role: {role}; there are {', '.join(ROLES)}")
    if role == "versions":
        print(json.dumps({"python": sys.version.split()[0], **module.versions()}))
    else:
        getattr(module, role)(Job.from_json(job), Link())


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The demo: a robot of five processes, asyncio and trio mixed, exchanges events over Unix sockets.

Prints what each process receives as it happens and ends by itself with a table. Run it with ``make demo``, or
``python examples/demo.py`` where lahja_capn and trio are installed. Exit code 0 if every process ended well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from robot.parts import PARTS

TIME_LIMIT_S = 30.0

# Lines of different processes must not run into each other.
printing = threading.Lock()


def show(name: str, process: subprocess.Popen[str], started: float, rows: list[dict[str, Any]]) -> None:
    """Print a process's lines as they come; keep its rows of the summary."""
    runtime, _ = PARTS[name]
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            if line.startswith("@row "):
                rows.append(json.loads(line[5:]))
            else:
                with printing:
                    print(
                        f"{time.monotonic() - started:6.2f} s  {name:8}{runtime:8} {line.rstrip()}",
                        flush=True,
                    )


def summary(rows: list[dict[str, Any]]) -> str:
    """The table at the end."""

    def figure(value: float | None) -> str:
        return "" if value is None else f"{value:,.0f}"

    lines = [f"{'':22}{'events':>10}{'events/s':>12}{'p50 us':>10}{'p99 us':>10}"]
    lines += [
        f"{row['what']:22}{row['events']:>10,}{figure(row['rate']):>12}"
        f"{figure(row['p50_us']):>10}{figure(row['p99_us']):>10}"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> int:
    started = time.monotonic()
    rows: list[dict[str, Any]] = []
    # Short, because a socket's path may have about a hundred bytes; closed to other users by mkdtemp.
    with tempfile.TemporaryDirectory(prefix="lahja-") as folder:
        processes: dict[str, subprocess.Popen[str]] = {}
        threads = []
        try:
            for name in PARTS:
                processes[name] = subprocess.Popen(
                    [sys.executable, "-m", "robot.parts", name, folder],
                    cwd=Path(__file__).parent,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=os.environ | {"PYTHONUNBUFFERED": "1"},
                )
                threads.append(
                    threading.Thread(target=show, args=(name, processes[name], started, rows), daemon=True)
                )
                threads[-1].start()
            for process in processes.values():
                process.wait(max(0.1, started + TIME_LIMIT_S - time.monotonic()))
        except subprocess.TimeoutExpired:
            print(f"not done after {TIME_LIMIT_S:g} s", file=sys.stderr)
        finally:
            for process in processes.values():
                if process.poll() is None:
                    process.kill()
                    process.wait()
            for thread in threads:
                thread.join(5)
        left = sorted(os.listdir(folder))
    failed = {name: process.returncode for name, process in processes.items() if process.returncode}
    print()
    print(summary(sorted(rows, key=lambda row: str(row["what"]))))
    if failed or left:
        print(f"FAILED: exit codes {failed}, left behind {left}", file=sys.stderr)
        return 1
    print(
        f"\n{len(processes)} processes, {time.monotonic() - started:.1f} s, all ended well, nothing left behind"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

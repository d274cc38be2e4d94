"""How much memory a slow participant can take, on both sides. docs/reliability.md says so much."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Bytes of memory for each byte of a full queue at the sender, and of a full window at the receiver.
# Measured are 4.6 and 12 for the smallest events, 1.0 and 1.0 for those of 1,000 bytes.
SENDER = {0: 6.0, 1000: 1.5}
RECEIVER = {0: 15.0, 1000: 2.0}

# BURST=1000000 for the real thing.
BURST = int(os.environ.get("BURST", "20000"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="measures memory with /proc"),
]


def measured(what: str, argument: int, timeout_s: float = 60) -> tuple[float, int]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.process.memory", what, str(argument)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert (done.returncode, done.stderr) == (0, "")
    figure, count = done.stdout.split()
    print(f"{what} {argument}: {float(figure):,.1f}, {count} events")
    return float(figure), int(count)


@pytest.mark.timeout(70)
@pytest.mark.parametrize("size", SENDER)
def test_full_queue_for_a_stuck_peer_takes_no_more_than_promised(size: int) -> None:
    factor, count = measured("sender", size)
    assert count > 3000
    assert factor <= SENDER[size]


@pytest.mark.timeout(70)
@pytest.mark.parametrize("size", RECEIVER)
def test_full_window_that_nobody_takes_from_takes_no_more_than_promised(size: int) -> None:
    factor, count = measured("receiver", size)
    assert count > 3000
    assert factor <= RECEIVER[size]


@pytest.mark.timeout(70 + BURST / 500)
def test_burst_to_ten_subscribers_arrives_whole_in_bounded_memory() -> None:
    more, _ = measured("burst", BURST, timeout_s=60 + BURST / 500)
    # Ten queues and ten windows of 200,000 bytes, all in one process.
    assert more <= 10 * 200_000 * (SENDER[0] + RECEIVER[0])

"""The comparison of ledgers finds what it is there to find, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak.ledger import Comparison, Ledger, Pages, Sent, compare, read

P, R = 11, 22


def pages(sent: list[Sent], got: list[tuple[int, int]], up: tuple[int, ...] = ()) -> Comparison:
    publisher, receiver = Pages(), Pages()
    publisher.sent[0, R] = sent
    receiver.got[0, P] = got
    return compare((P, publisher), (R, receiver), up)


def test_all_of_a_living_connection_there_is_nothing_wrong() -> None:
    found = pages([Sent(1, 5, 9)], [(5, 9)], up=(1,))
    assert (found.delivered, found.missing, dict(found.lost), found.wrong) == (5, 0, {}, [])


def test_end_that_is_not_there_is_missing_on_a_living_connection_and_lost_on_one_that_has_ended() -> None:
    found = pages([Sent(1, 1, 4), Sent(2, 7, 9)], [(1, 2), (7, 8)], up=(2,))
    assert (found.missing, dict(found.lost), found.wrong) == (1, {1: 2}, [])


def test_nothing_of_a_connection_there_is_missing() -> None:
    assert pages([Sent(1, 1, 4)], [], up=(1,)).missing == 4


def test_range_over_two_connections_is_right() -> None:
    assert pages([Sent(1, 1, 4), Sent(2, 5, 9)], [(1, 9)]) == pages([Sent(1, 1, 9)], [(1, 9)])


@pytest.mark.parametrize("got", [[(1, 2), (4, 9)], [(2, 9)]])
def test_gap_before_later_events_of_the_same_connection_is_wrong(got: list[tuple[int, int]]) -> None:
    found = pages([Sent(1, 1, 9)], got)
    assert len(found.wrong) == 1
    assert "is missing" in found.wrong[0]


@pytest.mark.parametrize("got", [[(1, 10)], [(12, 13)], [(1, 3), (12, 12)]])
def test_events_that_were_not_sent_there_are_wrong(got: list[tuple[int, int]]) -> None:
    found = pages([Sent(1, 1, 9)], got)
    assert len(found.wrong) == 1
    assert "not all of it was sent there" in found.wrong[0]


def test_receiver_says_what_comes_out_of_order_or_twice(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    assert [ledger.gets(0, P, seq) for seq in (3, 4, 7)] == ["", "", ""]
    assert "came after 7" in ledger.gets(0, P, 7)
    assert "came after 7" in ledger.gets(0, P, 6)
    # Other types and publishers have numbers of their own.
    assert ledger.gets(1, P, 1) == ledger.gets(0, R, 1) == ""
    assert ledger.received == 7
    assert dict(read(tmp_path / "ledger").got) == {
        (0, P): [(3, 4), (7, 7)],
        (1, P): [(1, 1)],
        (0, R): [(1, 1)],
    }


def test_killed_process_has_written_down_everything(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from tests.soak.ledger import Ledger
ledger = Ledger(Path({os.fspath(tmp_path / "ledger")!r}))
for seq in range(1, 1001):
    ledger.sends(0, 1, 22, seq)
    ledger.gets(2, 11, seq)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], timeout=15)
    assert done.returncode == -9
    found = read(tmp_path / "ledger")
    assert found.sent[0, 22] == [Sent(1, 1, 1000)]
    assert found.got[2, 11] == [(1, 1000)]

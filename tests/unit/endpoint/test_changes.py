"""Changes: the version, waits with and without one, conditions, and the end."""

from __future__ import annotations

import pytest

from lahja_capn.endpoint.changes import Changes
from tests.unit.endpoint.fake import FakeCancelled, FakeRuntime, Task


@pytest.fixture
def changes() -> Changes:
    return Changes(FakeRuntime())  # type: ignore[arg-type]


def test_every_notice_raises_the_version(changes: Changes) -> None:
    assert changes.version == 0
    changes.notify()
    changes.notify()
    assert changes.version == 2


def test_wait_since_an_old_version_returns_at_once(changes: Changes) -> None:
    changes.notify()
    assert Task(changes.wait_since(0)).result() == 1


def test_wait_since_the_current_version_waits_for_the_next_change(changes: Changes) -> None:
    task = Task(changes.wait_since(0))
    assert not task.step()
    changes.notify()
    assert task.result() == 1


def test_wait_since_a_version_ahead_waits_until_it_is_passed(changes: Changes) -> None:
    task = Task(changes.wait_since(2))
    for _ in range(2):
        changes.notify()
        assert not task.step()
    changes.notify()
    assert task.result() == 3


def test_condition_that_is_true_returns_at_once(changes: Changes) -> None:
    assert Task(changes.wait_until(lambda: True)).done


def test_condition_is_looked_at_after_every_change(changes: Changes) -> None:
    looked = []

    def condition() -> bool:
        looked.append(changes.version)
        return changes.version == 2

    task = Task(changes.wait_until(condition))
    task.step()
    changes.notify()
    assert not task.step()
    changes.notify()
    assert task.step()
    assert looked == [0, 1, 2]


def test_one_change_wakes_every_waiter(changes: Changes) -> None:
    tasks = [Task(changes.wait_since(0)) for _ in range(3)]
    changes.notify()
    assert [task.result() for task in tasks] == [1, 1, 1]


def test_stop_fails_present_and_future_waits(changes: Changes) -> None:
    error = RuntimeError("stopped")
    present = Task(changes.wait_since(0))
    changes.stop(error)
    future = Task(changes.wait_until(lambda: False))
    for task in (present, future):
        with pytest.raises(RuntimeError) as raised:
            task.result()
        assert raised.value is error


def test_stop_does_not_fail_what_is_true_already(changes: Changes) -> None:
    changes.notify()
    changes.stop(RuntimeError("stopped"))
    assert Task(changes.wait_since(0)).result() == 1
    assert Task(changes.wait_until(lambda: True)).done


def test_cancelled_wait_leaves_nothing(changes: Changes) -> None:
    task = Task(changes.wait_since(0))
    assert len(changes._waiters) == 1
    task.cancel()
    with pytest.raises(FakeCancelled):
        task.result()
    assert changes._waiters == set()

from __future__ import annotations

import pytest

from lahja_capn.errors import RemoteProtocolError
from lahja_capn.session.credit import ReceiveWindow, SendWindow
from lahja_capn.wire import UNLIMITED
from lahja_capn.wire.limits import MAX_CREDIT


def test_a_window_is_closed_before_hello() -> None:
    assert SendWindow().balance == 0
    assert ReceiveWindow(100).balance == 0


def test_granted_and_refilled_credit_adds_up() -> None:
    window = SendWindow()
    window.grant(100)
    window.charge(-28)
    window.refill(64)
    assert window.balance == 36


@pytest.mark.parametrize("size", [MAX_CREDIT + 1, UNLIMITED - 1])
def test_a_window_between_the_largest_and_unlimited_is_refused(size: int) -> None:
    with pytest.raises(RemoteProtocolError):
        SendWindow().grant(size)


def test_credit_whose_sum_overflows_is_refused() -> None:
    window = SendWindow()
    window.grant(1)
    window.refill(MAX_CREDIT - 1)
    with pytest.raises(RemoteProtocolError, match="adds up"):
        window.refill(1)
    window.charge(-100)
    with pytest.raises(RemoteProtocolError):
        window.refill(MAX_CREDIT + 50)


def test_an_unlimited_window_is_never_charged_and_ignores_credit() -> None:
    window = SendWindow()
    window.grant(UNLIMITED)
    full = window.balance
    window.charge(5)
    assert window.balance == full
    window.refill(UNLIMITED)
    assert window.balance == full


def test_credit_is_told_when_half_the_window_has_come_back() -> None:
    window = ReceiveWindow(100)
    window.open()
    window.balance -= 120
    assert not window.give_back(49)
    assert window.give_back(1)
    assert window.balance == -20
    assert window.take_pending() == 50
    assert window.balance == 30
    assert window.take_pending() == 0
    assert not window.give_back(49)


def test_a_window_of_0_tells_at_once() -> None:
    window = ReceiveWindow(0)
    window.open()
    assert window.balance == 0
    assert window.give_back(1)


def test_an_unlimited_window_never_tells_and_never_runs_out() -> None:
    window = ReceiveWindow(UNLIMITED)
    window.open()
    full = window.balance
    window.charge(full - 10**9)
    assert window.balance == full
    assert not window.give_back(10**9)
    assert window.take_pending() == 0

from __future__ import annotations

from lahja_capn.session.keepalive import INFINITY, Keepalive


def test_a_ping_is_due_after_an_interval_of_silence_and_the_peer_is_dead_after_three() -> None:
    keepalive = Keepalive(10, 3, now=100)
    assert keepalive.deadline == 110
    assert keepalive.ask(110)
    assert keepalive.deadline == 120
    assert keepalive.ask(120)
    assert keepalive.deadline == 130
    assert not keepalive.ask(130)
    assert keepalive.describe(130) == "no byte for 30 s: 2 pings, 10 s apart, were not answered"


def test_any_byte_starts_it_over() -> None:
    keepalive = Keepalive(10, 2, now=0)
    assert keepalive.ask(10)
    keepalive.received(15)
    assert keepalive.last_received == 15
    assert keepalive.deadline == 25
    assert keepalive.ask(25)
    assert not keepalive.ask(35)


def test_a_process_that_was_stopped_for_an_hour_asks_before_it_judges() -> None:
    keepalive = Keepalive(10, 3, now=0)
    assert keepalive.ask(3600)
    assert keepalive.deadline == 3610
    assert keepalive.ask(3610)
    assert not keepalive.ask(3620)


def test_interval_0_never_asks() -> None:
    assert Keepalive(0, 3, now=5).deadline == INFINITY

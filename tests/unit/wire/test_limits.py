from __future__ import annotations

from typing import Any

import pytest

from lahja_capn.errors import ConfigError
from lahja_capn.wire import UNLIMITED, Limits
from lahja_capn.wire.limits import MAX_CREDIT, MAX_FRAME_BYTES, MIN_FRAME_LIMIT_BYTES, check_keepalive

MIB = 1024 * 1024


def test_the_defaults_are_those_of_the_design() -> None:
    limits = Limits()
    assert limits.frame_bytes == 64 * MIB
    assert limits.handshake_timeout_s == 10
    assert limits.segments == 512
    assert limits.table_types == limits.table_structs == 65_535
    assert (limits.event_credit_bytes, limits.request_credit_bytes) == (16 * MIB, 4 * MIB)
    assert (limits.queued_per_peer_bytes, limits.queued_per_endpoint_bytes) == (16 * MIB, 256 * MIB)
    assert limits.request_timeout_s == 30
    assert limits.keepalive_misses == 3
    assert limits.close_timeout_s == 2
    assert limits.too_slow_s == 5
    assert limits.name_probe_s == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frame_bytes", MIN_FRAME_LIMIT_BYTES),
        ("frame_bytes", MAX_FRAME_BYTES),
        ("event_credit_bytes", 0),
        ("event_credit_bytes", UNLIMITED),
        ("request_credit_bytes", MAX_CREDIT),
        ("table_structs", 0),
        ("keepalive_s", 0),
        ("keepalive_s", 0.001),
        ("keepalive_misses", 2),
    ],
)
def test_the_last_value_inside_a_range_is_taken(name: str, value: Any) -> None:
    assert getattr(Limits(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frame_bytes", MIN_FRAME_LIMIT_BYTES - 1),
        ("frame_bytes", MAX_FRAME_BYTES + 1),
        ("frame_bytes", 4096.0),
        ("frame_bytes", True),
        ("segments", 0),
        ("segments", 513),
        ("table_types", 0),
        ("table_types", 65_536),
        ("table_structs", 65_536),
        ("event_credit_bytes", -1),
        ("event_credit_bytes", MAX_CREDIT + 1),
        ("request_credit_bytes", UNLIMITED - 1),
        ("open_requests", 0),
        ("queued_per_peer_bytes", 0),
        ("queued_per_endpoint_bytes", 0),
        ("keepalive_misses", 1),
        ("handshake_timeout_s", 0),
        ("request_timeout_s", float("inf")),
        ("close_timeout_s", -1),
        ("too_slow_s", float("nan")),
        ("name_probe_s", 0),
        ("keepalive_s", -1),
        ("keepalive_s", 0.0001),
        ("keepalive_s", 5_000_000),
    ],
)
def test_a_value_outside_its_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        Limits(**{name: value})


def test_an_interval_that_hello_cannot_carry_is_refused() -> None:
    check_keepalive(0)
    check_keepalive(4_294_967)
    with pytest.raises(ConfigError, match="4294967"):
        check_keepalive(4_294_968)

"""An event whose parts contain each other: what reading all of it costs, for the most stubborn of handlers."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from lahja_capn import EventFieldError
from lahja_capn.binding import event_type
from tests.fuzz.reading import read_in_full
from tests.unit.binding.support import Everything


def knot(count: int) -> bytes:
    """An Everything whose list ``inners`` has ``count`` elements, each with a text that is none and the same list."""
    plan: Any = event_type(Everything).event_class._plan
    node = plan.schema.node.struct
    words, pointers = node.dataWordCount, node.pointerCount
    field = words + plan.fields["inners"].offset
    start = words + pointers
    size = 7 << 32 | 3 * count << 35
    body = bytearray(8 * start)
    struct.pack_into("<Q", body, 8 * field, 1 | start - field - 1 << 2 | size)
    outside = 1 | 0x1FFFFFFF << 2 | 2 << 32 | 9 << 35
    items = b"".join(
        struct.pack("<QQQ", n, outside, 1 | (start - (start + 1 + 3 * n + 2) - 1 & 0x3FFFFFFF) << 2 | size)
        for n in range(count)
    )
    return (
        struct.pack("<Q", words << 32 | pointers << 48)
        + body
        + struct.pack("<Q", count << 2 | 1 << 32 | 2 << 48)
        + items
    )


def opened(count: int) -> Any:
    return event_type(Everything).open((knot(count),))


def walk(inners: Any, depth: int = 0) -> None:
    for inner in inners:
        walk(inner.more, depth + 1)


def test_reading_all_of_a_knot_takes_time_in_proportion_to_its_size() -> None:
    # It goes on after every error; parts are counted, so that a busy machine does not matter.
    small, large = read_in_full(opened(100)), read_in_full(opened(800))
    assert small > 1000
    assert large < 8 * small
    assert large < 3 * len(knot(800))


def test_a_handler_that_stops_at_the_first_error_stops_soon() -> None:
    event = opened(800)
    with pytest.raises(EventFieldError, match=r"traversal limit|too deeply-nested"):
        walk(event.inners)
    with pytest.raises(EventFieldError):
        event.inners[0].text
    assert len(repr(event)) < 3000

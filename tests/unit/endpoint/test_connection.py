"""The buffers between a session and a socket: joining small ones, and going on after a send that took only some."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lahja_capn.endpoint.connection import JOIN_BELOW_BYTES, _advance, _joined

LARGE = bytes(JOIN_BELOW_BYTES)


def content(buffers: list[Any]) -> bytes:
    return b"".join(bytes(buffer) for buffer in buffers)


@pytest.mark.parametrize(
    ("buffers", "lengths"),
    [
        ([], []),
        ([b"abc"], [3]),
        ([b"ab", b"cd"], [4]),
        ([LARGE, LARGE], [len(LARGE)] * 2),
        ([b"ab", b"cd", LARGE, b"e", b"f"], [4, len(LARGE), 2]),
        ([LARGE[:-1], b"a"], [len(LARGE)]),
    ],
)
def test_small_neighbours_are_joined(buffers: list[Any], lengths: list[int]) -> None:
    before = content(buffers)
    joined = _joined(buffers)
    assert [len(buffer) for buffer in joined] == lengths
    assert content(joined) == before


def test_large_buffers_are_not_copied() -> None:
    large = memoryview(LARGE)
    joined = _joined([b"head", large, b"tail"])
    assert joined[1] is large


@pytest.mark.parametrize(
    ("sent", "left"),
    [(0, [b"abc", b"de"]), (2, [b"c", b"de"]), (3, [b"de"]), (4, [b"e"]), (5, [])],
)
def test_what_was_sent_is_taken_off_the_front(sent: int, left: list[bytes]) -> None:
    buffers: list[Any] = [b"abc", b"de"]
    _advance(buffers, sent)
    assert [bytes(buffer) for buffer in buffers] == left


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=6), st.lists(st.integers(0, 30), max_size=12))
def test_any_row_of_partial_sends_sends_everything_once(pieces: list[bytes], counts: list[int]) -> None:
    buffers: list[Any] = list(pieces)
    sent = b""
    for wanted in counts:
        left = content(buffers)
        count = min(wanted, len(left))
        sent += left[:count]
        _advance(buffers, count)
    assert sent + content(buffers) == b"".join(pieces)

"""The same targets, with inputs that hypothesis makes: where state matters, a failure comes as its shortest story."""

from __future__ import annotations

import functools
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lahja_capn.binding import event_type
from lahja_capn.binding.plan import plan_for
from tests.fuzz import corpus, mutate, sessions
from tests.fuzz.control import Control
from tests.fuzz.decoder import Decoder
from tests.fuzz.events import Events
from tests.fuzz.sessions import BYTES, DO, EOF, LOST, TIME, Sessions, Step
from tests.unit.binding import support as everything
from tests.unit.binding.strategies import arguments


@functools.cache
def frames() -> list[bytes]:
    """Every frame that stands in a conversation or a refusal, shortest first: what hypothesis shrinks towards."""
    found: dict[bytes, None] = {}
    for folder in ("conversations", "refusals"):
        for vector in corpus.vectors(folder):
            found.update(dict.fromkeys(mutate.split_frames(vector.data)))
    return sorted(found, key=len)


@functools.cache
def target(cls: Any) -> Any:
    return cls()


@st.composite
def damaged_frame(draw: st.DrawFn) -> bytes:
    frame = draw(st.sampled_from(frames()))
    for seed in draw(st.lists(st.integers(0, 2**32), max_size=2)):
        frame = mutate.damage_frames(frame, Random(seed))
    return frame


streams = st.lists(damaged_frame(), max_size=5).map(b"".join)

STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just(BYTES), streams),
    st.tuples(st.just(DO), st.integers(0, len(sessions.ACTIONS) - 1)),
    st.tuples(st.just(TIME), st.integers(0, 60)),
    st.sampled_from([(EOF, None), (LOST, None)]),
)


@st.composite
def stories(draw: st.DrawFn) -> bytes:
    """A connection of any kind, most of them up, and anything that can happen to it."""
    options = draw(st.integers(0, 255))
    steps = draw(st.lists(STEPS, max_size=12))
    if draw(st.integers(0, 3)):
        steps.insert(0, sessions.unpack(sessions.rich()[0])[1][0])
    return sessions.pack(options, steps)


@given(stories())
def test_whatever_a_peer_says_and_the_user_does_the_session_keeps_the_wire_format(story: bytes) -> None:
    target(Sessions).run(story)


# Quick ones: many of them.
_many = settings(max_examples=max(600, settings.default.max_examples if settings.default else 0))


@_many
@given(streams, st.integers(0, 7), st.integers(0, 255))
def test_any_stream_in_any_pieces_is_the_frames_of_the_wire_format_or_refused(
    stream: bytes, options: int, cut: int
) -> None:
    target(Decoder).run(bytes((options, cut)) + stream[:4096])


@_many
@given(damaged_frame())
def test_any_control_message_is_read_whole_or_refused(frame: bytes) -> None:
    target(Control).run(frame[16:])


@given(arguments(plan_for(everything.Everything), 2), st.lists(st.integers(0, 2**32), max_size=4))
def test_any_event_damaged_anywhere_is_read_in_full(fields: dict[str, Any], damage: list[int]) -> None:
    event = everything.Everything(**fields)
    message = mutate.join_message(tuple(map(bytes, event_type(event).encode(event))))
    for seed in damage:
        message = mutate.damage_message(message, Random(seed))
    target(Events).run(b"\x18" + message)

"""Every kind of field, sent and received: what was given is what is read, locally and by a receiver."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lahja_capn.binding import AnyPointer, Enumerant, event_type
from lahja_capn.binding.compare import _same
from lahja_capn.binding.lists import ListView
from lahja_capn.errors import EventFieldError

from .strategies import arguments
from .support import Blob, Choice, Everything, Inner, Small, opened, read_all, received

QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


def agrees(read: Any, given: Any) -> bool:
    """Say whether what is read says what was given: containers by content, enums by name or number."""
    if isinstance(given, dict):
        return all(agrees(getattr(read, name), value) for name, value in given.items())
    if isinstance(read, ListView):
        return len(read) == len(given) and all(map(agrees, read, given))
    if isinstance(read, Enumerant):
        return given in (str(read), read.raw)
    if isinstance(read, AnyPointer):
        if isinstance(given, str):
            return read.as_text() == given
        if isinstance(given, bytes):
            return read.as_data() == given
        return read.as_struct(Inner) == given if isinstance(given, Inner) else read == given
    return _same(read, given)


@QUICK
@given(arguments(Everything._plan))
def test_every_field_reads_as_it_was_given_locally_and_received(fields: dict[str, Any]) -> None:
    local = Everything(**fields)
    remote = received(local)
    for event in (local, remote):
        for name, value in fields.items():
            assert agrees(getattr(event, name), value), (name, event)
    assert local == remote
    assert remote == local
    assert repr(local) == repr(remote)


@QUICK
@given(arguments(Everything._plan))
def test_an_event_built_from_read_values_is_equal_again(fields: dict[str, Any]) -> None:
    remote = received(Everything(**fields))
    names = [name for name in fields if name not in Everything._binding.union or name == remote.which()]
    again = Everything(**{name: getattr(remote, name) for name in names})
    assert again == remote
    assert received(again) == remote


SCALARS: list[tuple[str, list[Any]]] = [
    ("void", [None]),
    ("bool", [True, False]),
    ("int8", [-128, 127]),
    ("int16", [-(2**15), 2**15 - 1]),
    ("int32", [-(2**31), 2**31 - 1]),
    ("int64", [-(2**63), 2**63 - 1]),
    ("uint8", [0, 255]),
    ("uint16", [0, 2**16 - 1]),
    ("uint32", [0, 2**32 - 1]),
    ("uint64", [0, 2**64 - 1]),
    ("float32", [0.5, -0.0, math.inf, -math.inf, math.nan]),
    ("float64", [1e308, 5e-324, -math.inf, math.nan]),
    ("text", ["", "x", "\0inside\0", "é", "\U0001f600" * 9]),
    ("data", [b"", b"\0", bytes(range(256))]),
    ("color", ["red", "green", "blue"]),
]


@pytest.mark.parametrize(("field", "given_value"), [(name, v) for name, vs in SCALARS for v in vs])
def test_boundary_values_survive_alone_and_in_lists(field: str, given_value: Any) -> None:
    event = Everything(**{field: given_value, f"{field}s": [given_value] * 11})
    for read in (event, received(event)):
        assert _same(getattr(read, field), given_value)
        assert len(getattr(read, f"{field}s")) == 11
        assert all(_same(item, given_value) for item in getattr(read, f"{field}s"))


def test_float32_reads_locally_as_it_will_be_received() -> None:
    event = Everything(float32=0.1, float32s=[0.1])
    assert event.float32 == received(event).float32 != 0.1
    assert event.float32s == received(event).float32s


def test_numbers_keep_their_python_types() -> None:
    event = received(Everything(uint8=1, float64=1, bool=True, float64s=[1], int8s=[1], bools=[True]))
    kinds = [type(v) for v in (event.uint8, event.float64, event.bool)]
    assert kinds == [int, float, bool]
    assert [type(v[0]) for v in (event.float64s, event.int8s, event.bools)] == [float, int, bool]
    local = Everything(uint8=1, float64=1, float32=2)
    assert [type(v) for v in (local.uint8, local.float64, local.float32)] == [int, float, float]


@pytest.mark.parametrize("size", [16383, 16384, 16385, 16391, 100_001])
def test_large_content_becomes_a_segment_of_its_own_and_reads_the_same(size: int) -> None:
    content = random.Random(size).randbytes(size)
    numbers = list(range(size // 4 + 1))
    event = Blob(
        id=7, data=content, numbers=numbers, note="behind", parts=[{"name": "p", "content": content}]
    )
    segments = event_type(event).encode(event)
    again = received(event)
    assert all(len(segment) % 8 == 0 and len(segment) for segment in segments)
    assert (again.id, again.note) == (7, "behind")
    assert again.data == content
    assert again.numbers == numbers
    assert again.parts[0].content == content
    assert again == event
    # A reader that is not ours agrees.
    reader = Blob._plan.from_segments([bytes(s) for s in segments], 10**9)
    assert reader.data == content
    assert list(reader.numbers) == numbers
    if size % 8 == 0 and size >= 16384:
        assert any(segment is content for segment in segments), "a whole number of words is not copied"


def test_large_content_in_a_union_sets_the_member() -> None:
    content = bytes(40_000)
    event = received(Everything(word="x" * 40_000))
    assert event.which() == "word"
    for choice in (Choice(data=content), Choice(numbers=range(10_000))):
        assert received(choice).which() == choice.which() != "nothing"
        assert received(choice) == choice
    chosen = received(Blob(choice={"payload": content}))
    assert chosen.choice.which() == "payload"
    assert chosen.choice.payload == content


def test_a_struct_of_an_older_sender_reads_its_missing_fields_as_defaults() -> None:
    # A root with no data words and no pointers, as a first version without fields would send it.
    event = opened(Everything, bytes(8))
    assert event == Everything()
    assert event.textDefault == "default"
    assert event.which() == "none"


def test_an_event_as_a_field_of_another_is_copied_by_its_content() -> None:
    small = Small(id=1, value=2.0, data=b"d", text="t", flag=True)
    for given_value in (small, received(small)):
        event = received(Everything(any=given_value))
        assert event.any.as_struct(Small) == small


@QUICK
@given(arguments(Everything._plan), st.randoms(use_true_random=False), st.integers(1, 12))
def test_damaged_bytes_end_in_values_or_field_errors(
    fields: dict[str, Any], rng: random.Random, flips: int
) -> None:
    kind = event_type(Everything)
    segments = [bytearray(segment) for segment in kind.encode(Everything(**fields))]
    for _ in range(flips):
        segment = rng.choice(segments)
        if rng.random() < 0.5:
            segment[rng.randrange(len(segment))] = rng.randrange(256)
        else:
            word = rng.randrange(len(segment) // 8) * 8
            segment[word : word + 8] = rng.choice(
                [rng.randbytes(8), bytes(8), b"\xff" * 8, bytes(segment[:8]), rng.randbytes(2) + bytes(6)]
            )
    hurt = kind.open(tuple(bytes(segment) for segment in segments))
    assert read_all(hurt) > 0
    assert isinstance(repr(hurt), str)
    for compared in (Everything(**fields), kind.open(tuple(bytes(s) for s in segments))):
        try:
            assert isinstance(hurt == compared, bool)
        except EventFieldError:
            pass

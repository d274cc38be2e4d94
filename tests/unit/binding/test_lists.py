"""Lists as fields are sequences, local and received alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from .support import Everything, Inner, received

VALUES: list[tuple[str, list[Any]]] = [
    ("int32s", [1, 2, 3]),
    ("int32s", list(range(50))),
    ("float64s", [n + 0.5 for n in range(20)]),
    ("texts", ["a", "b", "c"]),
    ("bools", [True, False, True]),
    ("inners", [Inner(number=n) for n in range(3)]),
    ("colors", ["red", "blue"]),
    ("numberLists", [[1, 2], list(range(30))]),
]


@pytest.fixture(params=["local", "received"])
def make(request: pytest.FixtureRequest) -> Any:
    return (lambda event: event) if request.param == "local" else received


@pytest.mark.parametrize(("field", "values"), VALUES)
def test_a_list_is_a_sequence(make: Any, field: str, values: list[Any]) -> None:
    read = getattr(make(Everything(**{field: values})), field)
    assert isinstance(read, Sequence)
    assert len(read) == len(values)
    assert list(read) == values
    assert read == values
    assert values == read
    assert read == tuple(values)
    assert read != [*values, values[0]]
    assert read != values[:-1]
    assert read != "abc"
    assert read[0] == values[0]
    assert read[-1] == values[-1]
    assert read[1:] == values[1:]
    assert read[::-1] == values[::-1]
    assert read[:0] == []
    assert read[1:][0] == values[1]
    assert values[1] in read
    assert read.index(values[1]) == 1
    assert list(reversed(read)) == values[::-1]
    for index in (len(values), -len(values) - 1):
        with pytest.raises(IndexError):
            read[index]
    with pytest.raises(TypeError):
        read["x"]
    with pytest.raises(TypeError, match="unhashable"):
        hash(read)


def test_lists_of_different_kinds_compare_by_their_elements(make: Any) -> None:
    event = make(Everything(int32s=range(20), int64s=range(20), float64s=range(20), uint8s=[1], texts=["1"]))
    assert event.int32s == event.int64s == event.float64s
    assert event.int32s != event.uint8s
    assert event.uint8s != event.texts


def test_elements_are_views_with_the_bound_class(make: Any) -> None:
    event = make(Everything(inners=[{"number": 1, "more": [{"number": 2}]}], innerLists=[[{"number": 3}]]))
    assert type(event.inners[0]) is Inner
    assert event.inners[0].more[0].number == 2
    assert event.innerLists[0][0].number == 3
    assert [inner.number for inner in event.inners] == [1]

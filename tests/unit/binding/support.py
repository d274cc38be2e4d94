"""Events bound once for all tests of this folder (one class per struct and process), and helpers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lahja_capn.binding import (
    OPTIONAL,
    AnyPointer,
    BaseEvent,
    BaseRequestResponseEvent,
    DataView,
    Struct,
    bind,
    event_type,
    registry,
)
from lahja_capn.errors import EventFieldError
from lahja_capn.schema import load

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"
schema: Any = load(SCHEMAS / "everything.capnp")

E = TypeVar("E", bound=BaseEvent)


@bind(schema.Inner)
class Inner(Struct):
    number: int = 0
    text: str = "inner default"
    more: Sequence[Inner] = ()


@bind(schema.Everything)
class Everything(BaseEvent):
    """Bound without annotations: what the constructor takes is the schema's business."""


@bind(schema.Small)
class Small(BaseEvent):
    id: int
    value: float
    data: bytes
    text: str
    flag: bool


@bind(schema.Blob.Part)
class Part(Struct):
    name: str
    content: DataView


@bind(schema.Blob)
class Blob(BaseEvent):
    id: int = 0
    data: DataView = DataView()
    numbers: Sequence[int] = ()
    note: str = ""
    choice: Any = OPTIONAL
    parts: Sequence[Part] = ()


@bind(schema.Choice)
class Choice(BaseEvent):
    nothing: None = OPTIONAL
    data: DataView = OPTIONAL
    numbers: Sequence[int] = OPTIONAL
    bytes: Sequence[int] = OPTIONAL


@bind(schema.Answer)
class Answer(BaseEvent):
    text: str


@bind(schema.Ask)
class Ask(BaseRequestResponseEvent[Answer]):
    question: str


def received(event: E, origin: str | None = "peer") -> E:
    """Return the event as a receiver gets it."""
    kind = event_type(event)
    return kind.open(tuple(bytes(segment) for segment in kind.encode(event)), origin)  # type: ignore[return-value]


def opened(cls: type[E], *segments: bytes) -> E:
    return event_type(cls).open(segments)  # type: ignore[return-value]


@contextlib.contextmanager
def own_registry() -> Iterator[None]:
    """Undo every binding made inside."""
    events, classes = dict(registry._events), dict(registry._classes)
    try:
        yield
    finally:
        registry._events.clear()
        registry._events.update(events)
        registry._classes.clear()
        registry._classes.update(classes)


def read_all(value: Any, budget: list[int] | None = None) -> int:
    """Read every part of a value, as deep as it goes; return how many parts there were.

    Whatever cannot be read must raise EventFieldError; that counts as a part. Gives up after some thousand.
    """
    budget = budget if budget is not None else [3000]
    if budget[0] <= 0:
        return 0
    budget[0] -= 1
    count = 1
    if isinstance(value, (BaseEvent, Struct)):
        binding = value._binding
        assert binding is not None
        with contextlib.suppress(TypeError, EventFieldError):
            assert isinstance(value.which(), str)
        for attr in binding.attrs:
            try:
                part = getattr(value, attr)
            except EventFieldError:
                count += 1
            else:
                if not (attr == "self" and budget[0] < 2000):
                    count += read_all(part, budget)
    elif isinstance(value, AnyPointer):
        for read in (
            lambda: value.as_text(),
            lambda: value.as_data(),
            lambda: value.as_list("UInt32"),
            lambda: value.as_list("Text"),
            lambda: value.as_struct(Inner),
            lambda: value == value._sealed(),
            lambda: value.is_null,
        ):
            with contextlib.suppress(EventFieldError):
                count += read_all(read(), budget)
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        for index in range(min(len(value), 20)):
            try:
                part = value[index]
            except EventFieldError:
                count += 1
            else:
                count += read_all(part, budget)
    return count

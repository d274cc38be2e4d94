"""The event classes of ``tests/vectors/conformance.capnp``; most without annotations, as fields are reached by name."""

from __future__ import annotations

from pathlib import Path

from lahja_capn import BaseEvent, BaseRequestResponseEvent, DataView, Struct, bind, load

schema = load(Path(__file__).resolve().parents[3] / "tests" / "vectors" / "conformance.capnp")


@bind(schema.Inner)
class Inner(Struct):
    pass


@bind(schema.Everything)
class Everything(BaseEvent):
    pass


@bind(schema.Count)
class Count(BaseEvent):
    number: int


@bind(schema.Blob)
class Blob(BaseEvent):
    id: int
    data: DataView  # a megabyte is summed where it arrived


@bind(schema.Late)
class Late(BaseEvent):
    text: str


@bind(schema.Evolving)
class Evolving(BaseEvent):
    pass


@bind(schema.Answer)
class Answer(BaseEvent):
    number: int
    text: str


@bind(schema.Ask)
class Ask(BaseRequestResponseEvent[Answer]):
    number: int
    mode: str


EVENTS: dict[str, type[BaseEvent]] = {
    event.__name__: event for event in (Everything, Count, Blob, Late, Evolving, Answer, Ask)
}
# Every type but Late stands in hello.
DECLARED = tuple(event for name, event in EVENTS.items() if name != "Late")

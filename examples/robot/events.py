"""The demo's event classes: one line of ``@bind`` each, and annotations for those who use mypy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as FilePath

from lahja_capn import BaseEvent, BaseRequestResponseEvent, DataView, Struct, bind, load

schema = load(FilePath(__file__).with_name("robot.capnp"))


@bind(schema.Position)
class Position(Struct):
    x: float
    y: float


@bind(schema.Reading)
class Reading(BaseEvent):
    sensor: str
    sequence: int
    celsius: float
    sentNs: int
    paced: bool
    raw: bytes


@bind(schema.Path)
class Path(BaseEvent):
    steps: Sequence[Position]


@bind(schema.PathQuery)
class PathQuery(BaseRequestResponseEvent[Path]):
    start: Position
    goal: Position


@bind(schema.Step)
class Step(BaseEvent):
    number: int
    position: Position
    sentNs: int


@bind(schema.Picture)
class Picture(BaseEvent):
    label: str
    width: int
    height: int
    pixels: DataView
    sentNs: int


@bind(schema.Halt)
class Halt(BaseEvent):
    cause: str
    celsius: float


@bind(schema.GoHome)
class GoHome(BaseEvent):
    pass

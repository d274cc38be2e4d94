"""The events of events.capnp."""

from __future__ import annotations

from pathlib import Path

import lahja_capn
from lahja_capn import BaseEvent, BaseRequestResponseEvent, bind

schema = lahja_capn.load(Path(__file__).with_name("events.capnp"))


class Numbered(BaseEvent):
    """What Count and Special share."""


@bind(schema.Count)
class Count(Numbered):
    number: int


@bind(schema.Other)
class Other(BaseEvent):
    number: int


@bind(schema.Special)
class Special(Numbered):
    number: int


@bind(schema.Blob)
class Blob(BaseEvent):
    number: int
    data: bytes = b""


@bind(schema.Reply)
class Reply(BaseEvent):
    number: int


@bind(schema.Question)
class Question(BaseRequestResponseEvent[Reply]):
    number: int
    data: bytes = b""

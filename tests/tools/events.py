"""The events of events.capnp."""

from __future__ import annotations

from pathlib import Path

import lahja_capn
from lahja_capn import BaseEvent, BaseRequestResponseEvent, bind

schema = lahja_capn.load(Path(__file__).with_name("events.capnp"))


@bind(schema.Ping)
class Ping(BaseEvent):
    number: int


@bind(schema.Pong)
class Pong(BaseEvent):
    number: int


@bind(schema.Answer)
class Answer(BaseEvent):
    number: int


@bind(schema.Ask)
class Ask(BaseRequestResponseEvent[Answer]):
    number: int

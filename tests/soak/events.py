"""The events of events.capnp."""

from __future__ import annotations

from pathlib import Path

import lahja_capn
from lahja_capn import BaseEvent, BaseRequestResponseEvent, bind

schema = lahja_capn.load(Path(__file__).with_name("events.capnp"))


@bind(schema.Small)
class Small(BaseEvent):
    run: int
    seq: int


@bind(schema.Large)
class Large(BaseEvent):
    run: int
    seq: int
    crc: int
    data: bytes


@bind(schema.Targeted)
class Targeted(BaseEvent):
    run: int
    seq: int
    to: str


@bind(schema.Streamed)
class Streamed(BaseEvent):
    run: int
    seq: int


@bind(schema.Churned)
class Churned(BaseEvent):
    run: int
    seq: int


@bind(schema.Answer)
class Answer(BaseEvent):
    number: int
    by: int


@bind(schema.Ask)
class Ask(BaseRequestResponseEvent[Answer]):
    number: int
    fail: bool = False
    data: bytes = b""

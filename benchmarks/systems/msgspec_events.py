"""The events for systems that carry bytes: msgspec structs as MessagePack arrays, told apart by a tag.

As fast as msgspec gets without giving up the type in the message: no field names, no garbage collection of events,
and a large payload is a view into what was received.
"""

from __future__ import annotations

import msgspec

from benchmarks.workload import Job, Sink


class Small(msgspec.Struct, array_like=True, tag=1, gc=False):
    number: int
    value: float
    payload: bytes
    text: str
    flag: bool


class Large(msgspec.Struct, array_like=True, tag=2, gc=False):
    number: int
    payload: memoryview


class Ask(msgspec.Struct, array_like=True, tag=3, gc=False):
    number: int
    payload: bytes


class Answer(msgspec.Struct, array_like=True, tag=4, gc=False):
    number: int
    payload: bytes


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Small | Large | Ask | Answer).decode

# What may be on its way to one receiver: as much as this project's default credit.
WINDOW_BYTES = 16 * 1024 * 1024
WINDOW_EVENTS = 1000


def window(job: Job) -> int:
    """Events that may be on their way to one receiver."""
    return max(2, min(WINDOW_EVENTS, WINDOW_BYTES // job.size))


class Receiver:
    """Decodes what arrives and gives its fields to a sink, in the kind of the job."""

    def __init__(self, job: Job, sink: Sink) -> None:
        self._sink = sink
        self.take = self._large if job.is_large else self._small
        if job.kind == "selective":
            self.take = self._selective

    def _small(self, data: bytes) -> None:
        event = decode(data)
        self._sink.take_small(event.number, event.value, event.payload, event.text, event.flag)

    def _large(self, data: bytes | memoryview) -> None:
        event = decode(data)
        self._sink.take_large(event.number, event.payload)

    def _selective(self, data: bytes | memoryview) -> None:
        self._sink.selective(decode(data).number)

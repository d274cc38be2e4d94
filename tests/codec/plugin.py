"""A pytest plugin (``-p tests.codec.plugin``): every test runs on the codec of tiny.py, and pycapnp touches no event.

It says at the end what the codec did, so that a run in which it was never asked does not pass for one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from lahja_capn.binding import Segments, eventtype
from lahja_capn.binding import codec as codec_module
from lahja_capn.binding.event import BaseEvent
from lahja_capn.binding.record import Record
from tests.codec.tiny import Codec, Reader, Table, installed

_codecs: list[Codec] = []


@pytest.fixture(autouse=True)
def tiny_codec(monkeypatch: pytest.MonkeyPatch) -> Iterator[Codec]:
    """The codec, installed for one test."""
    encode_values, open_ = eventtype.encode_values, Record._open

    def encode_without(binding: Any, values: dict[str, Any]) -> Any:
        event_type = getattr(binding.cls, "_event_type", None)
        if event_type is not None and Table(event_type).is_complete:
            raise AssertionError(f"pycapnp was to encode a {binding.cls.__qualname__}")
        return encode_values(binding, values)

    def open_without(record: Record) -> Any:
        private = record.__dict__
        segments = private.get("_segments")
        # A program's own builder is pycapnp's from the start, and whole events (== and repr) are compared on a second
        # reader of pycapnp's: neither is what the bus does with an event.
        allowed = "_built" in private or "_once" in private
        if isinstance(record, BaseEvent) and segments and not allowed and is_readable(record, segments):
            raise AssertionError(f"pycapnp was to read a {type(record).__qualname__}")
        return open_(record)

    from_builder = BaseEvent.__dict__["from_builder"].__func__

    def from_their_builder(cls: type[BaseEvent], builder: Any) -> Any:
        event = from_builder(cls, builder)
        event.__dict__["_built"] = True
        return event

    monkeypatch.setattr(BaseEvent, "from_builder", classmethod(from_their_builder))
    for module in (eventtype, codec_module):
        monkeypatch.setattr(module, "encode_values", encode_without)
    monkeypatch.setattr(Record, "_open", open_without)
    with installed() as codec:
        _codecs.append(codec)
        yield codec


def is_readable(event: BaseEvent, segments: Segments) -> bool:
    """Whether the codec of tiny.py knows the event's type, and its message holds a struct at all."""
    event_type = type(event)._event_type
    table = Table(event_type) if event_type is not None else None
    if table is None or not table.is_complete:
        return False
    try:
        Reader(table, segments)
    except ValueError:
        return False
    return True


def pytest_terminal_summary(terminalreporter: Any) -> None:
    encoded = sum((codec.encoded for codec in _codecs), Counter[str]())
    opened = sum((codec.opened for codec in _codecs), Counter[str]())
    terminalreporter.write_line(f"tiny codec: encoded {encoded.total()} opened {opened.total()}")

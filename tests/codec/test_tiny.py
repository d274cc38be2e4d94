"""The bus runs on another codec, which replaces ``EventType.encode`` and ``EventType.open`` and nothing else.

The scenarios run in a pytest of their own, in which pycapnp may neither encode nor read an event that the codec knows.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lahja_capn
from lahja_capn import BaseEvent, EventFieldError, bind
from lahja_capn.binding import event_type
from tests.codec.tiny import installed
from tests.unmeasured import environment

ROOT = Path(__file__).resolve().parent.parent.parent

schema = lahja_capn.load(ROOT / "benchmarks" / "events.capnp")


@bind(schema.Small)
class Small(BaseEvent):
    number: int
    value: float
    payload: bytes
    text: str
    flag: bool


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "number": st.integers(0, 2**64 - 1),
        "value": st.floats(allow_nan=False),
        "payload": st.binary(max_size=40),
        "text": st.text(max_size=20),
        "flag": st.booleans(),
    },
)
DEFAULTS = {"number": 0, "value": 0.0, "payload": b"", "text": "", "flag": False}


def read(event: Any) -> dict[str, Any]:
    return {name: getattr(event, name) for name in DEFAULTS}


@given(FIELDS)
def test_either_codec_reads_what_either_encodes(fields: dict[str, Any]) -> None:
    event = Small(**fields)
    theirs = event_type(Small).encode(event)
    with installed() as codec:
        ours = event_type(Small).encode(event)
        assert read(event_type(Small).open(ours)) == DEFAULTS | fields
        assert read(event_type(Small).open(theirs)) == DEFAULTS | fields
        assert codec.encoded["Small"] == 1
        assert codec.opened["Small"] == 2
    assert read(event_type(Small).open(ours)) == DEFAULTS | fields


def test_a_field_that_cannot_be_read_harms_only_itself() -> None:
    with installed():
        segments = event_type(Small).encode(Small(number=7, payload=b"12345678", text="abc"))
        # The pointer of `payload`, the first after three words of data, leads out of the message.
        damaged = bytearray(segments[0])
        damaged[8 + 24 : 8 + 32] = (1 | 1000 << 2 | 2 << 32 | 8 << 35).to_bytes(8, "little")
        event: Any = event_type(Small).open((bytes(damaged),))
        with pytest.raises(EventFieldError, match="payload"):
            _ = event.payload
        assert event.number == 7
        assert event.text == "abc"


def test_a_received_event_is_sent_on_as_it_came() -> None:
    with installed():
        segments = event_type(Small).encode(Small(number=7))
        assert event_type(Small).encode(event_type(Small).open(segments)) is segments


def test_without_it_the_project_s_own_codec_is_back() -> None:
    encode = lahja_capn.binding.EventType.encode
    with installed():
        assert lahja_capn.binding.EventType.encode is not encode
    assert lahja_capn.binding.EventType.encode is encode


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_scenarios_pass_on_it() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "tests.codec.plugin", "-p", "no:cacheprovider"),
            *("tests/scenario", "-k", "not uvloop and not trio and not lahja_tools"),
        ],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=390,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    did = re.search(r"tiny codec: encoded (\d+) opened (\d+)", done.stdout)
    assert did is not None
    assert min(map(int, did.groups())) > 500

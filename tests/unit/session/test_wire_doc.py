"""docs/wire.md: its examples are read by the code, and its tables are those of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import lahja_capn
from lahja_capn.binding import TypeRow
from lahja_capn.binding.layout import fnv1a_32, layout_of, layout_texts
from lahja_capn.schema import wire_schema
from lahja_capn.session.control import Hello, Ping, decode_control, encode_control
from lahja_capn.session.state import TRANSITIONS, Half, Message
from lahja_capn.wire import Frame, FrameDecoder, Limits, encode_frame
from lahja_capn.wire.limits import UNLIMITED
from tests.unit.session.pair import RawPeer, read_all

DOC = (Path(__file__).parents[3] / "docs" / "wire.md").read_text(encoding="utf-8")


def block(info: str) -> str:
    (found,) = re.findall(rf"^```{re.escape(info)}\n(.*?)^```", DOC, re.M | re.S)
    return str(found)


def dump(name: str) -> bytes:
    """The bytes of a hex dump; its offsets must be right."""
    data = b""
    for line in block(f"hex {name}").splitlines():
        offset, *digits = line.split()
        assert int(offset, 16) == len(data)
        data += bytes.fromhex("".join(digits))
    return data


def section(number: int) -> str:
    (found,) = re.findall(rf"^## {number} .*?\n(.*?)(?=^## |\Z)", DOC, re.M | re.S)
    return str(found)


@pytest.fixture
def schema(tmp_path: Path) -> Any:
    path = tmp_path / "example.capnp"
    # The blocks of one file.
    path.write_text("".join(re.findall(r"^```capnp\n(.*?)^```", DOC, re.M | re.S)))
    return lahja_capn.load(path)


def documented_layout() -> dict[int, tuple[str, int]]:
    rows = re.findall(r"^\| (\d) \| `([^`]*)` \| `(0x[0-9a-f]{8})` \|$", DOC, re.M)
    return {int(k): (text.replace("\\|", "|"), int(number, 16)) for k, text, number in rows}


def test_the_worked_layout_is_what_the_code_computes(schema: Any) -> None:
    layout = documented_layout()
    assert list(layout) == [0, 1, 2, 3]
    assert {k: text for k, (text, _) in layout.items()} == layout_texts(schema.Tick.schema)
    assert tuple(number for _, number in layout.values()) == layout_of(schema.Tick.schema)
    for text, number in layout.values():
        assert fnv1a_32(text.encode()) == number


@pytest.mark.parametrize("name", ["Mark", "Outer.Inner", "Pair", "Corners"])
def test_the_less_usual_layouts_are_what_the_code_computes(schema: Any, name: str) -> None:
    for part in name.split("."):
        schema = getattr(schema, part)
    rows = [line.split("  ") for line in block(f"layout {name}").splitlines()]
    assert {int(k): text for k, _, text in rows} == layout_texts(schema.schema)
    assert tuple(int(number, 16) for _, number, _ in rows) == layout_of(schema.schema)


def test_every_struct_of_the_examples_has_its_layout_written_down(schema: Any) -> None:
    structs = set(re.findall(r"^ *struct (\w+) @0x", section(6), re.M))
    written = set(re.findall(r"^```layout (?:\w+\.)?(\w+)$", section(6), re.M)) | {"Tick"}
    # Those without fields of their own.
    assert structs - written == {"Outer", "Empty"}


def test_the_event_in_the_examples_is_a_frame_that_reads_as_described(schema: Any) -> None:
    data = dump("event")
    (frame,) = read_all(data)
    assert (frame.wire_id, frame.kind, frame.correlation, frame.size) == (1, 0, 0, 64)
    tick = schema.Tick.from_segments([bytes(s) for s in frame.segments])
    assert (tick.count, tick.label, str(tick.which()), tick.load) == (7, "up", "load", 0.5)
    assert b"".join(encode_frame(1, 0, 0, frame.segments)) == data


def test_the_ping_in_the_examples_is_what_we_send() -> None:
    assert b"".join(encode_frame(0, 0, 0, encode_control(Ping()))) == dump("ping")
    (frame,) = read_all(dump("ping"))
    assert decode_control(frame.segments) == Ping()


def test_the_hello_in_the_examples_says_what_is_written_and_is_accepted() -> None:
    (frame,) = read_all(dump("hello"))
    layout = tuple(number for _, number in documented_layout().values())
    hello = Hello(
        protocol_version=1,
        name="meter",
        instance=bytes(range(16)),
        implementation="example",
        version="1",
        frame_limit=1048576,
        keepalive_ms=0,
        event_credit=UNLIMITED,
        request_credit=65536,
        features=(),
        rows=((1, TypeRow(0xC1D2E3F4A5B69788, "struct", "example.capnp:Tick", layout)),),
    )
    assert decode_control(frame.segments) == hello
    assert b"".join(encode_frame(0, 0, 0, encode_control(hello))) == dump("hello")
    peer = RawPeer()
    peer.feed(dump("hello"))
    assert peer.session.peer is not None
    assert peer.session.peer.name == "meter"


def test_the_transitions_written_down_are_those_of_the_code() -> None:
    found: dict[str, dict[str, str]] = {}
    state = ""
    for line in section(4).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or len(cells) != 3 or cells[0] in ("state of a direction", "---"):
            continue
        if cells[0]:
            state = cells[0].strip("*")
            found[state] = {}
        names = re.findall(r"`(\w+)`", cells[1])
        if "event, request, response" in cells[1]:
            names = [Message.CONTENT.value]
        for name in names:
            found[state][name] = cells[2]
    assert found == {
        half.value: {message.value: after.value for message, after in TRANSITIONS[half].items()}
        for half in Half
    }


@pytest.mark.parametrize("enum", ["GoodbyeCode", "FailedCode"])
def test_every_code_is_written_down(enum: str) -> None:
    names = set(getattr(wire_schema(), enum).schema.enumerants)
    if enum == "GoodbyeCode":
        documented = set(re.findall(r"^\| `(\w+)` \| ", section(12), re.M)) - {"GoodbyeCode"}
        assert documented == names
    for name in names:
        assert f"`{name}`" in DOC


def test_every_control_message_and_each_of_its_fields_is_written_down() -> None:
    text = section(5)
    control = wire_schema().Control.schema
    for name, field in control.fields.items():
        assert f"**`{name}`**" in text
        if str(field.proto.slot.type.which()) == "struct":
            for inner in field.schema.fields:
                assert f"`{inner}`" in text, (name, inner)


def test_the_refusals_of_section_2_are_eight_and_the_decoder_knows_the_numbers() -> None:
    assert len(re.findall(r"^\d\. ", section(2), re.M)) == 8
    limits = Limits()
    assert f"{limits.segments} segments" in section(2)
    assert "1,048,576" in section(2)


def test_frames_are_tuples_of_the_documented_fields() -> None:
    decoder = FrameDecoder(Limits())
    data = dump("ping")
    decoder.receive_buffer()[: len(data)] = data
    decoder.bytes_received(len(data))
    (frame,) = decoder.frames()
    assert Frame(*frame)._asdict().keys() == {"wire_id", "kind", "correlation", "size", "segments"}

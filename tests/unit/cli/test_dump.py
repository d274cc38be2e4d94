"""``lahja-capn dump``: what a stream says in words, and the first fault in it, on the vectors of the wire format."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lahja_capn.binding import TypeRow
from lahja_capn.cli.stream import StreamReader
from lahja_capn.session.control import (
    Credit,
    Declare,
    Dropped,
    Failed,
    Goodbye,
    Hello,
    Ping,
    Pong,
    Subscriptions,
    SubscriptionsAck,
    encode_control,
)
from lahja_capn.wire import encode_frame
from lahja_capn.wire.limits import MAX_FRAME_BYTES, UNLIMITED
from tests.vectors.loading import Vector, load, names

from .support import CONFORMANCE, ROOT, Done, bound, run, write

VECTORS = ROOT / "tests" / "vectors"

# Rules that only who knows the receiver, or the other direction, can judge.
OTHER_DIRECTION = (
    "5: subscriptionsAck names 1 to the highest sequence sent",
    "8: a frame that arrives while the balance is 0 or below",
    "8: a balance must not exceed",
    "9: an answer to a number above the highest request sent",
    "3: instance is not the receiver's own",
    "3: connector only",
    "3: the order of the checks",
    "13: ",
)


def dump(data: bytes, folder: Path, *arguments: str | Path) -> Done:
    (folder / "stream").write_bytes(data)
    done = run("dump", folder / "stream", *arguments)
    assert done.err == ""
    return done


def vectors(folder: str) -> list[Any]:
    return [
        pytest.param(folder, name, id=name)
        for name in names(VECTORS, folder)
        if not depends_on_the_other_side(json.loads((VECTORS / folder / f"{name}.json").read_text("utf-8")))
    ]


def depends_on_the_other_side(facts: dict[str, Any]) -> bool:
    """Whether the bytes are completed from what the other side sends, or it ends the connection first."""
    return any("patch" in step or step.get("do") == "stop" for step in facts.get("script", []))


@pytest.fixture
def vector(folder: str, name: str) -> Vector:
    return load(VECTORS, folder, name)


def faults(done: Done) -> list[str]:
    """The goodbye codes of the faults."""
    return re.findall(r"^ *(?:[0-9a-f]{8})? +! (\w+): ", done.out, re.M)


def frames(done: Done) -> list[tuple[int, int, str]]:
    """Offset, size and words of each frame."""
    found = re.findall(r"^([0-9a-f]{8})  +(\d+)  (\S.*)$", done.out, re.M)
    return [(int(offset, 16), int(size), words) for offset, size, words in found]


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from leaves(each)
    else:
        yield value


@pytest.mark.parametrize(("folder", "name"), vectors("frames"))
def test_every_frame_is_described_by_what_is_in_it(vector: Vector, tmp_path: Path) -> None:
    done = dump(vector.data, tmp_path, "--middle", "--layouts")
    ((offset, size, words),) = frames(done)
    assert (offset, size, done.code) == (0, len(vector.data), 0), done.out
    facts = vector.facts
    if facts["kind"] == "control":
        ((variant, content),) = facts["control"].items()
        assert re.match(rf"{variant}\b", words)
        for value in leaves(content):
            if isinstance(value, str) and value:
                number = int(value) if value.isdecimal() else -1
                shown = [
                    json.dumps(value),
                    value,
                    f"0x{number:016x}",
                    "unlimited" if number == UNLIMITED else "\0",
                ]
                assert any(each in done.out for each in shown), value
            elif type(value) is int and value:
                assert str(value) in done.out or f"0x{value:08x}" in done.out
    else:
        which = {
            "event": "",
            "request": f" {facts['correlation']}",
            "response": f" to request {facts['correlation']}",
        }
        parts = "" if facts["segments"] == 1 else f", {facts['segments']} segments"
        assert (
            words
            == f"{facts['kind']}{which[facts['kind']]}: wire id {facts['wire_id']}, never declared{parts}"
        )


@pytest.mark.parametrize(("folder", "name"), vectors("conversations"))
def test_a_legal_conversation_has_no_fault_and_shows_the_events_that_its_receiver_sees(
    vector: Vector, tmp_path: Path
) -> None:
    done = dump(vector.data, tmp_path, "--schema", CONFORMANCE)
    assert (done.code, faults(done)) == (0, []), done.out
    # Every byte is accounted for.
    end = 0
    for offset, size, _ in frames(done):
        assert offset == end
        end += size
    rest = re.findall(r"^([0-9a-f]{8})  - (\d+) bytes (?:after goodbye|of a frame)", done.out, re.M)
    for offset_text, size_text in rest:
        assert int(offset_text, 16) == end
        end += int(size_text)
    assert end == len(vector.data)
    shown = iter(re.findall(r"event: wire id \d+, .*\n {20}(\w+)\(", done.out))
    for fact in vector.facts["expect"]:
        if "event" in fact and "value" in fact["event"]:
            assert fact["event"]["type"] in shown


@pytest.mark.parametrize(("folder", "name"), vectors("refusals"))
def test_the_fault_of_a_refused_stream_is_marked_with_a_code_that_a_receiver_uses(
    vector: Vector, tmp_path: Path
) -> None:
    limit = vector.facts.get("setup", {}).get("frame_limit", 1048576)
    done = dump(vector.data, tmp_path, "--frame-limit", str(limit))
    if vector.facts["rule"].startswith(OTHER_DIRECTION) and done.code == 0:
        return
    found = faults(done)
    assert done.code == 1, done.out
    assert len(found) == 1
    assert found[0] in vector.facts["goodbye"] or vector.facts["rule"].startswith(OTHER_DIRECTION)


def control(message: Any) -> bytes:
    return b"".join(encode_frame(0, 0, 0, encode_control(message)))


def content(wire_id: int, kind: int, number: int, segment: bytes = bytes(8)) -> bytes:
    return b"".join(encode_frame(wire_id, kind, number, (segment,)))


COUNT = 0x957EFF77FD367625


def hello(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "protocol_version": 1,
        "name": "meter",
        "instance": bytes(range(16)),
        "implementation": "example",
        "version": "1",
        "frame_limit": 1048576,
        "keepalive_ms": 0,
        "event_credit": UNLIMITED,
        "request_credit": 65536,
        "features": (),
        "rows": ((1, TypeRow(COUNT, "struct", "conformance.capnp:Count", (0x1CA12186,))),),
    }
    return control(Hello(**{**fields, **changes}))


SUBSCRIPTIONS = control(Subscriptions(1, (COUNT,), (), False, True))


def test_a_stream_in_words(tmp_path: Path) -> None:
    other = TypeRow(COUNT + 1, "opaque", "shop.Old", ())
    data = [
        hello(),
        control(Declare(((0, other),))),
        SUBSCRIPTIONS,
        control(SubscriptionsAck(1)),
        control(Credit(64, 0)),
        content(1, 0, 0, bytes.fromhex("0000000001000000 0700000000000000")),
        content(1, 1, 9),
        content(1, 2, 3),
        control(Failed(4, "handlerRaised", "KeyError", "no")),
        control(Ping()),
        control(Pong()),
        control(Dropped(((COUNT, 5),))),
        control(Subscriptions(2, (), (COUNT,), True, False)),
        control(Goodbye("shutdown", "bye")),
    ]
    done = dump(b"".join(data), tmp_path, "--schema", CONFORMANCE)
    at = 0
    offsets = []
    for frame in data:
        offsets.append(f"{at:08x}  {len(frame):>8}")
        at += len(frame)
    name = '"conformance.capnp:Count"'
    indent = " " * 20
    assert done.out.splitlines() == [
        f'{offsets[0]}  hello: protocol_version 1, name "meter", implementation "example", version "1"',
        f"{indent}instance 000102030405060708090a0b0c0d0e0f, frames up to 1048576 bytes, credit: events unlimited, "
        "requests 65536",
        f"{indent}    1  struct 0x957eff77fd367625 {name}, layout of 1",
        f"{offsets[1]}  declare",
        f'{indent}    0  opaque 0x957eff77fd367626 "shop.Old", layout of 0',
        f"{offsets[2]}  subscriptions: sequence 1, ack_wanted true",
        f"{indent}+ 0x957eff77fd367625 {name}",
        f"{offsets[3]}  subscriptionsAck: sequence 1",
        f"{offsets[4]}  credit: events 64",
        f"{offsets[5]}  event: wire id 1, {name}",
        f"{indent}Count(number=7)",
        f"{offsets[6]}  request 9: wire id 1, {name}",
        f"{indent}Count(number=0)",
        f"{offsets[7]}  response to request 3: wire id 1, {name}",
        f"{indent}Count(number=0)",
        f'{offsets[8]}  failed: correlation 4, handlerRaised, type_name "KeyError", text "no"',
        f"{offsets[9]}  ping",
        f"{offsets[10]}  pong",
        f"{offsets[11]}  dropped",
        f"{indent}5 of 0x957eff77fd367625 {name}",
        f"{offsets[12]}  subscriptions: sequence 2, all true",
        f"{indent}- 0x957eff77fd367625 {name}",
        f'{offsets[13]}  goodbye: shutdown, text "bye"',
    ]
    assert done.code == 0


@pytest.mark.parametrize(
    ("data", "code", "complaint"),
    [
        ([hello(), hello()], "protocolError", "hello while introduced"),
        ([content(1, 0, 0)], "protocolError", "content while opening"),
        ([hello(name="no name")], "invalidName", "calls itself 'no name'"),
        ([hello(protocol_version=2)], "unsupportedVersion", "version 2"),
        ([hello(event_credit=1 << 63)], "protocolError", "9223372036854775808"),
        ([hello(request_credit=UNLIMITED - 1)], "protocolError", "18446744073709551614"),
        (
            [hello(), control(Declare(((2, TypeRow(COUNT, "struct", "x", ())),)))],
            "invalidTable",
            "declared twice",
        ),
        ([hello(), control(Subscriptions(2, (), (), False, False))], "protocolError", "sequence 2, wanted 1"),
        ([hello(), control(Subscriptions(1, (5,), (), False, False))], "unknownId", "0x0000000000000005"),
        ([hello(), SUBSCRIPTIONS, content(2, 0, 0)], "unknownId", "wire id 2, never declared"),
        (
            [hello(), SUBSCRIPTIONS, content(1, 1, 5), content(1, 1, 5)],
            "protocolError",
            "request 5 after request 5",
        ),
        ([hello(), SUBSCRIPTIONS, control(SubscriptionsAck(0))], "protocolError", "the least is 1"),
        (
            [hello(), SUBSCRIPTIONS, control(SubscriptionsAck(3)), control(SubscriptionsAck(2))],
            "protocolError",
            "an acknowledgement of 2: the least is 3",
        ),
        (
            [hello(), SUBSCRIPTIONS, control(Failed(0, "noHandler", "", ""))],
            "unknownCorrelation",
            "request 0",
        ),
        ([b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"], "protocolError", "looks like an HTTP client"),
        (
            [hello(), bytes.fromhex("1c000000 0000 0300 0000000000000000") + bytes(16)],
            "protocolError",
            "FLAGS 3",
        ),
    ],
)
def test_what_breaks_a_rule_is_marked_where_it_stands(
    data: list[bytes], code: str, complaint: str, tmp_path: Path
) -> None:
    # What follows the fault is shown, if frames can still be told apart, and not judged.
    done = dump(b"".join([*data, control(Ping())]), tmp_path)
    assert done.code == 1
    assert faults(done) == [code]
    (line,) = [line for line in done.out.splitlines() if f"! {code}: " in line]
    assert complaint in line
    if "the rest is not read" in done.out:
        assert done.out.splitlines().index(line) == len(done.out.splitlines()) - 2
        at = sum(map(len, data[:-1]))
        assert line.startswith(f"{at:08x}  ! ")
    else:
        assert frames(done)[-1][2] == "ping"


def test_a_capture_from_the_middle_is_not_judged_by_what_came_before(tmp_path: Path) -> None:
    data = content(1, 0, 0) + control(Subscriptions(9, (5,), (), False, False)) + content(1, 1, 7)
    done = dump(data, tmp_path, "--middle")
    assert (done.code, len(frames(done))) == (0, 3)
    # But by what comes after.
    done = dump(data + control(Subscriptions(9, (), (), False, False)), tmp_path, "--middle")
    assert faults(done) == ["protocolError"]
    assert "sequence 9, wanted 10" in done.out


def test_bytes_after_goodbye_are_counted_and_not_judged(tmp_path: Path) -> None:
    data = hello() + control(Goodbye("shutdown", ""))
    done = dump(data + b"garbage" * 100_000, tmp_path)
    assert done.code == 0
    assert (
        done.out.splitlines()[-1]
        == f"{len(data):08x}  - 700000 bytes after goodbye, which a receiver discards"
    )


def test_a_frame_without_its_end_is_said_to_be_one(tmp_path: Path) -> None:
    for cut in (1, len(SUBSCRIPTIONS) - 1):
        done = dump(hello() + SUBSCRIPTIONS[:cut], tmp_path)
        assert done.code == 0
        assert done.out.splitlines()[-1] == f"{len(hello()):08x}  - {cut} bytes of a frame without its end"
    assert dump(b"", tmp_path) == Done(0, "", "")


def test_texts_of_a_peer_cannot_do_anything_to_a_terminal(tmp_path: Path) -> None:
    evil = "\x1b[2J\n\x9b\u202e"
    rows = ((1, TypeRow(COUNT, "struct", evil, ())),)
    data = hello(name=evil, implementation=evil, version=evil, features=(evil,), rows=rows)
    data += SUBSCRIPTIONS + control(Failed(1, "noHandler", evil, evil)) + content(1, 0, 0)
    done = dump(data + control(Goodbye("shutdown", evil)), tmp_path)
    assert len(frames(done)) == 5
    assert done.out.replace("\n", "").isascii()
    assert done.out.replace("\n", "").isprintable()


def test_a_layout_that_differs_from_the_schema_is_pointed_out(tmp_path: Path) -> None:
    data = hello(rows=((1, TypeRow(COUNT, "struct", "c", (0x1CA12187, 5))),))
    done = dump(data, tmp_path, "--schema", CONFORMANCE, "--layouts")
    assert [line.strip() for line in done.out.splitlines()[2:]] == [
        '1  struct 0x957eff77fd367625 "c", layout of 2',
        "@0 0x1ca12187",
        "@1 0x00000005",
        "@0 differs from the schema: 0x1ca12187, there 0x1ca12186",
    ]


def test_content_that_cannot_be_read_is_no_fault(tmp_path: Path) -> None:
    data = hello() + SUBSCRIPTIONS + content(1, 0, 0, bytes.fromhex("0000000001000000"))
    done = dump(data, tmp_path, "--schema", CONFORMANCE)
    assert done.code == 0
    assert re.search(r"^ {20}(<|Count\().*unreadable", done.out, re.M)


class Slowly(io.BytesIO):
    """Gives one byte at a time."""

    def readinto(self, buffer: Any) -> int:
        return super().readinto(memoryview(buffer)[:1])


@pytest.mark.parametrize(
    "name", ["every-field-both-ways-acceptor", "goodbye-then-garbage", "eof-inside-a-frame"]
)
def test_the_words_do_not_depend_on_how_the_bytes_come(name: str) -> None:
    data = load(VECTORS, "conversations", name).data
    results = []
    for stream in (io.BytesIO(data), Slowly(data)):
        reader = StreamReader({}, MAX_FRAME_BYTES, from_the_middle=False, layouts=True)
        results.append(list(reader.read(stream)))
    assert results[0] == results[1]
    assert len(results[0]) > 3


def test_standard_input_is_read_too(tmp_path: Path) -> None:
    data = hello() + SUBSCRIPTIONS
    done = subprocess.run(
        [sys.executable, "-m", "lahja_capn.cli", "dump", "-"], input=data, capture_output=True, timeout=15
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == dump(data, tmp_path).out


def test_a_schema_with_structs_that_are_no_event_types_is_taken(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.capnp", "struct Box(T) { t @0 :T; } struct Order { n @0 :Int8; struct Line {} }"
    )
    import lahja_capn

    row = bound(lahja_capn.load(file).Order.Line).row
    done = dump(
        hello(rows=((1, row),)) + control(Subscriptions(1, (), (), False, False)) + content(1, 0, 0),
        tmp_path,
        *("--schema", file, "--schema", CONFORMANCE),
    )
    assert done.out.splitlines()[-1].strip() == "Line()"


def test_the_frames_of_the_specification_are_described_as_it_describes_them(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")
    blocks = dict(re.findall(r"^```hex (\w+)\n(.*?)^```", page, re.M | re.S))
    words = {}
    for name, block in blocks.items():
        (tmp_path / name).write_text(block)
        done = run("dump", "--hex", "--middle", tmp_path / name)
        assert (done.code, done.err) == (0, "")
        words[name] = done.out
    assert words["event"] == "00000000        64  event: wire id 1, never declared\n"
    assert words["ping"] == "00000000        48  ping\n"
    assert words["hello"].splitlines() == [
        '00000000       248  hello: protocol_version 1, name "meter", implementation "example", version "1"',
        f"{'':20}instance 000102030405060708090a0b0c0d0e0f, frames up to 1048576 bytes, credit: events unlimited, "
        "requests 65536",
        f'{"":20}    1  struct 0xc1d2e3f4a5b69788 "example.capnp:Tick", layout of 4',
    ]


def test_a_file_that_is_not_there_is_a_usage_error() -> None:
    done = run("dump", "nowhere")
    assert (done.code, done.out) == (2, "")
    assert "nowhere" in done.err

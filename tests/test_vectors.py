"""The vectors: generating them again changes nothing, and lahja_capn itself does what they say.

Each vector is also run with something else said in it, and must then fail: a runner that compares nothing would pass.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lahja_capn import ConnectionConfig, EventFieldError
from tests.conftest import Runtime
from tests.scenario.rawpeer import talk_to
from tests.vectors import loading, running
from tests.vectors.generate import generate
from tests.vectors.loading import Vector
from tests.vectors.plans import Plan, Type, conformance, plan_of
from tests.vectors.reading import read_message, same
from tests.vectors.store import FOLDERS

ROOT = Path(__file__).resolve().parent / "vectors"
ALL = [(folder, name) for folder in FOLDERS for name in loading.names(ROOT, folder)]
RUN = [vector for vector in (loading.load(ROOT, *which) for which in ALL) if running.can_run(vector)]


# Under coverage it takes many times its usual second.
@pytest.mark.timeout(120)
def test_generating_again_changes_no_byte() -> None:
    files = generate().files
    there = {f"{folder}/{path.name}": path for folder in FOLDERS for path in (ROOT / folder).iterdir()}
    assert there.keys() == files.keys(), "run `python -m tests.vectors.generate`"
    changed = [name for name, path in there.items() if path.read_bytes() != files[name]]
    assert not changed, "run `python -m tests.vectors.generate`, or do not edit by hand"


def test_every_vector_can_be_run_or_says_what_it_needs() -> None:
    assert len(ALL) - len(RUN) == 1
    assert {folder for folder, _ in ALL} == set(FOLDERS)


@pytest.mark.parametrize("vector", RUN, ids=str)
def test_lahja_capn_does_what_the_vector_says(vector: Vector) -> None:
    running.run(vector)


# Messages of which libcapnp makes something all the same, within the same bounds.
READABLE_AFTER_ALL = {"broken-far-double-cycle"}
BROKEN = [
    v
    for v in RUN
    if v.folder == "messages" and v.facts.get("unreadable") and v.name not in READABLE_AFTER_ALL
]


@pytest.mark.parametrize("vector", BROKEN, ids=str)
def test_a_broken_message_raises_for_its_field(vector: Vector) -> None:
    # The format leaves it to a library whether such a message gives an error; ours always says which field is broken.
    with pytest.raises(EventFieldError, match="cannot be read"):
        read_message(vector)


# --- each vector matters ------------------------------------------------------------------------------------


def damaged_values(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths to everything in a value that is no object and no list."""
    if isinstance(value, dict):
        for key, content in value.items():
            yield from damaged_values(content, (*path, key))
    elif isinstance(value, list) and value:
        for key, content in enumerate(value):
            yield from damaged_values(content, (*path, key))
    else:
        yield path


def with_another(value: Any, path: tuple[Any, ...]) -> Any:
    """Return a copy that has something else at one place."""
    found = copy.deepcopy(value)
    inside = found
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = {"something": "else"}
    return found


def other_facts(vector: Vector) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the vector's JSON with one thing in it that is not so, and what that is."""
    facts = vector.facts
    for key in ("value", "control"):
        # The first, the last, and some between: one run for each of 58 fields would take long.
        paths = list(damaged_values(facts.get(key, {})))
        for path in paths[:: max(1, len(paths) // 5)]:
            if path:
                yield f"{key}.{path}", {**facts, key: with_another(facts[key], path)}
    for i, step in enumerate(facts.get("script", ())):
        if "await" in step:
            other = {**step, "await": {"sent": "dropped"}}
            yield f"step {i} awaits another", {**facts, "script": _replaced(facts["script"], i, other)}
        elif "count" in step:
            other = {**step, "is": step["is"] + 1}
            yield f"step {i} counts one more", {**facts, "script": _replaced(facts["script"], i, other)}
    expect = facts.get("expect", [])
    for i in range(len(expect)):
        yield f"fact {i} left out", {**facts, "expect": expect[:i] + expect[i + 1 :]}
        yield f"fact {i} twice", {**facts, "expect": [*expect, expect[i]]}
    for name, number in facts.get("counters", {}).items():
        yield name, {**facts, "counters": {name: number + 1}}
    if "goodbye" in facts:
        yield "goodbye", {**facts, "goodbye": ["notPermitted"]}


def _replaced(steps: list[Any], i: int, other: Any) -> list[Any]:
    return [*steps[:i], other, *steps[i + 1 :]]


def is_met(vector: Vector) -> bool:
    """Run it in one piece only: that both ways are run is the other test's."""
    try:
        if "script" in vector.facts:
            running.run_script(vector)
        else:
            running.run(vector)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("vector", RUN, ids=str)
def test_a_vector_that_says_something_else_fails(vector: Vector) -> None:
    tried = 0
    for what, facts in other_facts(vector):
        assert not is_met(Vector(vector.folder, vector.name, facts, vector.data)), f"met all the same: {what}"
        tried += 1
    assert tried or vector.facts.get("unreadable")


# What they say would be so without their last bytes too: nothing follows from those, or the stream ends anyway.
_LAST_BYTES_DO_NOTHING = {
    f"{name}{role}"
    for name in ("goodbye-then-garbage", "stop-", "eof-in-handshake-")
    for role in ("", "acceptor", "connector")
}


@pytest.mark.parametrize(
    "vector", [vector for vector in RUN if vector.folder == "conversations"], ids=lambda v: v.name
)
def test_a_conversation_without_its_last_bytes_fails(vector: Vector) -> None:
    facts = copy.deepcopy(vector.facts)
    last = [step for step in facts["script"] if "send" in step][-1]
    data = vector.data[: len(vector.data) - last["send"]]
    last["send"] = 0
    last.pop("patch", None)
    met = is_met(Vector(vector.folder, vector.name, facts, data))
    assert met is (vector.name in _LAST_BYTES_DO_NOTHING)


# --- other readers ------------------------------------------------------------------------------------------


# pycapnp has no way to read an enumerant or a union member without a name.
_NOT_FOR_PYCAPNP = ("ask-unknown-mode", "everything-enums", "evolving-newer-unknown-member", "opaque")
READABLE = [vector for vector in RUN if vector.folder == "messages" and "value" in vector.facts]


@pytest.mark.parametrize(
    "vector", [vector for vector in READABLE if vector.name not in _NOT_FOR_PYCAPNP], ids=lambda v: v.name
)
def test_messages_are_what_pycapnp_reads(vector: Vector) -> None:
    """A reader that shares no code with our writer or with our binding."""
    schema = getattr(conformance, vector.facts["type"])
    with schema.from_bytes(vector.data, traversal_limit_in_words=1 << 24, nesting_limit=200) as reader:
        same(shown_by_pycapnp(reader, plan_of(schema)), vector.facts["value"])


def shown_by_pycapnp(reader: Any, plan: Plan) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    active = str(reader.which()) if plan.members else ""
    for name, field in plan.fields.items():
        if name in plan.members and name != active:
            continue
        content = getattr(reader, name)
        if field.group is not None:
            shown[name] = shown_by_pycapnp(content, field.group)
        elif name == "again" and not reader._has(name):
            shown[name] = None
        elif name == "anything":
            kind = str(reader.anyKind)
            shown[name] = {kind: _anything_by_pycapnp(content, kind)}
        else:
            assert field.type is not None
            shown[name] = _value_by_pycapnp(content, field.type)
    return shown


def _anything_by_pycapnp(content: Any, kind: str) -> Any:
    if kind == "null":
        return None
    if kind == "text":
        return content.as_text()
    if kind == "inner":
        return shown_by_pycapnp(content.as_struct(conformance.Inner), plan_of(conformance.Inner))
    u16s = conformance.Everything.schema.fields["u16s"].schema
    if kind == "u16s":
        return list(content.as_list(u16s))
    return bytes(content.as_list(conformance.Everything.schema.fields["u8s"].schema)).hex()


def _value_by_pycapnp(content: Any, kind: Type) -> Any:
    if kind.kind == "list":
        assert kind.element is not None
        return [_value_by_pycapnp(element, kind.element) for element in content]
    if kind.kind == "struct":
        return shown_by_pycapnp(content, kind.plan)
    if kind.kind == "float":
        code = {32: ">f", 64: ">d"}[kind.bits]
        # Python turns a NaN's sign and payload into its own: only the quiet one is in the vectors.
        return (
            struct.pack(code, content).hex()
            if content == content
            else {32: "7fc00000", 64: "7ff8000000000000"}[kind.bits]
        )
    if kind.kind == "int":
        return str(content) if kind.bits == 64 else content
    if kind.kind == "data":
        return bytes(content).hex()
    return str(content) if kind.kind == "enum" else content


# --- what the endpoint decides ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [name for folder, name in ALL if folder == "refusals" and "own-name" in name]
)
def test_the_endpoint_refuses(name: str, asyncio_runtime: Runtime, short_tmp_path: Path) -> None:
    vector = loading.load(ROOT, "refusals", name)
    assert vector.facts["needs"] == ["endpoint"]
    assert vector.facts["role"] == "acceptor"

    async def main() -> None:
        config = ConnectionConfig(name="consumer", path=short_tmp_path / "consumer.ipc")
        async with asyncio_runtime.endpoint_class.serve(config):
            with talk_to(config.path) as talker:
                await talker.send(vector.data)
                assert (await talker.next()).code in vector.facts["goodbye"]  # type: ignore[union-attr]

    asyncio_runtime.run(main)

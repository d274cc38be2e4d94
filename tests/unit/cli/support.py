"""Runs a command of ``lahja-capn`` in this process."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lahja_capn.binding import BaseEvent, EventType, bind, event_type, registry
from lahja_capn.cli import main

ROOT = Path(__file__).resolve().parents[3]
CONFORMANCE = ROOT / "tests" / "vectors" / "conformance.capnp"
EVERYTHING = ROOT / "tests" / "schemas" / "everything.capnp"


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def run(*arguments: str | Path) -> Done:
    """Run a command and return how it ended. An exception that is not caught there fails the test here."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(map(str, arguments)), prog_name="lahja-capn")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return Done(code, out.getvalue(), err.getvalue())


def ok(*arguments: str | Path) -> str:
    """Run a command that must succeed without a word on standard error, and return what it printed."""
    done = run(*arguments)
    assert (done.code, done.err) == (0, ""), done
    return done.out


def table(*arguments: str | Path) -> list[dict[str, Any]]:
    """The rows of ``lahja-capn table``, from its JSON. It may say that it left structs out."""
    done = run("table", *arguments)
    assert done.code == 0, done.err
    rows: list[dict[str, Any]] = json.loads(done.out)["rows"]
    return rows


def write(path: Path, body: str, file_id: int = 0xF2CD98AE0C91DD76) -> Path:
    """Write a schema file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"@0x{file_id:016x};\n{body}", encoding="utf-8")
    return path


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def bound(struct: Any) -> EventType:
    """The event type of a class bound to a struct, which is forgotten again: others may bind it too."""
    events, classes = dict(registry._events), dict(registry._classes)
    registry._events.clear()
    registry._classes.clear()
    try:
        rename = {name: f"{name}_" for name in struct.schema.fields if hasattr(BaseEvent, name)}

        @bind(struct, rename=rename)
        class Event(BaseEvent):
            pass

        return event_type(Event)
    finally:
        registry._events.clear()
        registry._events.update(events)
        registry._classes.clear()
        registry._classes.update(classes)

"""The source that ``lahja-capn table`` emits: each language's compiler takes it and finds every value in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .support import CONFORMANCE, ROOT, ok, table, write

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

# A text that ends strings, comments and lines where it can, begins a trigraph, and is not ASCII.
ODD = 'sh"op\\ \n7 \x017 ??/ \u00e9 \U0001f980 */ {0} $x `y` \\'

# Structs without fields, without structs inside, and with one name in source.
AWKWARD = (
    "struct Empty {} struct Delete { go @0 :Int8; } struct Delete2 { empty @0 :Empty; }"
    "struct Order { line @0 :Line; struct Line {} } struct OrderLine {} struct TableRow { kind @0 :Kind; }"
    "enum Kind { a @0; } struct Six { a @0 :Int8; b @1 :Int8; c @2 :Int8; d @3 :Int8; e @4 :Int8; f @5 :Int8; }"
    "struct Three { a @0 :Empty; b @1 :Order; c @2 :Six; } struct Four { a @0 :Three; }"
)


def tool(*names: str) -> str:
    """The path of the first of these programs that there is, or the test is skipped."""
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    pytest.skip(f"{names[0]} is not installed")


def command(*arguments: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        list(map(str, arguments)),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        env={**os.environ, "GOPROXY": "off", "GOFLAGS": "-mod=mod", "GOWORK": "off"},
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(params=["conformance", "awkward", "nothing"])
def arguments(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Arguments of ``table`` for which a language is tried."""
    if request.param == "conformance":
        return [str(CONFORMANCE)]
    if request.param == "nothing":
        return [str(write(tmp_path / "nothing.capnp", "enum E { a @0; }"))]
    file = write(tmp_path / "awkward file.capnp", AWKWARD)
    return [str(file), "--opaque", f"{ODD}=0xdeadbeef00000001", "--opaque", "9=0xdeadbeef00000002"]


Expected = list[dict[str, Any]]


def emit(arguments: list[str], language: str, folder: Path, name: str) -> Expected:
    package = {"c++": ["--package", "my::rows"], "go": ["--package", "main"]}.get(language, [])
    (folder / name).write_text(ok("table", *arguments, "--language", language, *package), encoding="utf-8")
    return table(*arguments)


def checks(rows: Expected, check: Callable[[str, Any], str], names: dict[str, str]) -> str:
    """One check for each value of each row, in a language."""
    lines = []
    for at, row in enumerate(rows):
        for key, member in names.items():
            value = row[key]
            if key == "reaches":
                value = [int(type_id, 0) for type_id in value]
            elif key == "type_id":
                value = int(value, 0)
            lines.append(check(member.format(at=at), value))
    return "\n".join(lines)


def test_a_cpp_compiler_takes_the_header_and_finds_every_value(arguments: list[str], tmp_path: Path) -> None:
    compiler = tool("g++", "clang++")
    rows = emit(arguments, "c++", tmp_path, "table.h")

    def check(member: str, value: Any) -> str:
        if isinstance(value, list):
            elements = [f"static_assert({member}[{k}] == {number}ULL);" for k, number in enumerate(value)]
            return "\n".join([f"static_assert({member}Size == {len(value)});", *elements])
        if isinstance(value, str):
            data = "".join(f"\\{byte:03o}" for byte in value.encode())
            value = f'std::string_view("{data}", {len(value.encode())})'
        else:
            value = f"{value}ULL"
        return f"static_assert({member} == {value});"

    names = {
        "wire_id": "wireId",
        "type_id": "typeId",
        "name": "name",
        "layout": "layout",
        "reaches": "reaches",
    }
    body = checks(rows, check, {key: "my::rows::rows[{at}]." + member for key, member in names.items()})
    kinds = "\n".join(
        f"static_assert(my::rows::rows[{at}].kind == my::rows::Kind(int({row['kind'] == 'opaque':d})));"
        for at, row in enumerate(rows)
    )
    count = f"static_assert(my::rows::rowCount == {len(rows)});"
    # Twice: a header must stand being included in two places.
    text = f'#include "table.h"\n#include "table.h"\n{count}\n{body}\n{kinds}\nint main() {{}}\n'
    (tmp_path / "main.cpp").write_text(text)
    command(
        compiler, *"-std=c++17 -Wall -Wextra -Werror -pedantic -fsyntax-only main.cpp".split(), cwd=tmp_path
    )


def test_rustc_takes_the_module_and_the_program_finds_every_value(
    arguments: list[str], tmp_path: Path
) -> None:
    compiler = tool("rustc")
    rows = emit(arguments, "rust", tmp_path, "table.rs")

    def check(member: str, value: Any) -> str:
        shown = json.dumps(value).replace("[", "&[") if isinstance(value, list) else str(value)
        if isinstance(value, str):
            shown = '"' + "".join(f"\\u{{{ord(char):x}}}" for char in value) + '"'
        return f"    assert_eq!({member}, {shown});"

    names = {
        name: "table::ROWS[{at}]." + name for name in ("wire_id", "type_id", "name", "layout", "reaches")
    }
    kinds = "\n".join(
        f"    assert_eq!(table::ROWS[{at}].kind, table::Kind::{row['kind'].capitalize()});"
        for at, row in enumerate(rows)
    )
    (tmp_path / "main.rs").write_text(
        "#![deny(warnings)]\n#![allow(dead_code)]\nmod table;\n"
        f"fn main() {{\n    assert_eq!(table::ROWS.len(), {len(rows)});\n"
        f"{checks(rows, check, names)}\n{kinds}\n}}\n"
    )
    command(compiler, "--edition", "2021", "main.rs", "-o", "main", cwd=tmp_path)
    command(tmp_path / "main", cwd=tmp_path)
    formatter = shutil.which("rustfmt")
    if formatter and subprocess.run([formatter, "--version"], capture_output=True).returncode == 0:
        command(formatter, "--check", "table.rs", cwd=tmp_path)


def test_go_takes_the_file_and_the_program_finds_every_value(arguments: list[str], tmp_path: Path) -> None:
    go = tool("go")
    rows = emit(arguments, "go", tmp_path, "table.go")

    def check(member: str, value: Any) -> str:
        if isinstance(value, list):
            elements = [check(f"{member}[{k}]", number) for k, number in enumerate(value)]
            return "\n".join([f"\tcheck(len({member}) == {len(value)})", *elements])
        shown = str(value)
        if isinstance(value, str):
            shown = '"' + "".join(f"\\x{byte:02x}" for byte in value.encode()) + '"'
        return f"\tcheck({member} == {shown})"

    names = {
        "wire_id": "WireID",
        "type_id": "TypeID",
        "name": "Name",
        "layout": "Layout",
        "reaches": "Reaches",
    }
    kinds = "\n".join(
        f"\tcheck(Rows[{at}].Kind == TableKind{row['kind'].capitalize()})" for at, row in enumerate(rows)
    )
    (tmp_path / "main.go").write_text(
        'package main\n\nfunc check(same bool) {\n\tif !same {\n\t\tpanic("another value")\n\t}\n}\n\n'
        f"func main() {{\n\tcheck(len(Rows) == {len(rows)})\n"
        + checks(rows, check, {key: "Rows[{at}]." + member for key, member in names.items()})
        + f"\n{kinds}\n}}\n"
    )
    (tmp_path / "go.mod").write_text("module example.com/table\n\ngo 1.21\n")
    command(go, "run", "-p", "1", ".", cwd=tmp_path)
    command(go, "vet", "./...", cwd=tmp_path)
    gofmt = shutil.which("gofmt", path=f"{Path(go).resolve().parent}{os.pathsep}{os.environ['PATH']}")
    if gofmt:
        assert command(gofmt, "-l", "table.go", cwd=tmp_path) == ""


def test_tsc_takes_the_module_and_the_program_finds_every_value(arguments: list[str], tmp_path: Path) -> None:
    compiler = tool("tsc", str(ROOT / "peers" / "typescript" / "node_modules" / ".bin" / "tsc"))
    node = tool("node")
    rows = emit(arguments, "typescript", tmp_path, "table.ts")

    def check(member: str, value: Any) -> str:
        if isinstance(value, list):
            elements = [check(f"{member}[{k}]", number) for k, number in enumerate(value)]
            return "\n".join([f"check({member}.length === {len(value)});", *elements])
        big = (isinstance(value, int) and "typeId" in member) or "reaches" in member
        return f"check({member} === {json.dumps(value)}{'n' if big else ''});"

    names = {"wire_id": "wireId", "type_id": "typeId", "kind": "kind", "name": "name", "layout": "layout"}
    names["reaches"] = "reaches"
    (tmp_path / "main.ts").write_text(
        'import { rows } from "./table.js";\n'
        'function check(same: boolean): void { if (!same) throw new Error("another value"); }\n'
        f"check(rows.length === {len(rows)});\n"
        + checks(rows, check, {key: "rows[{at}]!." + member for key, member in names.items()})
    )
    (tmp_path / "package.json").write_text('{"type": "module"}')
    options = (
        "--strict --noUncheckedIndexedAccess --target es2022 --module nodenext --outDir out main.ts table.ts"
    )
    command(compiler, *options.split(), cwd=tmp_path)
    command(node, "out/main.js", cwd=tmp_path)

"""Whatever is wrong with a command's input is said in one message, with an exit code; never by a traceback."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from .support import CONFORMANCE, EVERYTHING, run, write

COMMANDS = {
    "table": [],
    "layout": [],
    "annotate-go": ["--package", "p", "--import", "x", "--output-dir", "never"],
    "check": [str(CONFORMANCE)],
}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(params=sorted(COMMANDS))
def command(request: pytest.FixtureRequest) -> list[str]:
    return [request.param, *COMMANDS[request.param]]


def refused(code: int, *arguments: Any) -> str:
    done = run(*arguments)
    assert done.code == code, done
    assert done.out == ""
    assert "Traceback" not in done.err
    assert not Path("never").exists()
    return done.err


def test_a_missing_file(command: list[str]) -> None:
    assert "'missing.capnp' does not exist" in refused(2, *command, "missing.capnp")


def test_a_folder(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "folder.capnp").mkdir()
    assert "'folder.capnp' is a directory" in refused(2, *command, "folder.capnp")


def test_a_file_of_another_name(command: list[str], tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "")
    assert "does not end in .capnp" in refused(1, *command, "a.txt")


def test_an_import_folder_that_is_not_there(command: list[str]) -> None:
    assert "'nowhere' does not exist" in refused(2, *command, CONFORMANCE, "-I", "nowhere")


def test_nothing_at_all(command: list[str]) -> None:
    assert "Missing argument" in refused(2, command[0])
    assert "--nonsense" in refused(2, *command, CONFORMANCE, "--nonsense")


def test_a_command_that_does_not_exist() -> None:
    assert "tabel" in refused(2, "tabel")


def test_a_file_that_does_not_parse_with_line_and_column_of_every_error(
    command: list[str], tmp_path: Path
) -> None:
    write(tmp_path / "bad.capnp", "struct A { x @0 :Foo; }\n  struct B { x @0 :Bar; }\n")
    printed = refused(1, *command, "bad.capnp")
    if shutil.which("capnp"):
        assert printed.splitlines() == [
            "Error: bad.capnp:2:18-21: error: Not defined: Foo",
            "bad.capnp:3:20-23: error: Not defined: Bar",
        ]
    else:
        assert printed == f"Error: {tmp_path}/bad.capnp:2: Not defined: Foo\n"


def test_a_file_that_does_not_parse_where_the_compiler_is_not_installed(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "part.capnp", "struct A { x @0 :Foo; }", 0xF2CD98AE0C91DD77)
    write(tmp_path / "bad.capnp", 'struct B { a @0 :import "part.capnp".A; }')
    monkeypatch.setenv("PATH", str(tmp_path))
    printed = refused(1, *command, "bad.capnp")
    assert "part.capnp:2: Not defined: Foo" in printed
    assert "bad.capnp" in printed


def test_a_compiler_that_finds_nothing_wrong_or_cannot_run_does_not_hide_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "bad.capnp", "struct A { x @0 :Foo; }")
    monkeypatch.setenv("PATH", str(tmp_path))
    compiler = tmp_path / "capnp"
    for content in ("#!/bin/sh\nexit 0\n", "#!/no/such/interpreter\n"):
        compiler.write_text(content)
        compiler.chmod(0o755)
        assert "bad.capnp:2: Not defined: Foo" in refused(1, "layout", "bad.capnp")


def test_a_struct_that_is_not_there_with_the_names_that_are_near() -> None:
    for command in (["table", CONFORMANCE, "--type"], ["layout", CONFORMANCE]):
        assert refused(1, *command, "Evreything") == (
            "Error: conformance.capnp has no struct Evreything. Did you mean Everything or Evolving?\n"
        )
        assert "It has Inner, Everything, Count," in refused(1, *command, "Xyz")
        assert "has no struct Color.red" in refused(1, *command, "Color.red")
        assert "has no struct Everything.place" in refused(1, *command, "Everything.place")
    printed = refused(1, "check", CONFORMANCE, CONFORMANCE, "--type", "Evreything")
    assert "Did you mean Everything or Evolving?" in printed


def test_a_file_without_structs(tmp_path: Path) -> None:
    write(tmp_path / "empty.capnp", "")
    assert "empty.capnp has no struct A. It has no structs." in refused(1, "layout", "empty.capnp", "A")


def test_what_is_no_struct() -> None:
    for command in (["table", CONFORMANCE, "--type"], ["layout", CONFORMANCE]):
        assert (
            refused(1, *command, "Color")
            == "Error: Color of conformance.capnp is an enum; wanted a struct.\n"
        )
    for command in (["table", EVERYTHING, "--type"], ["layout", EVERYTHING]):
        assert "is an interface; wanted a struct" in refused(1, *command, "Service")


def test_what_cannot_be_an_event_type_when_it_is_asked_for() -> None:
    printed = refused(1, "table", EVERYTHING, "--type", "Box")
    assert printed == (
        "Error: everything.capnp: Box is generic, so it is no event type: name a struct that has a field of it.\n"
    )
    printed = refused(1, "table", EVERYTHING, "--type", "WithInterface")
    assert "WithInterface.deep.service has the type interface: interfaces cannot travel" in printed


@pytest.mark.parametrize(
    "value", ["Old", "Old=", "=0xdeadbeef00000001", "Old=x", "Old=5", "Old=0x1deadbeef00000001", "Old=-1"]
)
def test_an_opaque_type_without_a_name_or_an_id(value: str) -> None:
    assert f"{value!r} is not NAME=TYPEID" in refused(2, "table", CONFORMANCE, "--opaque", value)


def test_an_opaque_type_whose_id_or_name_peers_would_refuse() -> None:
    taken = "0xf7a3d0925c4be186"
    for more in ([], ["--type", "Everything"]):
        printed = refused(1, "table", CONFORMANCE, *more, "--opaque", f"Old={taken}")
        assert f"type id {taken} of the opaque type Old is taken" in printed
    long = "n" * 1025
    assert "longer than 1024 bytes" in refused(
        2, "table", CONFORMANCE, "--opaque", f"{long}=0xdeadbeef00000001"
    )


def test_wire_ids_beyond_the_last_one() -> None:
    printed = refused(1, "table", CONFORMANCE, "--first-wire-id", "65530")
    assert "8 event types from wire id 65530 on do not fit: the highest wire id is 65535" in printed
    assert run("table", CONFORMANCE, "--first-wire-id", "65528").code == 0
    for number in ("0", "65536", "x"):
        assert "--first-wire-id" in refused(2, "table", CONFORMANCE, "--first-wire-id", number)


@pytest.mark.parametrize("language", ["c++", "go"])
@pytest.mark.parametrize("package", ["", "1a", "a-b", "struct", "func", "a b", "a::", 'x"'])
def test_a_package_that_the_language_does_not_take(package: str, language: str) -> None:
    assert "is no name of a package" in refused(
        2, "table", CONFORMANCE, "--language", language, "--package", package
    )


def test_a_namespace_inside_another_is_for_cpp_only() -> None:
    assert run("table", CONFORMANCE, "--language", "c++", "--package", "a::b").code == 0
    assert "is no name" in refused(2, "table", CONFORMANCE, "--language", "go", "--package", "a::b")


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    printed = refused(1, "table", CONFORMANCE, "--output", "file/table.json")
    assert printed == "Error: file/table.json cannot be written: Not a directory.\n"
    done = run("annotate-go", CONFORMANCE, "--package", "p", "--import", "x", "--output-dir", "file/go")
    assert (done.code, done.out) == (1, "")
    assert "Not a directory" in done.err


def test_a_default_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path / "bad.capnp", r'struct A { a @0 :Text = "\xff"; }')
    for command in (
        ["table", "bad.capnp", "--type", "A"],
        ["layout", "bad.capnp"],
        ["check", *["bad.capnp"] * 2],
    ):
        assert "A: the default of the Text a is not UTF-8" in refused(1, *command)

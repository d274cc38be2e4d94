"""Loading schema files: good ones once, bad ones without harm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lahja_capn.errors import SchemaError
from lahja_capn.schema import load, load_version, loader

GOOD = "@0x{id:016x};\nstruct Foo {{ x @0 :Int32; }}\n"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test an empty memory and cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setattr(loader, "_accepted", set())
    monkeypatch.setattr(loader, "_loaded", {})
    monkeypatch.setattr(loader, "_files", {})
    return folder


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Count the child processes."""
    started: list[Any] = []
    run = subprocess.run

    def counting(*args: Any, **kwargs: Any) -> Any:
        started.append(args)
        return run(*args, **kwargs)

    monkeypatch.setattr(loader.subprocess, "run", counting)
    return started


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_a_good_file_gives_its_structs(tmp_path: Path) -> None:
    module = load(write(tmp_path, "good.capnp", GOOD.format(id=2**63 + 1)))
    assert module.Foo.new_message(x=3).x == 3


def test_a_relative_path_counts_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "good.capnp", GOOD.format(id=2**63 + 2))
    monkeypatch.chdir(tmp_path)
    assert load("good.capnp") is load(tmp_path / "good.capnp")


def test_the_child_runs_once_per_content_and_not_at_all_in_the_next_process(
    tmp_path: Path, children: list[Any], cache: Path
) -> None:
    file = write(tmp_path, "good.capnp", GOOD.format(id=2**63 + 3))
    first = load(file)
    assert load(file) is first
    assert len(children) == 1
    loader._accepted.clear()
    loader._loaded.clear()
    assert load(file).Foo
    assert len(children) == 1, "the cache folder remembers"
    for marker in (cache / "lahja_capn" / "schemas").iterdir():
        marker.unlink()
    loader._accepted.clear()
    loader._loaded.clear()
    assert load(file).Foo
    assert len(children) == 2


def test_a_changed_file_is_tried_and_loaded_again(tmp_path: Path, children: list[Any]) -> None:
    file = write(tmp_path, "good.capnp", GOOD.format(id=2**63 + 4))
    first = load(file)
    file.write_text(GOOD.format(id=2**63 + 4).replace("x @0", "renamed @0"))
    second = load(file)
    assert second is not first
    assert second.Foo.new_message(renamed=1).renamed == 1
    assert first.Foo.new_message(x=1).x == 1, "what was loaded before stays usable"
    assert len(children) == 2
    file.write_text("@0x8000000000000004; struct Foo { x @0 :Nope; }")
    with pytest.raises(SchemaError):
        load(file)


def test_a_changed_import_counts_as_a_change(tmp_path: Path, children: list[Any]) -> None:
    common = write(tmp_path, "folder/common.capnp", "@0x8000000000000005; struct Common { a @0 :Int8; }")
    file = write(
        tmp_path,
        "main.capnp",
        '@0x8000000000000006; using C = import "folder/common.capnp"; struct Foo { c @0 :C.Common; }',
    )
    assert load(file).Foo.new_message(c={"a": 1}).c.a == 1
    common.write_text("@0x8000000000000005; struct Common { b @0 :Int8; }")
    assert load(file).Foo.new_message(c={"b": 1}).c.b == 1
    assert len(children) == 2
    common.unlink()
    with pytest.raises(SchemaError, match=r"line 1: Import failed: folder/common\.capnp"):
        load(file)


def test_standard_imports_and_import_folders_are_found(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    write(shared, "team/common.capnp", "@0x8000000000000007; struct Common { a @0 :Int8; }")
    file = write(
        tmp_path,
        "main.capnp",
        '@0x8000000000000008; using Cxx = import "/capnp/c++.capnp"; $Cxx.namespace("x"); '
        'struct Foo { c @0 :import "/team/common.capnp".Common; }',
    )
    assert load(file, imports=[shared]).Foo.new_message(c={"a": 1}).c.a == 1
    with pytest.raises(SchemaError, match=r"Import failed: /team/common\.capnp"):
        load(file)


def test_embedded_files_count_as_content(tmp_path: Path, children: list[Any]) -> None:
    write(tmp_path, "text.txt", "one")
    file = write(tmp_path, "main.capnp", '@0x8000000000000009; const text :Text = embed "text.txt";')
    assert load(file).text == "one"
    (tmp_path / "text.txt").write_text("two")
    assert load(file).text == "two"
    assert len(children) == 2


BAD = [
    ("struct Foo { x @0 :Int32; }", 1, "File does not declare an ID"),
    ("@0x800000000000000a;\n\nstruct Foo {\n  x @0 :Int32;\n  y @1 :Nope;\n}", 5, "Not defined: Nope"),
    ("@0x800000000000000b;\nstruct Foo { x @0 :Int32 }", 2, "Parse error"),
    ("@0x800000000000000c;\nstruct Foo { x @0 :Int32; y @0 :Int8; }", 2, "Duplicate ordinal"),
    ("@0x800000000000000d;\nstruct Foo { x @0 :Int32 = 1.5; }", 2, "Type mismatch"),
    ("@0x800000000000000e;\nstruct A @0x800000000000000e {}", 2, "Duplicate"),
    ("\0\xff nonsense", 1, ""),
]


@pytest.mark.parametrize(("text", "line", "reason"), BAD, ids=[reason or "nonsense" for _, _, reason in BAD])
def test_a_bad_file_raises_with_file_and_line(tmp_path: Path, text: str, line: int, reason: str) -> None:
    file = write(tmp_path, "bad.capnp", text)
    with pytest.raises(SchemaError) as caught:
        load(file)
    error = caught.value
    assert error.path == str(file)
    assert reason in str(error)
    assert error.line == line
    assert f"Schema file {file}, line {line}: " in str(error)


def test_a_bad_import_is_blamed_and_not_the_file_that_imports_it(tmp_path: Path) -> None:
    write(tmp_path, "part.capnp", "@0x800000000000000f;\nstruct Part { x @0 :Nope; }")
    file = write(
        tmp_path, "main.capnp", '@0x8000000000000010; struct Foo { p @0 :import "part.capnp".Part; }'
    )
    with pytest.raises(
        SchemaError, match=r"part\.capnp, line 2: Not defined: Nope \(imported by .*main\.capnp\)"
    ):
        load(file)


def test_a_missing_file_a_folder_and_another_kind_of_file_are_refused(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "none.capnp", "does not exist"),
        (tmp_path, "is a folder"),
        (write(tmp_path, "schema.txt", ""), r"does not end in \.capnp"),
    ):
        with pytest.raises(SchemaError, match=message) as caught:
            load(path)
        assert caught.value.path == str(path)
        assert caught.value.line is None
    good = write(tmp_path, "good.capnp", GOOD.format(id=2**63 + 17))
    with pytest.raises(SchemaError, match=r"Import folder .*nowhere.* does not exist"):
        load(good, imports=[tmp_path / "nowhere"])


def test_two_files_with_one_id_do_not_disturb_each_other(tmp_path: Path) -> None:
    one = load(write(tmp_path, "one/a.capnp", GOOD.format(id=2**63 + 18)))
    two = load(write(tmp_path, "two/a.capnp", GOOD.format(id=2**63 + 18)))
    assert one.Foo.new_message(x=1).x == two.Foo.new_message(x=1).x


def test_a_copy_with_the_same_id_and_other_content_is_told_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = GOOD.format(id=2**63 + 21)
    one = write(tmp_path, "one.capnp", text)
    load(one)
    load(write(tmp_path, "same.capnp", text))
    one.write_text(text + "struct Later {}")
    load(one)
    load(write(tmp_path, "same.capnp", one.read_text()))
    assert caplog.messages == [], "neither an exact copy nor a new version of the same file is a mistake"
    two = write(tmp_path, "two.capnp", text.replace("Int32", "Text"))
    load_version(two)
    assert caplog.messages == [], "versions of one file have one id"
    load(two)
    [message] = caplog.messages
    assert message.startswith(
        f"Schema files {one} and {two} have the same id @0x8000000000000015 and are not the same"
    )


def test_a_module_that_nobody_keeps_leaves_its_structs_usable(tmp_path: Path) -> None:
    import gc

    module: Any = load(write(tmp_path, "good.capnp", GOOD.format(id=2**63 + 19)))
    assert module._parser in loader._parsers, "schemas point into their parser"
    schema = module.Foo.schema
    del module
    loader._loaded.clear()
    gc.collect()
    assert [proto.name for proto in schema.node.struct.fields] == ["x"]


def test_a_child_that_hangs_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*args: Any, **kwargs: Any) -> Any:
        raise subprocess.TimeoutExpired("python", 60)

    monkeypatch.setattr(loader.subprocess, "run", hang)
    with pytest.raises(SchemaError, match="did not compile within 60 s"):
        load(write(tmp_path, "good.capnp", GOOD.format(id=2**63 + 20)))


@pytest.mark.parametrize(
    ("report", "text"), [("", "exit code -6"), ("Segmentation fault\n", "Segmentation fault")]
)
def test_a_child_that_dies_without_a_report_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: str, text: str
) -> None:
    dead = subprocess.CompletedProcess([], -6, b"", report.encode())
    monkeypatch.setattr(loader.subprocess, "run", lambda *args, **kwargs: dead)
    with pytest.raises(SchemaError, match=text) as caught:
        load(write(tmp_path, "good.capnp", GOOD.format(id=2**63 + 21)))
    assert caught.value.line is None


def test_an_unwritable_cache_only_costs_the_check(
    tmp_path: Path, children: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = write(tmp_path, "file", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    file = write(tmp_path, "good.capnp", GOOD.format(id=2**63 + 22))
    assert load(file).Foo
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "relative")
    loader._accepted.clear()
    loader._loaded.clear()
    assert load(file).Foo
    assert len(children) == 2


def test_without_an_interpreter_to_start_the_file_is_trusted(
    tmp_path: Path, children: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "")
    assert load(write(tmp_path, "good.capnp", GOOD.format(id=2**63 + 23))).Foo
    assert children == []


def test_an_unreadable_import_is_part_of_the_content(tmp_path: Path) -> None:
    file = write(tmp_path, "main.capnp", '@0x8000000000000018; # import "folder"\nstruct Foo {}')
    assert load(file).Foo
    pairs = dict(loader._closure(str(tmp_path / "absent.capnp"), ()))
    assert pairs == {str(tmp_path / "absent.capnp"): b"\0unreadable"}


def test_a_process_survives_what_kills_pycapnp(tmp_path: Path) -> None:
    file = write(tmp_path, "bad.capnp", BAD[1][0])
    program = (
        "import sys, lahja_capn.schema as s, lahja_capn.errors as e\n"
        "try: s.load(sys.argv[1])\n"
        "except e.SchemaError as error: print('survived', error.line)\n"
    )
    root = str(Path(loader.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert (done.returncode, done.stdout) == (0, "survived 5\n"), done.stderr
    plain = subprocess.run(
        [sys.executable, "-c", "import sys, capnp; capnp.load(sys.argv[1])", str(file)],
        capture_output=True,
        check=False,
    )
    assert plain.returncode < 0, "pycapnp raises now: the child process is no longer needed"

"""``lahja-capn annotate-go``: the copies have what Go's plugin wants, and the originals' type ids and layouts."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lahja_capn.schema import load

from .support import CONFORMANCE, EVERYTHING, inside, ok, run, table, write

# As much of Go's own file as a parser needs to take annotations from it; the ids of the annotations are Go's.
GO_CAPNP = """\
@0xd12a1c51fedd6c88;
annotation package @0xbea97f1023792be0 (file) :Text;
annotation import @0xe130b601260e44b5 (file) :Text;
annotation name @0xc2b96012172f8df1 (struct, field, enum) :Text;
"""
PACKAGE, IMPORT = 0xBEA97F1023792BE0, 0xE130B601260E44B5
OPTIONS = ("--package", "events", "--import", "example.com/shop/events")


@pytest.fixture
def std(tmp_path: Path) -> Path:
    folder = tmp_path / "std"
    folder.mkdir()
    (folder / "go.capnp").write_text(GO_CAPNP)
    return folder


def annotate(file: Path, target: Path, *more: str | Path) -> list[str]:
    """Annotate into a folder; return what was written there, relative to it."""
    printed = ok("annotate-go", file, *OPTIONS, "--output-dir", target, *more)
    return [Path(line).relative_to(target).as_posix() for line in printed.splitlines()]


def annotations(file: Path, *folders: Path) -> list[tuple[int, str]]:
    """The Go annotations of the file itself, as the parser sees them."""
    module: Any = load(file, folders)
    found = [(each.id, each.value.text) for each in module.schema.node.annotations]
    return [(number, text) for number, text in found if number in (PACKAGE, IMPORT)]


WANTED = [(PACKAGE, "events"), (IMPORT, "example.com/shop/events")]


def same_rows(one: Path, other: Path, *folders: Path) -> None:
    """Both files have the same types, ids and layouts, in the same order."""
    include = [part for folder in folders for part in ("-I", folder)]
    rows = table(one, *include)
    assert rows
    assert table(other, *include) == rows


@pytest.mark.parametrize("original", [CONFORMANCE, EVERYTHING], ids=lambda path: path.name)
def test_the_copy_has_the_annotations_and_the_same_ids_and_layouts(
    original: Path, std: Path, tmp_path: Path
) -> None:
    assert annotate(original, tmp_path / "go") == [original.name]
    copy = tmp_path / "go" / original.name
    assert annotations(copy, std) == WANTED
    same_rows(original, copy, std)
    compiler = shutil.which("capnp")
    if compiler is not None:
        for file in (original, copy):
            command = [compiler, "compile", f"-I{std}", "-ocapnp", file.name]
            printed = subprocess.run(
                command, cwd=file.parent, capture_output=True, text=True, check=True
            ).stdout
            # All types with their ids and offsets; only comments, annotations and imports may differ.
            body = re.sub(r"^\$.*\n|^# .*\n|^using .*\n", "", printed, flags=re.M)
            if file == original:
                wanted = body
        assert "struct" in wanted
        assert body == wanted


def test_the_copy_says_where_it_comes_from_and_keeps_everything_else(tmp_path: Path) -> None:
    annotate(CONFORMANCE, tmp_path / "go")
    copy = (tmp_path / "go" / CONFORMANCE.name).read_text(encoding="utf-8").splitlines()
    original = CONFORMANCE.read_text(encoding="utf-8").splitlines()
    at = original.index("@0xd8a4b1c35e7f9026;") + 1
    assert copy == [
        "# Generated from conformance.capnp by: lahja-capn annotate-go conformance.capnp --package events "
        "--import example.com/shop/events",
        *original[:at],
        "",
        'using Go = import "/go.capnp";',
        '$Go.package("events");',
        '$Go.import("example.com/shop/events");',
        *original[at:],
    ]


def test_all_imported_files_are_copied_to_places_where_they_find_each_other(
    std: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    write(source / "up.capnp", 'struct Up { d @0 :import "main/sub/down.capnp".Down; }', 0xF2CD98AE0C91DD77)
    write(
        source / "main/sub/down.capnp",
        'using Back = import "../main.capnp"; struct Down { m @0 :List(Back.Main); t @1 :Data = embed "data.bin"; }',
        0xF2CD98AE0C91DD78,
    )
    (source / "main/sub/data.bin").write_bytes(b"\x00@0x1;\xff")
    write(
        tmp_path / "shared/far/away.capnp",
        'struct Away { n @0 :import "near.capnp".Near; }',
        0xF2CD98AE0C91DD79,
    )
    write(tmp_path / "shared/far/near.capnp", "struct Near {}", 0xF2CD98AE0C91DD7A)
    main = write(
        source / "main/main.capnp",
        'using Cxx = import "/capnp/c++.capnp";\n$Cxx.namespace("shop");\n# import "nothing.capnp"\n'
        'struct Main { a @0 :import "../up.capnp".Up; c @1 :import "/far/away.capnp".Away; '
        'd @2 :Text = "import \\"no.capnp\\""; }',
    )
    copies = tmp_path / "go"
    assert sorted(annotate(main, copies, "-I", tmp_path / "shared")) == [
        *("far/away.capnp", "far/near.capnp", "main/main.capnp", "main/sub/data.bin", "main/sub/down.capnp"),
        "up.capnp",
    ]
    assert (copies / "main/sub/data.bin").read_bytes() == b"\x00@0x1;\xff"
    original = table(main, "-I", tmp_path / "shared")
    assert len(original) == 5
    # Each loads with nothing but the copies and go.capnp in reach.
    shutil.rmtree(tmp_path / "shared")
    shutil.rmtree(source)
    for file in ("main/main.capnp", "main/sub/down.capnp", "up.capnp", "far/away.capnp", "far/near.capnp"):
        assert annotations(copies / file, copies, std) == WANTED
    assert table(copies / "main/main.capnp", "-I", copies, "-I", std) == original


def one(tmp_path: Path, text: str, std: Path, newline: str = "\n") -> tuple[str, list[tuple[int, str]]]:
    """Annotate a file of this text; return the copy's text, and its annotations as parsed."""
    file = tmp_path / "one.capnp"
    file.write_bytes(text.replace("\n", newline).encode())
    annotate(file, tmp_path / "go", "-I", std)
    copy = tmp_path / "go" / "one.capnp"
    return copy.read_bytes().decode(), annotations(copy, std)


ID = "@0xf2cd98ae0c91dd76;"


@pytest.mark.parametrize(
    "text",
    [
        f"{ID}\nstruct A {{}}\n",
        f"{ID} struct A {{}}",
        ID,
        f"# @0xf2cd98ae0c91dd70;\n{ID} # the id\nstruct A {{}}\n",
        f"struct A @0xc0ffee1234567891 {{ a @0 :Int8; }}\n{ID}\n",
        f'const quoted :Text = "@0xf2cd98ae0c91dd70; \\" # $"; {ID} struct A {{}}',
        f'const quoted :Text = `@0xf2cd98ae0c91dd70;\n    `import "no.capnp" $\n;\n{ID} struct A {{}}',
        f"{ID}\nstruct Go {{}}\nstruct GoLanguage1 {{}}\n",
        f'using G = import "/go.capnp";\n{ID}\nstruct A $G.name("B") {{}}\n',
        f'{ID}\nusing Go = import "/go.capnp";\n$Go.package("events");\n',
        f'{ID}\nusing Go = import "/go.capnp";\n$Go.import("example.com/shop/events");\nstruct A {{}}',
        f'{ID}\n$import "/go.capnp".package("events");\nstruct A {{}}',
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_each_file_ends_up_with_both_annotations_once(
    text: str, newline: str, tmp_path: Path, std: Path
) -> None:
    copy, found = one(tmp_path, text, std, newline)
    assert sorted(found) == sorted(WANTED)
    # The copy ends its lines as the original does.
    if "\n" in text:
        assert copy.count("\n") == copy.count(newline)
    # What is new is a few lines: without them the file is the old one.
    assert set(text.split()) <= set(copy.split())


def test_a_comment_behind_the_id_stays_there(tmp_path: Path, std: Path) -> None:
    copy, _ = one(tmp_path, f"{ID} # the id\n# of this file\nstruct A {{}}\n", std)
    lines = copy.splitlines()
    assert lines[1] == f"{ID} # the id"
    assert lines[-2:] == ["# of this file", "struct A {}"]


@pytest.mark.parametrize(
    "lines",
    [
        'using Go = import "/go.capnp"; $Go.package("mine"); $Go.import("example.com/mine");',
        '$import "/go.capnp".package("mine"); $import "/go.capnp".import("example.com/mine");',
    ],
)
def test_a_file_that_has_annotations_of_its_own_is_copied_as_it_is(
    lines: str, tmp_path: Path, std: Path
) -> None:
    text = f"{ID}\n{lines}\nstruct A {{}}\n"
    copy, found = one(tmp_path, text, std)
    assert copy == text
    assert found == [(PACKAGE, "mine"), (IMPORT, "example.com/mine")]


def test_a_copy_never_replaces_an_original(tmp_path: Path) -> None:
    file = write(tmp_path / "a.capnp", "struct A {}")
    (tmp_path / "link").symlink_to(tmp_path)
    before = file.read_bytes()
    for folder in (tmp_path, tmp_path / "link"):
        done = run("annotate-go", file, *OPTIONS, "--output-dir", folder)
        assert done.code == 1
        assert "is an original: choose another --output-dir" in done.err
    assert file.read_bytes() == before


def test_the_output_is_the_same_from_every_folder(tmp_path: Path) -> None:
    file = write(tmp_path / "in" / "a.capnp", "struct A {}")
    annotate(file, tmp_path / "one")
    with inside(tmp_path / "in"):
        ok("annotate-go", "a.capnp", *OPTIONS, "--output-dir", "../two")
    assert (tmp_path / "one/a.capnp").read_bytes() == (tmp_path / "two/a.capnp").read_bytes()


def test_a_file_without_an_id_is_refused_with_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "a.capnp"
    file.write_text("struct A { a @0 :Int8; }")
    done = run("annotate-go", file, *OPTIONS, "--output-dir", tmp_path / "go")
    assert done.code == 1
    assert "a.capnp has no file id" in done.err
    assert "capnp id" in done.err
    assert not (tmp_path / "go").exists()


def test_two_files_whose_copies_would_be_one_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "shared/b.capnp", "struct B {}", 0xF2CD98AE0C91DD77)
    write(tmp_path / "b.capnp", "struct B {}", 0xF2CD98AE0C91DD78)
    file = write(tmp_path / "a.capnp", 'struct A { a @0 :import "/b.capnp".B; b @1 :import "b.capnp".B; }')
    done = run("annotate-go", file, *OPTIONS, "--output-dir", tmp_path / "go", "-I", tmp_path / "shared")
    assert done.code == 1
    assert "would both be b.capnp" in done.err
    assert not (tmp_path / "go").exists()


@pytest.mark.parametrize("package", ["", "1a", "a-b", "func", "_", 'a"'])
def test_a_package_name_that_go_does_not_take_is_refused(package: str, tmp_path: Path) -> None:
    done = run("annotate-go", CONFORMANCE, "--package", package, "--import", "x", "-o", tmp_path / "go")
    assert done.code == 2
    assert "is no name of a Go package" in done.err


@pytest.mark.parametrize("path", ["", "/a", "./a", "a/", 'a"b', "a b"])
def test_an_import_path_that_go_does_not_take_is_refused(path: str, tmp_path: Path) -> None:
    done = run("annotate-go", CONFORMANCE, "--package", "x", "--import", path, "-o", tmp_path / "go")
    assert done.code == 2
    assert "is no import path" in done.err

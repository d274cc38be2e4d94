"""``lahja-capn table``: its rows are those that a Python endpoint declares, and depend on the schema alone."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import lahja_capn
from lahja_capn.binding import TypeRow
from lahja_capn.binding.layout import fnv1a_32
from lahja_capn.cli.table import Entry, identifiers
from lahja_capn.session.tables import PeerTable, WireTable
from lahja_capn.wire import Limits

from .support import CONFORMANCE, EVERYTHING, bound, inside, ok, run, table, write

LANGUAGES = ["json", "c++", "rust", "go", "typescript"]
SOURCES = LANGUAGES[1:]


def row_of(entry: dict[str, Any]) -> TypeRow:
    return TypeRow(int(entry["type_id"], 0), entry["kind"], entry["name"], tuple(entry["layout"]))


@pytest.mark.parametrize("file", [CONFORMANCE, EVERYTHING], ids=lambda path: path.name)
def test_rows_and_reachable_structs_are_those_that_binding_a_class_finds(file: Path) -> None:
    module: Any = lahja_capn.load(file)
    rows = table(file)
    by_id = {int(row["type_id"], 0): row for row in rows}
    events = [row for row in rows if row["wire_id"]]
    assert len(events) > 2
    for row in events:
        kind = bound(getattr(module, row["struct"]))
        assert row_of(row) == kind.row
        assert [int(type_id, 0) for type_id in row["reaches"]] == [inner.type_id for inner in kind.reachable]
        assert [row_of(by_id[inner.type_id]) for inner in kind.reachable] == list(kind.reachable)


def test_the_fields_explain_every_element_of_a_layout() -> None:
    for row in table(EVERYTHING):
        assert [field["ordinal"] for field in row["fields"]] == list(range(len(row["layout"])))
        for field, number in zip(row["fields"], row["layout"], strict=True):
            assert fnv1a_32(field["text"].encode()) == number == int(field["hash"], 0)
    (everything,) = table(EVERYTHING, "--type", "Everything")[-1:]
    names = [field["name"] for field in everything["fields"]]
    assert names[0] == "void"
    # Groups and named unions are named with what contains them.
    assert "." in names[35]
    assert len(set(names)) == len(names)


def test_a_peers_table_accepts_the_rows_in_their_order_and_knows_what_each_event_reaches() -> None:
    rows = table(EVERYTHING)
    peer = PeerTable(Limits())
    known: set[str] = set()
    for row in rows:
        peer.add([(row["wire_id"], row_of(row))])
        known.add(row["type_id"])
    for row in rows:
        assert set(row["reaches"]) <= known
        assert (int(row["type_id"], 0) in peer) == (row["wire_id"] > 0)
    # Those without a number come first.
    assert [row["wire_id"] == 0 for row in rows] == sorted(
        (row["wire_id"] == 0 for row in rows), reverse=True
    )
    assert [row["wire_id"] for row in rows if row["wire_id"]] == list(range(1, len(peer.routes) + 1))


def test_one_named_type_gives_the_table_of_an_endpoint_that_uses_that_type() -> None:
    own = WireTable()
    own.wire_id(bound(lahja_capn.load(CONFORMANCE).Everything))
    assert [(row["wire_id"], row_of(row)) for row in table(CONFORMANCE, "--type", "Everything")] == own.rows


def test_named_types_are_numbered_in_the_order_given_from_the_number_given() -> None:
    rows = table(
        CONFORMANCE, "--type", "Count", "--type", "Inner", "--type", "Count", "--first-wire-id", "40"
    )
    assert [(row["struct"], row["wire_id"]) for row in rows] == [("Count", 40), ("Inner", 41)]


def test_types_are_numbered_in_the_order_of_the_file() -> None:
    rows = table(CONFORMANCE)
    assert [row["struct"] for row in rows] == [
        *("Inner", "Everything", "Count", "Blob", "Late", "Evolving", "Ask", "Answer")
    ]


def test_nested_structs_are_named_with_dots(tmp_path: Path) -> None:
    file = write(tmp_path / "a.capnp", "struct Order { line @0 :Line; struct Line { x @0 :Int8; } }")
    assert [(r["wire_id"], r["struct"]) for r in table(file, "--type", "Order.Line")] == [(1, "Order.Line")]
    # Not at the top of the file: only reachable.
    assert [(r["wire_id"], r["struct"]) for r in table(file)] == [(0, "Order.Line"), (1, "Order")]


def test_what_cannot_be_an_event_type_is_left_out_and_an_interface_is_said_to_be(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.capnp",
        "struct Box(T) { t @0 :T; } interface Call {} struct Caller { call @0 :Call; } enum E { a @0; }"
        "const c :Int8 = 1; annotation n(file) :Text; struct Outer { part @0 :Caller; }"
        "struct Fine { box @0 :Box(Text); }",
    )
    done = run("table", file)
    rows = json.loads(done.out)["rows"]
    assert [(row["wire_id"], row["struct"]) for row in rows] == [(0, "Box"), (1, "Fine")]
    assert rows[0]["fields"][0]["text"] == f"param({rows[0]['type_id'][2:]},0)@0="
    assert done.err.splitlines() == [
        "a.capnp: left out: Caller.call has the type interface: interfaces cannot travel in events. Leave it "
        "out of the struct, or bind a struct without it.",
        "a.capnp: left out: Outer.part.call has the type interface: interfaces cannot travel in events. Leave "
        "it out of the struct, or bind a struct without it.",
    ]


def test_an_opaque_type_gets_a_row_without_layout_behind_the_structs() -> None:
    rows = table(
        CONFORMANCE,
        "--type",
        "Count",
        "--opaque",
        "shop.Old=0xdeadbeef00000001",
        "--opaque",
        "b=@0xdeadbeef00000002",
    )
    assert [row_of(row) for row in rows[1:]] == [
        TypeRow(0xDEADBEEF00000001, "opaque", "shop.Old", ()),
        TypeRow(0xDEADBEEF00000002, "opaque", "b", ()),
    ]
    assert [row["wire_id"] for row in rows] == [1, 2, 3]


def imported(folder: Path) -> Path:
    """A schema that imports from its folder, from above it, and through an import folder."""
    write(folder / "up.capnp", "struct Up { x @0 :Int8; }", 0xF2CD98AE0C91DD77)
    write(folder / "main/sub/down.capnp", "struct Down { x @0 :Int8; }", 0xF2CD98AE0C91DD78)
    write(folder / "std/far/away.capnp", "struct Away { x @0 :Int8; }", 0xF2CD98AE0C91DD79)
    return write(
        folder / "main/main.capnp",
        'struct Main { a @0 :import "../up.capnp".Up; b @1 :import "sub/down.capnp".Down; '
        'c @2 :import "/far/away.capnp".Away; } struct Other {}',
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_result_does_not_depend_on_where_the_files_are_or_where_the_command_runs(
    language: str, tmp_path: Path
) -> None:
    results = set()
    for name in ("here", "there"):
        file = imported(tmp_path / name)
        results.add(ok("table", file, "-I", tmp_path / name / "std", "--language", language))
    with inside(tmp_path / "here/main/sub"):
        results.add(ok("table", "../main.capnp", "-I", "../../std", "--language", language))
    (text,) = results
    assert str(tmp_path) not in text
    for name in ("up.capnp:Up", "down.capnp:Down", "away.capnp:Away", "main.capnp:Main"):
        assert f'"{name}"' in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_first_line_says_from_which_file_and_names_the_command_that_makes_it_again(
    language: str, tmp_path: Path
) -> None:
    file = imported(tmp_path)
    text = ok(
        *("table", file, "--import-path", tmp_path / "std", "--language", language, "--type", "Main"),
        *("--opaque", "my shop's=0xdeadbeef00000001", "--first-wire-id", "7"),
        *(["--package", "shop"] if language in ("c++", "go") else []),
    )
    first = text.splitlines()[0]
    if language == "json":
        first = json.loads(text)["generated"]
    assert "enerated from main.capnp by: lahja-capn table main.capnp" in first
    if language == "go":
        # By this form Go's tools know that a file is generated.
        assert re.fullmatch(r"// Code generated .* DO NOT EDIT\.", first)
    command = first.partition(" by: ")[2].removesuffix(". DO NOT EDIT.")
    # It names the file and the folders by their last parts: that is what they must be reachable by.
    (tmp_path / "main" / "std").symlink_to(tmp_path / "std")
    with inside(tmp_path / "main"):
        assert ok(*shlex.split(command)[1:]) == text


@pytest.mark.parametrize("language", SOURCES)
def test_every_number_of_the_table_stands_in_the_source_in_its_order(language: str) -> None:
    arguments = (
        CONFORMANCE,
        "--type",
        "Everything",
        "--type",
        "Answer",
        "--opaque",
        "Old=0xdeadbeef00000001",
    )
    found = re.findall(
        r"\b0x([0-9a-f]{16}|[0-9a-f]{8})(?:ULL|U|n)?\b",
        ok("table", *arguments, "--language", language).partition("\n")[2],
    )
    wanted = []
    for row in table(*arguments):
        own = [row["type_id"][2:]]
        rest = [f"{number:08x}" for number in row["layout"]] + [type_id[2:] for type_id in row["reaches"]]
        wanted += rest + own if language == "c++" else own + rest
    assert found == wanted


def entry(struct: str, type_id: int) -> Entry:
    return Entry(1, type_id, "struct", f"x.capnp:{struct}", (), (), (), (), struct)


@pytest.mark.parametrize(
    ("struct", "words"),
    [
        ("OrderPlaced", ("Order", "Placed")),
        ("HTTPRequest", ("HTTP", "Request")),
        ("Sha256Sum", ("Sha256", "Sum")),
        ("Order.Line", ("Order", "Line")),
        ("U16s", ("U16", "s")),
        ("shop.old_event", ("shop", "old", "event")),
        ("3d", ("Type", "3", "d")),
        ("\u00e9", ("Type",)),
    ],
)
def test_names_in_source_are_made_of_the_words_of_a_struct(struct: str, words: tuple[str, ...]) -> None:
    assert identifiers([entry(struct, 5)]) == [words]


def test_structs_that_would_get_one_name_in_source_have_their_type_id_in_it() -> None:
    entries = [entry("Order.Line", 1), entry("OrderLine", 2), entry("Orderline", 3), entry("Order", 4)]
    assert identifiers(entries) == [
        ("Order", "Line", f"{1:016x}"),
        ("Order", "Line", f"{2:016x}"),
        ("Orderline", f"{3:016x}"),
        ("Order",),
    ]


def test_a_file_that_says_it_already_is_not_written_again(tmp_path: Path) -> None:
    target = tmp_path / "table.json"
    assert ok("table", CONFORMANCE, "--output", target) == ""
    assert target.read_text(encoding="utf-8") == ok("table", CONFORMANCE)
    target.chmod(0o400)
    before = target.stat()
    ok("table", CONFORMANCE, "--output", target)
    assert target.stat().st_mtime_ns == before.st_mtime_ns
    target.chmod(0o600)
    target.write_text("old")
    ok("table", CONFORMANCE, "--output", target)
    assert target.read_text(encoding="utf-8") == ok("table", CONFORMANCE)


def test_a_table_of_nothing_is_written_in_every_language(tmp_path: Path) -> None:
    file = write(tmp_path / "a.capnp", "enum E { a @0; }")
    assert table(file) == []
    for language in SOURCES:
        assert "TableRow" in ok("table", file, "--language", language)

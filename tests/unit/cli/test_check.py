"""``lahja-capn check``: the verdict of docs/wire.md 6.3 on two versions of a file, and what a person is told."""

from __future__ import annotations

from pathlib import Path

import pytest

import lahja_capn
from lahja_capn.binding import EventType
from lahja_capn.session.tables import PeerTable, WireTable
from lahja_capn.wire import Limits

from .support import CONFORMANCE, ROOT, Done, bound, run, write

VECTORS = ROOT / "tests" / "vectors"


def check(tmp_path: Path, old: str, new: str, *arguments: str) -> Done:
    return run("check", write(tmp_path / "old.capnp", old), write(tmp_path / "new.capnp", new), *arguments)


def test_a_file_is_compatible_with_itself() -> None:
    done = run("check", CONFORMANCE, CONFORMANCE)
    assert (done.code, done.err) == (0, "")
    assert {line.split()[0] for line in done.out.splitlines()} == {"compatible"}
    assert len(done.out.splitlines()) == 8


@pytest.mark.parametrize(
    ("old", "new"), [("older", "conformance"), ("conformance", "newer"), ("newer", "older")]
)
def test_the_three_versions_of_the_vectors_fit_each_other(old: str, new: str) -> None:
    done = run("check", VECTORS / f"{old}.capnp", VECTORS / f"{new}.capnp", "--type", "Evolving")
    assert (done.code, done.out) == (0, "compatible    Evolving\n")


def test_a_changed_field_is_named_with_its_ordinal_and_both_texts(tmp_path: Path) -> None:
    done = check(tmp_path, "struct A { a @0 :Int8; b @1 :Text; }", "struct A { a @0 :Int8; c @1 :Data; }")
    assert done == Done(1, "incompatible  A\n    A @1 c (was b): text@0= became data@0=\n", "")


def test_a_change_deep_inside_is_told_for_every_struct_that_reaches_it(tmp_path: Path) -> None:
    body = (
        "struct Line @0xc0ffee1234567891 {{ {} }} struct Order {{ lines @0 :List(Line); }} struct Other {{}}"
    )
    done = check(tmp_path, body.format("n @0 :Int8 = 1;"), body.format("n @0 :Int8 = 2;"))
    changed = "    Line @0 n: int8@0=1 became int8@0=2\n"
    assert done == Done(
        1, f"incompatible  Line\n{changed}incompatible  Order\n{changed}compatible    Other\n", ""
    )


def test_appended_fields_and_structs_are_compatible_both_ways(tmp_path: Path) -> None:
    old, new = "struct A { a @0 :Int8; }", "struct A { a @0 :Int8; b @1 :B; } struct B {}"
    assert check(tmp_path, old, new) == Done(0, "compatible    A\nadded         B\n", "")
    assert check(tmp_path, new, old, "--allow-removed") == Done(0, "compatible    A\nremoved       B\n", "")


def test_a_removed_struct_is_a_failure_unless_it_is_allowed(tmp_path: Path) -> None:
    assert check(tmp_path, "struct A {} struct B {}", "struct A {}") == Done(
        1, "compatible    A\nremoved       B\n", ""
    )
    assert check(tmp_path, "struct A {} struct B {}", "struct A {}", "--type", "A").code == 0


def test_a_struct_whose_type_id_changed_is_removed_and_the_way_out_is_told(tmp_path: Path) -> None:
    done = check(tmp_path, "struct A @0xc0ffee1234567891 {}", "struct A @0xc0ffee1234567892 {}")
    assert done.code == 1
    assert done.out.startswith("removed       A  (A has another type id now, 0xc0ffee1234567892: ")
    assert "struct A @0xc0ffee1234567891)" in done.out
    assert done.out.splitlines()[1:] == ["added         A"]


def test_a_renamed_struct_with_an_id_of_its_own_stays_compatible(tmp_path: Path) -> None:
    done = check(tmp_path, "struct A @0xc0ffee1234567891 {}", "struct B @0xc0ffee1234567891 {}")
    assert done == Done(0, "compatible    B  (was A)\n", "")


def test_generic_and_nested_structs_and_those_with_interfaces_are_compared_too(tmp_path: Path) -> None:
    body = (
        "struct Box(T) {{ t @0 :T; n @1 :{}; struct Part {{ n @0 :{}; }} }}"
        "interface Call {{}} struct Caller {{ call @0 :Call; n @1 :{}; }}"
    )
    done = check(tmp_path, body.format("Int8", "Int8", "Int8"), body.format("Int16", "Int16", "Int16"))
    assert [line.split()[:2] for line in done.out.splitlines() if line[0] != " "] == [
        ["incompatible", "Box"],
        ["incompatible", "Box.Part"],
        ["incompatible", "Caller"],
    ]


def test_quiet_prints_only_what_fails(tmp_path: Path) -> None:
    old, new = "struct A {} struct B { n @0 :Int8; }", "struct A {} struct B { n @0 :Int16; } struct C {}"
    done = check(tmp_path, old, new, "--quiet")
    assert done == Done(1, "incompatible  B\n    B @0 n: int8@0=0 became int16@0=0\n", "")
    assert check(tmp_path, old, old, "-q") == Done(0, "", "")


BODIES = [
    "struct A @0xc0ffee1234567891 { b @0 :B; } struct B @0xc0ffee1234567892 { n @0 :Int8; }",
    "struct A @0xc0ffee1234567891 { b @0 :B; } struct B @0xc0ffee1234567892 { n @0 :Int16; }",
    "struct A @0xc0ffee1234567891 { b @0 :B; m @1 :Int8; } struct B @0xc0ffee1234567892 { n @0 :Int8; c @1 :C; }"
    "struct C @0xc0ffee1234567893 { a @0 :A; }",
    "struct A @0xc0ffee1234567891 { b @0 :List(B); } struct B @0xc0ffee1234567892 { n @0 :Int8; }",
    "struct A @0xc0ffee1234567891 { n @0 :C; } struct C @0xc0ffee1234567893 { a @0 :Text; }"
    "struct B @0xc0ffee1234567892 { c @0 :C; }",
    "struct A @0xc0ffee1234567891 { b @0 :B; } struct B @0xc0ffee1234567892 { n @0 :Int8; c @1 :C; }"
    "struct C @0xc0ffee1234567893 { a @0 :Data; }",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("bodies")
    return [write(folder / f"{at}.capnp", body) for at, body in enumerate(BODIES)]


def events(path: Path) -> dict[int, EventType]:
    module = lahja_capn.load(path)
    found = [bound(getattr(module, name)) for name in "ABC" if hasattr(module, name)]
    return {kind.type_id: kind for kind in found}


@pytest.mark.parametrize("old", range(len(BODIES)))
@pytest.mark.parametrize("new", range(len(BODIES)))
def test_the_outcome_is_the_verdict_that_two_endpoints_reach(old: int, new: int, files: list[Path]) -> None:
    done = run("check", files[old], files[new], "--allow-removed")
    outcomes = {line.split()[1]: line.split()[0] for line in done.out.splitlines() if line[0] != " "}
    sides = [events(files[old]), events(files[new])]
    peers = []
    for side in sides:
        table = WireTable()
        for kind in side.values():
            table.wire_id(kind)
        peers.append(PeerTable(Limits()))
        peers[-1].add(table.rows)
    disabled = {
        type_id
        for mine, theirs in ((sides[0], peers[1]), (sides[1], peers[0]))
        for type_id, kind in mine.items()
        if theirs.verdict(kind)[0] is not None
    }
    for type_id in sides[0].keys() & sides[1].keys():
        name = "ABC"[type_id - 0xC0FFEE1234567891]
        assert (outcomes[name] == "incompatible") == (type_id in disabled)
    assert (done.code == 1) == bool(disabled)

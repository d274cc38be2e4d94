"""``lahja-capn layout`` prints what docs/wire.md 6.2 says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .support import CONFORMANCE, ROOT, ok, table

DOC = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "example.capnp"
    # The blocks of one file.
    path.write_text("".join(re.findall(r"^```capnp\n(.*?)^```", DOC, re.M | re.S)), encoding="utf-8")
    return path


def documented() -> dict[str, str]:
    """Struct -> its lines, from the page."""
    blocks = dict(re.findall(r"^```layout (\S+)\n(.*?)^```", DOC, re.M | re.S))
    rows = re.findall(r"^\| (\d) \| `([^`]*)` \| `(0x[0-9a-f]{8})` \|$", DOC, re.M)
    blocks["Tick"] = "".join(f"{k}  {number}  {text}\n".replace("\\|", "|") for k, text, number in rows)
    return blocks


@pytest.mark.parametrize("name", ["Tick", "Mark", "Outer.Inner", "Corners"])
def test_the_worked_examples_are_printed_as_they_are_written_down(name: str, example: Path) -> None:
    header, _, lines = ok("layout", example, name).partition("\n")
    assert lines == documented()[name]
    (type_id,) = re.findall(rf"struct {name.rpartition('.')[2]} @(0x[0-9a-f]+)", example.read_text())
    assert header == f"# {name} @{type_id}"


def test_without_a_name_every_struct_of_the_file_is_printed(example: Path) -> None:
    printed = ok("layout", example)
    names = ["Tick", "Mark", "Outer", "Outer.Inner", "Pair", "Empty", "Corners"]
    assert re.findall(r"^# (\S+) @", printed, re.M) == names
    assert printed == "".join(ok("layout", example, name) for name in names)


def test_the_table_of_the_worked_examples_has_the_same_texts_and_numbers(example: Path) -> None:
    for row in table(example):
        lines = documented().get(row["struct"])
        if lines is not None:
            assert "".join(f"{f['ordinal']}  {f['hash']}  {f['text']}\n" for f in row["fields"]) == lines
            assert [f"0x{number:08x}" for number in row["layout"]] == re.findall(
                r"  (0x[0-9a-f]{8})  ", lines
            )
    assert {"Tick", "Mark", "Outer.Inner", "Corners"} <= {row["struct"] for row in table(example)}


def test_hashes_have_eight_digits_also_if_the_first_is_a_zero() -> None:
    (row,) = [row for row in table(CONFORMANCE) if row["struct"] == "Everything"]
    assert any(number < 1 << 28 for number in row["layout"])
    lines = ok("layout", CONFORMANCE, "Everything").splitlines()[1:]
    assert lines == [f"{f['ordinal']}  {f['hash']}  {f['text']}" for f in row["fields"]]

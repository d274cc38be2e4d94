"""Hex dumps of every usual form are read; what is none is refused with its line."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lahja_capn.cli.hexdump import BadHex, read_hex

from .support import run

DATA = bytes(range(256)) * 2 + b"|: 0000  "


def rows_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    for at in range(0, len(data), 16):
        yield at, data[at : at + 16]


def shown(row: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)


FORMS = {
    "the page's": "\n".join(f"{at:04x}  {row.hex(' ')}" for at, row in rows_of(DATA)),
    "xxd's": "\n".join(f"{at:08x}: {row.hex(' ', -2):<39}  {shown(row)}" for at, row in rows_of(DATA)),
    "hexdump's": "\n".join(
        f"{at:08x}  {row[:8].hex(' '):<23}  {row[8:].hex(' '):<23}  |{shown(row)}|"
        for at, row in rows_of(DATA)
    )
    + f"\n{len(DATA):08x}\n",
    "digits": DATA.hex(),
    "lines of digits": "\n".join(row.hex() for _, row in rows_of(DATA)),
    "pairs": "\n\n".join(row.hex(" ").upper() for _, row in rows_of(DATA)),
    "C's": " ".join(f"0x{byte:02x}" for byte in DATA),
}


@pytest.mark.parametrize("form", FORMS)
def test_hex_dumps_of_every_form_are_read(form: str) -> None:
    assert read_hex(FORMS[form]) == DATA


@pytest.mark.parametrize("command", [["xxd"], ["hexdump", "-v", "-C"]])
def test_what_the_usual_programs_print_is_read(command: list[str], tmp_path: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    (tmp_path / "data").write_bytes(DATA)
    printed = subprocess.run([*command, tmp_path / "data"], capture_output=True, text=True, check=True).stdout
    assert read_hex(printed) == DATA


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("00 0g", "line 1: '0g' is no hexadecimal byte"),
        ("00\n000", "line 2: '000' is no hexadecimal byte"),
        ("0000  00 01\n0003  02", "line 2: the offset is 0x0003, but 0x2 bytes came before it"),
        ("0000  00\n*\n0020", r"line 2: `\*` stands for lines that were left out"),
    ],
)
def test_what_is_no_hex_dump_is_refused_with_its_line(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(BadHex, match=complaint):
        read_hex(text)
    (tmp_path / "dump").write_bytes(text.encode())
    done = run("dump", "--hex", tmp_path / "dump")
    assert (done.code, done.out) == (1, "")
    assert re.search(complaint, done.err)


def test_a_binary_file_that_is_said_to_be_hexadecimal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dump").write_bytes(b"00 01\n\xff\xfe")
    done = run("dump", "--hex", tmp_path / "dump")
    assert (done.code, done.out) == (1, "")
    assert "line 2: " in done.err

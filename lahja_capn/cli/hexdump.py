"""Reads hex dumps: what xxd, hexdump -C and docs/wire.md write, or digits alone."""

from __future__ import annotations

import re

# "00000010: 3c00 ...  <...", "00000010  3c 00 ...  |<...|", "0010  3c 00"
_WITH_OFFSET = re.compile(r"^\s*([0-9A-Fa-f]{4,16})(:|\s{2,}|\s*$)(.*)$")
_DIGITS = re.compile(r"^(?:0x)?((?:[0-9A-Fa-f]{2})+)$")


class BadHex(Exception):
    """A line that is no hexadecimal; the text says which."""


def read_hex(text: str) -> bytes:
    """Return the bytes of a hex dump.

    Offsets at the beginnings of the lines, if there are any, must be right; text behind the digits, after ``|`` or
    as xxd writes it, is left out.
    """
    data = bytearray()
    with_offsets = False
    for number, line in enumerate(text.splitlines(), 1):
        rest = line.partition("|")[0].strip()
        if not rest:
            continue
        if rest == "*":
            raise BadHex(
                f"line {number}: `*` stands for lines that were left out: make the dump with hexdump -v."
            )
        match = _WITH_OFFSET.match(line.partition("|")[0])
        # Digits alone may be an offset, behind the last line; or all there is.
        if match is not None and (match[2] == ":" or match[3].strip() or with_offsets):
            with_offsets = True
            if int(match[1], 16) != len(data):
                raise BadHex(
                    f"line {number}: the offset is 0x{match[1]}, but 0x{len(data):x} bytes came before it."
                )
            # xxd writes text behind two spaces; hexdump parts the digits with them.
            rest = match[3].strip().partition("  ")[0] if match[2] == ":" else match[3]
        for word in rest.split():
            digits = _DIGITS.match(word)
            if digits is None:
                raise BadHex(f"line {number}: {word[:40]!r} is no hexadecimal byte.")
            data += bytes.fromhex(digits[1])
    return bytes(data)

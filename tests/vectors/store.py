"""Collects vectors and writes them to files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDERS = ("messages", "values", "frames", "conversations", "refusals")

# A vector longer than this has a recipe instead of bytes.
_RECIPE_BYTES = 64 * 1024


class Store:
    """File name -> content, of everything that is generated."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def add(self, folder: str, name: str, facts: dict[str, Any], data: bytes | None = None) -> None:
        """Add one vector. A long one must come with its recipe in ``facts``."""
        assert folder in FOLDERS
        assert f"{folder}/{name}.json" not in self.files, f"{folder}/{name} twice"
        if data is not None and "recipe" in facts:
            assert expand(facts["recipe"]) == data, name
        elif data is not None:
            assert len(data) <= _RECIPE_BYTES, f"{name}: {len(data)} bytes need a recipe"
            self.files[f"{folder}/{name}.bin"] = data
        text = json.dumps(facts, ensure_ascii=False, indent=1) + "\n"
        self.files[f"{folder}/{name}.json"] = compact(text).encode()

    def write(self, root: Path) -> tuple[int, int]:
        """Make the folders below ``root`` hold exactly these files; return (changed, removed)."""
        changed = removed = 0
        for folder in FOLDERS:
            (root / folder).mkdir(exist_ok=True)
            for path in sorted((root / folder).iterdir()):
                if f"{folder}/{path.name}" not in self.files:
                    path.unlink()
                    removed += 1
        for name, content in self.files.items():
            path = root / name
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)
                changed += 1
        return changed, removed


def compact(text: str) -> str:
    """Put what is short on one line: a diff of a vector should show one line per field."""
    return _lines(json.loads(text), 0) + "\n"


def _lines(value: Any, level: int) -> str:
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + level <= 100 or not isinstance(value, (dict, list)):
        return flat
    inside = " " * (level + 1)
    if isinstance(value, list):
        if not any(isinstance(item, (dict, list)) for item in value):
            return flat
        parts = [_lines(item, level + 1) for item in value]
        left, right = "[]"
    else:
        parts = [
            f"{json.dumps(key, ensure_ascii=False)}: {_lines(item, level + 1)}" for key, item in value.items()
        ]
        left, right = "{}"
    return f"{left}\n{inside}" + f",\n{inside}".join(parts) + f"\n{' ' * level}{right}"


def expand(recipe: list[dict[str, Any]]) -> bytes:
    """Return the bytes of a recipe (README.md, "Large ones")."""
    return b"".join(
        bytes.fromhex(part["hex"]) if "hex" in part else bytes.fromhex(part["repeat"]) * part["times"]
        for part in recipe
    )


def recipe_of(data: bytes, period: int) -> list[dict[str, Any]]:
    """Return a recipe for bytes whose long part repeats itself every ``period`` bytes."""
    recipe: list[dict[str, Any]] = []
    at = start = 0
    while at < len(data):
        unit = data[at : at + period]
        times = 1
        while data[at + times * period : at + (times + 1) * period] == unit:
            times += 1
        if times * period < 4096:
            at += 8
            continue
        if at > start:
            recipe.append({"hex": data[start:at].hex()})
        recipe.append({"repeat": unit.hex(), "times": times})
        at += times * period
        start = at
    if at > start:
        recipe.append({"hex": data[start:].hex()})
    assert expand(recipe) == data
    return recipe

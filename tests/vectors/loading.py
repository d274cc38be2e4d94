"""Reads vectors from their files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .store import FOLDERS, expand


@dataclass(frozen=True)
class Vector:
    folder: str
    name: str
    facts: dict[str, Any]
    data: bytes

    def __str__(self) -> str:
        return f"{self.folder}/{self.name}"


def load(root: Path, folder: str, name: str) -> Vector:
    """Return one vector, its recipes expanded."""
    facts = json.loads((root / folder / f"{name}.json").read_text(encoding="utf-8"))
    recipe = facts.pop("recipe", None)
    if recipe is not None:
        data = expand(recipe)
    elif folder == "values":
        data = b""
    else:
        data = (root / folder / f"{name}.bin").read_bytes()
    return Vector(folder, name, _expanded(facts), data)


def names(root: Path, folder: str) -> list[str]:
    return sorted(path.stem for path in (root / folder).glob("*.json"))


def load_all(root: Path) -> list[Vector]:
    return [load(root, folder, name) for folder in FOLDERS for name in names(root, folder)]


def _expanded(value: Any) -> Any:
    """Expand what stands in place of a long Data or Text."""
    if isinstance(value, dict):
        if value.keys() == {"repeat", "times"}:
            return value["repeat"] * value["times"]
        if value.keys() == {"repeat_text", "times"}:
            return value["repeat_text"] * value["times"]
        return {name: _expanded(content) for name, content in value.items()}
    if isinstance(value, list):
        return [_expanded(content) for content in value]
    return value

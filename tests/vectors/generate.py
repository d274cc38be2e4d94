"""Writes every vector: ``python -m tests.vectors.generate`` from the project's root. README.md is their format."""

from __future__ import annotations

from pathlib import Path

from . import set_conversations, set_frames, set_messages, set_refusals, set_values
from .store import Store

HERE = Path(__file__).resolve().parent


def generate() -> Store:
    """Return all vectors. The same on every machine and at every time."""
    store = Store()
    for module in (set_values, set_messages, set_frames, set_conversations, set_refusals):
        module.add(store)
    return store


if __name__ == "__main__":
    store = generate()
    changed, removed = store.write(HERE)
    vectors = sum(name.endswith(".json") for name in store.files)
    size = sum(map(len, store.files.values()))
    print(f"{vectors} vectors, {size} bytes; {changed} files changed, {removed} removed")

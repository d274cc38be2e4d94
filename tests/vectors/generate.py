"""Writes every vector: ``python -m tests.vectors.generate`` from the project's root. README.md is their format."""

from __future__ import annotations

from pathlib import Path

from . import (
    forms,
    refuse_frames,
    refuse_handshake,
    refuse_traffic,
    set_frames,
    set_messages,
    set_values,
    talk_basics,
    talk_flow,
    talk_types,
)
from .store import Store

HERE = Path(__file__).resolve().parent


def generate() -> Store:
    """Return all vectors. The same on every machine and at every time."""
    store = Store()
    for module in (set_values, set_messages, set_frames):
        module.add(store)
    for module in (talk_basics, talk_types, talk_flow):
        module.add(store)
    for module in (refuse_frames, refuse_handshake, refuse_traffic, forms):
        module.add(store)
    return store


if __name__ == "__main__":
    store = generate()
    changed, removed = store.write(HERE)
    vectors = sum(name.endswith(".json") for name in store.files)
    size = sum(map(len, store.files.values()))
    print(f"{vectors} vectors, {size} bytes; {changed} files changed, {removed} removed")

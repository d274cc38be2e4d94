"""The vectors: generating them again changes nothing, and lahja_capn itself does what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.vectors import loading, running
from tests.vectors.store import FOLDERS

ROOT = Path(__file__).resolve().parent / "vectors"
ALL = [(folder, name) for folder in FOLDERS for name in loading.names(ROOT, folder)]


@pytest.mark.parametrize(("folder", "name"), ALL, ids=[f"{folder}/{name}" for folder, name in ALL])
def test_lahja_capn_does_what_the_vector_says(folder: str, name: str) -> None:
    vector = loading.load(ROOT, folder, name)
    if not running.can_run(vector):
        pytest.skip(f"needs {vector.facts['needs']}")
    running.run(vector)

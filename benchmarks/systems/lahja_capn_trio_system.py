"""This project on trio: the program of lahja_capn_system.py, in the cases where the loop matters."""

from __future__ import annotations

import importlib.metadata

from benchmarks.systems import lahja_capn_system
from lahja_capn import TrioEndpoint

REQUIREMENTS: list[str] = []
CASES: list[str] = [
    "64 B, 1 to 1",
    "64 B, 1 to 10",
    "64 B, local",
    "request",
    "request, 64 in flight",
    "1 MB, 1 to 1",
    "latency at half load",
    "start-up",
]

_program = lahja_capn_system.Program(TrioEndpoint, backend="trio")
consume = _program.consume
publish = _program.publish
local = _program.local
respond = _program.respond
ask = _program.ask


def versions() -> dict[str, str]:
    return {**lahja_capn_system.versions(), "trio": importlib.metadata.version("trio")}

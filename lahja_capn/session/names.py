"""Endpoint names as they may stand in a hello."""

from __future__ import annotations

import re
from typing import Final

# Safe as a file name on every system and as a key in any store.
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


def is_endpoint_name(name: object) -> bool:
    return isinstance(name, str) and NAME_PATTERN.fullmatch(name) is not None

"""Where endpoints are found, and what they are called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ..errors import InvalidEndpointName
from ..session.names import is_endpoint_name


def check_endpoint_name(name: object) -> str:
    """Return ``name`` if an endpoint may have it.

    Raises:
        InvalidEndpointName: it may not; the message says what is allowed.
    """
    if not isinstance(name, str) or not is_endpoint_name(name):
        raise InvalidEndpointName(
            f"{name!r} is no endpoint name: wanted 1 to 100 of the characters A-Z a-z 0-9 . _ - with a letter or "
            "digit first, because a name is also a file name. Choose another.",
            name=name,
        )
    return name


class ConnectionConfig(NamedTuple):
    """An endpoint's name and the path of its socket file.

    Both sides use the same one: ``serve(config)`` binds there, ``connect_to_endpoints(config)`` connects.
    """

    name: str
    path: Path

    @classmethod
    def from_name(cls, name: str, base_path: Path | str | None = None) -> ConnectionConfig:
        """``base_path/<name>.ipc``, in the current folder if no ``base_path`` is given.

        Raises:
            InvalidEndpointName: ``name`` cannot be an endpoint's name.
            TypeError: ``base_path`` is no folder.
        """
        check_endpoint_name(name)
        if base_path is None:
            return cls(name=name, path=Path(f"{name}.ipc"))
        folder = Path(base_path)
        if not folder.is_dir():
            raise TypeError(
                f"base_path must be an existing folder, got {os.fspath(base_path)!r}: make it first, closed to "
                "other users (mode 0700)"
            )
        return cls(name=name, path=folder / f"{name}.ipc")

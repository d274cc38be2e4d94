"""Finds the package's own ``.capnp`` files, in a wheel and in a checkout.

A wheel carries the folder ``capnp/lahja_capn`` as package data of ``lahja_capn._schemas``. An editable
install and a plain checkout have no such package, so the folder beside the package is tried next.
"""

from __future__ import annotations

import importlib.resources
from functools import cache
from pathlib import Path
from typing import Any

from lahja_capn.errors import SchemaError

_PACKAGE = "lahja_capn._schemas"
_CHECKOUT = Path(__file__).resolve().parent.parent.parent / "capnp" / "lahja_capn"

# Parsers whose schemas are in use: pycapnp's schema objects hold bare pointers into their parser, so a parser
# that is collected while a schema is alive would leave them dangling.
_own_parsers: list[Any] = []


@cache
def schema_path(name: str) -> Path:
    """Return the path of our schema file `name`, such as ``wire.capnp``.

    Raises:
        SchemaError: the file is in neither place: the installation is incomplete.
    """
    tried = []
    try:
        packaged = Path(str(importlib.resources.files(_PACKAGE) / name))
    except ModuleNotFoundError:
        pass
    else:
        if packaged.is_file():
            return packaged
        tried.append(packaged)
    beside = _CHECKOUT / name
    if beside.is_file():
        return beside
    tried.append(beside)
    places = " nor ".join(str(path) for path in tried)
    raise SchemaError(
        f"lahja_capn's own schema {name!r} is neither at {places}: the installation is incomplete, install "
        f"it again.",
        path=str(beside),
        line=None,
    )


@cache
def own_schema(name: str) -> Any:
    """Return the module of our own schema file `name`, loaded once per process.

    Our files are loaded by a parser of their own: a copy of one of them among a user's schemas would
    otherwise be a second file with the same id in the same parser, which ends the process.
    """
    import capnp

    if not hasattr(capnp, "SchemaParser"):
        raise SchemaError(
            "pycapnp is not installed: `import capnp` found a folder named capnp instead. "
            "Install pycapnp>=2.2.4.",
            path=name,
            line=None,
        )
    parser = capnp.SchemaParser()
    _own_parsers.append(parser)
    return parser.load(str(schema_path(name)), display_name=name)


def wire_schema() -> Any:
    """Return the module of ``wire.capnp``: the control messages and ``Opaque``."""
    return own_schema("wire.capnp")

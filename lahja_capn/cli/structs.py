"""Schema files and the structs in them, as the commands name them: ``Order`` or ``Order.Line``."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import click

from lahja_capn.errors import SchemaError
from lahja_capn.schema import load_version

# The Cap'n Proto compiler reports "events.capnp:3:20-23: error: Not defined: Bar".
_COMPILER_REPORT = re.compile(r"^.*:\d+(?::\d+(?:-\d+)?)?: error: .*$", re.M)


def load_schema(file: str, import_path: Sequence[str]) -> Any:
    """Load a schema file, or end the command with what is wrong with it."""
    try:
        return load_version(file, import_path)
    except SchemaError as error:
        found = _compiler_report(file, import_path) if os.path.isfile(file) else ""
        raise click.ClickException(found or _described(error)) from None


def _described(error: SchemaError) -> str:
    """Return ``FILE:LINE: what``, the form that editors and CI understand."""
    if error.line is None:
        return str(error)
    what = str(error).removeprefix(f"Schema file {error.path}, line {error.line}: ")
    return f"{error.path}:{error.line}: {what}"


def _compiler_report(file: str, import_path: Sequence[str]) -> str:
    """Return all errors with their columns, from the Cap'n Proto compiler if it is installed.

    pycapnp's parser, which decides, stops at the first one and knows its line only.
    """
    compiler = shutil.which("capnp")
    if compiler is None:
        return ""
    command = [compiler, "compile", "-o-", *(f"-I{folder}" for folder in import_path), file]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "\n".join(_COMPILER_REPORT.findall(done.stderr.decode("utf-8", "replace")))


def members(module: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, member) of what a schema module, or a struct of it, declares, in the order of the file."""
    for nested in module.schema.node.nestedNodes:
        member = getattr(module, nested.name, None)
        if hasattr(getattr(member, "schema", None), "node"):
            yield nested.name, member


def is_struct(member: Any) -> bool:
    return hasattr(member.schema, "fields_list")


def all_structs(module: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, struct) of every struct of a schema module, nested ones included."""
    for name, member in members(module):
        if is_struct(member):
            yield f"{path}{name}", member
        yield from all_structs(member, f"{path}{name}.")


def find_struct(module: Any, name: str, file: str) -> Any:
    """Return the struct of a dotted name, or end the command with what there is instead."""
    member = module
    for part in name.split("."):
        member = dict(members(member)).get(part)
        if member is None:
            raise unknown(name, [known for known, _ in all_structs(module)], file)
    if not is_struct(member):
        kind = "an enum" if hasattr(member.schema, "enumerants") else "an interface"
        raise click.ClickException(f"{name} of {file} is {kind}; wanted a struct.")
    return member


def unknown(name: str, known: Sequence[str], file: str) -> click.ClickException:
    close = difflib.get_close_matches(name, known, 3, 0.5)
    if close:
        return click.ClickException(f"{file} has no struct {name}. Did you mean {' or '.join(close)}?")
    listed = f"It has {', '.join(known)}." if known else "It has no structs."
    return click.ClickException(f"{file} has no struct {name}. {listed}")

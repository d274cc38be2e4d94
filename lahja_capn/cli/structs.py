"""Schema files and the structs in them, as the commands name them: ``Order`` or ``Order.Line``."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

import click

from lahja_capn.errors import SchemaError
from lahja_capn.schema import load


def load_schema(file: str, import_path: Sequence[str]) -> Any:
    """Load a schema file, or end the command with what is wrong with it."""
    try:
        return load(file, import_path)
    except SchemaError as error:
        raise click.ClickException(str(error)) from None


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

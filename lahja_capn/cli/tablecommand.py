"""``lahja-capn table``: the rows of an id table, for a peer in another language."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from typing import Any

import click

from lahja_capn.cli import options
from lahja_capn.cli.emit import EMITTERS
from lahja_capn.cli.structs import find_struct, is_struct, load_schema, members
from lahja_capn.cli.table import Table, make_entries
from lahja_capn.errors import BindError
from lahja_capn.wire.limits import MAX_TABLE_TYPES, NAME_TEXT_BYTES

_KEYWORDS = frozenset(
    "alignas alignof and asm auto bool break case catch char class const constexpr continue default delete do "
    "double else enum explicit export extern false float for friend func go goto if import inline int interface "
    "long map mutable namespace new not operator or package private protected public range register return "
    "select short signed sizeof static struct switch template this throw true try type typedef typeid typename "
    "union unsigned using var virtual void volatile while xor".split()
)


def _opaque_types(
    context: click.Context, param: click.Parameter, values: Sequence[str]
) -> list[tuple[str, int]]:
    found = []
    for value in values:
        name, _, number = value.rpartition("=")
        try:
            type_id = int(number.removeprefix("@"), 0)
        except ValueError:
            type_id = 0
        if not name or not 2**63 <= type_id < 2**64:
            raise click.BadParameter(
                f"{value!r} is not NAME=TYPEID with a 64-bit id with the highest bit set, as `capnp id` prints.",
                context,
                param,
            )
        if len(name.encode("utf-8", "surrogateescape")) > NAME_TEXT_BYTES:
            raise click.BadParameter(
                f"{name[:40]!r}... is longer than {NAME_TEXT_BYTES} bytes.", context, param
            )
        found.append((name, type_id))
    return found


@click.command()
@options.schema_argument()
@options.import_path
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="NAME",
    help="An event type, such as Order or Order.Line; may be given several times. Without it: every struct at "
    "the top of the file that can be one.",
)
@click.option(
    "--opaque",
    multiple=True,
    metavar="NAME=TYPEID",
    callback=_opaque_types,
    help="An event type that serializes itself, with its type id; may be given several times.",
)
@click.option(
    "--language",
    type=click.Choice(list(EMITTERS)),
    default="json",
    show_default=True,
    help="JSON, or constants in the source of a language.",
)
@click.option(
    "--first-wire-id",
    type=click.IntRange(1, MAX_TABLE_TYPES),
    default=1,
    show_default=True,
    metavar="N",
    help="Event types get this wire id and those that follow.",
)
@click.option(
    "--package",
    metavar="NAME",
    help="The C++ namespace or Go package. Without it: the file's name with `table` behind.",
)
@options.output
def table(
    file: str,
    import_path: Sequence[str],
    types: Sequence[str],
    opaque: Sequence[tuple[str, int]],
    language: str,
    first_wire_id: int,
    package: str | None,
    output: str | None,
) -> None:
    """Print the id table of the event types in FILE.capnp.

    A peer that cannot reflect on schemas at run time declares these rows (docs/wire.md, section 6).
    """
    package = _package(package, file, language)
    module = load_schema(file, import_path)
    source = os.path.basename(file)
    structs = [find_struct(module, name, source) for name in types] or _event_types(module, source)
    command = ["lahja-capn", "table", source, "--language", language]
    # Folders are those of whoever runs the command: their last part says which is meant.
    command += [part for folder in import_path for part in ("--import-path", _base(folder))]
    command += [part for name in types for part in ("--type", name)]
    command += [part for name, number in opaque for part in ("--opaque", f"{name}=0x{number:016x}")]
    if first_wire_id != 1:
        command += ["--first-wire-id", str(first_wire_id)]
    if package != _default_package(file, language) and language in ("c++", "go"):
        command += ["--package", package]
    try:
        entries = make_entries(structs, opaque, first_wire_id)
    except (BindError, ValueError) as error:
        raise click.ClickException(f"{source}: {error}") from None
    options.write(EMITTERS[language](Table(source, shlex.join(command), entries), package), output)


def _event_types(module: Any, source: str) -> list[Any]:
    """Return the structs at the top of a file; of those that cannot be event types say why not."""
    found = []
    for _, member in members(module):
        if not is_struct(member) or member.schema.node.isGeneric:
            continue
        try:
            make_entries([member], [], 1)
        except BindError as error:
            click.echo(f"{source}: left out: {error}", err=True)
        else:
            found.append(member)
    return found


def _base(folder: str) -> str:
    return os.path.basename(os.path.abspath(folder))


def _default_package(file: str, language: str) -> str:
    # Names of Go packages have no underscores.
    join = "" if language == "go" else "_"
    stem = re.sub(r"[^a-z0-9]+", join, os.path.basename(file).removesuffix(".capnp").lower()).strip("_")
    return f"{stem if stem[:1].isalpha() else 'schema'}{join}table"


def _package(given: str | None, file: str, language: str) -> str:
    if given is None:
        return _default_package(file, language)
    separator = r"::" if language == "c++" else None
    parts = given.split(separator) if separator else [given]
    if not all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", part) and part not in _KEYWORDS for part in parts):
        raise click.BadParameter(f"{given!r} is no name of a package.", param_hint="--package")
    return given

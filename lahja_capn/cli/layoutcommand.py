"""``lahja-capn layout``: the texts and hashes of structs, as docs/wire.md 6.2 shows them."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from lahja_capn.binding.describe import describe_struct
from lahja_capn.cli import options
from lahja_capn.cli.structs import all_structs, find_struct, load_schema


@click.command()
@options.schema_argument()
@click.argument("types", nargs=-1, metavar="[TYPE]...")
@options.import_path
def layout(file: str, types: Sequence[str], import_path: Sequence[str]) -> None:
    """Print the layout of structs in FILE.capnp: per field its ordinal, the hash, and the text that is hashed.

    TYPE is a name such as Order or Order.Line; without one, every struct of the file is shown.
    """
    module = load_schema(file, import_path)
    source = os.path.basename(file)
    structs = [(name, find_struct(module, name, source)) for name in types] or list(all_structs(module))
    for name, struct in structs:
        described = describe_struct(struct)
        click.echo(f"# {name} @0x{described.row.type_id:016x}")
        for ordinal, (number, text) in enumerate(zip(described.row.layout, described.texts, strict=True)):
            click.echo(f"{ordinal}  0x{number:08x}  {text}")

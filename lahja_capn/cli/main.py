"""The commands of ``lahja-capn``, their arguments and their help."""

from __future__ import annotations

from typing import Any

import click

import lahja_capn
from lahja_capn.cli.annotatecommand import annotate_go
from lahja_capn.cli.checkcommand import check
from lahja_capn.cli.dumpcommand import dump
from lahja_capn.cli.layoutcommand import layout
from lahja_capn.cli.tablecommand import table
from lahja_capn.errors import LahjaError


class Commands(click.Group):
    """Commands whose errors are one message and an exit code."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except LahjaError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(lahja_capn.__version__, prog_name="lahja-capn")
def main() -> None:
    """Tools around the event types of .capnp files, for programs in every language on the bus."""


for command in (table, annotate_go, layout, check, dump):
    main.add_command(command)

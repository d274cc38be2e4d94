"""Arguments that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

SCHEMA = click.Path(exists=True, dir_okay=False, readable=True)

import_path = click.option(
    "--import-path",
    "-I",
    multiple=True,
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help='A folder in which `import "/absolute.capnp"` is looked up; may be given several times.',
)

output = click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write there, not to standard output.",
)


def schema_argument(name: str = "file", metavar: str = "FILE.capnp") -> Callable[[F], F]:
    return click.argument(name, type=SCHEMA, metavar=metavar)


def write(text: str, target: str | None) -> None:
    """Write what a command made; a file that says so already is left alone, so that nothing is built anew."""
    if target is None:
        click.echo(text, nl=False)
        return
    path = Path(target)
    try:
        if not path.is_file() or path.read_bytes() != text.encode():
            path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise click.ClickException(f"{target} cannot be written: {error.strerror}.") from None

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
    """Write what a command made, to standard output if there is no target."""
    if target is None:
        click.echo(text, nl=False)
    else:
        write_bytes(text.encode(), target)


def write_bytes(content: bytes, target: str) -> None:
    """Write a file; one that says so already is left alone, so that nothing that depends on it is built anew."""
    path = Path(target)
    try:
        if not path.is_file() or path.read_bytes() != content:
            path.write_bytes(content)
    except OSError as error:
        raise click.ClickException(f"{target} cannot be written: {error.strerror}.") from None

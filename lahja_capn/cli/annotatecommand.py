"""``lahja-capn annotate-go``: a copy of a schema with the annotations that Go's compiler plugin wants."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence

import click

from lahja_capn.cli import options
from lahja_capn.cli.annotate import CannotAnnotate, annotated, check_id, closure, read_source
from lahja_capn.cli.structs import load_schema

_GO_KEYWORDS = frozenset(
    "break case chan const continue default defer else fallthrough for func go goto if import interface map "
    "package range return select struct switch type var".split()
)


def _package(context: click.Context, param: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value) or value in _GO_KEYWORDS or value == "_":
        raise click.BadParameter(f"{value!r} is no name of a Go package.", context, param)
    return value


def _go_import(context: click.Context, param: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._~/-]+", value) or value[0] in "/." or value[-1] == "/":
        raise click.BadParameter(
            f"{value!r} is no import path, such as example.com/shop/events.", context, param
        )
    return value


@click.command("annotate-go")
@options.schema_argument()
@click.option("--package", required=True, metavar="NAME", callback=_package, help="The Go package's name.")
@click.option(
    "--import",
    "go_import",
    required=True,
    metavar="PATH",
    callback=_go_import,
    help="The Go package's import path.",
)
@click.option(
    "--output-dir",
    "-o",
    required=True,
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Where the copies go, under the names of the originals. Must not hold the originals.",
)
@options.import_path
def annotate_go(file: str, package: str, go_import: str, output_dir: str, import_path: Sequence[str]) -> None:
    """Copy FILE.capnp, and the files that it imports, with the annotations that capnpc-go wants.

    The copies have the same type ids and layouts. All types get into one Go package, but for a file that has Go
    annotations already: it is copied as it is. Then: capnp compile -I DIR -I GO_CAPNP_STD -ogo DIR/FILE.capnp
    """
    command = [
        "lahja-capn",
        "annotate-go",
        os.path.basename(file),
        "--package",
        package,
        "--import",
        go_import,
    ]
    try:
        # The parser refuses such a file too, with a random id for it: its types would get other ids than elsewhere.
        check_id(read_source(file))
        load_schema(file, import_path)
        sources, embedded = closure(file, import_path)
        copies: dict[str, bytes] = {}
        for place, source in sources.items():
            header = f"Generated from {os.path.basename(source.path)} by: {shlex.join(command)}"
            copies[place] = annotated(source, package, go_import, header).encode()
        for place, path in embedded.items():
            with open(path, "rb") as data:
                copies[place] = data.read()
        originals = {os.path.realpath(source.path) for source in sources.values()} | {
            os.path.realpath(path) for path in embedded.values()
        }
        for place in copies:
            target = os.path.join(output_dir, place)
            if os.path.realpath(target) in originals:
                raise CannotAnnotate(f"{target} is an original: choose another --output-dir.")
        for place, content in copies.items():
            target = os.path.join(output_dir, place)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            options.write_bytes(content, target)
            click.echo(target)
    except CannotAnnotate as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}.") from None

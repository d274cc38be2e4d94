"""``lahja-capn dump``: a captured byte stream in plain words."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import click

from lahja_capn.binding import Segments, StructCodec
from lahja_capn.binding.describe import describe_event
from lahja_capn.cli import options
from lahja_capn.cli.hexdump import BadHex, read_hex
from lahja_capn.cli.stream import KnownTypes, StreamReader
from lahja_capn.cli.structs import all_structs, load_schema
from lahja_capn.errors import BindError
from lahja_capn.wire.limits import MAX_FRAME_BYTES, MIN_FRAME_LIMIT_BYTES


@click.command()
@click.argument("stream", type=click.File("rb"), metavar="FILE")
@click.option("--hex", "as_hex", is_flag=True, help="FILE is a hex dump, as xxd and hexdump -C write it.")
@click.option(
    "--schema",
    type=options.SCHEMA,
    metavar="FILE.capnp",
    multiple=True,
    help="Show the fields of these event types; may be given several times.",
)
@click.option(
    "--middle", is_flag=True, help="The bytes begin in the middle of a connection, where a frame begins."
)
@click.option("--layouts", is_flag=True, help="Print the layouts in full.")
@click.option(
    "--frame-limit",
    type=click.IntRange(MIN_FRAME_LIMIT_BYTES, MAX_FRAME_BYTES),
    default=MAX_FRAME_BYTES,
    metavar="BYTES",
    help="The frameLimit of whoever receives these bytes.",
)
@options.import_path
def dump(
    stream: BinaryIO,
    as_hex: bool,
    schema: Sequence[str],
    middle: bool,
    layouts: bool,
    frame_limit: int,
    import_path: Sequence[str],
) -> None:
    """Print the frames in FILE: the bytes that one side of a connection has sent; - is standard input.

    A line for each frame: its offset, its size, what it says. `!` marks what breaks a rule of docs/wire.md, with the
    goodbye code of a receiver; exit code 1 if there is one.
    """
    if as_hex:
        try:
            stream = io.BytesIO(read_hex(stream.read().decode("ascii", "replace")))
        except BadHex as error:
            raise click.ClickException(str(error)) from None
    reader = StreamReader(
        _known_types(schema, import_path), frame_limit, from_the_middle=middle, layouts=layouts
    )
    failed = False
    for line in reader.read(stream):
        failed |= line.is_fault
        click.echo(line.text)
    if failed:
        raise SystemExit(1)


def _known_types(files: Sequence[str], import_path: Sequence[str]) -> KnownTypes:
    known = {}
    for file in files:
        for _, struct in all_structs(load_schema(file, import_path)):
            try:
                own, _inside = describe_event(struct)
            except BindError:
                continue
            known[own.row.type_id] = (own.row, _shower(struct))
    return known


def _shower(struct: Any) -> Callable[[Segments], str]:
    codec = StructCodec(struct)
    # What cannot be read says so in its repr.
    return lambda segments: repr(codec.open(segments))

"""``lahja-capn check``: whether a changed schema still fits programs that have the old one."""

from __future__ import annotations

from collections.abc import Sequence

import click

from lahja_capn.cli import options
from lahja_capn.cli.compare import compare, read_version
from lahja_capn.cli.structs import load_schema, unknown


@click.command()
@options.schema_argument("old", "OLD.capnp")
@options.schema_argument("new", "NEW.capnp")
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="NAME",
    help="Look at this struct only; may be given several times.",
)
@click.option("--allow-removed", is_flag=True, help="A struct that only the old version has is no failure.")
@click.option("--quiet", "-q", is_flag=True, help="Print only what fails.")
@options.import_path
def check(
    old: str, new: str, types: Sequence[str], allow_removed: bool, quiet: bool, import_path: Sequence[str]
) -> None:
    """Say, struct by struct, whether programs with OLD.capnp and with NEW.capnp can exchange it.

    This is the verdict that two endpoints reach when they connect (docs/wire.md, section 6.3). Exit code 1 if a
    struct is incompatible, or was removed: what a CI wants to know before a schema is merged.
    """
    verdicts = list(compare(*(read_version(load_schema(file, import_path)) for file in (old, new))))
    known = [verdict.name for verdict in verdicts]
    for name in types:
        if name not in known:
            raise unknown(name, known, f"{old} or {new}")
    failed = False
    for verdict in verdicts:
        if types and verdict.name not in types:
            continue
        bad = verdict.outcome == "incompatible" or (verdict.outcome == "removed" and not allow_removed)
        failed |= bad
        if bad or not quiet:
            click.echo(
                f"{verdict.outcome:<12}  {verdict.name}" + (f"  ({verdict.remark})" if verdict.remark else "")
            )
            for difference in verdict.differences:
                click.echo(f"    {difference}")
    if failed:
        raise SystemExit(1)

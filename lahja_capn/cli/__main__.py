"""``python -m lahja_capn.cli`` is ``lahja-capn``."""

from __future__ import annotations

from lahja_capn.cli.main import main

main(prog_name="lahja-capn")

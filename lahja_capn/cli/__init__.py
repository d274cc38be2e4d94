"""The command line tool ``lahja-capn``: ``main`` is its entry point.

The only place that needs click: importing ``lahja_capn`` does not.
"""

from __future__ import annotations

from lahja_capn.cli.main import main

__all__ = ["main"]

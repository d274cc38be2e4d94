"""Finds and loads ``.capnp`` files."""

from __future__ import annotations

from lahja_capn.schema.loader import load
from lahja_capn.schema.resources import own_schema, schema_path, wire_schema

__all__ = ["load", "own_schema", "schema_path", "wire_schema"]

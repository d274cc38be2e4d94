"""Finds and loads ``.capnp`` files."""

from __future__ import annotations

from lahja_capn.schema.loader import load, load_version
from lahja_capn.schema.resources import own_schema, schema_path, wire_schema

__all__ = ["load", "load_version", "own_schema", "schema_path", "wire_schema"]

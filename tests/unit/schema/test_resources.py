"""Our own schema files: found in a wheel and in a checkout, loaded apart from the user's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lahja_capn.errors import SchemaError
from lahja_capn.schema import load, resources, schema_path, wire_schema


@pytest.fixture(autouse=True)
def _no_memory() -> Any:
    schema_path.cache_clear()
    yield
    schema_path.cache_clear()


def test_a_checkout_has_them_beside_the_package() -> None:
    path = schema_path("wire.capnp")
    assert path.is_file()
    assert path.parts[-3:] == ("capnp", "lahja_capn", "wire.capnp")


def test_a_wheel_has_them_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "schemas_in_a_wheel"
    package.mkdir()
    shutil.copy(schema_path("wire.capnp"), package)
    schema_path.cache_clear()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(resources, "_PACKAGE", "schemas_in_a_wheel")
    assert schema_path("wire.capnp") == package / "wire.capnp"
    # What is not there is looked for in the checkout.
    assert schema_path("binding.capnp").parts[-3] == "capnp"


def test_a_file_in_neither_place_is_an_incomplete_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "_CHECKOUT", tmp_path)
    with pytest.raises(SchemaError, match="installation is incomplete"):
        schema_path("wire.capnp")


def test_the_wire_schema_is_loaded_once() -> None:
    assert wire_schema() is wire_schema()
    assert wire_schema().protocolVersion == 1


def test_a_users_copy_of_our_schema_does_not_collide(tmp_path: Path) -> None:
    copy = Path(shutil.copy(schema_path("wire.capnp"), tmp_path / "mine.capnp"))
    assert load(copy).Control.schema.node.id == wire_schema().Control.schema.node.id
    program = (
        "import sys, capnp, lahja_capn.schema as s; s.wire_schema(); capnp.load(sys.argv[1]); print('both')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(copy)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(resources.__file__).parents[2],
    )
    assert done.stdout == "both\n", done.stderr


def test_a_folder_named_capnp_is_not_mistaken_for_pycapnp(monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    monkeypatch.setitem(sys.modules, "capnp", types.ModuleType("capnp"))
    with pytest.raises(SchemaError, match="pycapnp is not installed"):
        resources.own_schema.__wrapped__("wire.capnp")

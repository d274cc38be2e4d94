"""The public names: ``lahja_capn.__all__`` is exactly what the package offers; importing it stays light."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

import lahja_capn
import lahja_capn.errors

# What a program written for lahja 0.17 imports from the top of its package; the issue fixes this list.
LAHJA_NAMES = (
    "AsyncioEndpoint TrioEndpoint EndpointAPI BaseEvent BaseRequestResponseEvent BroadcastConfig "
    "ConnectionConfig Subscription bind LahjaError BindError ConnectionAttemptRejected LifecycleError "
    "NoSubscribers UnexpectedResponse RemoteDisconnected"
).split()


def test_every_name_in_all_exists() -> None:
    missing = [name for name in lahja_capn.__all__ if not hasattr(lahja_capn, name)]
    assert not missing
    assert len(set(lahja_capn.__all__)) == len(lahja_capn.__all__)


def test_every_public_name_is_in_all() -> None:
    public = {
        name
        for name, value in vars(lahja_capn).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and not (name in ("annotations", "TYPE_CHECKING") or value is Any)
    }
    assert public <= set(lahja_capn.__all__)


def test_dir_shows_the_names_that_are_loaded_only_when_asked_for() -> None:
    assert set(lahja_capn.__all__) <= set(dir(lahja_capn))


def test_every_name_a_lahja_program_imports_is_there() -> None:
    assert set(LAHJA_NAMES) <= set(lahja_capn.__all__)


def test_every_exception_can_be_imported_from_the_top() -> None:
    exceptions = {
        name
        for name, value in vars(lahja_capn.errors).items()
        if isinstance(value, type) and issubclass(value, lahja_capn.errors.LahjaError)
    }
    assert exceptions <= set(lahja_capn.__all__)


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="NoSuchName"):
        lahja_capn.NoSuchName


@pytest.mark.parametrize(
    "module", ["lahja_capn", "lahja_capn.tools.engine", "lahja_capn.tools.drivers", "lahja_capn.tools.runner"]
)
def test_importing_needs_neither_trio_nor_uvloop(module: str) -> None:
    # A fresh interpreter in which both are absent: None in sys.modules makes the import fail.
    code = f"import sys; sys.modules.update(trio=None, uvloop=None); import {module}"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=15)


def test_trio_endpoint_without_trio_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['trio'] = None\n"
        "import lahja_capn\n"
        "try:\n    lahja_capn.TrioEndpoint\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=15, capture_output=True, text=True
    )
    assert "lahja_capn[trio]" in done.stdout

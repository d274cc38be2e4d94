"""What each system needs: an environment of its own, made once and again when its requirements change; programs."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.workload import KINDS

HERE = Path(__file__).resolve().parent
SYSTEMS = HERE / "systems"
ENVIRONMENTS = HERE / ".venvs"
INSTALL_TIMEOUT_S = 300


class Unavailable(Exception):
    """A system cannot run here; says why, and how it could."""


def system_names() -> list[str]:
    """Every system there is, by its file."""
    return sorted(path.stem.removesuffix("_system") for path in SYSTEMS.glob("*_system.py"))


def requirements(system: str) -> list[str]:
    """What pip installs for a system.

    Raises:
        ValueError: the module does not say.
    """
    found = _literal(system, "REQUIREMENTS")
    if found is None:
        raise ValueError(f"systems/{system}_system.py must define REQUIREMENTS as a list of literal strings")
    return found


def kinds(system: str) -> list[str]:
    """Kinds of cases that a system takes part in."""
    found = _literal(system, "KINDS")
    return list(KINDS) if found is None else found


def cases(system: str) -> list[str] | None:
    """Names of the only cases that a system takes part in; None: all of its kinds."""
    return _literal(system, "CASES")


def programs(system: str) -> list[str]:
    """Programs that must be installed, each the name of a Debian package too."""
    return _literal(system, "PROGRAMS") or []


def has_server(system: str) -> bool:
    """Whether a process between the sender and the receivers is started first."""
    return bool(programs(system))


def search_path() -> str:
    """PATH, and where Debian puts servers: that is not on everybody's."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"])


def process_environment() -> dict[str, str]:
    """What every process of a run gets: this process's, and modules are compiled once, not at each start.

    What pip installs is compiled; what is imported from its own folder is so after the first start, unless a variable
    forbids it: this project would then be the only one to be compiled at each start.
    """
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _literal(system: str, name: str) -> list[str] | None:
    """A list in a system's module, read without importing it (its library may be missing here)."""
    tree = ast.parse((SYSTEMS / f"{system}_system.py").read_text(encoding="utf-8"))
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            found: list[str] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
            return found
    return None


def python_for(system: str) -> Path:
    """The interpreter that runs ``system``; its environment is set up if need be.

    Raises:
        Unavailable: a program is missing, or its environment cannot be made.
    """
    for program in programs(system):
        if shutil.which(program, path=search_path()) is None:
            raise Unavailable(f"{program} is not installed: apt-get install {program}")
    wanted = requirements(system)
    if not wanted:
        return Path(sys.executable)
    folder = ENVIRONMENTS / system
    python = folder / "bin" / "python"
    stamp = folder / "installed.json"
    facts = json.dumps({"requirements": wanted, "python": sys.version})
    if not stamp.exists() or stamp.read_text() != facts:
        print(f"setting up an environment for {system}: {', '.join(wanted)}", file=sys.stderr)
        try:
            venv.create(folder, clear=True, with_pip=True)
            subprocess.run(
                [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted],
                check=True,
                timeout=INSTALL_TIMEOUT_S,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise Unavailable(
                f"its environment could not be made (this needs the network): {error}"
            ) from None
        stamp.write_text(facts)
    return python

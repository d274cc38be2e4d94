"""One environment per system that asks for one: made once, again when its requirements change."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
SYSTEMS = HERE / "systems"
ENVIRONMENTS = HERE / ".venvs"
INSTALL_TIMEOUT_S = 300


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
    return ["small", "large", "requests"] if found is None else found


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
    """The interpreter that runs ``system``; its environment is set up if need be."""
    wanted = requirements(system)
    if not wanted:
        return Path(sys.executable)
    folder = ENVIRONMENTS / system
    python = folder / "bin" / "python"
    stamp = folder / "installed.json"
    facts = json.dumps({"requirements": wanted, "python": sys.version})
    if not stamp.exists() or stamp.read_text() != facts:
        print(f"setting up an environment for {system}: {', '.join(wanted)}", file=sys.stderr)
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted],
            check=True,
            timeout=INSTALL_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
        stamp.write_text(facts)
    return python

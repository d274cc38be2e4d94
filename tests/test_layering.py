"""The layers: each imports only to its left, and the left half knows no socket, event loop or clock.

Reads the source, so that an import inside a function or under ``TYPE_CHECKING`` counts like any other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

PACKAGE = "lahja_capn"
ROOT = Path(__file__).resolve().parent.parent / PACKAGE

PUBLIC = ""  # lahja_capn/__init__.py: the public names, which only what stands right of them may import
# Left to right.
LAYERS = [*"errors schema binding wire session endpoint transport runtime".split(), PUBLIC, "tools", "cli"]

IO_MODULES = "asyncio trio uvloop socket ssl select selectors signal subprocess multiprocessing".split()
CLOCK_MODULES = "time datetime sched threading".split()
PYCAPNP = ["capnp"]
# What turns bytes into code or into objects of any type. importlib.resources stays allowed: it reads files.
CODE_MODULES = "pickle _pickle cloudpickle dill marshal shelve runpy code codeop".split()
CODE_CALLS = {*"eval exec compile __import__ import_module load_module exec_module".split()}
# The one exception: code for the layout of a bound event class, made of its schema before an event of it can come.
CODE_MAKER, ITS_CALLS = "binding/flat.py", {"exec", "compile"}


def layer_of(dotted: str) -> str | None:
    """The layer of a module name such as ``lahja_capn.wire.frames``; None if it is not ours."""
    first, _, rest = dotted.partition(".")
    return rest.partition(".")[0] if first == PACKAGE else None


def imports(path: PurePosixPath, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything the module at ``path`` imports.

    ``from lahja_capn import x`` yields ``lahja_capn.x`` if x is a layer, else ``lahja_capn``: a public name.
    """
    package = [PACKAGE, *path.parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*up, *([node.module] if node.module else [])])
            if base == PACKAGE:
                for alias in node.names:
                    yield node.lineno, f"{base}.{alias.name}" if alias.name in LAYERS else base
            else:
                yield node.lineno, base


def violations(name: str, source: str) -> list[str]:
    """What the module at ``name`` (a path inside the package) does that its layer may not."""
    path = PurePosixPath(name)
    layer = path.parts[0].removesuffix(".py").removesuffix("__init__")
    if layer not in LAYERS:
        return [f"{name}: give {layer!r} a place in LAYERS"]
    tree = ast.parse(source)
    found = []

    forbidden = dict.fromkeys(CODE_MODULES, "turns data into code")
    if LAYERS.index(layer) <= LAYERS.index("endpoint"):
        forbidden |= dict.fromkeys(IO_MODULES, "nothing up to endpoint knows a socket or an event loop")
    if LAYERS.index(layer) <= LAYERS.index("session"):
        forbidden |= dict.fromkeys(
            CLOCK_MODULES, "nothing up to session reads a clock or starts a thread: it is a value"
        )
        forbidden["anyio"] = "nothing up to session waits"
    if layer == "schema":
        # The one exception: a bad schema file aborts the process, so it is tried out in a child process.
        forbidden = {module: why for module, why in forbidden.items() if module != "subprocess"}
    if layer not in ("schema", "binding"):
        forbidden |= dict.fromkeys(PYCAPNP, "only schema and binding touch pycapnp")

    for line, module in imports(path, tree):
        target = layer_of(module)
        if target is None:
            why = forbidden.get(module.partition(".")[0])
            if why:
                found.append(f"{name}:{line}: imports {module}: {why}")
        elif target not in LAYERS:
            found.append(f"{name}:{line}: imports {module}: give {target!r} a place in LAYERS")
        elif LAYERS.index(target) > LAYERS.index(layer):
            right, left = (name or "the top of the package" for name in (target, layer))
            found.append(f"{path}:{line}: imports {module}: {right} stands right of {left}")

    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            if name == CODE_MAKER and isinstance(function, ast.Name) and function.id in ITS_CALLS:
                continue
            if isinstance(function, ast.Name) and function.id in CODE_CALLS:
                found.append(f"{name}:{node.lineno}: calls {function.id}")
            elif isinstance(function, ast.Attribute) and function.attr in CODE_CALLS - {"compile"}:
                found.append(f"{name}:{node.lineno}: calls {function.attr}")
    return found


def test_no_module_imports_to_its_right_or_what_its_layer_may_not_know() -> None:
    modules = sorted(ROOT.rglob("*.py"))
    assert modules, f"no modules under {ROOT}"
    found = [
        line
        for module in modules
        for line in violations(module.relative_to(ROOT).as_posix(), module.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("wire/frames.py", "from ..session import Session", "session stands right of wire"),
        ("wire/frames.py", "from lahja_capn.session.session import Session", "session stands right of wire"),
        ("wire/frames.py", "import lahja_capn.endpoint.api", "endpoint stands right of wire"),
        ("wire/frames.py", "from .. import session", "session stands right of wire"),
        (
            "wire/frames.py",
            "from lahja_capn import AsyncioEndpoint",
            "the top of the package stands right of wire",
        ),
        ("errors.py", "from .binding import bind", "binding stands right of errors"),
        ("transport/unix.py", "from ..runtime import on_trio", "runtime stands right of transport"),
        ("runtime/on_trio.py", "from ..tools.engine import TrioEngine", "tools stands right of runtime"),
        ("__init__.py", "from .tools import runner", "tools stands right of the top of the package"),
        ("binding/bind.py", "def f():\n    from ..wire import limits", "wire stands right of binding"),
        ("endpoint/api.py", "if TYPE_CHECKING:\n    import trio", "imports trio"),
        ("endpoint/api.py", "import asyncio.events", "imports asyncio.events"),
        ("endpoint/api.py", "from socket import AF_UNIX", "imports socket"),
        ("session/session.py", "import time", "reads a clock"),
        ("session/session.py", "from datetime import datetime", "reads a clock"),
        ("session/session.py", "import anyio", "nothing up to session waits"),
        ("wire/frames.py", "import capnp", "only schema and binding touch pycapnp"),
        ("cli/main.py", "from capnp.lib.capnp import KjException", "only schema and binding touch pycapnp"),
        ("tools/runner.py", "import pickle", "turns data into code"),
        ("binding/bind.py", "eval('1')", "calls eval"),
        ("binding/bind.py", "exec('1')", "calls exec"),
        ("binding/flat.py", "eval('1')", "calls eval"),
        ("binding/bind.py", "__import__('os')", "calls __import__"),
        ("binding/bind.py", "importlib.import_module('os')", "calls import_module"),
        ("surprise/x.py", "", "a place in LAYERS"),
        ("wire/frames.py", "from ..surprise import x", "a place in LAYERS"),
    ],
)
def test_a_forbidden_import_or_call_is_found(name: str, source: str, complaint: str) -> None:
    found = violations(name, source)
    assert len(found) == 1
    assert complaint in found[0]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("session/session.py", "from ..wire import frames\nfrom .. import errors\nfrom . import state"),
        ("session/session.py", "import lahja_capn.binding\nfrom lahja_capn.errors import LahjaError"),
        ("endpoint/api.py", "import time\nimport anyio"),
        ("runtime/on_trio.py", "import trio\nfrom ..transport.unix import UnixTransport"),
        ("tools/runner.py", "from lahja_capn import AsyncioEndpoint\nimport multiprocessing"),
        ("schema/load.py", "import capnp\nimport subprocess\nimport re\nre.compile('x')"),
        ("binding/bind.py", "from importlib import resources"),
        ("binding/flat.py", "exec(compile('1', '', 'exec'))"),
        ("__init__.py", "from .runtime.on_asyncio import AsyncioEndpoint\nfrom .errors import LahjaError"),
    ],
)
def test_an_allowed_import_is_not_complained_about(name: str, source: str) -> None:
    assert violations(name, source) == []

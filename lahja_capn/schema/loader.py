"""Loads ``.capnp`` files without letting a bad one end the process.

pycapnp 2.2.4 does not turn the schema parser's C++ exceptions into Python ones: a syntax error, an undefined
type, a missing or a duplicate file id ends the process through ``std::terminate``. So a file that was not
seen before is first loaded by a child process, which may die of it; what it printed becomes a
``SchemaError``. The check is remembered by content (the file, all it imports, and pycapnp's version), in
memory and in the user's cache folder, so that a program pays it once per change and not once per start.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import capnp
from lahja_capn.errors import SchemaError

logger = logging.getLogger("lahja_capn.schema")

# The child takes about 0.15 s; a schema that keeps the parser busy for a minute is a broken one.
_CHECK_TIMEOUT_S = 60.0

# Runs isolated (-I), so the folder that holds pycapnp is handed over. No core file: its death is expected.
_CHILD = """\
import sys
sys.path.insert(0, sys.argv[1])
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, OSError, ValueError):
    pass
import capnp
capnp.SchemaParser().load(sys.argv[2], imports=sys.argv[3:])
print("schema accepted")
"""

_IMPORT = re.compile(rb'\b(?:import|embed)\s*"((?:[^"\\\n]|\\.)+)"')

# "what():  folder/file.capnp:12:3-9: failed: text", with or without the columns.
_REPORT = re.compile(
    r"^(?:\s*what\(\):\s*)?(?P<file>[^\n]*?):(?P<line>\d+)(?::[\d-]+)?: (?:failed|error): (?P<text>.*)", re.M
)

_site_folder = str(Path(capnp.__file__).resolve().parent.parent)

# (path, import folders) -> (content key, module). The module's parser must live as long as any schema object
# made from it, and those are handed out freely: parsers are kept for good.
_loaded: dict[tuple[str, tuple[str, ...]], tuple[str, ModuleType]] = {}
_parsers: list[Any] = []
_accepted: set[str] = set()
# File id -> the file that was loaded with it, and what it said.
_files: dict[int, tuple[str, bytes]] = {}


def load(path: str | os.PathLike[str], imports: Iterable[str | os.PathLike[str]] = ()) -> ModuleType:
    """Load a Cap'n Proto schema file and return it as a module: ``load("events.capnp").OrderPlaced``.

    A file that is loaded again unchanged gives the same module; a changed one is loaded anew. If another file was
    loaded that has the same id and other content, the log says so.

    Args:
        path: the file; relative paths count from the current folder.
        imports: folders in which ``import "/absolute.capnp"`` is looked up, before pycapnp's own
            (``/capnp/c++.capnp``), ``/usr/local/include`` and ``/usr/include``.

    Raises:
        SchemaError: the file is missing, is not a file that ends in ``.capnp``, or does not compile. Has
            ``path`` and ``line`` of the file that is at fault.
    """
    module = load_version(path, imports)
    _look_for_copies(os.path.abspath(os.fspath(path)), module.schema.node.id)
    return module


def load_version(path: str | os.PathLike[str], imports: Iterable[str | os.PathLike[str]] = ()) -> ModuleType:
    """``load`` for whoever compares versions of one file, which have one id by right."""
    file = os.path.abspath(os.fspath(path))
    if not os.path.isfile(file):
        kind = "is a folder" if os.path.isdir(file) else "does not exist"
        raise SchemaError(f"Schema file {file} {kind}.", path=file, line=None)
    if not file.endswith(".capnp"):
        raise SchemaError(f"Schema file {file} does not end in .capnp; rename it.", path=file, line=None)
    given = [os.path.abspath(os.fspath(folder)) for folder in imports]
    for folder in given:
        if not os.path.isdir(folder):
            raise SchemaError(f"Import folder {folder} for {file} does not exist.", path=folder, line=None)
    folders = (*given, _site_folder, *(p for p in ("/usr/local/include", "/usr/include") if os.path.isdir(p)))
    key = _content_key(file, folders)
    known = _loaded.get((file, folders))
    if known is not None and known[0] == key:
        return known[1]
    _check(file, folders, key)
    parser = capnp.SchemaParser()
    _parsers.append(parser)
    module: ModuleType = parser.load(file, imports=list(folders))
    _loaded[file, folders] = (key, module)
    return module


def _look_for_copies(file: str, file_id: int) -> None:
    """Say if another file with other content has the same id: most likely one was copied from the other."""
    content = Path(file).read_bytes()
    other, said = _files.setdefault(file_id, (file, content))
    if other != file and said != content:
        logger.warning(
            "Schema files %s and %s have the same id @%#018x and are not the same: structs of one name in both "
            "have one type id, so peers take one for the other. Give one of them a new id (capnp id).",
            other,
            file,
            file_id,
        )
    elif other == file:
        _files[file_id] = (file, content)


def _content_key(file: str, folders: tuple[str, ...]) -> str:
    """Return a hash of `file`, of everything it imports, of where that lies, and of pycapnp's version."""
    digest = hashlib.sha256(f"1 {capnp.__version__} {sys.version_info[:2]}".encode())
    for name, content in _closure(file, folders):
        digest.update(f"\0{name}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
        digest.update(content)
    return digest.hexdigest()


def _closure(file: str, folders: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    # A superset is good enough: an import in a comment only makes the key depend on one file more.
    waiting, seen = [file], {file}
    while waiting:
        name = waiting.pop()
        try:
            content = Path(name).read_bytes()
        except OSError:
            yield name, b"\0unreadable"
            continue
        yield name, content
        if not name.endswith(".capnp"):
            continue  # embedded data
        for match in _IMPORT.finditer(content):
            target = match.group(1).decode("utf-8", "surrogateescape")
            places = folders if target.startswith("/") else (os.path.dirname(name),)
            for place in places:
                candidate = os.path.normpath(os.path.join(place, target.lstrip("/")))
                if candidate not in seen:
                    seen.add(candidate)
                    if os.path.isfile(candidate):
                        waiting.append(candidate)
                    else:
                        yield candidate, b"\0absent"


def _check(file: str, folders: tuple[str, ...], key: str) -> None:
    """Load `file` in a child process unless this content passed before; raise SchemaError if it fails."""
    if key in _accepted:
        return
    marker = _marker(key)
    if marker is not None and marker.exists():
        _accepted.add(key)
        return
    if not sys.executable:
        # An embedded interpreter has no command to start: nothing is left but to trust the file.
        return
    # Isolated from the environment too: what a debugger or a profiler puts there does not concern the child.
    command = [sys.executable, "-I", "-c", _CHILD, _site_folder, file, *folders]
    try:
        child = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_CHECK_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise SchemaError(
            f"Schema file {file} did not compile within {_CHECK_TIMEOUT_S:.0f} s.", path=file, line=None
        ) from None
    if child.returncode != 0 or b"schema accepted" not in child.stdout:
        raise _error(file, child.stderr.decode("utf-8", "replace"), child.returncode)
    _accepted.add(key)
    if marker is not None:
        try:
            marker.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            marker.touch()
        except OSError:
            pass  # a read-only home only costs the next start its 0.15 s


def _marker(key: str) -> Path | None:
    """Return the file whose existence says that this content compiled, or None without a cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(base):
        return None
    return Path(base) / "lahja_capn" / "schemas" / key


def _error(file: str, report: str, code: int) -> SchemaError:
    """Make the exception from what the child printed before it died."""
    found = _REPORT.search(report)
    if found is None:
        last = [line for line in report.strip().splitlines() if line.strip()][-1:] or [f"exit code {code}"]
        return SchemaError(f"Schema file {file} does not compile: {last[0].strip()}", path=file, line=None)
    # The parser names a file relative to a folder of its own choice: compare the tail.
    named = found["file"].strip()
    at_fault = file if file.endswith(named.lstrip("./")) else named
    line = int(found["line"]) + 1  # the parser counts from 0
    return SchemaError(
        f"Schema file {at_fault}, line {line}: {found['text'].strip()}"
        + ("" if at_fault == file else f" (imported by {file})"),
        path=at_fault,
        line=line,
    )

"""Go annotations for a copy of a schema: what Go's compiler plugin wants and the bus's other peers do not need.

Only text is added, behind the file's id. A type id follows from the file's id and the names of the types, or stands
there explicitly, so the copy's ids and layouts are those of the original.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)|(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<line>`[^\n]*)|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"""
    r"""|(?P<number>@?[0-9][0-9A-Za-z_.]*)|(?P<other>.)""",
    re.S,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_GO_FILE = "go.capnp"
# What every file needs: the Go package's name, and the path by which others import it.
_NEEDED = ("package", "import")


class CannotAnnotate(Exception):
    """A file that cannot be annotated; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    end: int


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of a schema file that parses, without comments and space."""
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "space":
            yield Token(match.lastgroup or "", match.group(), match.end())


@dataclass(frozen=True, slots=True)
class Source:
    """A schema file.

    Attributes:
        path: absolute.
        text: its content.
        imports: what it imports, as written; embedded files too, which need no annotations.
        embeds: those of `imports` that are only embedded.
    """

    path: str
    text: str
    imports: tuple[str, ...]
    embeds: frozenset[str]


def read_source(path: str) -> Source:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            text = file.read()
    except UnicodeDecodeError:
        raise CannotAnnotate(f"{path} is not UTF-8 text.") from None
    imported: dict[str, bool] = {}
    previous = ""
    for token in tokens(text):
        if token.kind == "string" and previous in ("import", "embed"):
            name = _unquoted(token.text)
            imported[name] = imported.get(name, True) and previous == "embed"
        previous = token.text
    return Source(path, text, tuple(imported), frozenset(name for name, only in imported.items() if only))


def _unquoted(text: str) -> str:
    return re.sub(
        r"\\(x[0-9a-fA-F]{2}|[0-7]{1,3}|.)",
        lambda match: _unescaped(match.group(1)),
        text[1:-1],
    )


def _unescaped(escape: str) -> str:
    if escape[0] == "x":
        return chr(int(escape[1:], 16))
    if escape[0].isdigit():
        return chr(int(escape, 8))
    return _ESCAPES.get(escape, escape)


def annotated(source: Source, package: str, import_path: str, header: str) -> str:
    """Return the file's text with the Go annotations that it lacks, or as it is if it lacks none.

    Raises:
        CannotAnnotate: it has no id of its own.
    """
    end = check_id(source)
    found = list(tokens(source.text))
    alias, present = _go_annotations(found)
    missing = [part for part in _NEEDED if part not in present]
    if not missing:
        return source.text
    added = []
    if alias is None:
        words = {token.text for token in found}
        alias = next(word for word in _aliases() if word not in words)
        added.append(f'using {alias} = import "/{_GO_FILE}";')
    values = {"package": package, "import": import_path}
    added += [f'${alias}.{part}("{values[part]}");' for part in missing]
    # A comment behind the id stays behind it.
    rest = re.compile(r"[ \t]*(?:#[^\r\n]*)?(?=\r?\n|\Z)").match(source.text, end)
    if rest is not None:
        end = rest.end()
    newline = "\r\n" if "\r\n" in source.text else "\n"
    lines = newline.join(added)
    return f"# {header}{newline}{source.text[:end]}{newline * 2}{lines}{source.text[end:]}"


def check_id(source: Source) -> int:
    """Return where the statement that gives the file its id ends.

    Raises:
        CannotAnnotate: there is none.
    """
    end = _end_of_id(list(tokens(source.text)))
    if end is None:
        raise CannotAnnotate(
            f"{os.path.basename(source.path)} has no file id, from which the ids of its types follow: add the line "
            "that `capnp id` prints, with a semicolon behind it, at its top."
        )
    return end


def _end_of_id(found: Sequence[Token]) -> int | None:
    """Return where the statement ``@0x...;`` ends that gives the file its id."""
    for token, after in pairwise(found):
        # Only the file's id has a semicolon right behind it: ordinals and other ids are followed by a type or a body.
        if token.kind == "number" and token.text[0] == "@" and after.text == ";":
            return after.end
    return None


def _go_annotations(found: Sequence[Token]) -> tuple[str | None, set[str]]:
    """Return the name under which a file imports go.capnp, and which of its annotations the file itself has."""
    alias = None
    texts = [token.text for token in found]
    for at, token in enumerate(found):
        if (
            token.kind == "string"
            and os.path.basename(_unquoted(token.text)) == _GO_FILE
            and texts[at - 4 : at - 3] == ["using"]
            and texts[at - 2 : at] == ["=", "import"]
            and texts[at + 1 : at + 2] == [";"]
        ):
            alias = texts[at - 3]
    present = set()
    for at, token in enumerate(found):
        # Of what stands inside of types nothing is asked: these two are for files only.
        if token.text != "$":
            continue
        if texts[at + 1] == "import" and os.path.basename(_unquoted(texts[at + 2])) == _GO_FILE:
            present.add(texts[at + 4])
        elif alias is not None and texts[at + 1 : at + 3] == [alias, "."]:
            present.add(texts[at + 3])
    return alias, present


def _aliases() -> Iterator[str]:
    yield "Go"
    number = 1
    while True:
        yield f"GoLanguage{number}"
        number += 1


def closure(file: str, import_path: Sequence[str]) -> tuple[dict[str, Source], dict[str, str]]:
    """Return the file and all that it imports, by where a copy belongs, and the files that are only embedded.

    The keys are paths relative to one folder that holds all copies. What is imported from a folder that is not in
    `import_path`, such as ``/capnp/c++.capnp``, is no part of the schema and is left where it is.
    """
    first = os.path.abspath(file)
    sources: dict[str, Source] = {}
    data: set[str] = set()
    # Files that are found through an import folder belong at their path below it.
    roots: dict[str, str] = {}
    waiting = [first]
    while waiting:
        path = waiting.pop()
        if path in sources:
            continue
        source = sources[path] = read_source(path)
        for name in source.imports:
            if name.startswith("/"):
                place = _absolute(name, import_path)
                if place is None or os.path.basename(name) == _GO_FILE:
                    continue
                target = os.path.normpath(os.path.join(place, name.lstrip("/")))
                roots[target] = place
            else:
                target = os.path.normpath(os.path.join(os.path.dirname(path), name))
                if path in roots:
                    roots.setdefault(target, roots[path])
            if os.path.basename(target) == _GO_FILE:
                continue
            if name in source.embeds:
                data.add(target)
            elif target not in sources:
                waiting.append(target)
    own = [path for path in (*sources, *data) if path not in roots]
    base = os.path.commonpath([os.path.dirname(path) for path in own])
    places: dict[str, str] = {}
    for path in sorted({*sources, *data}):
        place = os.path.relpath(path, roots.get(path, base))
        if place.startswith(os.pardir):
            raise CannotAnnotate(f"{path} lies outside of the folder through which it is imported.")
        if place in places:
            raise CannotAnnotate(f"The copies of {places[place]} and {path} would both be {place}.")
        places[place] = path
    return (
        {place: sources[path] for place, path in places.items() if path in sources},
        {place: path for place, path in places.items() if path not in sources},
    )


def _absolute(name: str, import_path: Sequence[str]) -> str | None:
    for folder in import_path:
        if os.path.isfile(os.path.join(folder, name.lstrip("/"))):
            return os.path.abspath(folder)
    return None

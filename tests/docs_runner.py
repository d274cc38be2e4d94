"""Runs what a Markdown file shows. CONTRIBUTING.md has the conventions for those who write documents.

- All ```` ```python ```` blocks of a file are one program: run in order, in one process, in a new folder.
- A comment on the last line before a block says otherwise:
  ``<!-- file: NAME -->`` writes the block (of any language) to that file instead, before anything runs;
  ``<!-- not run: WHY -->`` leaves a python block alone.
- ``<!-- run: A.py & B.py -->``, anywhere, starts written files at the same time, before the program itself;
  all of them must end with exit code 0.

Programs keep the line numbers of the document, so that a traceback points into it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

# Each program; far more than an example may take.
TIMEOUT_S = 15

FENCE = re.compile(r"^(?P<indent> {0,3})(?P<fence>`{3,}|~{3,})\s*(?P<language>[\w+-]*)[^`]*$")
FILE = re.compile(r"^<!--\s*file:\s*(?P<name>[\w./-]+)\s*-->$")
RUN = re.compile(r"^<!--\s*run:\s*(?P<names>[^>]+?)\s*-->$")
NOT_RUN = re.compile(r"^<!--\s*not run:\s*(?P<why>.+?)\s*-->$")
# A directive that none of these understands is a mistake, not a comment.
DIRECTIVE = re.compile(r"^<!--\s*(file|run|not run|not-run|norun)\b")


class DocumentError(Exception):
    """A document that this module cannot make sense of, or whose programs fail."""


@dataclass
class Block:
    """One fenced block. ``line`` is the number of its first line of text, counted from 1."""

    language: str
    line: int
    lines: list[str]
    directive: str


@dataclass
class Document:
    """What one Markdown file asks to be done."""

    files: dict[str, str] = field(default_factory=dict)
    program: list[str] = field(default_factory=list)
    runs: list[list[str]] = field(default_factory=list)

    @property
    def has_program(self) -> bool:
        return any(line.strip() for line in self.program)


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of ``text``, each with the comment that stands before it.

    Raises:
        DocumentError: a block does not end.
    """
    found: list[Block] = []
    lines = text.splitlines()
    last_text = ""
    index = 0
    while index < len(lines):
        opening = FENCE.match(lines[index])
        if opening is None:
            last_text = lines[index].strip() or last_text
            index += 1
            continue
        first = index + 1
        closing = re.compile(rf"^ {{0,3}}{re.escape(opening['fence'])}\s*$")
        last = next((n for n in range(first, len(lines)) if closing.match(lines[n])), None)
        if last is None:
            raise DocumentError(f"line {index + 1}: this block does not end")
        indent = len(opening["indent"])
        body = [
            line[indent:] if line[:indent].isspace() or not indent else line for line in lines[first:last]
        ]
        found.append(Block(opening["language"].lower(), first + 1, body, last_text))
        last_text = ""
        index = last + 1
    return found


def parse(text: str) -> Document:
    """What ``text``, a Markdown file, asks to be done.

    Raises:
        DocumentError: a block that does not end, a directive that is not understood, a file that is written
            twice or to another folder, or a ``run`` of a file that nothing writes.
    """
    document = Document(program=[""] * len(text.splitlines()))
    blocks = blocks_of(text)
    inside = {number for block in blocks for number in range(block.line, block.line + len(block.lines))}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if number in inside:
            continue
        if DIRECTIVE.match(stripped) and not any(rule.match(stripped) for rule in (FILE, RUN, NOT_RUN)):
            raise DocumentError(f"line {number}: not understood: {stripped}")
        if run := RUN.match(stripped):
            document.runs.append([name.strip() for name in run["names"].split("&")])
    used = set()
    for block in blocks:
        where = f"line {block.line}"
        if name := FILE.match(block.directive):
            path = Path(name["name"])
            if path.is_absolute() or ".." in path.parts or name["name"] in document.files:
                raise DocumentError(f"{where}: {name['name']} must be a new file below the folder")
            # Files keep the document's line numbers too, where leading empty lines do no harm.
            lead = "\n" * (block.line - 1) if block.language == "python" else ""
            document.files[name["name"]] = lead + "\n".join(block.lines) + "\n"
            used.add(block.directive)
        elif NOT_RUN.match(block.directive):
            used.add(block.directive)
        elif block.language == "python":
            document.program[block.line - 1 : block.line - 1 + len(block.lines)] = block.lines
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if (
            number not in inside
            and (FILE.match(stripped) or NOT_RUN.match(stripped))
            and stripped not in used
        ):
            raise DocumentError(f"line {number}: no block follows: {stripped}")
    for names in document.runs:
        for program in names:
            if program not in document.files:
                raise DocumentError(f"run: no block is written to {program}")
    return document


def run(text: str, name: str, folder: Path, path_entries: list[Path], python: str = sys.executable) -> None:
    """Do in ``folder`` what the document ``text``, called ``name`` in messages, asks for.

    Args:
        path_entries: what the programs find on ``sys.path`` besides their own folder.
        python: the interpreter that runs them.

    Raises:
        DocumentError: see :func:`parse`; or a program failed, with what it printed.
    """
    document = parse(text)
    for file, content in document.files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(content, encoding="utf-8")
    programs = list(document.runs)
    if document.has_program:
        main = Path(name).name.replace(".", "_") + ".py"
        (folder / main).write_text("\n".join(document.program) + "\n", encoding="utf-8")
        programs.append([main])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path_entries))}
    for together in programs:
        _run_together(together, name, folder, environment, python)


def _run_together(
    programs: list[str], name: str, folder: Path, environment: dict[str, str], python: str
) -> None:
    # Output goes to files: a pipe would hold a chatty program up while another one is waited for.
    outputs = [folder / f".{program}.output" for program in programs]
    processes = []
    failures = []
    try:
        for program, path in zip(programs, outputs, strict=True):
            with path.open("wb") as output:
                processes.append(
                    subprocess.Popen(
                        [python, "-W", "error", program],
                        cwd=folder,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )
        for program, path, process in zip(programs, outputs, processes, strict=True):
            try:
                process.wait(TIMEOUT_S)
                outcome = f"ended with {process.returncode}" if process.returncode else ""
            except subprocess.TimeoutExpired:
                outcome = f"did not end within {TIMEOUT_S} s"
            if outcome:
                printed = path.read_text(encoding="utf-8", errors="replace")
                failures.append(f"{name}: {program} {outcome}; it printed:\n{printed}")
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if failures:
        raise DocumentError("\n\n".join(failures))

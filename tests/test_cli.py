"""The command ``lahja-capn`` as it is installed, and as docs/languages.md shows it."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs_runner import parse

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "languages.md"


def lahja_capn(
    *arguments: str, cwd: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "lahja_capn.cli", *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=15,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
    )


def test_the_entry_point_of_the_installed_command_is_the_one_tested_here() -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    (script,) = parser["options.entry_points"]["console_scripts"].strip().splitlines()
    assert script == "lahja-capn = lahja_capn.cli:main"
    from lahja_capn.cli import main

    assert callable(main)


def test_help_names_every_command_and_each_has_help_of_its_own(tmp_path: Path) -> None:
    from lahja_capn.cli import main

    done = lahja_capn("--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: lahja-capn ")
    assert main.commands
    for name in main.commands:
        assert re.search(rf"^  {name} ", done.stdout, re.M)
        done_one = lahja_capn(name, "-h", cwd=tmp_path)
        assert done_one.returncode == 0
        assert done_one.stdout.startswith(f"Usage: lahja-capn {name} ")
        # The page describes it too.
        assert f"`lahja-capn {name}`" in PAGE.read_text(encoding="utf-8")


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    import lahja_capn as package

    done = lahja_capn("--version", cwd=tmp_path)
    assert done.stdout == f"lahja-capn, version {package.__version__}\n"


def test_a_usage_error_ends_with_2_and_a_bad_file_with_1_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "bad.capnp").write_text("@0xf2cd98ae0c91dd76; struct A { x @0 :Foo; }")
    for arguments, code in ((["table"], 2), (["layout", "bad.capnp"], 1)):
        done = lahja_capn(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (code, "")
        assert "Error: " in done.stderr
        assert "Traceback" not in done.stderr


def test_importing_the_package_does_not_need_click() -> None:
    # None in sys.modules makes the import fail.
    code = "import sys; sys.modules['click'] = None; import lahja_capn; import lahja_capn.tools.runner"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=15)


# --- docs/languages.md ---------------------------------------------------------------------------------------

CONSOLE = re.compile(r"^```console\n(?P<commands>.*?)^```\n(?:```(?:\w+)\n(?P<shown>.*?)^```$)?", re.M | re.S)


def page_folder(tmp_path: Path) -> Path:
    for name, content in parse(PAGE.read_text(encoding="utf-8")).files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path


def sessions() -> list[tuple[str, str, str | None]]:
    """(command, what it is shown to print, the block behind it)"""
    found = []
    for match in CONSOLE.finditer(PAGE.read_text(encoding="utf-8")):
        command, _, printed = match["commands"].partition("\n")
        assert command.startswith("$ lahja-capn ")
        assert "$ " not in printed
        found.append((command.removeprefix("$ lahja-capn "), printed, match["shown"]))
    return found


@pytest.mark.parametrize(("command", "printed", "shown"), sessions(), ids=lambda value: str(value)[:40])
def test_the_page_shows_what_a_command_prints_and_writes(
    command: str, printed: str, shown: str | None, tmp_path: Path
) -> None:
    folder = page_folder(tmp_path)
    arguments = shlex.split(command)
    done = lahja_capn(*arguments, cwd=folder)
    assert done.stderr == ""
    assert (done.returncode == 1) == ("incompatible" in done.stdout or "  ! " in done.stdout)
    if shown is None:
        assert done.stdout == printed
    elif "--output" in arguments:
        # A part of the file.
        assert done.stdout == printed == ""
        written = (folder / arguments[arguments.index("--output") + 1]).read_text(encoding="utf-8")
        assert f"\n{shown}" in written
    else:
        assert (done.stdout, printed) == (shown, "")


def test_every_block_of_the_page_is_a_command_what_it_prints_or_a_file_that_it_reads() -> None:
    text = PAGE.read_text(encoding="utf-8")
    languages = re.findall(r"^```(\w+)$", text, re.M)
    assert {"console", "json", "rust", "cpp", "go", "typescript", "capnp", "text"} == set(languages)
    in_sessions = sum(1 + (shown is not None) for _, _, shown in sessions())
    # The files, and the annotations.
    assert len(languages) == in_sessions + len(parse(text).files) + 1


def test_the_annotations_shown_are_those_that_a_copy_gets(tmp_path: Path) -> None:
    (command,) = (command for command, _, _ in sessions() if command.startswith("annotate-go"))
    folder = page_folder(tmp_path)
    assert lahja_capn(*shlex.split(command), cwd=folder).returncode == 0
    (shown,) = re.findall(r"^```capnp\n(using Go.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert f"\n{shown}" in (folder / "go" / "events.capnp").read_text(encoding="utf-8")


def test_the_options_shown_are_those_that_there_are() -> None:
    from lahja_capn.cli import main

    text = PAGE.read_text(encoding="utf-8")
    for name, command in main.commands.items():
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--"):
                    assert option in text, (name, option)
    known = {option for command in main.commands.values() for each in command.params for option in each.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known

"""The languages that have a peer here: what each one needs, whether that is there, and building it.

``python peers/languages.py build`` makes every program whose tools are here (``make peers``) and fails if one cannot be
made; with ``--all`` also if tools are missing. ``missing`` says in a line each which languages have no program that
runs here, and how to get it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

PEERS = Path(__file__).resolve().parent

# A first build compiles a Cap'n Proto library or two.
BUILD_LIMIT_S = 900.0


def _command(*names: str) -> Callable[[], bool]:
    return lambda: any(shutil.which(name) is not None for name in names)


def _header(name: str) -> Callable[[], bool]:
    return lambda: any(Path(prefix, "include", name).exists() for prefix in ("/usr", "/usr/local"))


@dataclass(frozen=True)
class Need:
    """A tool that a language's build calls, and how to get it."""

    what: str
    is_there: Callable[[], bool]
    get: str
    # Its programs call it, too.
    to_run: bool = False


def _lacking(needs: Iterable[Need]) -> list[str]:
    return [f"{need.what} ({need.get})" for need in needs if not need.is_there()]


_MAKE = Need("make", _command("make"), "Debian: apt-get install make")
_CAPNP = Need(
    "the capnp compiler",
    _command("capnp"),
    "Debian: apt-get install capnproto; others: https://capnproto.org/install.html",
)


@dataclass(frozen=True)
class Language:
    """One language of the matrix."""

    key: str
    title: str
    needs: tuple[Need, ...]

    @property
    def folder(self) -> Path:
        return PEERS / self.key

    @property
    def program(self) -> Path:
        return self.folder / "bin" / "conformance"

    @property
    def example(self) -> Path:
        return self.folder / "bin" / "example"

    def missing(self) -> list[str]:
        """What the build needs and this machine lacks, each with the way to get it."""
        return _lacking(self.needs)

    def trouble(self, program: Path | None = None) -> str:
        """Why a program, by default the conformance program, cannot be run, and the way out; "" if it can."""
        is_built = os.access(program or self.program, os.X_OK)
        if missing := _lacking([need for need in self.needs if need.to_run or not is_built]):
            return f"missing: {'; '.join(missing)}"
        if is_built:
            return ""
        return f"not built: make -C peers/{self.key} build"


FOREIGN = (
    Language(
        "cpp",
        "C++",
        (
            _MAKE,
            Need(
                "a C++ compiler",
                _command("c++", "g++", "clang++"),
                "Debian: apt-get install g++",
            ),
            _CAPNP,
            Need("capnp/message.h", _header("capnp/message.h"), "Debian: apt-get install libcapnp-dev"),
            Need(
                "nlohmann/json.hpp",
                _header("nlohmann/json.hpp"),
                "Debian: apt-get install nlohmann-json3-dev",
            ),
        ),
    ),
    Language("rust", "Rust", (_MAKE, Need("cargo", _command("cargo"), "https://rustup.rs"))),
    Language("go", "Go", (_MAKE, Need("go", _command("go"), "https://go.dev/dl"))),
    Language(
        "typescript",
        "TypeScript",
        (
            _MAKE,
            Need("node", _command("node"), "version 20 or later: https://nodejs.org", to_run=True),
            Need("npm", _command("npm"), "comes with node: https://nodejs.org"),
            _CAPNP,
        ),
    ),
)


def build(language: Language) -> str:
    """Build one language; "" if that went well, else what went wrong."""
    if missing := language.missing():
        return f"missing: {'; '.join(missing)}"
    if not (language.folder / "Makefile").exists():
        return f"peers/{language.key} has no Makefile"
    if not language.program.exists():
        print(f"peers/{language.key}: building for the first time, which may take minutes", flush=True)
    started = time.monotonic()
    # Without what a make above us says of its own jobs: its job server does not reach through us.
    env = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    jobs = f"-j{os.cpu_count() or 1}"
    try:
        made = subprocess.run(
            ["make", "--no-print-directory", jobs, "-C", os.fspath(language.folder), "build"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=BUILD_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        output = error.output or b""
        tail = output.decode(errors="replace") if isinstance(output, bytes) else output
        return f"`make build` took longer than {BUILD_LIMIT_S:g} s:\n{tail[-2000:]}"
    if made.returncode != 0:
        return f"`make -C peers/{language.key} build` ended with {made.returncode}:\n{made.stdout[-4000:]}"
    print(f"peers/{language.key}: built in {time.monotonic() - started:.1f} s", flush=True)
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("build", "missing"))
    parser.add_argument("--all", action="store_true", help="fail if a language is missing")
    parser.add_argument("languages", nargs="*", metavar="LANGUAGE", help="all if none is named")
    options = parser.parse_args()
    if unknown := {*options.languages} - {language.key for language in FOREIGN}:
        parser.error(f"there is no peers/{unknown.pop()}: {', '.join(one.key for one in FOREIGN)}")
    troubles = {}
    bad = False
    for language in FOREIGN:
        if not options.languages or language.key in options.languages:
            if trouble := build(language) if options.action == "build" else language.trouble():
                troubles[language.title] = trouble
                bad = bad or options.all or (options.action == "build" and not language.missing())
    for title, trouble in troubles.items():
        print(f"{title} is left out, {trouble}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

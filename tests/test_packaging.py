"""What is built and installed works away from the checkout, and every installation finds the schema."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import lahja_capn
from tests.docs_runner import run as run_document

ROOT = Path(__file__).resolve().parent.parent
# What a build reads. Copied, so that it neither finds nor leaves anything in the checkout.
SOURCES = "lahja_capn capnp capnp-stubs setup.cfg setup.py pyproject.toml README.md LICENSE".split()

slow = [pytest.mark.slow, pytest.mark.timeout(180)]


def command(*arguments: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run a command and return what it printed; an error shows it."""
    # Neither the checkout nor the settings of whoever runs the tests may help.
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        list(map(str, arguments)),
        cwd=cwd,
        env={**clean, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


@dataclass
class Environment:
    """A virtual environment with nothing in it but what a test installs, and pycapnp, anyio, click and trio.

    Those four are lent by the environment that runs the tests: its folder is on the new one's ``sys.path``,
    which does not process the ``.pth`` files in it, so an editable install of the project is not lent.
    """

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def install(self, *arguments: str | Path) -> None:
        command(
            *(sys.executable, "-m", "pip", "--python", self.python, "install", "--disable-pip-version-check"),
            *("--no-deps", "--no-index", "--no-build-isolation", *arguments),
            cwd=self.folder,
        )


def make_environment(folder: Path) -> Environment:
    command(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    environment = Environment(folder)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    lent = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "lent.pth").write_text("\n".join(sorted(lent)) + "\n")
    return environment


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution: so that one is complete too."""
    out = tmp_path_factory.mktemp("dist")
    printed = command(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, cwd=checkout)
    assert "Deprecat" not in printed
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = make_environment(tmp_path_factory.mktemp("installed") / "env")
    environment.install(wheel)
    return environment


def metadata() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def sources_of(folder: Path, patterns: Sequence[str]) -> set[str]:
    return {path.relative_to(folder).as_posix() for pattern in patterns for path in folder.rglob(pattern)}


SHOW_SCHEMA = "from lahja_capn.schema.resources import schema_path; print(schema_path('wire.capnp'))"


def test_every_folder_of_the_package_is_listed_in_setup_cfg() -> None:
    listed = set(metadata()["options"]["packages"].split())
    wanted = {
        ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "lahja_capn").rglob("*.py")
    } | {"lahja_capn._schemas", "capnp-stubs"}
    assert listed == wanted


def test_the_package_knows_the_version_that_setup_cfg_says() -> None:
    assert lahja_capn.__version__ == metadata()["metadata"]["version"]


def test_nothing_below_the_schema_folder_makes_it_a_package_that_hides_pycapnp() -> None:
    assert not list((ROOT / "capnp").rglob("*.py"))
    import capnp

    assert hasattr(capnp, "load")


class TestWheel:
    pytestmark = slow

    def test_holds_the_package_its_schemas_and_the_stubs_and_nothing_else(self, wheel: Path) -> None:
        wanted = {f"lahja_capn/{name}" for name in sources_of(ROOT / "lahja_capn", ["*.py", "py.typed"])}
        wanted |= {f"lahja_capn/_schemas/{path.name}" for path in (ROOT / "capnp/lahja_capn").glob("*.capnp")}
        wanted |= {f"capnp-stubs/{name}" for name in sources_of(ROOT / "capnp-stubs", ["*.pyi", "py.typed"])}
        names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
        assert names == wanted

    def test_installed_in_an_empty_environment_finds_its_schema_inside_it(
        self, installed: Environment, tmp_path: Path
    ) -> None:
        printed = command(installed.python, "-c", SHOW_SCHEMA, cwd=tmp_path)
        assert Path(printed.strip()).is_relative_to(installed.folder)

    def test_installed_in_an_empty_environment_runs_the_readmes_example_from_another_folder(
        self, installed: Environment, short_tmp_path: Path
    ) -> None:
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        assert "```python" in readme
        run_document(readme, "README.md", short_tmp_path, [], python=str(installed.python))

    def test_installed_in_an_empty_environment_offers_the_command(
        self, installed: Environment, tmp_path: Path
    ) -> None:
        (tmp_path / "events.capnp").write_text("@0xf2cd98ae0c91dd76; struct A @0xc0ffee1234567890 {}")
        printed = command(installed.folder / "bin" / "lahja-capn", "layout", "events.capnp", cwd=tmp_path)
        assert printed == "# A @0xc0ffee1234567890\n"

    def test_installed_in_an_empty_environment_shows_its_types_to_mypy(
        self, installed: Environment, tmp_path: Path
    ) -> None:
        # A folder named capnp in the user's own project would hide pycapnp from mypy, but for the stubs. What
        # the stubs leave out must not become an error.
        (tmp_path / "capnp").mkdir()
        (tmp_path / "user.py").write_text(
            "import capnp\nimport lahja_capn\n"
            "reveal_type(lahja_capn.ConnectionConfig.from_name('a'))\nreveal_type(capnp.load)\n"
            "capnp.kj_loop()\n"
        )
        printed = command(
            *(sys.executable, "-m", "mypy", "--strict", "--python-executable", installed.python, "user.py"),
            cwd=tmp_path,
        )
        assert "fallback=lahja_capn.endpoint.config.ConnectionConfig" in printed
        assert 'user.py:4: note: Revealed type is "def (' in printed
        assert "Success" in printed


class TestOtherInstallations:
    pytestmark = slow

    def test_an_editable_install_finds_the_schema_of_its_checkout(
        self, checkout: Path, tmp_path: Path
    ) -> None:
        environment = make_environment(tmp_path / "env")
        environment.install("--editable", checkout)
        printed = command(environment.python, "-c", SHOW_SCHEMA, cwd=tmp_path)
        assert Path(printed.strip()) == checkout / "capnp" / "lahja_capn" / "wire.capnp"

    def test_a_plain_checkout_finds_its_schema(self, checkout: Path, tmp_path: Path) -> None:
        environment = make_environment(tmp_path / "env")
        printed = command(
            environment.python, "-c", SHOW_SCHEMA, cwd=tmp_path, env={"PYTHONPATH": str(checkout)}
        )
        assert Path(printed.strip()) == checkout / "capnp" / "lahja_capn" / "wire.capnp"

    def test_an_installation_without_the_schema_says_so(self, wheel: Path, tmp_path: Path) -> None:
        environment = make_environment(tmp_path / "env")
        environment.install(wheel)
        (schema,) = environment.folder.rglob("wire.capnp")
        schema.unlink()
        code = "try: import lahja_capn\nexcept Exception as error: print(repr(error))"
        printed = command(environment.python, "-c", code, cwd=tmp_path)
        assert printed.startswith("SchemaError")
        assert "incomplete" in printed

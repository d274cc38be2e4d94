"""Everything that the documents show works: their programs run, their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs_runner import DocumentError, parse, run

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_the_programs_of_a_document_run(path: Path, short_tmp_path: Path) -> None:
    run(path.read_text(encoding="utf-8"), relative(path), short_tmp_path, [ROOT])


def anchor(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").strip().lower())
    return kept.replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_the_links_of_a_document_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for match in LINK.finditer(text):
        target, _, fragment = match["target"].partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (path.parent / target) if target else path
        if not file.exists():
            broken.append(match["target"])
        elif fragment and file.suffix == ".md":
            headings = re.findall(r"^#+\s+(.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            if fragment not in map(anchor, headings):
                broken.append(match["target"])
    assert not broken


# --- the reading of documents ---------------------------------------------------------------------------


def test_python_blocks_run_in_order_in_one_process(short_tmp_path: Path) -> None:
    text = (
        "```python\nimport pathlib\nx = 1\n```\ntext\n"
        "```python\npathlib.Path('out').write_text(str(x + 1))\n```\n"
    )
    run(text, "doc.md", short_tmp_path, [])
    assert (short_tmp_path / "out").read_text() == "2"


def test_a_block_with_a_file_comment_is_written_before_anything_runs(short_tmp_path: Path) -> None:
    text = (
        "```python\nimport pathlib\nassert pathlib.Path('a/events.capnp').read_text() == '@0x1;\\n'\n```\n"
        "<!-- file: a/events.capnp -->\n\n```capnp\n@0x1;\n```\n"
    )
    run(text, "doc.md", short_tmp_path, [])


def test_files_of_one_run_comment_run_at_the_same_time(short_tmp_path: Path) -> None:
    # Each waits for the other's file: one after the other they would never end.
    def program(mine: str, theirs: str) -> str:
        wait = f"while not pathlib.Path('{theirs}').exists(): pass"
        return f"```python\nimport pathlib\npathlib.Path('{mine}').touch()\n{wait}\n```\n"

    text = f"<!-- file: a.py -->\n{program('x', 'y')}<!-- file: b.py -->\n{program('y', 'x')}"
    run(text + "<!-- run: a.py & b.py -->", "doc.md", short_tmp_path, [])
    assert {"x", "y"} <= {path.name for path in short_tmp_path.iterdir()}


def test_a_failing_program_is_reported_with_the_documents_line(short_tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r'(?s)doc_md\.py", line 4.*wrong'):
        run("text\n\n```python\nraise KeyError('wrong')\n```\n", "doc.md", short_tmp_path, [])


def test_a_warning_fails_a_program(short_tmp_path: Path) -> None:
    warn = "warnings.warn('old', DeprecationWarning)"
    with pytest.raises(DocumentError, match="DeprecationWarning"):
        run(f"```python\nimport warnings\n{warn}\n```", "doc.md", short_tmp_path, [])


def test_a_failure_of_one_of_several_programs_fails_the_document(short_tmp_path: Path) -> None:
    text = "<!-- file: a.py -->\n```python\n```\n<!-- file: b.py -->\n```python\nraise SystemExit(3)\n```\n"
    with pytest.raises(DocumentError, match=r"b\.py ended with 3"):
        run(text + "<!-- run: a.py & b.py -->\n", "doc.md", short_tmp_path, [])


def test_other_languages_and_blocks_with_a_reason_are_left_alone() -> None:
    text = "```bash\nexit 1\n```\n<!-- not run: lahja is not installed -->\n```python\nimport lahja\n```\n"
    assert not parse(text).has_program


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```python\nx = 1\n", "line 1: this block does not end"),
        ("<!-- not run -->\n```python\n```", "line 1: not understood"),
        ("<!-- file: a.py -->\ntext", "line 1: no block follows"),
        ("<!-- file: ../a.py -->\n```python\n```", "must be a new file"),
        ("<!-- file: a.py -->\n```python\n```\n<!-- file: a.py -->\n```python\n```", "must be a new file"),
        ("<!-- run: a.py -->", "no block is written to a.py"),
    ],
)
def test_a_document_that_would_silently_not_run_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(DocumentError, match=complaint):
        parse(text)


def test_a_directive_inside_a_block_is_only_text() -> None:
    assert parse("````markdown\n<!-- file: a.py -->\n```python\n```\n````\n").files == {}

"""Nothing that a peer sends is executed, imported, unpickled, or loaded as a schema.

The proof is an audit hook, which the interpreter itself calls. It cannot be removed, so it lives in a child
process (``audited.py``): an endpoint there receives everything a peer can send, with the hook armed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import RUNTIMES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_nothing_that_a_peer_sends_is_executed(runtime: str, short_tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.scenario.audited", runtime, str(short_tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=18,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    report = json.loads(child.stdout)
    assert report["forbidden"] == []
    # The hook was armed and saw this endpoint at work ...
    assert report["seen"] > 0
    # ... it catches each thing it is there for ...
    assert set(report["caught"]) == {"pickle", "exec", "compile", "import", "marshal", "subprocess", "schema"}
    # ... and everything was sent and received.
    assert report["received"] == {
        "counts": 1,
        "blobs": 2,
        "opaque": 1,
        "requests": 1,
        "answers": 1,
        "goodbyes": report["hostile"],
    }
    assert not (short_tmp_path / "executed").exists()

"""How a process ends: what it leaves behind, and what it says."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.conftest import RUNTIMES
from tests.process.children import child

every_runtime = pytest.mark.parametrize("name", RUNTIMES)


@every_runtime
def test_clean_end_leaves_no_file_and_says_nothing(name: str, short_tmp_path: Path) -> None:
    path = short_tmp_path / "server.ipc"
    with child("serve", name, path) as server, child("idle", "trio", path) as peer:
        server.expect("serving")
        peer.expect("connected")
        server.tell("stop")
        peer.expect("alone")
        assert server.end() == (0, "", "")
        assert peer.end() == (0, "", "")
    assert os.listdir(short_tmp_path) == []


@every_runtime
def test_interrupt_ends_with_keyboard_interrupt_alone_and_removes_the_socket(
    name: str, short_tmp_path: Path
) -> None:
    path = short_tmp_path / "server.ipc"
    with child("serve", name, path, argument="interrupt") as server, child("idle", "asyncio", path) as peer:
        server.expect("serving")
        peer.expect("connected")
        server.signal(signal.SIGINT)
        code, _, err = server.end()
        assert code == -signal.SIGINT
        assert err.rstrip().endswith("KeyboardInterrupt"), err
        for trouble in ("Group", "Warning", "never retrieved", "lahja_capn.errors", "destroyed", "ignored"):
            assert trouble not in err, err
        # It said goodbye.
        peer.expect("alone")
        assert peer.end() == (0, "", "")
    assert os.listdir(short_tmp_path) == []


@every_runtime
def test_interrupt_can_be_caught_around_the_run(name: str, short_tmp_path: Path) -> None:
    path = short_tmp_path / "server.ipc"
    with child("serve", name, path, argument="catch") as server:
        server.expect("serving")
        server.signal(signal.SIGINT)
        server.expect("interrupted")
        assert server.end() == (0, "", "")
    assert os.listdir(short_tmp_path) == []


@every_runtime
def test_interrupt_that_hits_a_task_of_the_endpoint_comes_out_alone(name: str, short_tmp_path: Path) -> None:
    with child("interrupted_inside", name, short_tmp_path / "server.ipc") as both:
        code, _, err = both.end()
        assert code == -signal.SIGINT, err
        assert err.rstrip().endswith("KeyboardInterrupt"), err
        for trouble in ("Group", "Warning", "never retrieved", "lahja_capn.errors", "destroyed", "ignored"):
            assert trouble not in err, err
    assert os.listdir(short_tmp_path) == []


@every_runtime
def test_program_that_handles_sigterm_ends_clean_and_says_goodbye(name: str, short_tmp_path: Path) -> None:
    path = short_tmp_path / "server.ipc"
    with child("serve_until_terminated", name, path) as server, child("idle", "trio", path) as peer:
        server.expect("serving")
        peer.expect("connected")
        server.signal(signal.SIGTERM)
        peer.expect("alone")
        assert server.end() == (0, "", "")
        assert peer.end() == (0, "", "")
    assert os.listdir(short_tmp_path) == []

"""Unix sockets without an event loop: paths, modes, stale files, users, buffers."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import lahja_capn.transport.unix as unix
from lahja_capn import AddressInUse, ConnectionAttemptRejected, SocketPathTooLong
from lahja_capn.transport.unix import SocketChannel, UnixListener, UnixTransport, check_path, peer_uid

NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@contextlib.contextmanager
def listening(path: Path, transport: UnixTransport | None = None) -> Iterator[UnixListener]:
    listener = (transport or UnixTransport()).listen(path)
    try:
        yield listener
    finally:
        listener.close()


@contextlib.contextmanager
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def as_nobody(main: Callable[[], None]) -> Iterator[int]:
    """Run ``main`` in a forked child as another user; yields its pid. Fails the test if ``main`` raised."""
    pid = os.fork()
    if pid == 0:  # pragma: no cover
        code = 1
        try:
            signal.alarm(15)
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            main()
            code = 0
        finally:
            os._exit(code)
    yield pid
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def mode(path: Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


# --- paths --------------------------------------------------------------------------------------------------


def test_longest_path_binds_and_one_byte_more_is_refused(short_tmp_path: Path) -> None:
    room = unix.PATH_LIMIT_BYTES - len(os.fsencode(short_tmp_path)) - 1
    longest = short_tmp_path / ("x" * room)
    with listening(longest):
        channel = UnixTransport().begin_connect(longest)
        assert channel is not None
        channel.close()
    too_long = short_tmp_path / ("x" * (room + 1))
    for use in (UnixTransport().listen, UnixTransport().begin_connect):
        with pytest.raises(SocketPathTooLong) as caught:
            use(too_long)
        error = caught.value
        assert (error.path, error.size, error.limit) == (
            str(too_long),
            unix.PATH_LIMIT_BYTES + 1,
            unix.PATH_LIMIT_BYTES,
        )
        assert "shorter folder" in str(error)
    assert not too_long.exists()


def test_path_is_measured_in_bytes_not_characters() -> None:
    assert check_path(Path("/" + "k" * 106)) == b"/" + b"k" * 106
    with pytest.raises(SocketPathTooLong) as caught:
        check_path(Path("/" + "\u00fc" * 60))
    assert caught.value.size == 121


# --- modes --------------------------------------------------------------------------------------------------


def test_socket_is_0600_and_every_folder_we_make_0700_whatever_the_umask(short_tmp_path: Path) -> None:
    path = short_tmp_path / "one" / "two" / "three" / "s.ipc"
    with no_umask(), listening(path):
        assert mode(path) == 0o600
        assert [mode(folder) for folder in list(path.parents)[:3]] == [0o700] * 3


def test_socket_is_closed_to_others_before_anybody_can_connect(
    short_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = short_tmp_path / "s.ipc"
    seen: list[int | None] = []
    chmod = os.chmod

    def look_and_chmod(*args: object) -> None:
        with socket.socket(socket.AF_UNIX) as probe:
            seen.append(probe.connect_ex(os.fspath(path)))
        chmod(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "chmod", look_and_chmod)
    with no_umask(), listening(path):
        assert seen == [errno.ECONNREFUSED]


def test_folder_that_is_there_keeps_its_mode(short_tmp_path: Path) -> None:
    folder = short_tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o755)
    with listening(folder / "s.ipc"):
        assert mode(folder) == 0o755


# --- what stands at the path --------------------------------------------------------------------------------


def test_stale_file_is_replaced(short_tmp_path: Path) -> None:
    path = short_tmp_path / "s.ipc"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    with listening(path) as listener:
        channel = UnixTransport().begin_connect(path)
        assert channel is not None
        accepted = listener.accept()
        assert accepted is not None
        accepted.close()
        channel.close()


def test_living_server_is_not_replaced(short_tmp_path: Path) -> None:
    path = short_tmp_path / "s.ipc"
    with listening(path) as first:
        before = os.stat(path)
        with pytest.raises(AddressInUse) as caught:
            UnixTransport().listen(path)
        assert caught.value.path == str(path)
        assert "living" in str(caught.value)
        assert "another name or path" in str(caught.value)
        assert os.stat(path) == before
        channel = UnixTransport().begin_connect(path)
        assert channel is not None
        # The probe's connection waits before it, already ended.
        accepted = [first.accept(), first.accept()]
        for each in (*accepted, channel):
            assert each is not None
            each.close()


def test_server_with_a_full_backlog_counts_as_living(short_tmp_path: Path) -> None:
    path = short_tmp_path / "s.ipc"
    with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as stack:
        busy.bind(os.fspath(path))
        busy.listen(0)
        while True:
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            if waiting.connect_ex(os.fspath(path)):
                break
        with pytest.raises(AddressInUse):
            UnixTransport().listen(path)
        assert path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "symlink"])
def test_what_is_no_socket_is_left_alone(short_tmp_path: Path, kind: str) -> None:
    path = short_tmp_path / "s.ipc"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(short_tmp_path / "target")
    with pytest.raises(AddressInUse) as caught:
        UnixTransport().listen(path)
    assert "is no socket" in str(caught.value)
    assert caught.value.path == str(path)
    assert os.path.lexists(path)
    if kind == "file":
        assert path.read_text() == "precious"


def test_failed_bind_leaves_nothing_open_or_behind(
    short_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = short_tmp_path / "s.ipc"

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "chmod", refuse)
    descriptors = len(os.listdir("/dev/fd"))
    with pytest.raises(PermissionError):
        UnixTransport().listen(path)
    assert not path.exists()
    assert len(os.listdir("/dev/fd")) == descriptors


# --- closing ------------------------------------------------------------------------------------------------


def test_close_removes_the_file_and_may_be_repeated(short_tmp_path: Path) -> None:
    listener = UnixTransport().listen(short_tmp_path / "s.ipc")
    listener.close()
    assert os.listdir(short_tmp_path) == []
    listener.close()


def test_close_leaves_the_file_of_whoever_came_after_us(short_tmp_path: Path) -> None:
    path = short_tmp_path / "s.ipc"
    ours = UnixTransport().listen(path)
    path.unlink()
    with listening(path) as theirs:
        ours.close()
        channel = UnixTransport().begin_connect(path)
        assert channel is not None
        accepted = theirs.accept()
        assert accepted is not None
        accepted.close()
        channel.close()


def test_file_is_removed_while_we_still_listen(short_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The other way round another endpoint could find the file stale, replace it, and lose its own to us.
    path = short_tmp_path / "s.ipc"
    listener = UnixTransport().listen(path)
    seen: list[int] = []
    unlink = os.unlink

    def look_and_unlink(target: Path) -> None:
        with socket.socket(socket.AF_UNIX) as probe:
            seen.append(probe.connect_ex(os.fspath(target)))
        unlink(target)

    monkeypatch.setattr(os, "unlink", look_and_unlink)
    listener.close()
    assert seen == [0]


def test_forked_child_does_not_remove_its_parents_file(short_tmp_path: Path) -> None:
    path = short_tmp_path / "s.ipc"
    with listening(path) as listener:
        pid = os.fork()
        if pid == 0:  # pragma: no cover
            listener.close()
            os._exit(0)
        os.waitpid(pid, 0)
        assert path.exists()


# --- connecting ---------------------------------------------------------------------------------------------


def test_nobody_there_yet_is_none(short_tmp_path: Path) -> None:
    transport = UnixTransport()
    assert transport.begin_connect(short_tmp_path / "nothing.ipc") is None
    assert transport.begin_connect(short_tmp_path / "no" / "folder.ipc") is None
    stale = short_tmp_path / "stale.ipc"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(stale))
    assert transport.begin_connect(stale) is None
    (short_tmp_path / "file").touch()
    assert transport.begin_connect(short_tmp_path / "file" / "below.ipc") is None


def test_socket_of_another_kind_is_an_error(short_tmp_path: Path) -> None:
    path = short_tmp_path / "dgram.ipc"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(os.fspath(path))
        with pytest.raises(OSError, match="dgram") as caught:
            UnixTransport().begin_connect(path)
    assert caught.value.errno == errno.EPROTOTYPE
    assert caught.value.filename == str(path)


# --- users --------------------------------------------------------------------------------------------------


def test_peer_uid_is_the_kernels() -> None:
    one, two = socket.socketpair()
    with one, two:
        assert peer_uid(one) == os.geteuid()


def test_other_users_are_refused_by_their_uid_and_logged(
    short_tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A transport that allows somebody else only: then this process is the stranger.
    caplog.set_level(logging.WARNING)
    path = short_tmp_path / "s.ipc"
    with listening(path, UnixTransport(frozenset({NOBODY}))) as listener:
        channel = UnixTransport().begin_connect(path)
        assert channel is not None
        assert listener.accept() is None
        assert channel.receive_into(memoryview(bytearray(1))) == 0
        channel.close()
    (record,) = caplog.records
    assert f"refused a connection of user {os.geteuid()}; allowed are {NOBODY}" in record.getMessage()


def test_server_of_another_user_is_not_connected_to(short_tmp_path: Path) -> None:
    path = short_tmp_path / "s.ipc"
    with listening(path):
        descriptors = len(os.listdir("/dev/fd"))
        with pytest.raises(ConnectionAttemptRejected) as caught:
            UnixTransport(frozenset({NOBODY})).begin_connect(path)
        assert f"of user {os.geteuid()}; allowed are {NOBODY}" in str(caught.value)
        assert str(path) in str(caught.value)
        assert len(os.listdir("/dev/fd")) == descriptors


@as_root
def test_process_of_another_user_is_refused_even_where_file_modes_let_it_in(short_tmp_path: Path) -> None:
    path = short_tmp_path / "s.ipc"
    with listening(path) as listener:
        short_tmp_path.chmod(0o755)

        def expect_no_permission() -> None:
            with socket.socket(socket.AF_UNIX) as sock:
                assert sock.connect_ex(os.fspath(path)) == errno.EACCES

        with as_nobody(expect_no_permission):
            pass
        path.chmod(0o666)

        def expect_refusal() -> None:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(os.fspath(path))
                assert sock.recv(1) == b""

        with as_nobody(expect_refusal):
            listener._socket.setblocking(True)
            assert listener.accept() is None


@as_root
def test_squatter_on_our_path_is_not_connected_to(short_tmp_path: Path) -> None:
    path = short_tmp_path / "s.ipc"
    short_tmp_path.chmod(0o777)
    ready, bound = os.pipe()
    done, finish = os.pipe()

    def squat() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(os.fspath(path))
            sock.listen()
            os.write(bound, b"x")
            os.read(done, 1)

    with as_nobody(squat):
        os.read(ready, 1)
        with pytest.raises(ConnectionAttemptRejected, match=str(NOBODY)):
            UnixTransport().begin_connect(path)
        os.write(finish, b"x")
    for descriptor in (ready, bound, done, finish):
        os.close(descriptor)


# --- two that bind at once ----------------------------------------------------------------------------------


def test_of_many_that_find_a_stale_file_at_once_one_serves(
    short_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = short_tmp_path / "s.ipc"
    unlink = os.unlink

    def slow_unlink(path: Path) -> None:
        # Without the lock another one serves by now, and its living file is removed.
        time.sleep(0.005)
        unlink(path)

    monkeypatch.setattr("lahja_capn.transport.unix.os.unlink", slow_unlink)
    barrier = threading.Barrier(4)
    listeners: list[UnixListener] = []
    refused: list[AddressInUse] = []

    def serve() -> None:
        barrier.wait()
        try:
            listeners.append(UnixTransport().listen(path))
        except AddressInUse as error:
            refused.append(error)

    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(os.fspath(path))
        threads = [threading.Thread(target=serve) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(listeners), len(refused)) == (1, 3)
        channel = UnixTransport().begin_connect(path)
        assert channel is not None
        channel.close()
        listeners.pop().close()
        refused.clear()


def test_folder_that_stays_locked_by_somebody_does_not_keep_us_from_serving(
    short_tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(unix, "FOLDER_LOCK_TIMEOUT_S", 0.02)
    caplog.set_level(logging.WARNING)
    descriptor = os.open(short_tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with listening(short_tmp_path / "s.ipc"):
            assert "stays locked" in caplog.text
    finally:
        os.close(descriptor)


# --- the channel --------------------------------------------------------------------------------------------


@pytest.fixture
def channels() -> Iterator[tuple[SocketChannel, SocketChannel]]:
    one, two = socket.socketpair()
    pair = SocketChannel(one), SocketChannel(two)
    yield pair
    for channel in pair:
        channel.close()


def receive_all(channel: SocketChannel, count: int) -> bytes:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        view = view[channel.receive_into(view) :]
    return bytes(data)


def test_buffers_arrive_in_order_one_or_many(channels: tuple[SocketChannel, SocketChannel]) -> None:
    one, two = channels
    assert one.send(b"alone") == 5
    assert one.send_many([b"ab", bytearray(b"cd"), memoryview(b"ef")]) == 6
    assert receive_all(two, 11) == b"aloneabcdef"


def test_more_buffers_than_the_system_takes_are_sent_in_part(
    channels: tuple[SocketChannel, SocketChannel],
) -> None:
    one, two = channels
    assert one.send_many([b"x"] * 2000) == unix.MAX_BUFFERS
    assert receive_all(two, unix.MAX_BUFFERS) == b"x" * unix.MAX_BUFFERS


def test_channel_never_blocks(channels: tuple[SocketChannel, SocketChannel]) -> None:
    one, two = channels
    with pytest.raises(BlockingIOError):
        one.receive_into(memoryview(bytearray(8)))
    block = bytes(1 << 20)
    with pytest.raises(BlockingIOError):
        all(one.send(block) for _ in range(1000))
    two.close_write()
    assert one.receive_into(memoryview(bytearray(8))) == 0
    # Gone already: nothing to tell, nothing raised.
    two.close()
    one.close_write()
    one.close()
    one.close()

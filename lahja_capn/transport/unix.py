"""Unix sockets: the transport between processes of one machine.

A socket file is 0600 from the moment a connection can succeed, its folder 0700 when we make it, and a peer of
another user, on either side, is refused by the kernel's word (``SO_PEERCRED``), not by its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import stat
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..endpoint.limitedlog import LimitedLog
from ..errors import AddressInUse, ConnectionAttemptRejected, SocketPathTooLong
from ..wire import Buffer

logger = logging.getLogger("lahja_capn.transport")

# sun_path holds 108 bytes on Linux and 104 on macOS, the terminating NUL included.
PATH_LIMIT_BYTES = 107 if sys.platform.startswith("linux") else 103

# Connections the kernel holds until we accept them. lahja's trio side had 10, and clients that raced its bind
# were refused (lahja #170); the kernel caps this at its own net.core.somaxconn.
BACKLOG = 1024

# Twice a write batch of the session: one send can take all of it, and the next one while the other side reads. The
# kernel doubles it, for its own book-keeping, and caps it at net.core.wmem_max.
SOCKET_BUFFER_BYTES = 2 << 20

# sendmsg refuses more buffers than IOV_MAX (1024 on Linux and macOS).
MAX_BUFFERS = 512

# Below this a join is cheaper than another buffer in sendmsg (measured: 0.03 us joined, 0.11 us apart).
JOIN_BELOW_BYTES = 64 * 1024

# How long to wait for another endpoint that binds in the same folder at the same moment.
FOLDER_LOCK_TIMEOUT_S = 1.0


def check_path(path: Path) -> bytes:
    """The path as the bytes that go into a socket address.

    Raises:
        SocketPathTooLong: it does not fit; says by how much.
    """
    raw = os.fsencode(path)
    if len(raw) > PATH_LIMIT_BYTES:
        raise SocketPathTooLong(
            f"Socket path {os.fspath(path)!r} has {len(raw)} bytes; this system's socket addresses hold "
            f"{PATH_LIMIT_BYTES}. Use a shorter folder, for example one made by tempfile.mkdtemp(dir='/tmp').",
            path=os.fspath(path),
            size=len(raw),
            limit=PATH_LIMIT_BYTES,
        )
    return raw


class SocketChannel:
    """A connected stream socket that never blocks."""

    __slots__ = ("_fileno", "_socket", "identity", "receive_into", "send")

    # End of stream tells of a dead process at once; keepalive is for a frozen one.
    keepalive_s = 60.0

    def __init__(self, sock: socket.socket, uid: int | None = None) -> None:
        sock.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
        self._socket = sock
        self._fileno = sock.fileno()
        self.identity = "" if uid is None else f"uid {uid}"
        self.receive_into: Callable[[memoryview], int] = sock.recv_into
        self.send: Callable[[Buffer], int] = sock.send

    def fileno(self) -> int:
        return self._fileno

    def begin(self) -> None:
        """Nothing is left to do: a Unix socket is connected at once."""

    def has_more(self) -> bool:
        return False

    def send_many(self, buffers: Sequence[Buffer]) -> int:
        return self._socket.sendmsg(buffers[:MAX_BUFFERS])

    def close_write(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()


class UnixListener:
    """A served socket file; removed on close if it is still ours."""

    url = ""

    def __init__(self, sock: socket.socket, path: Path, allowed_uids: frozenset[int]) -> None:
        self._socket = sock
        self._path = path
        self._allowed_uids = allowed_uids
        self._log_refused = LimitedLog(logger)
        status = os.stat(path)
        # Another endpoint may replace the file (ours was deleted by hand): closing must not remove theirs.
        self._identity = (status.st_dev, status.st_ino)
        # A forked child inherits this object, not the duty to remove the file.
        self._owner_pid = os.getpid()

    def fileno(self) -> int:
        return self._socket.fileno()

    def accept(self) -> SocketChannel | None:
        sock, _ = self._socket.accept()
        try:
            uid = peer_uid(sock)
            if uid not in self._allowed_uids:
                self._log_refused.log(
                    logging.WARNING,
                    "%s: refused a connection of user %d; allowed are %s",
                    self._path,
                    uid,
                    _listed(self._allowed_uids),
                )
                sock.close()
                return None
            return SocketChannel(sock, uid)
        except BaseException:
            sock.close()
            raise

    def close(self) -> None:
        if self._socket.fileno() == -1:
            return
        self._log_refused.end(str(self._path), "connections that were refused")
        # While we still listen nobody else can take the file for a stale one and put his own in its place.
        if os.getpid() == self._owner_pid:
            with contextlib.suppress(OSError):
                status = os.stat(self._path)
                if (status.st_dev, status.st_ino) == self._identity:
                    os.unlink(self._path)
        self._socket.close()


class UnixTransport:
    """Connects and serves at the paths of socket files.

    Args:
        allowed_uids: users that may connect, and whose endpoints may be connected to; by default the one this
            process runs as.
    """

    def __init__(self, allowed_uids: frozenset[int] | None = None) -> None:
        self._allowed_uids = frozenset({os.geteuid()}) if allowed_uids is None else allowed_uids

    def listen(self, address: Path) -> UnixListener:
        path = Path(address)
        raw = check_path(path)
        folder = path.parent
        _make_folder(folder)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        bound = False
        try:
            with _folder_locked(folder):
                _remove_stale(path)
                try:
                    sock.bind(raw)
                except OSError as error:
                    # The system does not say which file.
                    raise OSError(error.errno, error.strerror, os.fspath(path)) from None
                bound = True
                # Before listen() nobody can connect, so the file is closed to others from the start.
                os.chmod(path, 0o600)
                sock.setblocking(False)
                sock.listen(BACKLOG)
                return UnixListener(sock, path, self._allowed_uids)
        except BaseException:
            sock.close()
            if bound:
                with contextlib.suppress(OSError):
                    os.unlink(path)
            raise

    def begin_connect(self, address: Path) -> SocketChannel | None:
        raw = check_path(Path(address))
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            # A Unix socket connects at once or not at all; EAGAIN is a full backlog.
            code = sock.connect_ex(raw)
            if code == 0:
                uid = peer_uid(sock)
                if uid not in self._allowed_uids:
                    raise ConnectionAttemptRejected(
                        f"{os.fspath(address)!r} is served by a process of user {uid}; allowed are "
                        f"{_listed(self._allowed_uids)}. Run both as the same user, or correct the path."
                    )
                return SocketChannel(sock, uid)
            if code in _NOBODY_THERE:
                sock.close()
                return None
            raise OSError(code, os.strerror(code), os.fspath(address))
        except BaseException:
            sock.close()
            raise


_NOBODY_THERE = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN, errno.EINPROGRESS, errno.ENOTDIR})


def peer_uid(sock: socket.socket) -> int:
    """User id of the process at the other end, from the kernel."""
    if hasattr(socket, "SO_PEERCRED"):
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        uid: int = struct.unpack("3i", raw)[1]
        return uid
    # macOS: LOCAL_PEERCRED (1) at level SOL_LOCAL (0) gives struct xucred, which begins u32 version, u32 uid.
    raw = sock.getsockopt(0, 1, 76)  # pragma: no cover
    darwin_uid: int = struct.unpack_from("=II", raw)[1]  # pragma: no cover
    return darwin_uid  # pragma: no cover


def _listed(uids: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(uids)))


def _make_folder(folder: Path) -> None:
    """Make ``folder`` and what is missing above it, each closed to other users whatever the umask says."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    # mkdir(parents=True) would give its mode to the last one only: whoever may write above it may replace it.
    for part in reversed(missing):
        part.mkdir(mode=0o700, exist_ok=True)


@contextlib.contextmanager
def _folder_locked(folder: Path) -> Iterator[None]:
    """Let one endpoint at a time look at and replace socket files in ``folder``.

    Without it two endpoints that start together can both find a stale file, and the second removes the
    first one's living socket. The lock is on the folder itself, so nothing is left behind.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        give_up_at = time.monotonic() + FOLDER_LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                # In a folder shared with other users somebody may hold it for ever: then go on without.
                if time.monotonic() >= give_up_at:
                    logger.warning(
                        "%s: folder stays locked by another process; binding without the lock", folder
                    )
                    break
                time.sleep(0.005)
        yield
    finally:
        os.close(descriptor)


def _remove_stale(path: Path) -> None:
    """Remove a socket file that nobody serves any more.

    Raises:
        AddressInUse: somebody does, or the file is no socket at all.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise AddressInUse(
            f"{os.fspath(path)!r} exists and is no socket: it is left alone. Serve at another path or remove it.",
            path=os.fspath(path),
        )
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.setblocking(False)
        code = probe.connect_ex(os.fsencode(path))
    finally:
        probe.close()
    if code not in (errno.ECONNREFUSED, errno.ENOENT):
        raise AddressInUse(
            f"A living process serves at {os.fspath(path)!r} (connecting to it says: "
            f"{os.strerror(code) if code else 'accepted'}). Stop it or serve under another name or path.",
            path=os.fspath(path),
        )
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)

"""What an endpoint needs from a transport and from a runtime; nothing here does anything.

A :class:`Channel` is one connected byte stream that never blocks; a :class:`Listener` makes channels; a
:class:`Transport` knows the addresses. A :class:`Runtime` says how to wait on asyncio and on trio. The
endpoint is written once over these four; everything else that it needs of an event loop (task groups, cancel
scopes, time) is anyio's, which is the same on both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar

from ..wire import Buffer
from .config import ConnectionConfig

T = TypeVar("T")

# What a channel waits for before it can carry bytes: that its descriptor is readable or writable, or nothing.
Wanted: TypeAlias = Literal["read", "write"] | None


class Channel(Protocol):
    """A non-blocking byte stream to a peer."""

    @property
    def identity(self) -> str:
        """Who is at the other end, from somebody who knows (the kernel, a certificate); "" if nobody does."""

    @property
    def keepalive_s(self) -> float:
        """Default keepalive interval: how soon silence is suspicious here."""

    def fileno(self) -> int:
        """The descriptor to wait on. The same for the channel's life."""

    def begin(self) -> Wanted:
        """Take the next step towards a stream that carries bytes. To be called until it returns None.

        Raises:
            ConnectionRefusedError: nobody listens there now.
            TLSFailed: the two sides do not accept each other.
            OSError: anything else the system says.
        """

    def has_more(self) -> bool:
        """True if bytes have arrived that the descriptor does not show as readable any more."""

    @property
    def receive_into(self) -> Callable[[memoryview], int]:
        """Receives at most as many bytes as the buffer has room for; 0 is end of stream.

        This and ``send`` are looked up once and called for every message, so they may be the bound methods of
        what lies below.

        Raises:
            BlockingIOError: nothing is there yet.
            OSError: the connection is lost.
        """

    @property
    def send(self) -> Callable[[Buffer], int]:
        """Sends as much of a buffer as the other side takes now; returns the bytes taken.

        Raises:
            BlockingIOError: it takes nothing now.
            OSError: the connection is lost.
        """

    def send_many(self, buffers: Sequence[Buffer]) -> int:
        """``send`` for several buffers, in order."""

    def close_write(self) -> None:
        """Tell the other side that no more comes. Never raises."""

    def close(self) -> None:
        """Release the descriptor. Idempotent, never raises."""


class Listener(Protocol):
    """A bound address that peers connect to."""

    @property
    def url(self) -> str:
        """Where others connect to, with the port that was really bound; "" for a path."""

    def fileno(self) -> int: ...

    def accept(self) -> Channel | None:
        """The next connection, or None if the one that came may not connect (it was closed and logged).

        Raises:
            BlockingIOError: nobody waits.
            OSError: out of descriptors or memory, or the listener is closed.
        """

    def close(self) -> None:
        """Stop listening and remove what binding made. Idempotent, never raises."""


class Transport(Protocol):
    """Makes listeners and channels."""

    def __init__(self, allowed_uids: frozenset[int] | None = None) -> None:
        """``allowed_uids``: users whose processes may be at the other end, where the system tells who that is."""

    async def resolve(self, config: ConnectionConfig) -> Sequence[Any]:
        """Find the addresses to try, in order; what they are is the transport's own affair. Never empty.

        Raises:
            ConfigError: the config names none.
            OSError: the host's name is not known.
        """

    def listen(self, config: ConnectionConfig, address: Any) -> Listener:
        """Bind and listen.

        Raises:
            AddressInUse: a living endpoint serves there.
            SocketPathTooLong: the address cannot be bound on this system.
            OSError: anything else the system says.
        """

    def begin_connect(self, config: ConnectionConfig, address: Any) -> Channel | None:
        """Begin to connect; None means nobody listens there now: try again later.

        Raises:
            SocketPathTooLong: the address cannot exist on this system.
            ConnectionAttemptRejected: who listens there may not be connected to.
            OSError: it will not work later either (for example no permission).
        """


class Waiter(Protocol, Generic[T]):
    """One task waits, once, for one value. The cheapest wake-up a runtime has."""

    def wake(self, value: T) -> None:
        """Give the value. A second call, or one after the waiting task was cancelled, does nothing."""

    def fail(self, error: BaseException) -> None:
        """Raise ``error`` in the waiting task instead."""

    def wait(self) -> Awaitable[T]:
        """Await this once, at once. Where the runtime has an awaitable already, no coroutine is made around it."""


class Tasks(Protocol):
    """Background tasks: each lives until it returns, or until the context they belong to is left."""

    def spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Start ``function(*args)``. May be called from a callback of the event loop, where there is no task.

        ``function`` must not raise: nobody waits for it.
        """


class Runtime(Protocol):
    """What differs between asyncio and trio."""

    name: str
    cancelled_error: type[BaseException]

    def is_task_cancelled(self) -> bool:
        """After a ``cancelled_error``: True if the running task itself is being cancelled."""

    def check_running_here(self) -> None:
        """Raises LifecycleError unless called from a task of this runtime."""

    def new_waiter(self) -> Waiter[Any]: ...

    async def wait_readable(self, descriptor: int) -> None: ...

    async def call_when_readable(self, descriptor: int, on_readable: Callable[[], bool]) -> None:
        """Call ``on_readable`` whenever there is something to read, until cancelled or until it raises.

        ``on_readable`` need not read all there is. It returns False once nothing more can come.

        On asyncio the call comes straight from the event loop: a task between the two would cost every
        received message a turn of the loop.
        """

    async def wait_writable(self, descriptor: int) -> None: ...

    def tasks(self) -> AbstractAsyncContextManager[Tasks]:
        """Tasks for the length of an ``async with``; leaving it cancels those that still run, and waits for them."""

    def beside(self, main: Callable[[], Awaitable[None]]) -> AbstractAsyncContextManager[None]:
        """Run ``main`` beside the caller's task; leaving the context waits until ``main`` has returned.

        The caller tells ``main`` to return; the context only waits (and cancels ``main`` when the wait
        itself is cancelled). Entering and leaving may happen in different tasks where the runtime can do
        that (asyncio), because test fixtures do.
        """

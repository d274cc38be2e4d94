"""``EndpointAPI``: everything a program does with an endpoint. The promises are stated here, once.

Names and signatures are lahja 0.17's; what is added is keyword-only, what differs is in
docs/migrating-from-lahja.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Self, TypeVar

from ..binding import BaseEvent, BaseRequestResponseEvent, BroadcastConfig
from ..session import Counters, Policy
from .config import ConnectionConfig
from .inbox import DEFAULT_QUEUE_EVENTS
from .keeping import Backoff, KeptConnections
from .streams import EventStream
from .subscription import Subscription

E = TypeVar("E", bound=BaseEvent)
R = TypeVar("R", bound=BaseEvent)


class EndpointAPI(ABC):
    """A named participant of the bus: it publishes, subscribes, asks and answers.

    Use it from the thread, process and event loop that runs it; anything else raises ``LifecycleError``.

    Order: events of one type from one publisher arrive in the order of their ``broadcast`` calls. Requests and
    responses may overtake events.
    """

    name: str

    # --- run ------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def is_running(self) -> bool: ...

    @property
    @abstractmethod
    def is_stopped(self) -> bool: ...

    @property
    @abstractmethod
    def is_serving(self) -> bool: ...

    @property
    @abstractmethod
    def is_server_stopped(self) -> bool: ...

    @property
    @abstractmethod
    def ipc_path(self) -> Path:
        """The socket file this endpoint serves at. Raises LifecycleError if it serves at none."""

    @property
    @abstractmethod
    def serving_at(self) -> ConnectionConfig:
        """What others connect to: the config that was served, its URL with the port that was really bound.

        Raises LifecycleError if the endpoint does not serve.
        """

    @abstractmethod
    def run(self) -> AbstractAsyncContextManager[Self]:
        """Run the endpoint inside ``async with``.

        On a normal exit what is queued is sent first, for at most the close timeout (2 s); after an exception
        it is dropped. Peers are told goodbye either way.

        Raises:
            LifecycleError: it runs already, has run before, or this is not its runtime.
        """

    @classmethod
    @abstractmethod
    def serve(cls, config: ConnectionConfig, **options: Any) -> AbstractAsyncContextManager[Self]:
        """Run an endpoint called ``config.name`` that listens at ``config.path``.

        ``options`` are those of the constructor. A stale socket file is replaced, a living one is not.

        Raises:
            AddressInUse: a living endpoint serves at this path.
            SocketPathTooLong: the path does not fit in a socket address.
        """

    @abstractmethod
    async def wait_started(self) -> None: ...

    @abstractmethod
    async def wait_stopped(self) -> None: ...

    @abstractmethod
    async def drain(self) -> None:
        """Finish what is there and take no more: to be called before ``run()``'s or ``serve()``'s block is left.

        No connection is accepted or kept any more, and peers are told that nothing is wanted here. What is on its way
        still arrives. Returns when every event and request that arrived has been handled (of a stream: taken), and
        everything that was sent here has left. Handlers may send, ask and answer meanwhile. It cannot be taken back.

        No time-out of its own: a handler that does not end, or a peer that takes nothing, holds it up.
        """

    # --- connect --------------------------------------------------------------------------------------

    @abstractmethod
    async def connect_to_endpoints(self, *endpoints: ConnectionConfig) -> None:
        """Connect, and return when every connection is up and both sides know what the other subscribes to.

        So at the other end, too, this endpoint is connected, and what is broadcast there from now on reaches the
        subscriptions that were made here before this call. A peer (of another implementation) that does not confirm
        our subscriptions within 1 s counts as connected nevertheless.

        Waits for endpoints that do not serve yet. A connection is for both directions: the other side need
        not connect back; where both do, one connection stays and both calls succeed.

        Raises:
            ConnectTimeout: nobody served at the path in time.
            ConnectionAttemptRejected: ``NameInUse``, ``WrongName``, or ``DuplicateConnection`` (this endpoint
                is connected to that one already, or is that one).
            HandshakeError: what answered does not speak this protocol, or another version of it.
        """

    @abstractmethod
    def keep_connected(self, *endpoints: ConnectionConfig, backoff: Backoff | None = None) -> KeptConnections:
        """Connect, and connect again whenever a connection is gone, until the endpoint stops.

        Returns at once: wait with ``await kept.connected()``, or with ``wait_until_connected_to``. Subscriptions
        belong to the endpoint and hold for every connection. Nothing is kept for a peer that is away: ``broadcast``
        goes to whoever is there, and raises ``NoSubscribers`` if nobody is; requests that wait for it raise
        ``RemoteDisconnected``. A connection that the peer opened, or that ``connect_to_endpoints`` made, is kept too.

        A peer that refuses us for good (``NameInUse``, ``WrongName``, ``UnsupportedVersion``, ``TLSFailed``, another
        user, no permission) is not tried again: that is logged at ERROR, and raised by ``kept.connected()`` and
        ``kept.ended()``.

        Args:
            backoff: how long to rest between attempts; by default 0.05 s, doubling up to 5 s, with a random part.

        Raises:
            DuplicateConnection: this endpoint keeps a connection to that one already, or is that one.
        """

    @abstractmethod
    def is_connected_to(self, endpoint_name: str) -> bool:
        """True for a connected peer, and for this endpoint itself. False as soon as a peer has gone."""

    @abstractmethod
    async def wait_until_connected_to(self, endpoint_name: str) -> None: ...

    @abstractmethod
    def get_connected_endpoints_and_subscriptions(self) -> tuple[tuple[str, set[type[BaseEvent]]], ...]:
        """``(name, subscribed event classes)`` of this endpoint and every connected one.

        Only classes bound in this process can be named; a peer may subscribe to more.
        """

    @abstractmethod
    async def wait_until_connections_change(self, since: int | None = None) -> int:
        """Wait until an endpoint connects or goes; returns the new ``connections_version``.

        Args:
            since: a version seen before: returns at once if something has changed after it.
        """

    @property
    @abstractmethod
    def connections_version(self) -> int:
        """Grows with every connection that comes up or ends."""

    # --- send -----------------------------------------------------------------------------------------

    @abstractmethod
    async def broadcast(self, item: BaseEvent, config: BroadcastConfig | None = None) -> None:
        """Send an event to every endpoint that subscribes to exactly its class, this one included.

        Returns when the event is queued for each of them; it has not arrived yet. A peer whose queue is full
        is waited for (policy ``wait``), after all others have got theirs: one that is slow paces its publishers,
        one that then takes no event for 5 s is disconnected.

        Raises:
            NoSubscribers: nobody subscribes (not with ``BroadcastConfig(require_subscriber=False)``).
            IncompatibleLayout: all who subscribe hold another layout of the struct.
            FrameTooLarge: nobody accepts an event of this size.
            BindError: the event's class is not bound.
        """

    @abstractmethod
    def broadcast_nowait(self, item: BaseEvent, config: BroadcastConfig | None = None) -> None:
        """``broadcast`` without waiting: for a peer whose queue is full the event is dropped, and counted."""

    @abstractmethod
    async def request(
        self,
        item: BaseRequestResponseEvent[R],
        config: BroadcastConfig | None = None,
        *,
        timeout: float | None = None,
    ) -> R:
        """Ask every endpoint that subscribes to the request, or the config's one; return the first response.

        Args:
            timeout: seconds; the endpoint's ``limits.request_timeout_s`` (30) if None.

        Raises:
            NoSubscribers: nobody subscribes to the request.
            RequestFailed: every responder failed; says why for each.
            RemoteDisconnected: every responder left before answering.
            RequestTimeout: no response in time; also a TimeoutError.
            UnexpectedResponse: a response is not of the request's ``expected_response_type()``, and no other
                responder is left.
        """

    @abstractmethod
    async def respond(self, request: BaseRequestResponseEvent[R], response: R) -> None:
        """Answer a request that came to a handler or a stream: ``broadcast(response, request.broadcast_config())``.

        If the requester has gone the answer is counted as late, not raised.
        """

    # --- receive --------------------------------------------------------------------------------------

    @abstractmethod
    def subscribe(
        self,
        event_type: type[E],
        handler: Callable[[E], Any | Awaitable[Any]],
        *,
        policy: Policy = Policy.WAIT,
        queue: int = DEFAULT_QUEUE_EVENTS,
    ) -> Subscription:
        """Call ``handler`` for every event of exactly this class.

        One event at a time and in order, for requests up to 100 at a time; subscriptions do not wait for each
        other. An exception is logged at ERROR, given to the endpoint's ``on_handler_error``, and, for a
        request, sent to the requester.

        Under ``wait`` a handler must not broadcast more events of its own type to its own endpoint than the
        queue holds: it would wait for itself.

        Args:
            handler: a plain or an async function of one event.
            policy: what happens to an event that finds ``queue`` events waiting. ``wait`` holds the
                publishers back through their credit windows; the others drop, counted.
            queue: events.
        """

    @abstractmethod
    def stream(
        self,
        event_type: type[E],
        num_events: int | None = None,
        *,
        policy: Policy = Policy.WAIT,
        queue: int = DEFAULT_QUEUE_EVENTS,
    ) -> EventStream[E]:
        """Events of exactly this class, from this call on, for ``async for``; ends after ``num_events``.

        A stream that nobody reads any more holds its publishers back until it is collected: leave an endless
        one with ``aclose()`` or ``async with endpoint.stream(Foo) as events:``.
        """

    @abstractmethod
    async def wait_for(self, event_type: type[E]) -> E:
        """The next event of exactly this class."""

    # --- who listens ----------------------------------------------------------------------------------

    @abstractmethod
    def get_subscribed_events(self) -> set[type[BaseEvent]]:
        """The classes this endpoint itself subscribes to."""

    @abstractmethod
    def is_endpoint_subscribed_to(self, remote_endpoint: str, event_type: type[BaseEvent]) -> bool: ...

    @abstractmethod
    def is_any_endpoint_subscribed_to(self, event_type: type[BaseEvent]) -> bool:
        """True if anybody is, this endpoint included."""

    @abstractmethod
    def are_all_endpoints_subscribed_to(
        self, event_type: type[BaseEvent], include_self: bool = True
    ) -> bool: ...

    @abstractmethod
    async def wait_until_endpoint_subscribed_to(
        self, remote_endpoint: str, event: type[BaseEvent]
    ) -> None: ...

    @abstractmethod
    async def wait_until_any_endpoint_subscribed_to(self, event: type[BaseEvent]) -> None: ...

    @abstractmethod
    async def wait_until_all_endpoints_subscribed_to(
        self, event: type[BaseEvent], *, include_self: bool = True
    ) -> None: ...

    @abstractmethod
    async def wait_until_endpoint_subscriptions_change(self, since: int | None = None) -> int:
        """Wait until a subscription or the set of peers changes; returns the new ``subscriptions_version``."""

    @property
    @abstractmethod
    def subscriptions_version(self) -> int:
        """Grows with every change of a peer's subscriptions and of the set of peers."""

    @abstractmethod
    def maybe_raise_no_subscribers_exception(
        self, config: BroadcastConfig | None, event_type: type[BaseEvent]
    ) -> None:
        """Raise NoSubscribers if ``broadcast`` of this class with this config would."""

    @abstractmethod
    def set_peer_policy(self, endpoint_name: str, policy: Policy) -> None:
        """Say what happens to an event for this peer when its queue is full, now and after it reconnects.

        The queue holds ``limits.queued_per_peer_bytes``. Without this the endpoint's ``peer_policy`` holds.
        """

    # --- figures --------------------------------------------------------------------------------------

    @abstractmethod
    def get_peer_counters(self) -> dict[str, Counters]:
        """A snapshot per connected peer: what was sent, received, dropped and is queued."""

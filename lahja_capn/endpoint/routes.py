"""Who gets an event type: this endpoint's subscriptions and its peers'."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..binding import BaseEvent, BroadcastConfig, EventType
from ..errors import IncompatibleLayout, NoSubscribers
from ..session import WireTable
from ..wire.limits import Limits
from .connection import Connection
from .inbox import Inbox
from .needs import Runtime
from .peers import Peers
from .requests import OpenRequest, PendingRequest, RequestDeadlines


class Route:
    """Who gets one event type now. Kept until a subscription or a connection changes.

    ``alone`` is the one inbox, if nobody else gets the type.
    """

    __slots__ = ("alone", "event_type", "inboxes", "peers", "wire_id")

    def __init__(
        self,
        event_type: EventType,
        peers: tuple[Connection, ...],
        inboxes: tuple[Inbox, ...],
        wire_id: int,
    ) -> None:
        self.event_type = event_type
        self.peers = peers
        self.inboxes = inboxes
        self.alone = inboxes[0] if len(inboxes) == 1 and not peers else None
        self.wire_id = wire_id


class Routes:
    """Subscriptions, and for each event type the connections and inboxes that it goes to."""

    def __init__(
        self,
        name: str,
        runtime: Runtime,
        limits: Limits,
        peers: Peers,
        table: WireTable,
        on_deadline: Callable[[float], None],
    ) -> None:
        self.name = name
        self.subscriptions: dict[EventType, list[Inbox]] = {}
        # Grows with every first and last subscription of a type; peers confirm versions.
        self.version = 0
        # Peers were told that nothing is wanted here any more.
        self.is_withdrawn = False
        self.deadlines = RequestDeadlines()
        # Answers to requests that nobody waits for any more, because their connection has gone.
        self.late_answers = 0
        self._runtime = runtime
        self._limits = limits
        self._peers = peers
        self._table = table
        self._on_deadline = on_deadline
        # By event class: an event's class is at hand, while its type is one look further.
        self._routes: dict[type, Route] = {}
        # The same within this endpoint alone.
        self._internal: dict[type, Route] = {}
        # What each type of request that was sent expects as its response.
        self._expected: dict[EventType, type[BaseEvent]] = {}
        self._local_number = 0
        self._local_pending: dict[int, PendingRequest] = {}
        self._local_open: dict[int, OpenRequest] = {}
        # Local deliveries since the clock was looked at, and when this turn of the loop has lasted long enough.
        self._local_turn = 0
        self._turn_ends = 0.0

    # --- subscriptions --------------------------------------------------------------------------------

    def add_inbox(self, inbox: Inbox) -> None:
        """A new subscription; peers are told if it is the type's first."""
        event_type = inbox.event_type
        # The type, and what answers it, stand in our table before a peer hears that we want it.
        self._table.wire_id(event_type)
        event_type.prepare()
        inboxes = self.subscriptions.setdefault(event_type, [])
        inboxes.append(inbox)
        if len(inboxes) == 1 and not self.is_withdrawn:
            self.version += 1
            for connection in self._peers.all.values():
                connection.change_subscriptions((event_type.type_id,), (), self.version)
        inbox.version = self.version
        self.local_changed()

    def remove_inbox(self, inbox: Inbox) -> None:
        """A subscription ended; peers are told if it was the type's last (lahja L6: trio never told them)."""
        event_type = inbox.event_type
        inboxes = self.subscriptions.get(event_type)
        if inboxes is None or inbox not in inboxes:
            return
        inboxes.remove(inbox)
        if not inboxes:
            del self.subscriptions[event_type]
            self.version += 1
            for connection in self._peers.all.values():
                connection.change_subscriptions((), (event_type.type_id,), self.version)
        self.local_changed()

    def withdraw(self) -> None:
        """Tell every peer, now and later, that nothing is wanted here. Subscriptions stay, for what is on its way."""
        self.is_withdrawn = True
        self.version += 1
        for connection in self._peers.all.values():
            connection.withdraw(self.version)

    @property
    def is_idle(self) -> bool:
        """True if no event waits in a subscription, and no handler runs."""
        return all(inbox.is_idle for inboxes in self.subscriptions.values() for inbox in inboxes)

    def local_changed(self) -> None:
        self._routes.clear()
        self._internal.clear()
        self._peers.subscriptions_changed.notify()

    def peers_changed(self) -> None:
        """A connection, or what it subscribes to, changed."""
        self._routes.clear()

    def type_ids(self) -> set[int]:
        """What this endpoint tells peers that it subscribes to."""
        return set() if self.is_withdrawn else {event_type.type_id for event_type in self.subscriptions}

    # --- routes ---------------------------------------------------------------------------------------

    def _route(self, event_type: EventType, config: BroadcastConfig | None) -> Route:
        if config is None or (config.filter_endpoint is None and not config.internal):
            route = self._routes.get(event_type.event_class)
            if route is None:
                route = self._routes[event_type.event_class] = self._make_route(event_type, None, False)
            return route
        if config.internal:
            route = self._internal.get(event_type.event_class)
            if route is None:
                route = self._internal[event_type.event_class] = self._make_route(event_type, None, True)
            return route
        return self._make_route(event_type, config.filter_endpoint, False)

    def _make_route(self, event_type: EventType, target: str | None, internal: bool) -> Route:
        peers: Iterable[Connection] = ()
        inboxes: Iterable[Inbox] = ()
        if target is None or target == self.name:
            inboxes = self.subscriptions.get(event_type, ())
        if not internal:
            if target is None:
                peers = self._peers.wanting(event_type)
            elif (connection := self._peers.up.get(target)) is not None and connection.wants(event_type):
                peers = (connection,)
        return Route(event_type, tuple(peers), tuple(inboxes), self._table.wire_id(event_type))

    def check_subscribers(self, event_type: EventType, config: BroadcastConfig | None) -> None:
        """Raise NoSubscribers if an event with this config would reach nobody, and that matters."""
        if config is not None and (not config.require_subscriber or config.filter_event_id is not None):
            return
        route = self._route(event_type, config)
        if not route.peers and not route.inboxes:
            raise self._nobody(event_type, config)

    def _nobody(self, event_type: EventType, config: BroadcastConfig | None) -> NoSubscribers:
        name = event_type.name
        target = None if config is None else config.filter_endpoint
        internal = config is not None and config.internal
        names = () if internal else (tuple(self._peers.up) if target is None else (target,))
        peers, detail = self._peers.incompatible(event_type, names)
        if peers:
            return IncompatibleLayout(
                f"{name} reaches nobody: {', '.join(map(repr, peers))} and {self.name!r} hold layouts of it that "
                f"do not fit together: {detail}. Bring both sides to one schema; fields may only be appended.",
                event=name,
                endpoint=target,
                peers=peers,
                detail=detail,
            )
        if internal:
            where = f"in {self.name!r} itself (the config is internal)"
        elif target is None:
            where = f"here or at the {len(names)} connected endpoints ({', '.join(sorted(names)) or 'none'})"
        elif target == self.name or target in self._peers.up:
            where = f"at {target!r}"
        else:
            where = f"at {target!r}, which is not connected"
        return NoSubscribers(
            f"Nobody subscribes to {name} {where}. Wait with wait_until_any_endpoint_subscribed_to(), or send "
            "with BroadcastConfig(require_subscriber=False).",
            event=name,
            endpoint=target,
        )

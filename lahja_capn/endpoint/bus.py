"""The traffic of one endpoint: who gets an event, a request, a response; here and at every peer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import anyio.lowlevel

from ..binding import (
    BaseEvent,
    BaseRequestResponseEvent,
    BroadcastConfig,
    EventType,
    RequestToken,
    Segments,
)
from ..binding import event_type as event_type_of
from ..errors import (
    EventError,
    FrameTooLarge,
    IncompatibleLayout,
    LahjaError,
    NoSubscribers,
    ResponderFailure,
)
from ..session import Arrived, FailedArrived, Offer, ResponseArrived, WireTable
from ..wire.frames import FrameKind, encode_frame, frame_size
from ..wire.limits import Limits
from .connection import Connection
from .inbox import Grant, Inbox
from .needs import Runtime
from .peers import Peers
from .requests import OpenRequest, PendingRequest, RequestDeadlines

logger = logging.getLogger("lahja_capn.endpoint")

# Local deliveries after which a publisher lets other tasks run: a broadcast to this endpoint alone waits for
# nothing, so without this a loop of them would keep the event loop to itself.
LOCAL_TURN_EVENTS = 128

# An attribute of an enum costs several times a global, and these are looked up for every event.
_EVENT = int(FrameKind.EVENT)
_REQUEST = int(FrameKind.REQUEST)
_QUEUED = Offer.QUEUED

# The serial of no connection: reply addresses of requests that this endpoint sent to itself.
LOCAL = 0


class Route:
    """Who gets one event type now. Kept until a subscription or a connection changes."""

    __slots__ = ("inboxes", "peers", "wire_id")

    def __init__(self, peers: tuple[Connection, ...], inboxes: tuple[Inbox, ...], wire_id: int) -> None:
        self.peers = peers
        self.inboxes = inboxes
        self.wire_id = wire_id


class Bus:
    """Routes events between this endpoint's subscriptions and its peers' connections."""

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
        self.deadlines = RequestDeadlines()
        # Answers to requests that nobody waits for any more, because their connection has gone.
        self.late_answers = 0
        self._runtime = runtime
        self._limits = limits
        self._peers = peers
        self._table = table
        self._on_deadline = on_deadline
        self._routes: dict[EventType, Route] = {}
        self._local_number = 0
        self._local_pending: dict[int, PendingRequest] = {}
        self._local_open: dict[int, OpenRequest] = {}
        self._local_turn = 0

    # --- subscriptions --------------------------------------------------------------------------------

    def add_inbox(self, inbox: Inbox) -> None:
        """A new subscription; peers are told if it is the type's first."""
        event_type = inbox.event_type
        # The type, and what answers it, stand in our table before a peer hears that we want it.
        self._table.wire_id(event_type)
        inboxes = self.subscriptions.setdefault(event_type, [])
        inboxes.append(inbox)
        if len(inboxes) == 1:
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

    def local_changed(self) -> None:
        self._routes.clear()
        self._peers.subscriptions_changed.notify()

    def peers_changed(self) -> None:
        """A connection, or what it subscribes to, changed."""
        self._routes.clear()

    def type_ids(self) -> set[int]:
        """What this endpoint subscribes to."""
        return {event_type.type_id for event_type in self.subscriptions}

    # --- routes ---------------------------------------------------------------------------------------

    def _route(self, event_type: EventType, config: BroadcastConfig | None) -> Route:
        if config is None or (config.filter_endpoint is None and not config.internal):
            route = self._routes.get(event_type)
            if route is None:
                route = self._routes[event_type] = self._make_route(event_type, None, False)
            return route
        return self._make_route(event_type, config.filter_endpoint, config.internal)

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
        return Route(tuple(peers), tuple(inboxes), self._table.wire_id(event_type))

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

    # --- events out -----------------------------------------------------------------------------------

    async def broadcast(self, event: BaseEvent, config: BroadcastConfig | None) -> None:
        event_type = event_type_of(event)
        if config is not None and config.filter_event_id is not None:
            self._answer(event, event_type, config.filter_event_id)
            return
        route = self._routes.get(event_type) if config is None else None
        if route is None:
            route = self._route(event_type, config)
        peers = route.peers
        inboxes = route.inboxes
        if not peers and not inboxes:
            if config is None or config.require_subscriber:
                raise self._nobody(event_type, config)
            return
        if event._origin is None:
            event._bind(self.name, None)
        if peers:
            buffers = encode_frame(route.wire_id, _EVENT, 0, event_type.encode(event))
            size = len(buffers[0]) if len(buffers) == 1 else frame_size(buffers)
            turn_over = False
            refused: list[tuple[Connection, Offer]] | None = None
            for connection in peers:
                offer = connection.session.offer_event(event_type, size, buffers)
                if offer is _QUEUED:
                    turn_over = connection.queued(size) or turn_over
                elif refused is None:
                    refused = [(connection, offer)]
                else:
                    refused.append((connection, offer))
            for inbox in inboxes:
                inbox.put(event, None, None)
            if refused is not None:
                await self._settle(event_type, size, buffers, route, refused)
            if turn_over:
                await self._end_turn()
        else:
            for inbox in inboxes:
                inbox.put(event, None, None)
            self._local_turn += 1
            if self._local_turn >= LOCAL_TURN_EVENTS:
                self._local_turn = 0
                await anyio.lowlevel.checkpoint()
        for inbox in inboxes:
            if not inbox.has_room:
                await inbox.room()

    async def _end_turn(self) -> None:
        await anyio.lowlevel.checkpoint()
        limit = self._limits.queued_per_endpoint_bytes
        while True:
            up = self._peers.up.values()
            if sum(connection.session.queued_bytes for connection in up) <= limit:
                return
            fullest = max(up, key=lambda connection: connection.session.queued_bytes)
            await fullest.less_queued(self._limits.too_slow_s)

    async def _settle(
        self,
        event_type: EventType,
        size: int,
        buffers: Any,
        route: Route,
        refused: list[tuple[Connection, Offer]],
    ) -> None:
        """Wait for the peers that were full; everybody else has the event already."""
        too_large = 0
        full = []
        for connection, offer in refused:
            if offer is Offer.FULL:
                full.append(connection)
            elif offer is Offer.TOO_LARGE:
                too_large += 1
            self._refused(connection, offer)
        if len(full) == 1:
            await self._offer_when_room(full[0], event_type, size, buffers)
        elif full:
            # For all at the same time: a stuck one must not keep the event from one that has room again.
            async with anyio.create_task_group() as tasks:
                for connection in full:
                    tasks.start_soon(self._offer_when_room, connection, event_type, size, buffers)
        self._raise_if_too_large(event_type, size, route, too_large)

    async def _offer_when_room(
        self, connection: Connection, event_type: EventType, size: int, buffers: Any
    ) -> None:
        offer = Offer.FULL
        while offer is Offer.FULL:
            await connection.room(self._limits.too_slow_s)
            offer = connection.session.offer_event(event_type, size, buffers)
        if offer is Offer.QUEUED:
            connection.queued(size)
        else:
            self._refused(connection, offer)

    def _refused(self, connection: Connection, offer: Offer) -> None:
        if offer is Offer.DISCONNECT:
            self._disconnect_full(connection)
        connection.check_deadline()  # a drop is told to the peer, some time later

    def _raise_if_too_large(self, event_type: EventType, size: int, route: Route, too_large: int) -> None:
        if too_large < len(route.peers) or route.inboxes:
            return
        peer = max(route.peers, key=lambda connection: connection.session.peer_frame_limit)
        limit = peer.session.peer_frame_limit
        raise FrameTooLarge(
            f"{event_type.name} encodes to {size} bytes but {peer.name!r} accepts {limit} per frame (its frame "
            "limit, told in the handshake). Send less, or raise Limits.frame_bytes there.",
            event=event_type.name,
            peer=peer.name,
            size=size,
            limit=limit,
        )

    def _disconnect_full(self, connection: Connection) -> None:
        connection.say_goodbye(
            "tooSlow", f"{connection.session.queued_bytes} bytes are queued and the policy is disconnect"
        )

    def broadcast_nowait(self, event: BaseEvent, config: BroadcastConfig | None) -> None:
        event_type = event_type_of(event)
        if config is not None and config.filter_event_id is not None:
            self._answer(event, event_type, config.filter_event_id)
            return
        route = self._route(event_type, config)
        if not route.peers and not route.inboxes:
            if config is None or config.require_subscriber:
                raise self._nobody(event_type, config)
            return
        event._bind(self.name, None)
        too_large = 0
        size = 0
        if route.peers:
            buffers = encode_frame(route.wire_id, FrameKind.EVENT, 0, event_type.encode(event))
            size = frame_size(buffers)
            limit = self._limits.queued_per_endpoint_bytes
            full = sum(connection.session.queued_bytes for connection in route.peers) > limit
            for connection in route.peers:
                offer = connection.session.offer_event(event_type, size, buffers) if not full else Offer.FULL
                if offer is Offer.QUEUED:
                    connection.queued(size)
                elif offer is Offer.FULL:
                    connection.session.count_dropped(event_type, size)
                elif offer is Offer.TOO_LARGE:
                    too_large += 1
                elif offer is Offer.DISCONNECT:
                    self._disconnect_full(connection)
                if offer is not Offer.QUEUED:
                    connection.check_deadline()
        for inbox in route.inboxes:
            inbox.put_nowait(event)
        if too_large:
            self._raise_if_too_large(event_type, size, route, too_large)

    # --- events in ------------------------------------------------------------------------------------

    def on_arrived(self, connection: Connection, arrived: Arrived) -> None:
        event_type = arrived.event_type
        inboxes = self.subscriptions.get(event_type)
        session = connection.session
        size = arrived.size
        if arrived.kind == _REQUEST:
            self._on_request(connection, arrived, inboxes or ())
            return
        if not inboxes:
            session.return_event_credit(size)
            return
        try:
            event = event_type.open(arrived.segments, connection.name, None)
        except EventError as error:
            session.return_event_credit(size)
            logger.error(
                "%s: %s from %s cannot be read: %s", self.name, event_type.name, connection.name, error
            )
            return
        if len(inboxes) == 1:
            inboxes[0].put(event, Grant(connection.return_event_credit, size, 1), None)
            return
        grant = Grant(connection.return_event_credit, size, len(inboxes))
        for inbox in tuple(inboxes):
            inbox.put(event, grant, None)

    def _on_request(self, connection: Connection, arrived: Arrived, inboxes: Iterable[Inbox]) -> None:
        event_type = arrived.event_type
        number = arrived.number

        def report(code: str, type_name: str, text: str) -> None:
            connection.open_requests.pop(number, None)
            connection.session.send_failed(number, code, type_name, text)
            connection.wake_writer()

        receivers = tuple(inboxes)
        if not receivers:
            connection.return_request_credit(arrived.size)
            report("noHandler", "", f"{self.name!r} has no subscription to {event_type.name}")
            return
        try:
            event = event_type.open(
                arrived.segments, connection.name, RequestToken(connection.serial, number)
            )
        except EventError as error:
            connection.return_request_credit(arrived.size)
            report("unreadable", type(error).__qualname__, str(error))
            return
        opened = connection.open_requests[number] = OpenRequest(report)
        grant = Grant(connection.return_request_credit, arrived.size, len(receivers))
        for inbox in receivers:
            inbox.put(event, grant, opened)
        opened.sealed()

    # --- requests -------------------------------------------------------------------------------------

    async def request(
        self, item: BaseRequestResponseEvent[Any], config: BroadcastConfig | None, timeout_s: float
    ) -> BaseEvent:
        event_type = event_type_of(item)
        if not event_type.is_request:
            raise TypeError(
                f"request() takes a BaseRequestResponseEvent, got {event_type.name}: send it with broadcast()"
            )
        expected = item.expected_response_type()
        # What we expect as a response stands in our table before the request goes out.
        self._table.wire_id(event_type_of(expected))
        route = self._route(event_type, config)
        if not route.peers and not route.inboxes:
            # Without a responder there is nothing to wait for, whatever the config says (lahja L1: it hung).
            raise self._nobody(event_type, config)
        pending = PendingRequest(event_type, expected, self._runtime.new_waiter())
        self._on_deadline(self.deadlines.add(pending, time.monotonic(), timeout_s))
        try:
            full: list[Connection] = []
            segments: Segments = ()
            if route.peers:
                segments = event_type.encode(item)
                full = self._ask_peers(pending, event_type, segments, route.peers)
            if route.inboxes:
                self._ask_here(pending, item, route.inboxes)
            if item._origin is None:
                item._bind(self.name, None)
            pending.sealed()
            if full:
                return await self._wait_and_ask(pending, event_type, segments, full)
            return await pending.wait()
        finally:
            # Timed out, cancelled or answered: nothing of it stays behind (lahja L8 leaked a slot).
            pending.done = True
            self.deadlines.remove(pending)
            self._forget(pending)

    def _ask_peers(
        self,
        pending: PendingRequest,
        event_type: EventType,
        segments: Segments,
        peers: tuple[Connection, ...],
    ) -> list[Connection]:
        """Ask every peer that has room for a request; return those that have none, as asked under number 0."""
        full = []
        too_large: FrameTooLarge | None = None
        for connection in peers:
            if not connection.session.has_request_room:
                pending.asked((connection.serial, 0), connection.name)
                full.append(connection)
                continue
            try:
                self._ask(pending, event_type, segments, connection)
            except FrameTooLarge as error:
                too_large = error
        if too_large is not None and not pending.asked_keys():
            raise too_large
        return full

    def _ask(
        self, pending: PendingRequest, event_type: EventType, segments: Segments, connection: Connection
    ) -> None:
        number = connection.session.send_request(event_type, segments)
        pending.asked((connection.serial, number), connection.name)
        connection.pending[number] = pending
        connection.send_now_or_soon(len(connection.pending) == 1)

    async def _wait_and_ask(
        self,
        pending: PendingRequest,
        event_type: EventType,
        segments: Segments,
        full: list[Connection],
    ) -> BaseEvent:
        """Wait for the answer, and meanwhile for room at the peers that had none.

        At the same time, so that one stuck peer holds up neither the others' answers nor the time-out.
        """
        failure: Exception | None = None
        response: BaseEvent | None = None
        async with anyio.create_task_group() as tasks:
            for connection in full:
                tasks.start_soon(self._ask_when_room, pending, event_type, segments, connection)
            try:
                response = await pending.wait()
            except Exception as error:
                # Not through the task group, which would wrap it.
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        assert response is not None  # one of the two
        return response

    async def _ask_when_room(
        self, pending: PendingRequest, event_type: EventType, segments: Segments, connection: Connection
    ) -> None:
        await connection.room_for_request(self._limits.too_slow_s)
        placeholder = (connection.serial, 0)
        if connection.closed is not None:
            pending.responder_gone(placeholder, connection.closed.text or "disconnected")
            return
        try:
            self._ask(pending, event_type, segments, connection)
        except FrameTooLarge as error:
            failure = ResponderFailure(connection.name, "handlerRaised", type(error).__qualname__, str(error))
            pending.responder_failed(placeholder, failure)
        else:
            pending.no_longer_asked(placeholder)

    def _ask_here(
        self, pending: PendingRequest, item: BaseRequestResponseEvent[Any], inboxes: tuple[Inbox, ...]
    ) -> None:
        self._local_number += 1
        number = self._local_number
        key = (LOCAL, number)

        def report(code: str, type_name: str, text: str) -> None:
            self._local_open.pop(number, None)
            self._local_pending.pop(number, None)
            pending.responder_failed(key, ResponderFailure(self.name, code, type_name, text))

        pending.asked(key, self.name)
        self._local_pending[number] = pending
        opened = self._local_open[number] = OpenRequest(report)
        # Its own handle for each asking: the same event may be asked twice at the same time.
        event = item._twin(self.name, RequestToken(LOCAL, number))
        for inbox in inboxes:
            inbox.put(event, None, opened)
        opened.sealed()

    def _forget(self, pending: PendingRequest) -> None:
        for serial, number in pending.asked_keys():
            if serial == LOCAL:
                self._local_pending.pop(number, None)
                self._local_open.pop(number, None)
            elif (connection := self._peers.all.get(serial)) is not None:
                if connection.pending.pop(number, None) is not None:
                    connection.session.forget_request(number)

    def _answer(self, event: BaseEvent, event_type: EventType, token: object) -> None:
        """Send a response to the one connection that its request came on."""
        if not isinstance(token, RequestToken):
            raise TypeError(
                f"filter_event_id must come from a request's broadcast_config(), got {token!r}: the reply "
                "address of a request cannot be made by hand"
            )
        event._bind(self.name, None)
        number = token.number
        if token.connection == LOCAL:
            opened = self._local_open.pop(number, None)
            if opened is not None:
                opened.answered = True
            pending = self._local_pending.pop(number, None)
            if pending is None or pending.done:
                self.late_answers += 1
            else:
                pending.answer((LOCAL, number), event, event_type.name)
            return
        connection = self._peers.all.get(token.connection)
        if connection is None or connection.closed is not None:
            self.late_answers += 1
            return
        if connection.session.send_response(number, event_type, event_type.encode(event)):
            opened = connection.open_requests.pop(number, None)
            if opened is not None:
                opened.answered = True
            connection.send_now_or_soon(not connection.open_requests)

    def on_response(self, connection: Connection, response: ResponseArrived) -> None:
        pending = connection.pending.pop(response.number, None)
        if pending is None:
            return
        key = (connection.serial, response.number)
        event_type = response.event_type
        if event_type is None:
            pending.answer(key, None, response.row.name)
            return
        try:
            event = event_type.open(response.segments, connection.name, None)
        except EventError as error:
            pending.fail(error)
            return
        pending.answer(key, event, event_type.name)

    def on_failed(self, connection: Connection, failed: FailedArrived) -> None:
        pending = connection.pending.pop(failed.number, None)
        if pending is not None:
            failure = ResponderFailure(connection.name, failed.code, failed.type_name, failed.text)
            pending.responder_failed((connection.serial, failed.number), failure)

    def connection_closed(self, connection: Connection, reason: str) -> None:
        """Fail at once what waits for an answer from a peer that has gone (lahja L3: it waited for ever)."""
        pending, connection.pending = connection.pending, {}
        connection.open_requests.clear()
        for number, request in pending.items():
            request.responder_gone((connection.serial, number), reason)
        self.peers_changed()

    # --- end ------------------------------------------------------------------------------------------

    def stop(self, error: LahjaError) -> None:
        """End every subscription and fail every request that still waits."""
        for inboxes in tuple(self.subscriptions.values()):
            for inbox in tuple(inboxes):
                inbox.close(discard=False)
        self.fail_requests(error)

    def fail_requests(self, error: LahjaError) -> None:
        """Fail every request that still waits for an answer, here or from a peer."""
        pending = list(self._local_pending.values())
        for connection in self._peers.all.values():
            pending += connection.pending.values()
        for request in pending:
            request.fail(error)

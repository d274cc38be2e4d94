"""Events out: to the inboxes here and to every peer that wants them, under each one's policy."""

from __future__ import annotations

from collections.abc import Awaitable
from time import monotonic
from typing import Any

import anyio.lowlevel

from ..binding import BaseEvent, BroadcastConfig, EventType
from ..errors import FrameTooLarge
from ..session import Offer
from ..wire.frames import FrameKind, encode_frame, frame_size
from .arguments import check_event
from .asking import AskingBus
from .connection import Connection
from .inbox import Inbox
from .needs import Waiter
from .routes import Route
from .writing import FLUSH_BYTES

# A publisher that does not wait for anything lets other tasks run after so long: a turn of the loop costs as much as
# some twenty local events, or as sending a third of a megabyte.
TURN_S = 0.001

# Local deliveries after which it looks at the clock.
LOCAL_TURN_EVENTS = 64

# An attribute of an enum costs several times a global, and these are looked up for every event.
_EVENT = int(FrameKind.EVENT)
_QUEUED = Offer.QUEUED
_DROPPED = Offer.DROPPED


class PublishingBus(AskingBus):
    """Sends events."""

    def publish(self, event: BaseEvent, config: BroadcastConfig | None) -> Awaitable[None] | None:
        """Send an event to everybody who has room. Returns what is left to be awaited, usually nothing.

        No coroutine of its own: it is called for every event, and nearly always done when it returns.
        """
        if config is None:
            route = self._routes.get(type(event))
        elif config.filter_event_id is not None:
            self._answer(event, check_event(event, "broadcast"), config.filter_event_id)
            return None
        else:
            route = self._internal.get(type(event)) if config.internal else None
        if route is None:
            route = self._route(check_event(event, "broadcast"), config)
        private = event.__dict__
        alone = route.alone
        if alone is not None and alone.is_ready:
            # What is done below for many.
            if "_origin" not in private:
                private["_origin"] = self.name
            alone.handle(event)
            self._local_turn = turn = self._local_turn + 1
            if turn < LOCAL_TURN_EVENTS:
                return None
            self._local_turn = 0
            return self._end_turn() if monotonic() >= self._turn_ends else None
        peers = route.peers
        inboxes = route.inboxes
        turn_over = False
        rest: Awaitable[None] | None = None
        if peers:
            event_type = route.event_type
            buffers = encode_frame(route.wire_id, _EVENT, 0, event_type.encode(event))
            size = len(buffers[0]) if len(buffers) == 1 else frame_size(buffers)
            entry = (size, event_type.type_id, buffers)
            refused: list[tuple[Connection, Offer]] | None = None
            for connection in peers:
                offer = connection.session.offer_entry(event_type, entry)
                if offer is _QUEUED:
                    # What queued() does, without the call.
                    connection.unflushed = unflushed = connection.unflushed + size
                    if unflushed >= FLUSH_BYTES:
                        connection.flush()
                        if monotonic() >= self._turn_ends or self._is_over_limit(connection):
                            turn_over = True
                    elif not connection.flush_wanted:
                        connection.wake_writer()
                elif offer is _DROPPED:
                    if connection.session.drops.get(event_type.type_id) == 1:
                        # The first since the peer was last told: it is told some time later.
                        connection.check_deadline()
                elif refused is None:
                    refused = [(connection, offer)]
                else:
                    refused.append((connection, offer))
            if refused is not None:
                rest = self._settle(event_type, size, buffers, route, refused)
        elif inboxes:
            self._local_turn = turn = self._local_turn + 1
            if turn >= LOCAL_TURN_EVENTS:
                self._local_turn = 0
                turn_over = monotonic() >= self._turn_ends
        else:
            if config is None or config.require_subscriber:
                raise self._nobody(route.event_type, config)
            return None
        if "_origin" not in private:
            # What _bind does, without the call.
            private["_origin"] = self.name
        full = False
        for inbox in inboxes:
            if inbox.is_ready:
                inbox.handle(event)
                continue
            inbox.put(event, None, None)
            if not inbox.has_room:
                full = True
        if rest is None and not turn_over and not full:
            return None
        return self._finish(rest, turn_over, inboxes)

    async def _finish(
        self, rest: Awaitable[None] | None, turn_over: bool, inboxes: tuple[Inbox, ...]
    ) -> None:
        """Wait for those that had no room; let other tasks run."""
        if rest is not None:
            await rest
        if turn_over:
            await self._end_turn()
        for inbox in inboxes:
            if not inbox.has_room:
                await inbox.room()

    def _is_over_limit(self, flushed: Connection) -> bool:
        """True if more is queued for all peers together than may be. Nothing new is, if all of it has left."""
        return (
            flushed.session.queued_bytes > 0 and self._queued_bytes() > self._limits.queued_per_endpoint_bytes
        )

    def _queued_bytes(self) -> int:
        return sum(connection.session.queued_bytes for connection in self._peers.up.values())

    async def _end_turn(self) -> None:
        await anyio.lowlevel.checkpoint()
        self._turn_ends = monotonic() + TURN_S
        while self._queued_bytes() > self._limits.queued_per_endpoint_bytes:
            fullest = max(self._peers.up.values(), key=lambda connection: connection.session.queued_bytes)
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
        # All join at once: a task that joined when it first runs could be overtaken by the next call, or its tasks.
        waiting = [(connection, self._join_line(connection)) for connection in full]
        try:
            if len(waiting) == 1:
                await self._offer_when_room(*waiting[0], event_type, size, buffers)
            elif waiting:
                # For all at the same time: a stuck one must not keep the event from one that has room again.
                async with anyio.create_task_group() as tasks:
                    for connection, turn in waiting:
                        tasks.start_soon(self._offer_when_room, connection, turn, event_type, size, buffers)
        finally:
            for connection, turn in waiting:
                self._leave_line(connection, turn)
        self._raise_if_too_large(event_type, size, route, too_large)

    def _join_line(self, connection: Connection) -> Waiter[None]:
        turn = self._runtime.new_waiter()
        connection.line.append(turn)
        connection.session.join_line()
        return turn

    def _leave_line(self, connection: Connection, turn: Waiter[None]) -> None:
        line = connection.line
        if turn not in line:
            return
        connection.session.leave_line()
        was_first = line[0] is turn
        line.remove(turn)
        if was_first and line:
            line[0].wake(None)

    async def _offer_when_room(
        self, connection: Connection, turn: Waiter[None], event_type: EventType, size: int, buffers: Any
    ) -> None:
        offer = Offer.FULL
        session = connection.session
        if connection.line[0] is not turn:
            await turn.wait()
        while offer is Offer.FULL:
            await connection.room(self._limits.too_slow_s)
            offer = session.offer_event(event_type, size, buffers, True)
        self._leave_line(connection, turn)
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
        event_type = check_event(event, "broadcast_nowait")
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

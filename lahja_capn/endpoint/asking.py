"""Requests out and their answers in; answers out to the requests of others."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Any

import anyio

from ..binding import (
    BaseEvent,
    BaseRequestResponseEvent,
    BroadcastConfig,
    EventType,
    RequestToken,
    Segments,
)
from ..binding import event_type as event_type_of
from ..errors import EventError, FrameTooLarge, LahjaError, ResponderFailure, printable
from ..session import FailedArrived, ResponseArrived
from .arguments import check_event
from .connection import Connection
from .inbox import Inbox
from .requests import OpenRequest, PendingRequest
from .routes import Routes

# The serial of no connection: reply addresses of requests that this endpoint sent to itself.
LOCAL = 0


class AskingBus(Routes):
    """Sends requests, and answers."""

    def ask(
        self, item: BaseRequestResponseEvent[Any], config: BroadcastConfig | None, timeout_s: float
    ) -> PendingRequest:
        """Send a request to everybody who has room for it. Await :meth:`answer_to`, and then call :meth:`ended`."""
        event_type = check_event(item, "request")
        expected = self._expected.get(event_type) or self._expect(event_type, item)
        route = self._routes.get(type(item)) if config is None else None
        if route is None:
            route = self._route(event_type, config)
        if not route.peers and not route.inboxes:
            # Without a responder there is nothing to wait for, whatever the config says (lahja L1: it hung).
            raise self._nobody(event_type, config)
        pending = PendingRequest(event_type, expected, self._runtime.new_waiter())
        self._on_deadline(self.deadlines.add(pending, time.monotonic(), timeout_s))
        try:
            if route.peers:
                self._ask_peers(pending, event_type, event_type.encode(item), route.peers)
            if route.inboxes:
                self._ask_here(pending, item, route.inboxes)
            if item._origin is None:
                item._bind(self.name, None)
            pending.sealed()
        except BaseException:
            self.ended(pending)
            raise
        return pending

    def ended(self, pending: PendingRequest) -> None:
        """Answered, timed out or cancelled: nothing of the request stays behind (lahja L8 leaked a slot)."""
        pending.done = True
        self.deadlines.remove(pending)
        if pending.responders:
            self._forget(pending)

    def _expect(self, event_type: EventType, item: BaseRequestResponseEvent[Any]) -> type[BaseEvent]:
        """Return the class of the response; asked once for each type of request."""
        if not event_type.is_request:
            raise TypeError(
                f"request() takes a BaseRequestResponseEvent, got {event_type.name}: send it with broadcast()"
            )
        expected = item.expected_response_type()
        # What we expect as a response stands in our table before the request goes out.
        answer = event_type_of(expected)
        self._table.wire_id(answer)
        answer.prepare()
        self._expected[event_type] = expected
        return expected

    def _ask_peers(
        self,
        pending: PendingRequest,
        event_type: EventType,
        segments: Segments,
        peers: tuple[Connection, ...],
    ) -> None:
        """Ask every peer that has room for a request; those that have none are to be asked, under number 0."""
        too_large: FrameTooLarge | None = None
        for connection in peers:
            if not connection.session.has_request_room:
                pending.responders[(connection.serial, 0)] = connection.name
                pending.to_be_asked += ((connection, segments),)
                continue
            try:
                self._ask(pending, event_type, segments, connection)
            except FrameTooLarge as error:
                too_large = error
        if too_large is not None and not pending.responders:
            raise too_large

    def _ask(
        self, pending: PendingRequest, event_type: EventType, segments: Segments, connection: Connection
    ) -> None:
        number = connection.session.send_request(event_type, segments)
        pending.responders[(connection.serial, number)] = connection.name
        under_way = connection.pending
        under_way[number] = pending
        connection.send_now_or_soon(len(under_way) == 1)

    def answer_to(self, pending: PendingRequest) -> Awaitable[BaseEvent]:
        """Return what is to be awaited for the answer. Without a coroutine of its own: usually a bare future."""
        return self._wait_and_ask(pending) if pending.to_be_asked else pending.wait()

    async def _wait_and_ask(self, pending: PendingRequest) -> BaseEvent:
        """Wait for the answer, and meanwhile for room at the peers that had none.

        At the same time, so that one stuck peer holds up neither the others' answers nor the time-out.
        """
        failure: Exception | None = None
        response: BaseEvent | None = None
        async with anyio.create_task_group() as tasks:
            for connection, segments in pending.to_be_asked:
                tasks.start_soon(self._ask_when_room, pending, segments, connection)
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
        self, pending: PendingRequest, segments: Segments, connection: Connection
    ) -> None:
        await connection.room_for_request(self._limits.too_slow_s)
        placeholder = (connection.serial, 0)
        if connection.closed is not None:
            pending.responder_gone(placeholder, connection.closed.text or "disconnected")
            return
        try:
            self._ask(pending, pending.request, segments, connection)
        except FrameTooLarge as error:
            failure = ResponderFailure(connection.name, "handlerRaised", type(error).__qualname__, str(error))
            pending.responder_failed(placeholder, failure)
        else:
            del pending.responders[placeholder]

    def _ask_here(
        self, pending: PendingRequest, item: BaseRequestResponseEvent[Any], inboxes: tuple[Inbox, ...]
    ) -> None:
        self._local_number += 1
        number = self._local_number
        pending.responders[(LOCAL, number)] = self.name
        self._local_pending[number] = pending
        opened = self._local_open[number] = OpenRequest(self._local_failed, number)
        # Its own handle for each asking: the same event may be asked twice at the same time.
        event = item._twin(self.name, RequestToken(LOCAL, number))
        for inbox in inboxes:
            inbox.put(event, None, opened)
        opened.sealed()

    def _local_failed(self, number: int, code: str, type_name: str, text: str) -> None:
        """No handler here answered the request, and one of them raised."""
        self._local_open.pop(number, None)
        pending = self._local_pending.pop(number, None)
        if pending is not None:
            pending.responder_failed((LOCAL, number), ResponderFailure(self.name, code, type_name, text))

    def _forget(self, pending: PendingRequest) -> None:
        """Nobody waits for an answer any more."""
        for serial, number in pending.responders:
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
        if event._origin is None:
            event._bind(self.name, None)
        serial, number = token
        if serial == LOCAL:
            opened = self._local_open.pop(number, None)
            if opened is not None:
                opened.answered = True
            pending = self._local_pending.pop(number, None)
            if pending is None or pending.done:
                self.late_answers += 1
            else:
                pending.answer((LOCAL, number), event, event_type.name)
            return
        connection = self._peers.all.get(serial)
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
            pending.answer(key, None, printable(response.row.name))
            return
        try:
            event = event_type.open(response.segments, connection.name, None)
        except EventError as error:
            pending.unusable(key, error)
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
        connection.open_requests = {}
        if connection.session.counters.requests_received and connection.serial in self._peers.all:
            # Once: when it has ended, and not again when its tasks have.
            for event_type, inboxes in self.subscriptions.items():
                if event_type.is_request:
                    for inbox in inboxes:
                        inbox.asker_gone(connection.serial)
        for number, request in pending.items():
            request.responder_gone((connection.serial, number), reason)
        self.peers_changed()

    def fail_requests(self, error: LahjaError) -> None:
        """Fail every request that still waits for an answer, here or from a peer."""
        pending = list(self._local_pending.values())
        for connection in self._peers.all.values():
            pending += connection.pending.values()
        for request in pending:
            request.fail(error)

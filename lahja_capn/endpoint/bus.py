"""The traffic of one endpoint. What arrives is here; what is sent is in ``publishing`` and ``asking``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ..binding import BaseEvent, EventType, RequestToken
from ..errors import EventError, LahjaError
from ..session import Arrivals, Arrived
from ..wire import Segments
from .connection import Connection
from .inbox import Grant
from .limitedlog import LimitedLog
from .publishing import PublishingBus
from .requests import OpenRequest

logger = logging.getLogger("lahja_capn.endpoint")


class Bus(PublishingBus):
    """Routes events between this endpoint's subscriptions and its peers' connections."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._log_unreadable = LimitedLog(logger)

    def on_events(self, connection: Connection, arrivals: Arrivals) -> None:
        """Events of one type, in a row: what is done for each of them is all there is between a frame and a handler."""
        event_type = arrivals.event_type
        open_event: Callable[[Segments, str], BaseEvent] = event_type.open
        subscriptions = self.subscriptions
        origin = connection.name
        # Credit of what was handled here and now goes back together.
        taken = 0
        is_first = True
        try:
            for size, segments in arrivals.frames:
                # A handler may subscribe and unsubscribe.
                inboxes = subscriptions.get(event_type)
                if not inboxes:
                    taken += size
                    continue
                try:
                    event = open_event(segments, origin)
                except EventError as error:
                    taken += size
                    self._cannot_be_read(event_type, origin, error)
                    continue
                if len(inboxes) == 1:
                    (inbox,) = inboxes
                    if inbox.is_ready:
                        taken += size
                        inbox.handle(event)
                        if is_first:
                            is_first = False
                            open_event = event_type.open_as(event)
                    else:
                        inbox.put(event, Grant(connection.return_event_credit, size, 1), None)
                    continue
                grant = Grant(connection.return_event_credit, size, len(inboxes))
                for inbox in tuple(inboxes):
                    inbox.put(event, grant, None)
        finally:
            if taken:
                connection.return_event_credit(taken)

    def _cannot_be_read(self, event_type: EventType, origin: str, error: EventError) -> None:
        self._log_unreadable.log(
            logging.ERROR, "%s: %s from %s cannot be read: %s", self.name, event_type.name, origin, error
        )

    def on_request(self, connection: Connection, arrived: Arrived) -> None:
        event_type = arrived.event_type
        number = arrived.number
        receivers = tuple(self.subscriptions.get(event_type, ()))
        if not receivers:
            connection.return_request_credit(arrived.size)
            connection.fail_request(
                number, "noHandler", "", f"{self.name!r} has no subscription to {event_type.name}"
            )
            return
        try:
            event = event_type.open(
                arrived.segments, connection.name, RequestToken(connection.serial, number)
            )
        except EventError as error:
            connection.return_request_credit(arrived.size)
            connection.fail_request(number, "unreadable", type(error).__qualname__, str(error))
            return
        opened = connection.open_requests[number] = OpenRequest(
            connection.fail_request, number, connection.serial
        )
        grant = Grant(connection.return_request_credit, arrived.size, len(receivers))
        for inbox in receivers:
            inbox.put(event, grant, opened)
        opened.sealed()

    def stop(self, error: LahjaError) -> None:
        """End every subscription and fail every request that still waits."""
        for inboxes in tuple(self.subscriptions.values()):
            for inbox in tuple(inboxes):
                inbox.close(discard=False)
        self.fail_requests(error)
        self._log_unreadable.end(self.name, "events that cannot be read")

"""The traffic of one endpoint. What arrives is here; what is sent is in ``publishing`` and ``asking``."""

from __future__ import annotations

import logging
from typing import Any

from ..binding import RequestToken
from ..errors import EventError, LahjaError
from ..session import Arrived
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

    def on_arrived(self, connection: Connection, arrived: Arrived) -> None:
        event_type = arrived.event_type
        inboxes = self.subscriptions.get(event_type)
        session = connection.session
        size = arrived.size
        if not inboxes:
            session.return_event_credit(size)
            return
        try:
            event = event_type.open(arrived.segments, connection.name, None)
        except EventError as error:
            session.return_event_credit(size)
            self._log_unreadable.log(
                logging.ERROR,
                "%s: %s from %s cannot be read: %s",
                self.name,
                event_type.name,
                connection.name,
                error,
            )
            return
        if len(inboxes) == 1:
            inboxes[0].put(event, Grant(connection.return_event_credit, size, 1), None)
            return
        grant = Grant(connection.return_event_credit, size, len(inboxes))
        for inbox in tuple(inboxes):
            inbox.put(event, grant, None)

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
        opened = connection.open_requests[number] = OpenRequest(connection.fail_request, number)
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

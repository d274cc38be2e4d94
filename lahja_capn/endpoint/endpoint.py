"""The endpoint's traffic: the part of the public API that sends, receives, and says who listens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import anyio

from ..binding import BaseEvent, BaseRequestResponseEvent, BroadcastConfig, EventType
from ..binding import event_type as event_type_of
from ..session import Counters, Policy
from .arguments import check_answerable, check_broadcast_config, check_event_class, check_policy
from .config import check_endpoint_name
from .draining import DrainingEndpoint
from .handlers import HandlerInbox
from .inbox import DEFAULT_QUEUE_EVENTS
from .streams import EventStream, StreamInbox, first_event
from .subscription import Subscription

logger = logging.getLogger("lahja_capn.endpoint")

E = TypeVar("E", bound=BaseEvent)
R = TypeVar("R", bound=BaseEvent)

# A global costs less than an attribute of a module, and each call asks for it.
_thread_id = threading.get_ident


class Endpoint(DrainingEndpoint):
    """Implements :class:`~lahja_capn.endpoint.api.EndpointAPI` for whatever runtime a subclass names."""

    # --- events ---------------------------------------------------------------------------------------

    async def broadcast(self, item: BaseEvent, config: BroadcastConfig | None = None) -> None:
        if _thread_id() != self._thread:
            raise self._lifecycle_error()
        if config is not None and type(config) is not BroadcastConfig:
            check_broadcast_config(config)
        rest = self._bus.publish(item, config)
        if rest is not None:
            await rest

    def broadcast_nowait(self, item: BaseEvent, config: BroadcastConfig | None = None) -> None:
        if _thread_id() != self._thread:
            raise self._lifecycle_error()
        if config is not None:
            check_broadcast_config(config)
        self._bus.broadcast_nowait(item, config)

    async def request(
        self,
        item: BaseRequestResponseEvent[R],
        config: BroadcastConfig | None = None,
        *,
        timeout: float | None = None,
    ) -> R:
        if _thread_id() != self._thread:
            raise self._lifecycle_error()
        if config is not None:
            check_broadcast_config(config)
        timeout_s = self.limits.request_timeout_s if timeout is None else timeout
        bus = self._bus
        pending = bus.ask(item, config, timeout_s)
        try:
            response = await bus.answer_to(pending)
        finally:
            bus.ended(pending)
        return response  # type: ignore[return-value]  # checked against expected_response_type()

    async def respond(self, request: BaseRequestResponseEvent[R], response: R) -> None:
        check_answerable(request)
        await self.broadcast(response, request.broadcast_config())

    def subscribe(
        self,
        event_type: type[E],
        handler: Callable[[E], Any],
        *,
        policy: Policy = Policy.WAIT,
        queue: int = DEFAULT_QUEUE_EVENTS,
    ) -> Subscription:
        self._check()
        check_event_class(event_type, "subscribe")
        if not callable(handler):
            raise TypeError(
                f"subscribe() takes a handler, a function to call with each event, got {handler!r}"
            )
        inbox = HandlerInbox(
            self._runtime,
            event_type_of(event_type),
            check_policy(policy),
            queue,
            self._bus.remove_inbox,
            self._disconnect_publisher,
            handler=handler,
            hook=self._report_handler_error,
            spawn=self._spawn,
        )
        self._bus.add_inbox(inbox)
        return Subscription(inbox, self._wait_until_applied)

    def _report_handler_error(self, event: BaseEvent, error: Exception) -> None:
        if self.on_handler_error is not None:
            self.on_handler_error(event, error)

    def _disconnect_publisher(self, event: BaseEvent, event_type: EventType) -> None:
        connection = self._peers.up.get(event.get_origin())
        if connection is not None:
            connection.say_goodbye(
                "tooSlow", f"a subscription to {event_type.name} is full and its policy is disconnect"
            )

    async def _wait_until_applied(self, version: int) -> None:
        self._check()
        # Who connects later says hello with it.
        waiting = [c for c in self._peers.up.values() if c.applied_version < version]
        timeout_s = self.limits.request_timeout_s
        with anyio.move_on_after(timeout_s) as scope:
            await self._peers.subscriptions_changed.wait_until(
                lambda: all(c.applied_version >= version or c.closed is not None for c in waiting)
            )
        if scope.cancelled_caught:
            for connection in waiting:
                if connection.applied_version < version and connection.closed is None:
                    text = f"subscriptions were not acknowledged within {timeout_s:g} s (Limits.request_timeout_s)"
                    logger.warning("%s: %r is disconnected: %s", self.name, connection.name, text)
                    connection.say_goodbye("protocolError", text)

    def _open_stream(
        self, event_type: type[BaseEvent], policy: Policy, queue: int, method: str
    ) -> StreamInbox:
        self._check()
        check_event_class(event_type, method)
        inbox = StreamInbox(
            self._runtime,
            event_type_of(event_type),
            check_policy(policy),
            queue,
            self._bus.remove_inbox,
            self._disconnect_publisher,
        )
        self._bus.add_inbox(inbox)
        return inbox

    def stream(
        self,
        event_type: type[E],
        num_events: int | None = None,
        *,
        policy: Policy = Policy.WAIT,
        queue: int = DEFAULT_QUEUE_EVENTS,
    ) -> EventStream[E]:
        return EventStream(self._open_stream(event_type, policy, queue, "stream"), num_events)

    async def wait_for(self, event_type: type[E]) -> E:
        inbox = self._open_stream(event_type, Policy.WAIT, DEFAULT_QUEUE_EVENTS, "wait_for")
        event = await first_event(inbox, event_type.__qualname__)
        return event  # type: ignore[return-value]  # the inbox holds events of this type only

    # --- who listens ----------------------------------------------------------------------------------

    def get_subscribed_events(self) -> set[type[BaseEvent]]:
        return {event_type.event_class for event_type in self._bus.subscriptions}

    def is_endpoint_subscribed_to(self, remote_endpoint: str, event_type: type[BaseEvent]) -> bool:
        bound = event_type_of(event_type)
        if remote_endpoint == self.name:
            return bound in self._bus.subscriptions
        connection = self._peers.up.get(remote_endpoint)
        return connection is not None and connection.wants(bound)

    def is_any_endpoint_subscribed_to(self, event_type: type[BaseEvent]) -> bool:
        bound = event_type_of(event_type)
        return bound in self._bus.subscriptions or bool(self._peers.wanting(bound))

    def are_all_endpoints_subscribed_to(self, event_type: type[BaseEvent], include_self: bool = True) -> bool:
        bound = event_type_of(event_type)
        if include_self and bound not in self._bus.subscriptions:
            return False
        return all(connection.wants(bound) for connection in self._peers.up.values())

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        self._check()
        await self._peers.subscriptions_changed.wait_until(condition)

    async def wait_until_endpoint_subscribed_to(self, remote_endpoint: str, event: type[BaseEvent]) -> None:
        await self._wait_until(lambda: self.is_endpoint_subscribed_to(remote_endpoint, event))

    async def wait_until_any_endpoint_subscribed_to(self, event: type[BaseEvent]) -> None:
        await self._wait_until(lambda: self.is_any_endpoint_subscribed_to(event))

    async def wait_until_all_endpoints_subscribed_to(
        self, event: type[BaseEvent], *, include_self: bool = True
    ) -> None:
        await self._wait_until(lambda: self.are_all_endpoints_subscribed_to(event, include_self))

    @property
    def subscriptions_version(self) -> int:
        return self._peers.subscriptions_changed.version

    async def wait_until_endpoint_subscriptions_change(self, since: int | None = None) -> int:
        self._check()
        changes = self._peers.subscriptions_changed
        return await changes.wait_since(changes.version if since is None else since)

    def maybe_raise_no_subscribers_exception(
        self, config: BroadcastConfig | None, event_type: type[BaseEvent]
    ) -> None:
        self._bus.check_subscribers(event_type_of(event_type), config)

    def set_peer_policy(self, endpoint_name: str, policy: Policy) -> None:
        policy = check_policy(policy)
        self._peer_policies[check_endpoint_name(endpoint_name)] = policy
        connection = self._peers.up.get(endpoint_name)
        if connection is not None:
            connection.session.policy = policy

    def get_peer_counters(self) -> dict[str, Counters]:
        return {name: connection.session.snapshot() for name, connection in self._peers.up.items()}

"""Actions: what a driver does with its endpoint, one step each."""

from __future__ import annotations

import inspect
import mmap
import reprlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ...errors import LahjaError
from ..engine import EngineAPI

if TYPE_CHECKING:
    from ... import BaseEvent, BaseRequestResponseEvent, BroadcastConfig, ConnectionConfig, EndpointAPI

# How often a checkpoint looks whether the other process has come: an order below what a test notices.
CHECKPOINT_POLL_S = 0.005


class DidNotThrow(LahjaError):
    """An action inside :func:`throws` ended without the error. Attributes: ``action``, ``wanted``."""

    action: str
    wanted: str


class SyncAction:
    """Calls ``fn(engine, endpoint, **kwargs)``."""

    def __init__(self, fn: Callable[..., None], **kwargs: Any) -> None:
        self._fn = fn
        self._kwargs = kwargs

    def __str__(self) -> str:
        return _describe(self._fn, self._kwargs)

    def __call__(self, engine: EngineAPI, endpoint: EndpointAPI) -> None:
        self._fn(engine, endpoint, **self._kwargs)


class AsyncAction:
    """Awaits ``coro(engine, endpoint, **kwargs)``."""

    def __init__(self, coro: Callable[..., Awaitable[None]], **kwargs: Any) -> None:
        self._coro = coro
        self._kwargs = kwargs

    def __str__(self) -> str:
        return _describe(self._coro, self._kwargs)

    async def __call__(self, engine: EngineAPI, endpoint: EndpointAPI) -> None:
        await self._coro(engine, endpoint, **self._kwargs)


Action = SyncAction | AsyncAction

EventHandlerFn = Callable[["EndpointAPI", Any], Any]
"""``handler(endpoint, event)``: a plain function, or one whose result is awaited."""


def _describe(fn: Callable[..., Any], kwargs: dict[str, Any]) -> str:
    """Such as ``wait_for(Ping)``: enough to find the action in the test that made it."""
    shown = [
        value.__name__ if isinstance(value, type) else reprlib.repr(value)
        for value in kwargs.values()
        if isinstance(value, type) or not (value is None or callable(value) or isinstance(value, _Flag))
    ]
    name = getattr(fn, "__name__", type(fn).__name__).lstrip("_")
    return f"{name}({', '.join(shown)})"


async def _hand_over(handler: EventHandlerFn | None, endpoint: EndpointAPI, event: BaseEvent) -> Any:
    """Call ``handler``. What it returns decides whether to await it: lahja asked whether it was declared with
    ``async def``, which a callable object or a partial is not."""
    if handler is None:
        return None
    result = handler(endpoint, event)
    return await result if inspect.isawaitable(result) else result


async def _wait_for(
    engine: EngineAPI, endpoint: EndpointAPI, event_type: type[BaseEvent], on_event: EventHandlerFn | None
) -> None:
    await _hand_over(on_event, endpoint, await endpoint.wait_for(event_type))


def wait_for(event_type: type[BaseEvent], on_event: EventHandlerFn | None = None) -> AsyncAction:
    """Wait for one ``event_type``; call ``on_event(endpoint, event)`` with it."""
    return AsyncAction(_wait_for, event_type=event_type, on_event=on_event)


async def _serve_request(
    engine: EngineAPI,
    endpoint: EndpointAPI,
    request_type: type[BaseRequestResponseEvent[Any]],
    get_response: EventHandlerFn,
) -> None:
    asked = await endpoint.wait_for(request_type)
    response = await _hand_over(get_response, endpoint, asked)
    await endpoint.broadcast(response, asked.broadcast_config())


def serve_request(
    request_type: type[BaseRequestResponseEvent[Any]], get_response: EventHandlerFn
) -> AsyncAction:
    """Wait for one ``request_type`` and answer it with what ``get_response(endpoint, request)`` returns."""
    return AsyncAction(_serve_request, request_type=request_type, get_response=get_response)


async def _request(
    engine: EngineAPI,
    endpoint: EndpointAPI,
    event: BaseRequestResponseEvent[Any],
    config: BroadcastConfig | None,
    on_response: EventHandlerFn | None,
) -> None:
    await _hand_over(on_response, endpoint, await endpoint.request(event, config))


def request(
    event: BaseRequestResponseEvent[Any],
    config: BroadcastConfig | None = None,
    on_response: EventHandlerFn | None = None,
) -> AsyncAction:
    """Send ``event``, wait for the response; call ``on_response(endpoint, response)`` with it."""
    return AsyncAction(_request, event=event, config=config, on_response=on_response)


async def _connect_to_endpoints(
    engine: EngineAPI, endpoint: EndpointAPI, configs: tuple[ConnectionConfig, ...]
) -> None:
    await endpoint.connect_to_endpoints(*configs)


def connect_to_endpoints(*configs: ConnectionConfig) -> AsyncAction:
    """Connect to all of ``configs``."""
    return AsyncAction(_connect_to_endpoints, configs=configs)


async def _wait_until_any_endpoint_subscribed_to(
    engine: EngineAPI, endpoint: EndpointAPI, event_type: type[BaseEvent]
) -> None:
    await endpoint.wait_until_any_endpoint_subscribed_to(event_type)


def wait_until_any_endpoint_subscribed_to(event_type: type[BaseEvent]) -> AsyncAction:
    """Wait until somebody, this endpoint included, listens to ``event_type``."""
    return AsyncAction(_wait_until_any_endpoint_subscribed_to, event_type=event_type)


async def _wait_until_connected_to(engine: EngineAPI, endpoint: EndpointAPI, name: str) -> None:
    await endpoint.wait_until_connected_to(name)


def wait_until_connected_to(name: str) -> AsyncAction:
    """Wait until a connection to the endpoint ``name`` is up, whoever opened it."""
    return AsyncAction(_wait_until_connected_to, name=name)


async def _broadcast(
    engine: EngineAPI, endpoint: EndpointAPI, event: BaseEvent, config: BroadcastConfig | None
) -> None:
    await endpoint.broadcast(event, config)


def broadcast(event: BaseEvent, config: BroadcastConfig | None = None) -> AsyncAction:
    """Broadcast ``event``."""
    return AsyncAction(_broadcast, event=event, config=config)


async def _wait_any_then_broadcast(
    engine: EngineAPI, endpoint: EndpointAPI, event: BaseEvent, config: BroadcastConfig | None
) -> None:
    await endpoint.wait_until_any_endpoint_subscribed_to(type(event))
    await endpoint.broadcast(event, config)


def wait_any_then_broadcast(event: BaseEvent, config: BroadcastConfig | None = None) -> AsyncAction:
    """Wait until somebody listens to the type of ``event``, then broadcast it."""
    return AsyncAction(_wait_any_then_broadcast, event=event, config=config)


async def _throws(
    engine: EngineAPI, endpoint: EndpointAPI, action: Action, exc_type: type[BaseException]
) -> None:
    try:
        if isinstance(action, AsyncAction):
            await action(engine, endpoint)
        else:
            action(engine, endpoint)
    except exc_type:
        return
    raise DidNotThrow(
        f"{action} ended without raising {exc_type.__name__}", action=str(action), wanted=exc_type.__name__
    )


def throws(action: Action, exc_type: type[BaseException]) -> AsyncAction:
    """Perform ``action``, which must raise ``exc_type``.

    Raises:
        DidNotThrow: (when run) it did not. Any other error passes through.
        TypeError: ``action`` is not an action.
    """
    if not isinstance(action, SyncAction | AsyncAction):
        raise TypeError(f"throws() needs an action, such as broadcast(...) returns; got {action!r}")
    return AsyncAction(_throws, action=action, exc_type=exc_type)


class _Flag:
    """One bit that a forked process shares with the one it was forked from: an anonymous shared page.

    No lock is needed, since it only ever goes from 0 to 1; no clean-up either, since it has no name.
    """

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._page[0] = 1

    def is_set(self) -> bool:
        return self._page[0] == 1


async def _checkpoint(
    engine: EngineAPI, endpoint: EndpointAPI, name: str, mine: _Flag, theirs: _Flag
) -> None:
    mine.set()
    while not theirs.is_set():
        await engine.sleep(CHECKPOINT_POLL_S)


def checkpoint(name: str) -> tuple[AsyncAction, AsyncAction]:
    """Two actions for two drivers: each ends when the other driver has got there too.

    Works in one event loop and between the processes of an isolated runner. A pair meets once: make a new
    one for each place and each run.
    """
    left, right = _Flag(), _Flag()
    return (
        AsyncAction(_checkpoint, name=name, mine=left, theirs=right),
        AsyncAction(_checkpoint, name=name, mine=right, theirs=left),
    )

"""Initializers: how a driver's endpoint comes to life."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from ..engine import EngineAPI

if TYPE_CHECKING:
    from ... import ConnectionConfig, EndpointAPI


class Initializer:
    """Makes a driver's endpoint: ``fn(engine, **kwargs)`` returns the context manager that runs it."""

    def __init__(self, fn: Callable[..., AbstractAsyncContextManager[EndpointAPI]], **kwargs: Any) -> None:
        self._fn = fn
        self._kwargs = kwargs

    def __str__(self) -> str:
        """Such as ``serve_endpoint(billing)``."""
        names = (str(getattr(value, "name", value)) for value in self._kwargs.values())
        return f"{self._fn.__name__.lstrip('_')}({', '.join(names)})"

    def __call__(self, engine: EngineAPI) -> AbstractAsyncContextManager[EndpointAPI]:
        return self._fn(engine, **self._kwargs)


def _serve_endpoint(engine: EngineAPI, config: ConnectionConfig) -> AbstractAsyncContextManager[EndpointAPI]:
    return engine.endpoint_class.serve(config)


def serve_endpoint(config: ConnectionConfig) -> Initializer:
    """An endpoint that others can connect to, at ``config.path``."""
    return Initializer(_serve_endpoint, config=config)


def _run_endpoint(engine: EngineAPI, name: str) -> AbstractAsyncContextManager[EndpointAPI]:
    # EndpointAPI has no __init__: how an endpoint is made is the endpoint's own affair, but both take a name.
    return engine.endpoint_class(name).run()  # type: ignore[call-arg]


def run_endpoint(name: str) -> Initializer:
    """An endpoint that only connects to others."""
    return Initializer(_run_endpoint, name=name)

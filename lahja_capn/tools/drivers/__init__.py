"""Drivers: one endpoint and the actions it performs, one after the other."""

from __future__ import annotations

from .actions import (
    AsyncAction,
    DidNotThrow,
    SyncAction,
    broadcast,
    checkpoint,
    connect_to_endpoints,
    request,
    serve_request,
    throws,
    wait_any_then_broadcast,
    wait_for,
    wait_until_any_endpoint_subscribed_to,
    wait_until_connected_to,
)
from .driver import drive, driver
from .initializers import Initializer, run_endpoint, serve_endpoint

__all__ = [
    "AsyncAction",
    "DidNotThrow",
    "Initializer",
    "SyncAction",
    "broadcast",
    "checkpoint",
    "connect_to_endpoints",
    "drive",
    "driver",
    "request",
    "run_endpoint",
    "serve_endpoint",
    "serve_request",
    "throws",
    "wait_any_then_broadcast",
    "wait_for",
    "wait_until_any_endpoint_subscribed_to",
    "wait_until_connected_to",
]

"""lahja_capn: a typed event bus for Python programs of many processes, on Cap'n Proto.

Declare events in a ``.capnp`` file, ``@bind`` them to classes, and exchange them between endpoints; see README.md.
Everything in ``__all__`` is public; ``TrioEndpoint`` imports trio when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .binding import (
    OPTIONAL,
    AnyPointer,
    BaseEvent,
    BaseRequestResponseEvent,
    BroadcastConfig,
    DataView,
    Enumerant,
    Struct,
    bind,
)
from .endpoint import (
    TLS,
    Backoff,
    ConnectionConfig,
    EndpointAPI,
    EventStream,
    InboxCounters,
    KeptConnections,
    Subscription,
)
from .errors import (
    AddressInUse,
    BindError,
    ConfigError,
    ConnectionAttemptRejected,
    ConnectTimeout,
    DuplicateConnection,
    EventArgumentError,
    EventError,
    EventFieldError,
    FrameTooLarge,
    HandshakeError,
    HandshakeTimeout,
    InactiveUnionMember,
    IncompatibleLayout,
    InvalidEndpointName,
    LahjaError,
    LifecycleError,
    LocalProtocolError,
    NameInUse,
    NoSubscribers,
    NotAPeer,
    ProtocolError,
    RemoteDisconnected,
    RemoteProtocolError,
    RequestFailed,
    RequestTimeout,
    ResponderFailure,
    SchemaError,
    SocketPathTooLong,
    TLSFailed,
    UnexpectedResponse,
    UnsupportedVersion,
    WrongName,
)
from .runtime.on_asyncio import AsyncioEndpoint
from .schema import load
from .session import Counters, Policy
from .wire.limits import Limits

if TYPE_CHECKING:
    from .runtime.on_trio import TrioEndpoint

__version__ = "0.1.0"

__all__ = [
    "OPTIONAL",
    "TLS",
    "AddressInUse",
    "AnyPointer",
    "AsyncioEndpoint",
    "Backoff",
    "BaseEvent",
    "BaseRequestResponseEvent",
    "BindError",
    "BroadcastConfig",
    "ConfigError",
    "ConnectTimeout",
    "ConnectionAttemptRejected",
    "ConnectionConfig",
    "Counters",
    "DataView",
    "DuplicateConnection",
    "EndpointAPI",
    "Enumerant",
    "EventArgumentError",
    "EventError",
    "EventFieldError",
    "EventStream",
    "FrameTooLarge",
    "HandshakeError",
    "HandshakeTimeout",
    "InactiveUnionMember",
    "InboxCounters",
    "IncompatibleLayout",
    "InvalidEndpointName",
    "KeptConnections",
    "LahjaError",
    "LifecycleError",
    "Limits",
    "LocalProtocolError",
    "NameInUse",
    "NoSubscribers",
    "NotAPeer",
    "Policy",
    "ProtocolError",
    "RemoteDisconnected",
    "RemoteProtocolError",
    "RequestFailed",
    "RequestTimeout",
    "ResponderFailure",
    "SchemaError",
    "SocketPathTooLong",
    "Struct",
    "Subscription",
    "TLSFailed",
    "TrioEndpoint",
    "UnexpectedResponse",
    "UnsupportedVersion",
    "WrongName",
    "bind",
    "load",
]


def __getattr__(name: str) -> Any:
    # Importing the package must not need trio, which is an extra.
    if name == "TrioEndpoint":
        try:
            from .runtime.on_trio import TrioEndpoint
        except ModuleNotFoundError as error:
            if error.name not in ("trio", "outcome"):
                raise
            raise ModuleNotFoundError(
                "TrioEndpoint needs trio, which is not installed: pip install 'lahja_capn[trio]'",
                name=error.name,
            ) from error
        return TrioEndpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

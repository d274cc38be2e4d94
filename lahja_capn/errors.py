"""Every exception of the package, one tree, each class tagged with the layer that raises it.

Messages say who, what, what was wanted, what came, the limit and where it comes from, and the way out. The
same facts are attributes, so that code need not parse text: each class lists its own.

::

    LahjaError
    |- SchemaError               schema    a .capnp file that cannot be loaded
    |- BindError                 binding   a class that does not fit its struct, or was never bound
    |- EventError                binding   one event: a wrong argument or an unreadable field
    |  |- EventArgumentError               (also TypeError, ValueError) constructor arguments
    |  `- EventFieldError                  (also ValueError) a received field that cannot be read
    |     `- InactiveUnionMember           (also AttributeError) a union member that is not the one set
    |- ProtocolError             wire, session
    |  |- LocalProtocolError               our caller's mistake: nothing was sent
    |  |  `- FrameTooLarge                 an event larger than the peer accepts
    |  `- RemoteProtocolError              the peer's bytes: the connection ends with a goodbye
    |     |- HandshakeError                before the connection was up
    |     |  |- UnsupportedVersion
    |     |  |- NotAPeer                   what came is no frame of ours (HTTP, TLS, ...)
    |     |  `- HandshakeTimeout           (also TimeoutError)
    |     `- UnknownTypeId, ...            see docs/wire.md, goodbye codes
    |- ConfigError               endpoint  (also ValueError) a value the endpoint cannot work with
    |  |- InvalidEndpointName
    |  `- SocketPathTooLong
    |- ConnectionAttemptRejected endpoint  the other side, or this one, refused the connection
    |  |- NameInUse, WrongName, DuplicateConnection
    |  |- AddressInUse           transport a living endpoint serves at this address
    |  `- TLSFailed              transport the two sides do not accept each other's certificates
    |- ConnectTimeout            endpoint  (also TimeoutError) nobody answered at the path
    |- LifecycleError            endpoint  not running, already running, wrong thread or process
    |- NoSubscribers             endpoint
    |  `- IncompatibleLayout               somebody listens, with another layout of the struct
    |- UnexpectedResponse        endpoint
    |- RemoteDisconnected        endpoint  the peer left while something was waited for from it
    |- RequestFailed             endpoint  every responder failed
    `- RequestTimeout            endpoint  (also TimeoutError)
"""

from __future__ import annotations

from typing import Any


class LahjaError(Exception):
    """Base of every error of the package.

    Keyword arguments become attributes: ``FrameTooLarge("...", peer="billing", size=10).size == 10``.
    """

    def __init__(self, message: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.facts = facts
        for name, value in facts.items():
            setattr(self, name, value)


# --- schema -------------------------------------------------------------------------------------------


class SchemaError(LahjaError):
    """A ``.capnp`` file could not be loaded. Attributes: ``path``, ``line`` (None if unknown)."""

    path: str
    line: int | None


# --- binding ------------------------------------------------------------------------------------------


class BindError(LahjaError):
    """A class does not fit the struct it is bound to, or was never bound. Attributes: ``event``, ``field``."""

    event: str
    field: str | None


class EventError(LahjaError):
    """Something is wrong with one event. Attributes: ``event`` (class name), ``path`` (field path)."""

    event: str
    path: str


class EventArgumentError(EventError, TypeError, ValueError):
    """A constructor argument does not fit its field. Attributes also: ``wanted``, ``got``."""

    wanted: str
    got: str


class EventFieldError(EventError, ValueError):
    """A field of a received event cannot be read; the event's other fields and its connection are unharmed."""


class InactiveUnionMember(EventFieldError, AttributeError):
    """The union member asked for is not the one set. Attributes also: ``active``."""

    active: str


# --- wire and session ---------------------------------------------------------------------------------


class ProtocolError(LahjaError):
    """A message that the protocol does not allow."""


class LocalProtocolError(ProtocolError):
    """Our own caller asked for something the protocol does not allow: nothing was sent, the connection goes on."""


class FrameTooLarge(LocalProtocolError):
    """A frame over the peer's limit. Attributes: ``event``, ``peer``, ``size``, ``limit`` (bytes)."""

    event: str
    peer: str
    size: int
    limit: int


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol: it is told goodbye and the connection ends.

    Attributes: ``peer`` (name, or "" before the handshake), ``code`` (the goodbye code we send, see
    ``GoodbyeCode`` in wire.capnp).
    """

    peer: str = ""
    code: str = "protocolError"


class HandshakeError(RemoteProtocolError):
    """The handshake did not succeed."""


class UnsupportedVersion(HandshakeError):
    """The peer speaks another protocol version. Attributes: ``theirs`` (None if it did not say), ``ours``."""

    theirs: int | None
    ours: int


class NotAPeer(HandshakeError):
    """What came is no frame of this protocol. Attribute: ``got`` (the first bytes)."""

    got: bytes


class HandshakeTimeout(HandshakeError, TimeoutError):
    """The handshake did not end in time. Attributes: ``peer``, ``timeout_s``."""

    timeout_s: float


# --- endpoint -----------------------------------------------------------------------------------------


class ConfigError(LahjaError, ValueError):
    """A configuration value that cannot work."""


class InvalidEndpointName(ConfigError):
    """An endpoint name outside ``[A-Za-z0-9][A-Za-z0-9._-]{0,99}``. Attribute: ``name``."""

    name: str


class SocketPathTooLong(ConfigError):
    """A socket path over the operating system's limit. Attributes: ``path``, ``size``, ``limit`` (bytes)."""

    path: str
    size: int
    limit: int


class ConnectionAttemptRejected(LahjaError):
    """A connection was refused. Attributes: ``peer``, ``code`` (goodbye code, or "" when we refused)."""

    peer: str = ""
    code: str = ""


class NameInUse(ConnectionAttemptRejected):
    """The name we go by is held by another, living endpoint."""


class WrongName(ConnectionAttemptRejected):
    """The endpoint at this address has another name than the one asked for. Attributes: ``wanted``, ``got``."""

    wanted: str
    got: str


class DuplicateConnection(ConnectionAttemptRejected):
    """These two endpoints are connected already, or this one tried to connect to itself."""


class AddressInUse(ConnectionAttemptRejected):
    """A living endpoint serves at this address. Attribute: ``path``."""

    path: str


class TLSFailed(ConnectionAttemptRejected):
    """No TLS connection came about.

    Attributes: ``address``, ``reason``, ``lost`` (the other side went away meanwhile, for whatever reason).
    """

    address: str
    reason: str
    lost: bool


class ConnectTimeout(LahjaError, TimeoutError):
    """Nobody answered at the address in time. Attributes: ``peer``, ``path``, ``timeout_s``."""

    peer: str
    path: str
    timeout_s: float


class LifecycleError(LahjaError):
    """The endpoint is not running, runs already, or is used from another thread, loop or process."""


class NoSubscribers(LahjaError):
    """Nobody listens to this event type. Attributes: ``event``, ``endpoint`` (the target, or None for all).

    A safety check: ``BroadcastConfig(require_subscriber=False)`` sends without it.
    """

    event: str
    endpoint: str | None


class IncompatibleLayout(NoSubscribers):
    """The only ones who listen hold an incompatible layout of the struct. Attributes also: ``peers``, ``detail``."""

    peers: tuple[str, ...]
    detail: str


class UnexpectedResponse(LahjaError):
    """A response of another type than the request expects. Attributes: ``request``, ``wanted``, ``got``, ``peer``."""

    request: str
    wanted: str
    got: str
    peer: str


class RemoteDisconnected(LahjaError):
    """The peer left while something was waited for from it. Attributes: ``peer``, ``reason``."""

    peer: str
    reason: str


class RequestFailed(LahjaError):
    """Every responder failed. Attributes: ``request``, ``failures`` (one :class:`ResponderFailure` each)."""

    request: str
    failures: tuple[ResponderFailure, ...]


def printable(text: str) -> str:
    """Return a text that a peer sent as it may stand in a log or a message: on one line, nothing a terminal obeys."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class ResponderFailure:
    """Why one responder failed: ``endpoint``, ``code`` (``FailedCode``), ``type_name``, ``text``."""

    __slots__ = ("code", "endpoint", "text", "type_name")

    def __init__(self, endpoint: str, code: str, type_name: str, text: str) -> None:
        self.endpoint = endpoint
        self.code = code
        self.type_name = type_name
        self.text = text

    def __str__(self) -> str:
        what = f"{self.type_name}: {self.text}" if self.type_name else self.text
        return printable(f"{self.endpoint} ({self.code}) {what}".rstrip())

    def __repr__(self) -> str:
        return f"<ResponderFailure {self}>"


class RequestTimeout(LahjaError, TimeoutError):
    """No response in time. Attributes: ``request``, ``timeout_s``, ``waiting_for`` (names of the responders)."""

    request: str
    timeout_s: float
    waiting_for: tuple[str, ...]

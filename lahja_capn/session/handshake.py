"""The first messages of a connection: what ours say, and what makes the peer's acceptable."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import DuplicateConnection, HandshakeError, LahjaError, UnsupportedVersion, WrongName
from ..wire import Buffer, encode_frame
from ..wire.frames import frame_size
from ..wire.limits import CONTROL_FRAME_BYTES, MAX_FRAME_BYTES, MIN_FRAME_LIMIT_BYTES, NAME_TEXT_BYTES
from .control import ControlMessage, Declare, Hello, TableRow, encode_control
from .local import INSTANCE_BYTES, PROTOCOL_VERSION, LocalEndpoint, PeerInfo
from .names import is_endpoint_name

# Rows are put into a message until their estimated sizes come to this; the rest of 1 MiB is for what the
# estimate does not see (the other fields of hello, pointers between segments).
_ROWS_BYTES = CONTROL_FRAME_BYTES - 64 * 1024


def encode_control_frame(message: ControlMessage) -> tuple[Buffer, ...]:
    """Return the frame of a control message: EVENT_ID, FLAGS and CORRELATION 0."""
    buffers = encode_frame(0, 0, 0, encode_control(message))
    assert frame_size(buffers) <= CONTROL_FRAME_BYTES, message
    return buffers


def cut(text: str, limit: int) -> str:
    """Return ``text``, cut to ``limit`` bytes of UTF-8; what UTF-8 cannot say becomes ``?``."""
    data = text.encode("utf-8", "replace")
    if len(data) > limit:
        data = data[: limit - 3] + b"..."
    return data.decode("utf-8", "ignore")


def take_rows(rows: Sequence[TableRow], start: int) -> tuple[tuple[TableRow, ...], int]:
    """Return as many rows from ``start`` on as one message holds, and where the rest begins."""
    total = 0
    end = start
    taken: list[TableRow] = []
    while end < len(rows):
        wire_id, row = rows[end]
        # 4 words of the row itself, two far pointers' landing pads, name with its NUL, layout.
        total += 32 + 32 + len(row.name.encode()) + 8 + 4 * len(row.layout) + 8
        if total > _ROWS_BYTES and taken:
            break
        taken.append((wire_id, row))
        end += 1
    return tuple(taken), end


def make_hello(local: LocalEndpoint, rows: tuple[TableRow, ...], event_credit: int) -> Hello:
    return Hello(
        protocol_version=PROTOCOL_VERSION,
        name=local.name,
        instance=local.instance,
        implementation=cut(local.implementation, NAME_TEXT_BYTES),
        version=cut(local.version, NAME_TEXT_BYTES),
        frame_limit=local.limits.frame_bytes,
        keepalive_ms=round(local.keepalive_s * 1000),
        event_credit=event_credit,
        request_credit=local.limits.request_credit_bytes,
        features=local.features,
        rows=rows,
    )


def make_declares(rows: Sequence[TableRow], start: int) -> list[Declare]:
    """Return the declare messages for the rows from ``start`` on, each within the limit of control frames."""
    found = []
    while start < len(rows):
        taken, start = take_rows(rows, start)
        found.append(Declare(taken))
    return found


def check_hello(hello: Hello, local: LocalEndpoint, expected_peer: str | None) -> PeerInfo:
    """Return who the peer is.

    Raises:
        HandshakeError, UnsupportedVersion, WrongName, DuplicateConnection: each with the goodbye ``code``.
    """
    if hello.protocol_version != PROTOCOL_VERSION:
        raise UnsupportedVersion(
            f"the peer speaks protocol version {hello.protocol_version}, this endpoint {local.name!r} speaks "
            f"{PROTOCOL_VERSION}. Run versions of the library that share one.",
            code="unsupportedVersion",
            theirs=hello.protocol_version,
            ours=PROTOCOL_VERSION,
        )
    name = hello.name
    if not is_endpoint_name(name):
        raise HandshakeError(
            f"the peer calls itself {cut(name, 100)!r}: wanted [A-Za-z0-9][A-Za-z0-9._-]{{0,99}}",
            code="invalidName",
        )
    if len(hello.instance) != INSTANCE_BYTES:
        raise HandshakeError(
            f"hello of {name!r} has an instance id of {len(hello.instance)} bytes: wanted {INSTANCE_BYTES}",
            peer=name,
        )
    for field, text in (("implementation", hello.implementation), ("version", hello.version)):
        if len(text.encode()) > NAME_TEXT_BYTES:
            raise HandshakeError(
                f"hello of {name!r} has {len(text.encode())} bytes of {field}: the limit is {NAME_TEXT_BYTES}",
                peer=name,
            )
    if not MIN_FRAME_LIMIT_BYTES <= hello.frame_limit <= MAX_FRAME_BYTES:
        raise HandshakeError(
            f"hello of {name!r} has frameLimit {hello.frame_limit}: wanted {MIN_FRAME_LIMIT_BYTES} to "
            f"{MAX_FRAME_BYTES}",
            peer=name,
        )
    if hello.instance == local.instance:
        raise DuplicateConnection(
            f"{name!r} is this endpoint itself: it was told to connect to the address it serves. Connect to "
            "another endpoint.",
            peer=name,
        )
    if expected_peer is not None and name != expected_peer:
        raise WrongName(
            f"the endpoint reached is called {name!r}, wanted {expected_peer!r}. Check the address, or "
            "the name in the configuration.",
            peer=name,
            wanted=expected_peer,
            got=name,
        )
    return PeerInfo(
        name=name,
        instance=hello.instance,
        implementation=hello.implementation,
        version=hello.version,
        frame_limit=hello.frame_limit,
        keepalive_s=hello.keepalive_ms / 1000,
        features=frozenset(hello.features),
    )


def goodbye_code(error: LahjaError) -> str:
    """Return the code that tells the peer about ``error``."""
    if isinstance(error, WrongName):
        return "wrongName"
    if isinstance(error, DuplicateConnection):
        return "duplicate"
    code: str = getattr(error, "code", "protocolError")
    return code

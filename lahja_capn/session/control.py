"""Control messages: the values that pass between session and wire.capnp.

One small class per variant of ``Control``; docs/wire.md section 5 describes each field. Encoding and opening
go through the binding layer, so nothing here touches the Cap'n Proto library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias

from ..binding import StructCodec, TypeRow
from ..errors import LahjaError, RemoteProtocolError
from ..schema import wire_schema
from ..wire import Segments
from ..wire.limits import MAX_FEATURES
from .state import Message

# (wire id, row); wire id 0 = a struct reachable from an event.
TableRow: TypeAlias = tuple[int, TypeRow]

_codec: Final = StructCodec(wire_schema().Control)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    message: ClassVar[Message] = Message.HELLO

    protocol_version: int
    name: str
    instance: bytes
    implementation: str
    version: str
    frame_limit: int
    keepalive_ms: int
    event_credit: int
    request_credit: int
    features: tuple[str, ...]
    rows: tuple[TableRow, ...]


@dataclass(frozen=True, slots=True)
class Declare:
    message: ClassVar[Message] = Message.DECLARE

    rows: tuple[TableRow, ...]


@dataclass(frozen=True, slots=True)
class Subscriptions:
    message: ClassVar[Message] = Message.SUBSCRIPTIONS

    sequence: int
    add: tuple[int, ...]
    remove: tuple[int, ...]
    all: bool
    ack_wanted: bool


@dataclass(frozen=True, slots=True)
class SubscriptionsAck:
    message: ClassVar[Message] = Message.SUBSCRIPTIONS_ACK

    sequence: int


@dataclass(frozen=True, slots=True)
class Credit:
    message: ClassVar[Message] = Message.CREDIT

    events: int
    requests: int


@dataclass(frozen=True, slots=True)
class Failed:
    message: ClassVar[Message] = Message.FAILED

    correlation: int
    code: str
    type_name: str
    text: str


@dataclass(frozen=True, slots=True)
class Ping:
    message: ClassVar[Message] = Message.PING


@dataclass(frozen=True, slots=True)
class Pong:
    message: ClassVar[Message] = Message.PONG


@dataclass(frozen=True, slots=True)
class Dropped:
    message: ClassVar[Message] = Message.DROPPED

    # (type id, events)
    counts: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Goodbye:
    message: ClassVar[Message] = Message.GOODBYE

    code: str
    text: str


ControlMessage: TypeAlias = (
    Hello | Declare | Subscriptions | SubscriptionsAck | Credit | Failed | Ping | Pong | Dropped | Goodbye
)


def encode_control(message: ControlMessage) -> Segments:
    """Return the segments of the Control message that says ``message``."""
    return _codec.encode(**{message.message.value: _FIELDS[message.message](message)})


def decode_control(segments: Segments) -> ControlMessage:
    """Read one control message, whole: nothing of it is looked at later.

    Raises:
        RemoteProtocolError: an unknown variant (code ``unknownControl``), or bytes that cannot be read.
    """
    try:
        view = _codec.open(segments)
        which = view.which()
        read = _READ.get(which)
        if read is None:
            raise RemoteProtocolError(
                f"control variant {which} is not known in protocol version 1, and no feature was negotiated",
                code="unknownControl",
            )
        return read(getattr(view, which))
    except RemoteProtocolError:
        raise
    except LahjaError as error:
        raise RemoteProtocolError(f"a control message cannot be read: {error}") from error


# --- to fields ----------------------------------------------------------------------------------------


def _rows_out(rows: Iterable[TableRow]) -> list[dict[str, Any]]:
    return [
        {
            "wireId": wire_id,
            "kind": row.kind,
            "typeId": row.type_id,
            "name": row.name,
            "layout": list(row.layout),
        }
        for wire_id, row in rows
    ]


_FIELDS: Final[dict[Message, Callable[[Any], Any]]] = {
    Message.HELLO: lambda m: {
        "protocolVersion": m.protocol_version,
        "name": m.name,
        "instance": m.instance,
        "implementation": m.implementation,
        "version": m.version,
        "frameLimit": m.frame_limit,
        "keepaliveMs": m.keepalive_ms,
        "eventCredit": m.event_credit,
        "requestCredit": m.request_credit,
        "features": list(m.features),
        "types": _rows_out(m.rows),
    },
    Message.DECLARE: lambda m: {"types": _rows_out(m.rows)},
    Message.SUBSCRIPTIONS: lambda m: {
        "sequence": m.sequence,
        "add": list(m.add),
        "remove": list(m.remove),
        "all": m.all,
        "ackWanted": m.ack_wanted,
    },
    Message.SUBSCRIPTIONS_ACK: lambda m: {"sequence": m.sequence},
    Message.CREDIT: lambda m: {"events": m.events, "requests": m.requests},
    Message.FAILED: lambda m: {
        "correlation": m.correlation,
        "code": m.code,
        "typeName": m.type_name,
        "text": m.text,
    },
    Message.PING: lambda m: None,
    Message.PONG: lambda m: None,
    Message.DROPPED: lambda m: {"counts": [{"typeId": t, "count": n} for t, n in m.counts]},
    Message.GOODBYE: lambda m: {"code": m.code, "text": m.text},
}


# --- from fields --------------------------------------------------------------------------------------


def _rows_in(rows: Any) -> tuple[TableRow, ...]:
    return tuple(
        (
            row.wireId,
            TypeRow(type_id=row.typeId, kind=str(row.kind), name=row.name, layout=tuple(row.layout)),
        )
        for row in rows
    )


def _hello_in(hello: Any) -> Hello:
    version = hello.protocolVersion
    if version != 1:
        # Nothing else of another version's hello may be relied on.
        return Hello(
            protocol_version=version,
            name="",
            instance=b"",
            implementation="",
            version="",
            frame_limit=0,
            keepalive_ms=0,
            event_credit=0,
            request_credit=0,
            features=(),
            rows=(),
        )
    features = hello.features
    if len(features) > MAX_FEATURES:
        raise RemoteProtocolError(f"hello lists {len(features)} features: the limit is {MAX_FEATURES}")
    return Hello(
        protocol_version=version,
        name=hello.name,
        instance=bytes(hello.instance),
        implementation=hello.implementation,
        version=hello.version,
        frame_limit=hello.frameLimit,
        keepalive_ms=hello.keepaliveMs,
        event_credit=hello.eventCredit,
        request_credit=hello.requestCredit,
        features=tuple(features),
        rows=_rows_in(hello.types),
    )


_READ: Final[dict[str, Callable[[Any], ControlMessage]]] = {
    "hello": _hello_in,
    "declare": lambda view: Declare(_rows_in(view.types)),
    "subscriptions": lambda view: Subscriptions(
        sequence=view.sequence,
        add=tuple(view.add),
        remove=tuple(view.remove),
        all=view.all,
        ack_wanted=view.ackWanted,
    ),
    "subscriptionsAck": lambda view: SubscriptionsAck(view.sequence),
    "credit": lambda view: Credit(view.events, view.requests),
    "failed": lambda view: Failed(view.correlation, str(view.code), view.typeName, view.text),
    "ping": lambda view: Ping(),
    "pong": lambda view: Pong(),
    "dropped": lambda view: Dropped(tuple((count.typeId, count.count) for count in view.counts)),
    "goodbye": lambda view: Goodbye(str(view.code), view.text),
}

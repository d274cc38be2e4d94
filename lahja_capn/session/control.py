"""Control messages: the values that pass between session and wire.capnp.

One small class per variant of ``Control``; docs/wire.md section 5 describes each field. Encoding and opening
go through the binding layer, so nothing here touches the Cap'n Proto library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias

from ..binding import StructCodec, TypeRow, struct_size
from ..errors import LahjaError, RemoteProtocolError
from ..schema import wire_schema
from ..wire import Segments
from ..wire.limits import MAX_FEATURES
from .state import Message

# (wire id, row); wire id 0 = a struct reachable from an event.
TableRow: TypeAlias = tuple[int, TypeRow]

# Elements of a list of structs may be shorter than the schema's, and then lack what their data section has no room for:
# a TypeRow its type id, a DropCount its count. Both are a struct's second word.
_SECOND_WORD_END: Final = 16

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
        RemoteProtocolError: an unknown variant (code ``unknownControl``), or bytes that cannot be read. Never
            for a goodbye: it is one, whatever its code and text are.
    """
    try:
        view = _codec.open(segments)
        which = view.which()
        if which == "goodbye":
            return _goodbye_in(view)
        read = _READ.get(which)
        if read is None:
            raise RemoteProtocolError(
                f"control variant {which} is not known in protocol version 1, and no feature was negotiated",
                code="unknownControl",
            )
        return read(getattr(view, which), _Budget(segments))
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


class _Budget:
    """Bounds what one message may be read out to.

    Pointers may lead to the same bytes many times: 16,000 rows could share one layout of 200,000 elements, and
    eight bytes can claim a list of thousands of elements without words. In an honest message nothing is shared
    or empty, so what is read out, counted as what it takes there, is never more than the message itself.
    """

    __slots__ = ("_left",)

    def __init__(self, segments: Segments) -> None:
        self._left = sum(map(len, segments))

    def take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise RemoteProtocolError(
                "parts of a control message overlap: it reads out to more than it holds"
            )


def _take_structs(structs: Any, budget: _Budget) -> tuple[int, int]:
    """Take a list of structs from the budget; return the bytes of an element's data section, and its pointers."""
    if not structs:
        return 0, 0
    data, pointers = struct_size(structs)
    if not data and not pointers:
        raise RemoteProtocolError(f"a control message has a list of {len(structs)} elements without words")
    budget.take((data + 8 * pointers) * len(structs))
    return data, pointers


def _rows_in(rows: Any, budget: _Budget) -> tuple[TableRow, ...]:
    data, pointers = _take_structs(rows, budget)
    if data < _SECOND_WORD_END and not pointers:
        # There may be a million, of a byte each. All are alike: of type id 0, for which the first is refused.
        rows = rows[:1]
    found = []
    for row in rows:
        layout = row.layout
        budget.take(4 * len(layout))
        name = row.name
        budget.take(len(name))
        row_read = TypeRow(type_id=row.typeId, kind=str(row.kind), name=name, layout=tuple(layout))
        found.append((row.wireId, row_read))
    return tuple(found)


def _ids_in(ids: Any, budget: _Budget) -> tuple[int, ...]:
    budget.take(8 * len(ids))
    return tuple(ids)


def _texts_in(texts: Any, budget: _Budget) -> tuple[str, ...]:
    found = []
    for text in texts:
        budget.take(8 + len(text))
        found.append(text)
    return tuple(found)


def _counts_in(counts: Any, budget: _Budget) -> tuple[tuple[int, int], ...]:
    data, _ = _take_structs(counts, budget)
    if data < _SECOND_WORD_END:
        # Without a count: nothing was dropped. There may be a million, of a byte each.
        return ()
    return tuple((count.typeId, count.count) for count in counts)


def _subscriptions_in(view: Any, budget: _Budget) -> Subscriptions:
    return Subscriptions(
        sequence=view.sequence,
        add=_ids_in(view.add, budget),
        remove=_ids_in(view.remove, budget),
        all=view.all,
        ack_wanted=view.ackWanted,
    )


def _hello_in(hello: Any, budget: _Budget) -> Hello:
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
        features=_texts_in(features, budget),
        rows=_rows_in(hello.types, budget),
    )


def _goodbye_in(control: Any) -> Goodbye:
    # Whatever else it says, the peer has ended: answering it with a goodbye of our own would reach nobody.
    code, text = "unknown", "its reason cannot be read"
    try:
        code = str(control.goodbye.code)
        text = control.goodbye.text
    except LahjaError:
        pass
    return Goodbye(code, text)


_READ: Final[dict[str, Callable[[Any, _Budget], ControlMessage]]] = {
    "hello": _hello_in,
    "declare": lambda view, budget: Declare(_rows_in(view.types, budget)),
    "subscriptions": _subscriptions_in,
    "subscriptionsAck": lambda view, _: SubscriptionsAck(view.sequence),
    "credit": lambda view, _: Credit(view.events, view.requests),
    "failed": lambda view, _: Failed(view.correlation, str(view.code), view.typeName, view.text),
    "ping": lambda view, _: Ping(),
    "pong": lambda view, _: Pong(),
    "dropped": lambda view, budget: Dropped(_counts_in(view.counts, budget)),
}

"""One direction of a connection, in words: what each frame says, and where the first fault is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, BinaryIO

from lahja_capn.binding import Segments, TypeRow
from lahja_capn.errors import LahjaError, RemoteProtocolError
from lahja_capn.session.control import (
    ControlMessage,
    Declare,
    Dropped,
    Failed,
    Hello,
    Subscriptions,
    SubscriptionsAck,
    decode_control,
)
from lahja_capn.session.credit import SendWindow
from lahja_capn.session.handshake import check_hello, goodbye_code
from lahja_capn.session.local import LocalEndpoint
from lahja_capn.session.state import Half, Message, advance
from lahja_capn.session.tables import PeerTable
from lahja_capn.wire import FrameDecoder, Limits
from lahja_capn.wire.limits import UNLIMITED

_KINDS = ("event", "request", "response")

# What is known of the user's types: type id -> its row here, and how to show a message of it.
KnownTypes = Mapping[int, tuple[TypeRow, Callable[[Segments], str]]]


@dataclass(frozen=True, slots=True)
class Line:
    """Attributes:
    text: what to print.
    is_fault: whether it says that a rule of docs/wire.md is broken.
    """

    text: str
    is_fault: bool = False


class StreamReader:
    """Reads the frames of one direction and holds them against docs/wire.md.

    What only the other direction could tell is not judged: credit, answers, acknowledgements, and whether the
    connection was up when content came. After the first fault nothing more is judged: a peer would have ended the
    connection there.
    """

    def __init__(self, known: KnownTypes, frame_limit: int, *, from_the_middle: bool, layouts: bool) -> None:
        self._known = known
        self._decoder = FrameDecoder(Limits(frame_bytes=frame_limit))
        self._decoder.open()
        self._half = Half.OPENING
        self._table = PeerTable(Limits())
        self._names: dict[int, str] = {}
        self._middle = from_the_middle
        self._judging = True
        self._layouts = layouts
        self._sequence = 0
        self._acknowledged = 0
        self._request = 0
        self._at = 0

    def read(self, stream: BinaryIO) -> Iterator[Line]:
        """Yield what there is to say about a stream of bytes, as it comes."""
        received = 0
        while not self._ended:
            place = self._decoder.receive_buffer()
            count = stream.readinto(place)  # type: ignore[attr-defined]
            place.release()
            if not count:
                break
            received += count
            self._decoder.bytes_received(count)
            try:
                yield from self._complete()
            except RemoteProtocolError as error:
                yield Line(f"{self._at:08x}  ! {goodbye_code(error)}: {error}", True)
                yield Line(f"{'':8}  ! where the next frame begins cannot be known: the rest is not read")
                return
        while count := len(stream.read(1 << 20)):
            received += count
        if received > self._at:
            what = "after goodbye, which a receiver discards" if self._ended else "of a frame without its end"
            yield Line(f"{self._at:08x}  - {received - self._at} bytes {what}")

    @property
    def _ended(self) -> bool:
        return self._half is Half.ENDED

    def _complete(self) -> Iterator[Line]:
        while frames := self._decoder.frames():
            for frame in frames:
                yield from self._frame(*frame)
                if self._ended:
                    return

    def _frame(self, wire_id: int, kind: int, number: int, size: int, segments: Segments) -> Iterator[Line]:
        start = f"{self._at:08x}  {size:>8}  "
        self._at += size
        if wire_id == 0:
            try:
                message = decode_control(segments)
            except RemoteProtocolError as error:
                yield Line(f"{start}control")
                yield from self._fault(error)
                return
            yield Line(f"{start}{message.message.value}{_shown(message)}")
            yield from self._details(message)
            yield from self._judge(lambda: self._control(message), message.message)
            return
        type_id = self._type_id(wire_id)
        name = "never declared" if type_id is None else self._names[type_id]
        which = {0: "", 1: f" {number}", 2: f" to request {number}"}[kind]
        parts = "" if len(segments) == 1 else f", {len(segments)} segments"
        yield Line(f"{start}{_KINDS[kind]}{which}: wire id {wire_id}, {name}{parts}")
        known = None if type_id is None else self._known.get(type_id)
        if known is not None:
            yield _detail(known[1](segments))
        yield from self._judge(lambda: self._content(wire_id, kind, number), Message.CONTENT)

    # --- what it says -------------------------------------------------------------------------------------

    def _details(self, message: ControlMessage) -> Iterator[Line]:
        if isinstance(message, Hello):
            windows = ", ".join(
                f"{name} {'unlimited' if window == UNLIMITED else window}"
                for name, window in (("events", message.event_credit), ("requests", message.request_credit))
            )
            yield _detail(
                f"instance {message.instance.hex()}, frames up to {message.frame_limit} bytes, credit: {windows}"
            )
        if isinstance(message, (Hello, Declare)):
            for wire_id, row in message.rows:
                yield from self._row(wire_id, row)
        elif isinstance(message, Subscriptions):
            for sign, type_ids in (("+", message.add), ("-", message.remove)):
                for type_id in type_ids:
                    yield _detail(f"{sign} 0x{type_id:016x} {self._names.get(type_id, 'not declared')}")
        elif isinstance(message, Dropped):
            for type_id, count in message.counts:
                yield _detail(f"{count} of 0x{type_id:016x} {self._names.get(type_id, 'not declared')}")

    def _row(self, wire_id: int, row: TypeRow) -> Iterator[Line]:
        shown = json.dumps(row.name)
        self._names.setdefault(row.type_id, shown)
        yield _detail(f"{wire_id:>5}  {row.kind} 0x{row.type_id:016x} {shown}, layout of {len(row.layout)}")
        if self._layouts:
            for ordinal, number in enumerate(row.layout):
                yield _detail(f"         @{ordinal} 0x{number:08x}")
        known = self._known.get(row.type_id)
        if known is not None:
            for ordinal, (theirs, ours) in enumerate(zip(row.layout, known[0].layout, strict=False)):
                if theirs != ours:
                    yield _detail(
                        f"       @{ordinal} differs from the schema: 0x{theirs:08x}, there 0x{ours:08x}"
                    )

    def _type_id(self, wire_id: int) -> int | None:
        route = self._table.routes.get(wire_id)
        return None if route is None else route.row.type_id

    # --- what is wrong with it ------------------------------------------------------------------------------

    def _judge(self, rules: Callable[[], None], message: Message) -> Iterator[Line]:
        if self._middle and self._half is Half.OPENING:
            # Whatever came before, it is the beginning of a connection only if it says so.
            self._half = Half.OPENING if message is Message.HELLO else Half.ACTIVE
        try:
            after = advance(self._half, message)
        except LahjaError as error:
            yield from self._fault(error)
            return
        try:
            rules()
        except LahjaError as error:
            yield from self._fault(error)
        self._half = after

    def _fault(self, error: LahjaError) -> Iterator[Line]:
        if not self._judging:
            return
        self._judging = False
        code = (
            goodbye_code(error)
            if isinstance(error, RemoteProtocolError)
            else getattr(error, "code", "protocolError")
        )
        yield Line(f"{'':18}  ! {code}: {error}", True)

    def _control(self, message: ControlMessage) -> None:
        """Raise what a receiver would say about a control message."""
        if isinstance(message, Hello):
            # A name and an instance that no peer has by accident.
            check_hello(message, LocalEndpoint(name="0" * 100, instance=os.urandom(16)), None)
        if isinstance(message, (Hello, Declare)):
            self._table.add(message.rows)
        if isinstance(message, Hello):
            for window in (message.event_credit, message.request_credit):
                SendWindow().grant(window)
        elif isinstance(message, Subscriptions):
            self._subscriptions(message)
        elif isinstance(message, SubscriptionsAck):
            least = max(self._acknowledged, 1)
            if message.sequence < least:
                raise RemoteProtocolError(f"an acknowledgement of {message.sequence}: the least is {least}")
            self._acknowledged = message.sequence
        elif isinstance(message, Failed) and not message.correlation:
            raise RemoteProtocolError("an answer to request 0, which never exists", code="unknownCorrelation")

    def _subscriptions(self, message: Subscriptions) -> None:
        wanted = self._sequence + 1
        if message.sequence != wanted and not (self._middle and not self._sequence):
            raise RemoteProtocolError(f"subscriptions with sequence {message.sequence}, wanted {wanted}")
        self._sequence = message.sequence
        unknown = [type_id for type_id in message.add if type_id not in self._table]
        if unknown and not self._middle:
            raise RemoteProtocolError(
                f"a subscription to 0x{unknown[0]:016x}, which has no wire id", code="unknownId"
            )

    def _content(self, wire_id: int, kind: int, number: int) -> None:
        if wire_id not in self._table.routes and not self._middle:
            raise RemoteProtocolError(f"content with wire id {wire_id}, never declared", code="unknownId")
        if kind == 1:
            if number <= self._request:
                raise RemoteProtocolError(
                    f"request {number} after request {self._request}: numbers must increase"
                )
            self._request = number


def _detail(text: str) -> Line:
    return Line(f"{'':20}{text}")


def _shown(message: ControlMessage) -> str:
    """The plain fields of a control message; rows, ids and counts go on lines of their own."""
    names: tuple[str, ...]
    if isinstance(message, Hello):
        names = ("protocol_version", "name", "implementation", "version", "keepalive_ms", "features")
    else:
        names = tuple(
            each.name for each in fields(message) if each.name not in ("rows", "add", "remove", "counts")
        )
    parts = []
    for name in names:
        value: Any = getattr(message, name)
        if name == "code":
            parts.append(str(value))
        elif value not in ((), "", False):
            parts.append(f"{name} {json.dumps(value)}")
    return ": " + ", ".join(parts) if parts else ""

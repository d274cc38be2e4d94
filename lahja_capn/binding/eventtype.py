"""``EventType``: what the layers above know of a bound event class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lahja_capn.binding.codec import StructCodec, encode_values, encode_view
from lahja_capn.binding.fieldtypes import ListType, StructType
from lahja_capn.binding.layout import layout_of
from lahja_capn.binding.plan import Binding, StructPlan
from lahja_capn.binding.record import new
from lahja_capn.binding.scalars import InterfaceType
from lahja_capn.errors import BindError, EventFieldError
from lahja_capn.schema import wire_schema

if TYPE_CHECKING:
    from lahja_capn.binding.event import BaseEvent, RequestToken
    from lahja_capn.binding.pointers import Segments

# A generic struct that contains itself with ever larger arguments has no end of variants; what they reach is
# found within the first few.
_MAX_VARIANTS = 16


@dataclass(frozen=True, slots=True)
class TypeRow:
    """One row of an id table, without the wire id.

    Attributes:
        type_id: 64-bit id from the schema.
        kind: "struct" or "opaque".
        name: the schema's display name, such as ``events.capnp:OrderPlaced``.
        layout: one hash per ordinal (layout.py); empty for opaque.
    """

    type_id: int
    kind: str
    name: str
    layout: tuple[int, ...]


class EventType:
    """A bound event class.

    Attributes:
        type_id: the struct's id; the event type's identity everywhere.
        name: the class's ``__qualname__``.
        event_class: the class.
        row: its row of the id table.
        reachable: rows of the structs that can occur in it, itself not included, by type id.
        is_request: whether it is a ``BaseRequestResponseEvent``.
        binding: the class and its struct.
    """

    __slots__ = ("binding", "event_class", "is_request", "name", "reachable", "row", "type_id")

    def __init__(
        self, binding: Binding, row: TypeRow, reachable: tuple[TypeRow, ...], is_request: bool
    ) -> None:
        event_class: Any = binding.cls
        self.binding = binding
        self.event_class: type[BaseEvent] = event_class
        self.type_id = row.type_id
        self.name = event_class.__qualname__
        self.row = row
        self.reachable = reachable
        self.is_request = is_request

    def prepare(self) -> None:
        """Make ready what can be made before the first event comes: see flat.py."""
        self.binding.prepare()

    def encode(self, event: BaseEvent) -> Segments:
        """Return the event as the segments of a Cap'n Proto message.

        An event that was received, or made from a builder, gives the segments it came in, with what this
        side's schema does not know. A local one is encoded each time: keeping the result would double its
        memory.

        Raises:
            EventArgumentError: the values are valid one by one but too large together.
        """
        private = event.__dict__
        segments: Segments | None = private.get("_segments")
        if segments is not None:
            return segments
        if "_parent" not in private:
            encode = self.binding.encode
            if encode is not None and (segments := encode(private)) is not None:
                return segments
            return encode_values(self.binding, private)
        return encode_view(event)

    def open(
        self, segments: Segments, origin: str | None = None, token: RequestToken | None = None
    ) -> BaseEvent:
        """Return the event in a received message. Nothing of it is read or checked yet."""
        event = new(self.event_class)
        # One by one, see flat.py.
        private = event.__dict__
        private["_segments"] = segments
        if origin is not None:
            private["_origin"] = origin
        if token is not None:
            private["_token"] = token
        return event

    def open_as(self, last: BaseEvent) -> Callable[[Segments, str], BaseEvent]:
        """Return what opens the events that come right behind ``last``, which was opened and handled.

        That is ``open``; but if fields of ``last`` were read in the short way, so will those of the next ones, most
        likely: and to read them while the event is opened spares looking for the way at the first of them.
        """
        private = last.__dict__
        # More than its segments and its origin.
        if len(private) > 2 and "_reader" not in private:
            quick = self.binding.open
            if quick is not None:
                return quick
        return self.open

    def __repr__(self) -> str:
        return f"<EventType {self.name} {self.row.name} 0x{self.type_id:016x}>"


class OpaqueEventType(EventType):
    """An event class that serializes itself: its bytes travel in the wire schema's ``Opaque``."""

    __slots__ = ("_codec",)

    def __init__(
        self, binding: Binding, row: TypeRow, reachable: tuple[TypeRow, ...], is_request: bool
    ) -> None:
        super().__init__(binding, row, reachable, is_request)
        self._codec = StructCodec(wire_schema().Opaque)

    def encode(self, event: Any) -> Segments:
        """Return ``event.serialize()`` in an ``Opaque``. Always anew: such an event may be mutable."""
        return self._codec.encode(data=event.serialize())

    def open(
        self, segments: Segments, origin: str | None = None, token: RequestToken | None = None
    ) -> BaseEvent:
        """Return ``deserialize`` of the bytes.

        Unlike the open of a struct this runs the class's own code, and raises.

        Raises:
            EventFieldError: the message is no ``Opaque``, or ``deserialize`` raised (that is the
            ``__cause__``)
                or returned something else than an instance of the class.
        """
        cls: Any = self.event_class
        data = self._codec.open(segments).data
        try:
            event = cls.deserialize(data)
            if type(event) is not cls:
                raise TypeError(f"deserialize returned {type(event).__qualname__}")
        except Exception as error:
            raise EventFieldError(
                f"{self.name} cannot be read: its deserialize() failed with {type(error).__name__}: {error}.",
                event=self.name,
                path="",
            ) from error
        event._bind(origin, token)
        bound: BaseEvent = event
        return bound


def row_of(plan: StructPlan) -> TypeRow:
    """Return the id table's row of a struct."""
    # The parser's name of a file that was imported from above is its path on this machine: nobody's business elsewhere.
    file, colon, struct = plan.name.rpartition(":")
    return TypeRow(plan.type_id, "struct", file.rpartition("/")[2] + colon + struct, layout_of(plan.schema))


def reachable_rows(plan: StructPlan, owner: str) -> tuple[TypeRow, ...]:
    """Return the rows of the structs that can occur in `plan`, sorted by type id.

    Raises:
        BindError: one of them, or `plan` itself, has an interface field.
    """
    return tuple(map(row_of, reachable_plans(plan, owner)))


def reachable_plans(plan: StructPlan, owner: str) -> tuple[StructPlan, ...]:
    """Return the structs that can occur in `plan`, itself not included, sorted by type id: each id once.

    Raises:
        BindError: one of them, or `plan` itself, has an interface field.
    """
    found: dict[int, StructPlan] = {}
    variants: dict[int, list[StructPlan]] = {plan.type_id: [plan]}
    waiting = [(plan, "")]
    while waiting:
        current, path = waiting.pop()
        for inner, where in _structs_in(current, path, owner):
            seen = variants.setdefault(inner.type_id, [])
            if inner in seen or len(seen) >= _MAX_VARIANTS:
                continue
            seen.append(inner)
            waiting.append((inner, where))
            if inner.type_id != plan.type_id:
                found.setdefault(inner.type_id, inner)
    return tuple(found[type_id] for type_id in sorted(found))


def _structs_in(plan: StructPlan, path: str, owner: str) -> Iterator[tuple[StructPlan, str]]:
    for name, field in plan.fields.items():
        kind = field.type
        where = f"{path}.{name}"
        while isinstance(kind, ListType):
            kind = kind.element
        if isinstance(kind, InterfaceType):
            raise BindError(
                f"{owner}{where} has the type {kind.name}: interfaces cannot travel in events. Leave it out "
                "of the struct, or bind a struct without it.",
                event=owner,
                field=where.lstrip("."),
            )
        if isinstance(kind, StructType):
            if kind.is_group:
                yield from _structs_in(kind.plan, where, owner)
            else:
                yield kind.plan, where

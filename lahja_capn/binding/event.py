"""The base classes of events, and what says where an event goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Self, TypeVar, dataclass_transform

import capnp
from lahja_capn.binding.record import Record, set_dict, unbound
from lahja_capn.errors import BindError, EventArgumentError

if TYPE_CHECKING:
    from lahja_capn.binding.eventtype import EventType


class RequestToken(NamedTuple):
    """Names the request that an event answers: its number, and the connection it came on (0: none, local).

    Opaque to users: it travels from ``request.broadcast_config()`` to ``broadcast`` as ``filter_event_id``.
    """

    connection: int
    number: int

    def __repr__(self) -> str:
        return f"<request {self.number} on connection {self.connection}>"


class BroadcastConfig:
    """Where a broadcast or request goes.

    Args:
        filter_endpoint: only to the endpoint of this name.
        filter_event_id: the request that this is the response to, from ``request.broadcast_config()``.
        internal: only to this endpoint's own subscribers.
        require_subscriber: raise ``NoSubscribers`` if nobody would receive it.
    """

    __slots__ = ("filter_endpoint", "filter_event_id", "internal", "require_subscriber")

    def __init__(
        self,
        filter_endpoint: str | None = None,
        filter_event_id: RequestToken | None = None,
        internal: bool = False,
        require_subscriber: bool = True,
    ) -> None:
        if internal and filter_endpoint is not None:
            raise ValueError(
                f"internal=True keeps the event in this endpoint, so filter_endpoint={filter_endpoint!r} "
                "cannot be given as well: leave one out."
            )
        self.filter_endpoint = filter_endpoint
        self.filter_event_id = filter_event_id
        self.internal = internal
        self.require_subscriber = require_subscriber

    def allowed_to_receive(self, endpoint: str) -> bool:
        """Say whether the endpoint of this name is meant."""
        return self.filter_endpoint is None or self.filter_endpoint == endpoint

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BroadcastConfig):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return (
            f"BroadcastConfig[{'internal' if self.internal else 'external'} / "
            f"endpoint={self.filter_endpoint or 'N/A'} / id={self.filter_event_id or 'N/A'}]"
        )

    def __repr__(self) -> str:
        return f"<{self}>"


@dataclass_transform(kw_only_default=True, frozen_default=True)
class BaseEvent(Record):
    """Base of event classes: ``@bind(schema.OrderPlaced) class OrderPlaced(BaseEvent): ...``.

    Constructed with keywords; immutable; equal to another of its class with equal fields. A received event
    reads a field when it is asked for, straight from the received bytes; one that cannot be read raises
    ``EventFieldError`` there, and harms nothing else. See docs/events.md.
    """

    __slots__ = ()

    _event_type: ClassVar[EventType | None] = None
    # Of an event that has one, in its __dict__; there never as None.
    _origin: ClassVar[str | None] = None
    _token: ClassVar[RequestToken | None] = None

    @classmethod
    def from_builder(cls, builder: Any) -> Self:
        """Return the event in a pycapnp builder of the bound struct. Encoded now: later changes do not show.

        Raises:
            EventArgumentError: `builder` is no builder, or one of another struct.
        """
        binding = cls._binding
        if binding is None or binding.cls is not cls or binding.plan is None:
            raise unbound(cls)
        plan = binding.plan
        if not isinstance(builder, capnp._DynamicStructBuilder):
            raise _wrong_builder(cls, f"a pycapnp builder of {plan.name}", type(builder).__name__)
        schema = builder.schema
        if schema.node.id != plan.type_id:
            raise _wrong_builder(cls, f"a builder of {plan.name}", f"one of {schema.node.displayName}")
        if schema != plan.schema:
            from lahja_capn.binding.layout import layout_of

            if any(a != b for a, b in zip(layout_of(schema), layout_of(plan.schema), strict=False)):
                raise _wrong_builder(
                    cls,
                    f"a builder of {plan.name}",
                    "one of the same id but from a schema with another layout",
                )
        if builder.is_root:
            segments = tuple(builder._parent.get_segments_for_output())
        else:
            from lahja_capn.binding.anypointer import unboxed

            segments = unboxed(builder, builder.total_size.word_count + 8)
        event = cls.__new__(cls)
        set_dict(event, {"_segments": segments})
        return event

    @property
    def is_bound(self) -> bool:
        """Whether it was sent or received, so that it has an origin."""
        return self._origin is not None

    def get_origin(self) -> str:
        """Return the name of the endpoint that it came from, or that sent it first.

        Raises:
            AttributeError: it was neither sent nor received yet.
        """
        if self._origin is None:
            raise AttributeError(
                f"This {type(self).__name__} has no origin yet: an event gets one when it is first sent, "
                f"or received."
            )
        return self._origin

    def bind(self, endpoint: Any, id: RequestToken | None) -> None:
        """Give it an origin by hand. Sending does that by itself.

        Raises:
            BindError: it has one already.
        """
        if self._origin is not None:
            name = type(self).__qualname__
            raise BindError(f"This {name} is bound to {self._origin!r} already.", event=name, field=None)
        self._bind(endpoint.name, id)

    def broadcast_config(self, internal: bool = False) -> BroadcastConfig:
        """Return the config that sends a response back to where this request came from."""
        if internal:
            return BroadcastConfig(internal=True, filter_event_id=self._token)
        return BroadcastConfig(filter_endpoint=self._origin, filter_event_id=self._token)

    def _bind(self, origin: str | None, token: RequestToken | None) -> None:
        """Set what is still None."""
        private = self.__dict__
        if origin is not None and self._origin is None:
            private["_origin"] = origin
        if token is not None and self._token is None:
            private["_token"] = token

    def _twin(self, origin: str, token: RequestToken | None) -> Self:
        """Return a second handle on the same content with an origin and token of its own."""
        twin = object.__new__(type(self))
        set_dict(twin, {**self.__dict__, "_origin": origin, "_token": token})
        return twin


def _wrong_builder(cls: type, wanted: str, got: str) -> EventArgumentError:
    name = cls.__qualname__
    return EventArgumentError(
        f"{name}.from_builder: wanted {wanted}, got {got}.", event=name, path="", wanted=wanted, got=got
    )


TResponse = TypeVar("TResponse", bound=BaseEvent)


class BaseRequestResponseEvent(BaseEvent, Generic[TResponse]):
    """Base of requests: ``class Ask(BaseRequestResponseEvent[Answer]): ...``.

    The type argument is the response's class: a class, or the name of one as a string.
    """

    __slots__ = ()

    _response_type: ClassVar[Any] = None

    @classmethod
    def expected_response_type(cls) -> type[TResponse]:
        """Return the class of the response. A class may override this instead of giving a type argument.

        Raises:
            BindError: there is no type argument, or it is a name that means no event class (yet).
        """
        found = cls.__dict__.get("_response_type")
        if found is None:
            from lahja_capn.binding.responses import response_type

            # Asked for with every request: once found it stays, on this very class.
            found = cls._response_type = response_type(cls)
        return found  # type: ignore[return-value]

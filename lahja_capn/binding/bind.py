"""``@bind``: joins a class to a Cap'n Proto struct."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import capnp
from lahja_capn.binding.annotations import check_class
from lahja_capn.binding.event import BaseEvent, BaseRequestResponseEvent
from lahja_capn.binding.eventtype import EventType, OpaqueEventType, TypeRow, reachable_rows, row_of
from lahja_capn.binding.plan import Binding, StructPlan, get_plan, struct_schema
from lahja_capn.binding.record import Record, reason_of
from lahja_capn.binding.registry import check_free, register
from lahja_capn.binding.responses import has_own_response_type, response_type, type_argument
from lahja_capn.binding.structs import Struct, install
from lahja_capn.errors import BindError, EventFieldError

C = TypeVar("C", bound=type[Record])


class _Struct(Protocol):
    """A struct of a loaded schema: for type checkers, what an event class is not."""

    @property
    def schema(self) -> Any: ...


class _Schema(Protocol):
    """pycapnp's schema of a struct."""

    @property
    def fields_list(self) -> Any: ...


def bind(
    struct: _Struct | _Schema | None = None,
    *,
    rename: Mapping[str, str] | None = None,
    type_id: int | None = None,
) -> Callable[[C], C]:
    """Return a class decorator that binds an event class, or a class for a nested struct.

    ::

        schema = lahja_capn.load("events.capnp")

        @bind(schema.OrderPlaced)
        class OrderPlaced(BaseEvent):
            orderId: int
            lines: Sequence[Line]

    Args:
        struct: a struct of a loaded schema.
        rename: schema name -> attribute name, for fields whose name is taken by a method of the class.
        type_id: instead of `struct`: the 64-bit id of an event class that serializes itself. It has
            ``serialize(self) -> bytes``, a classmethod ``deserialize(cls, data: bytes)``, and an
            ``__init__`` of its own. Choose the id once with ``capnp id``.

    Raises:
        BindError: the class does not fit the struct, or the struct is bound to another class already. Binding
            again from the same module and name replaces.
    """
    target: Any = struct
    if isinstance(target, type) and issubclass(target, Record):
        name = target.__qualname__
        raise BindError(
            f"{name}: @bind takes the struct to bind to, in parentheses: @bind(schema.{name}).",
            event=name,
            field=None,
        )
    if (struct is None) == (type_id is None):
        raise BindError(
            "@bind takes a struct, as in @bind(schema.Foo), or a type_id for a class that serializes itself.",
            event="",
            field=None,
        )

    def decorate(cls: C) -> C:
        target: Any = cls
        if not (isinstance(target, type) and issubclass(target, (BaseEvent, Struct))):
            name = getattr(target, "__qualname__", repr(target))
            raise BindError(
                f"{name}: @bind goes on a class that inherits from BaseEvent, BaseRequestResponseEvent or "
                f"Struct.",
                event=name,
                field=None,
            )
        for base in cls.__mro__[1:]:
            if base.__dict__.get("_binding") is not None:
                raise BindError(
                    f"{cls.__qualname__} inherits from {base.__qualname__}, which is bound itself. Put "
                    "what they share into a base class that is not bound.",
                    event=cls.__qualname__,
                    field=None,
                )
        if type_id is not None:
            _bind_opaque(cls, type_id)
        else:
            frame = sys._getframe(1)
            local_names = dict(frame.f_locals) if frame.f_locals is not frame.f_globals else {}
            try:
                _bind_struct(cls, struct, dict(rename or {}), local_names)
            except (capnp.KjException, EventFieldError) as error:
                raise BindError(
                    f"{cls.__qualname__} cannot be bound: {reason_of(error)}.",
                    event=cls.__qualname__,
                    field=None,
                ) from error
        return cls

    return decorate


def _bind_struct(cls: type[Record], struct: Any, rename: dict[str, str], local_names: dict[str, Any]) -> None:
    name = cls.__qualname__
    schema = struct_schema(struct, name)
    is_event = issubclass(cls, BaseEvent)
    node = schema.node
    if node.isGeneric:
        raise BindError(
            f"{name}: {node.displayName} is generic, and the wire does not say with which type arguments. "
            "Bind a struct that has a field of the generic type, such as `value @0 :Box(Text)`.",
            event=name,
            field=None,
        )
    if is_event and node.struct.isGroup:
        raise BindError(
            f"{name}: {node.displayName} is a group, part of a struct. Bind the struct.",
            event=name,
            field=None,
        )
    plan = get_plan(schema, {})
    base = (
        (BaseRequestResponseEvent if issubclass(cls, BaseRequestResponseEvent) else BaseEvent)
        if is_event
        else Struct
    )
    attr_of = _attributes(cls, plan, rename, base)
    views = check_class(cls, plan, attr_of, base, local_names)
    is_request = _check_response(cls)
    check_free(cls, plan.type_id, plan.name)
    reachable = reachable_rows(plan, name)
    binding = Binding(cls, plan, attr_of, views)
    bound: EventType | None = None
    if is_event:
        bound = EventType(binding, row_of(plan), reachable, is_request)
        cls._event_type = bound  # type: ignore[attr-defined]
    install(cls, binding, shared=not is_event)
    register(cls, plan.type_id, bound)


def _attributes(
    cls: type[Record], plan: StructPlan, rename: dict[str, str], base: type[Record]
) -> dict[str, str]:
    """Return schema name -> attribute name, refusing names that are taken."""
    name = cls.__qualname__
    for old, renamed in rename.items():
        if old not in plan.fields:
            raise BindError(
                f"{name}: rename names {old!r}, which {plan.name} does not have.", event=name, field=old
            )
        if not renamed.isidentifier() or renamed.startswith("_"):
            raise BindError(
                f"{name}: rename gives {old!r} the name {renamed!r}; it must be an identifier without a "
                "leading underscore.",
                event=name,
                field=old,
            )
    attr_of = {field: rename.get(field, field) for field in plan.fields}
    owners: dict[str, str] = {}
    for field, attr in attr_of.items():
        if attr in owners:
            raise BindError(
                f"{name}: {owners[attr]!r} and {field!r} both get the name {attr!r}.", event=name, field=field
            )
        owners[attr] = field
        if hasattr(base, attr):
            raise BindError(
                f"{name}: the field {field!r} of {plan.name} has the name of a method of {base.__name__}. "
                f"Give it another "
                f'name in Python: @bind(..., rename={{"{field}": "{field}_"}}).',
                event=name,
                field=field,
            )
    return attr_of


def _check_response(cls: type[Record]) -> bool:
    """Say whether `cls` is a request, and refuse one that does not say what it is answered with."""
    if not issubclass(cls, BaseRequestResponseEvent):
        return False
    if not has_own_response_type(cls):
        argument = type_argument(cls)
        if argument is None or isinstance(argument, type):
            response_type(cls)
    return True


def _bind_opaque(cls: type[Record], type_id: int) -> None:
    name = cls.__qualname__
    if not issubclass(cls, BaseEvent):
        raise BindError(
            f"{name}: type_id= is for events; a nested struct has a schema.", event=name, field=None
        )
    if type(type_id) is not int or not 2**63 <= type_id < 2**64:
        raise BindError(
            f"{name}: type_id must be a 64-bit id with the highest bit set, as `capnp id` prints, not "
            f"{type_id!r}.",
            event=name,
            field=None,
        )
    for method in ("serialize", "deserialize"):
        if not callable(getattr(cls, method, None)):
            raise BindError(
                f"{name} is bound with type_id=, so it needs serialize(self) -> bytes and a classmethod "
                f"deserialize(cls, data); {method} is missing.",
                event=name,
                field=None,
            )
    is_request = _check_response(cls)
    check_free(cls, type_id, "the type")
    # Such a class is its author's: mutable unless they say otherwise, compared and shown as they say.
    for method, default in (
        ("__setattr__", object.__setattr__),
        ("__delattr__", object.__delattr__),
        ("__eq__", object.__eq__),
        ("__hash__", object.__hash__),
        ("__copy__", _copy_opaque),
        ("__deepcopy__", _copy_opaque),
    ):
        if getattr(cls, method) is getattr(Record, method):
            setattr(cls, method, default)
    cls._binding = Binding(cls, None, {}, frozenset())
    row = TypeRow(type_id, "opaque", f"{cls.__module__}.{name}", ())
    bound = OpaqueEventType(cls._binding, row, (), is_request)
    cls._event_type = bound
    register(cls, type_id, bound)


def _copy_opaque(event: Any, memo: Any = None) -> Any:
    """Copy an event that serializes itself: it may be mutable, so the copy is another object."""
    copy = type(event).deserialize(event.serialize())
    copy._bind(event._origin, event._token)
    return copy

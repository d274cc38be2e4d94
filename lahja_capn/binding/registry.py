"""The registry: 64-bit type id -> what is bound to it. One class per struct and process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lahja_capn.binding.record import unbound
from lahja_capn.errors import BindError

if TYPE_CHECKING:
    from lahja_capn.binding.event import BaseEvent
    from lahja_capn.binding.eventtype import EventType
    from lahja_capn.binding.plan import StructPlan
    from lahja_capn.binding.record import Record


class Bindings:
    """Counts changes of the registry, so that others can keep what they looked up until the next one."""

    __slots__ = ("changes",)

    def __init__(self) -> None:
        self.changes = 0


BINDINGS = Bindings()

_events: dict[int, EventType] = {}
_classes: dict[int, type[Record]] = {}


def record_class(plan: StructPlan) -> type[Record] | None:
    """Return the class whose instances views of this struct are, or None if none is bound to it."""
    cls = _classes.get(plan.type_id)
    # An event class reads by the field objects of one schema tree; see structs.StructField for the others.
    if cls is None or cls._plan is plan or plan.type_id not in _events:
        return cls
    return None


def find_event_type(type_id: int) -> EventType | None:
    """Return the event type bound to a type id in this process."""
    return _events.get(type_id)


def event_type(event: BaseEvent | type[BaseEvent]) -> EventType:
    """Return the event type of a class or of an event.

    Raises:
        BindError: the class was not bound itself; that of a base class does not count.
    """
    cls = event if isinstance(event, type) else type(event)
    found: EventType | None = cls.__dict__.get("_event_type")
    if found is None:
        raise _no_event(cls)
    return found


def _no_event(cls: Any) -> BindError:
    from lahja_capn.binding.event import BaseEvent

    if issubclass(cls, BaseEvent):
        return unbound(cls)
    return BindError(
        f"{cls.__qualname__} is no event: an event class inherits from BaseEvent and has "
        f"@bind(schema.YourStruct).",
        event=cls.__qualname__,
        field=None,
    )


def check_free(cls: type[Record], type_id: int, struct: str) -> None:
    """Raise BindError if another class is bound to this id. The same module and name may bind again."""
    other = _classes.get(type_id)
    if other is None or (other.__module__, other.__qualname__) == (cls.__module__, cls.__qualname__):
        return
    raise BindError(
        f"{cls.__module__}.{cls.__qualname__}: {struct} (type id 0x{type_id:016x}) is bound to "
        f"{other.__module__}.{other.__qualname__} already. One class per struct: use that class.",
        event=cls.__qualname__,
        field=None,
    )


def register(cls: type[Record], type_id: int, bound: EventType | None) -> None:
    """Enter a class, in place of the one that was bound under the same module and name."""
    BINDINGS.changes += 1
    _classes[type_id] = cls
    if bound is None:
        _events.pop(type_id, None)
    else:
        _events[type_id] = bound

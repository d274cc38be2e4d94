"""``Struct``, the base of classes for nested structs, and the descriptors that read fields."""

from __future__ import annotations

from typing import Any, dataclass_transform

from lahja_capn.binding.flat import is_plain
from lahja_capn.binding.plan import Binding, FieldPlan, StructPlan
from lahja_capn.binding.record import Record, recover
from lahja_capn.binding.scalars import DATA_VIEW


class ScalarField:
    """Reads a field whose value pycapnp gives as it is, from records of the class's own schema tree."""

    __slots__ = ("_capnp", "field")

    def __init__(self, field: FieldPlan) -> None:
        self.field = field
        self._capnp = field.capnp

    def __get__(self, record: Any, owner: Any = None) -> Any:
        if record is None:
            return self
        reader = record._reader
        if reader is None:
            reader = record._open()
        try:
            return reader._get_by_field(self._capnp)
        except Exception as error:
            return recover(record, self.field, error)


class Field:
    """Reads a field of any type, from records of the class's own schema tree."""

    __slots__ = ("field",)

    def __init__(self, field: FieldPlan) -> None:
        self.field = field

    def __get__(self, record: Any, owner: Any = None) -> Any:
        if record is None:
            return self
        field = self.field
        if field.type is DATA_VIEW:
            return DATA_VIEW.read(record, field)
        return field.read(record)


class PlainField:
    """Reads a field of a plain event (flat.py): the first read puts what it finds of all fields into ``__dict__``.

    Python looks there first from then on. What is not found there is read by ``general``.
    """

    __slots__ = ("_attr", "_binding", "_general")

    def __init__(self, attr: str, binding: Binding, general: ScalarField | Field) -> None:
        self._attr = attr
        self._binding = binding
        self._general = general

    def __get__(self, record: Any, owner: Any = None) -> Any:
        if record is None:
            return self
        private = record.__dict__
        if "_reader" not in private and (segments := private.get("_segments")) is not None:
            decode = self._binding.decode
            if decode is None:
                self._binding.prepare()
                decode = self._binding.decode
                assert decode is not None
            decode(segments, private)
            value = private.get(self._attr, _UNREAD)
            if value is not _UNREAD:
                return value
        return self._general.__get__(record, owner)


_UNREAD = object()


class StructField:
    """Reads a field of a struct class whose views may come from several schema trees.

    Each loaded file has a tree of its own, and pycapnp accepts a field object only for readers of the same
    tree: so the view's plan has the field.
    """

    __slots__ = ("field",)

    def __init__(self, field: FieldPlan) -> None:
        self.field = field

    def __get__(self, record: Any, owner: Any = None) -> Any:
        if record is None:
            return self
        field = record._plan.fields.get(self.field.name)
        if field is None:
            raise AttributeError(f"{type(record).__qualname__}: this schema has no field {self.field.name!r}")
        if self.field.type is DATA_VIEW:
            return DATA_VIEW.read(record, field)
        return field.read(record)


def install(cls: type[Record], binding: Binding, *, shared: bool) -> None:
    """Give `cls` a descriptor per field. `shared`: its views may come from other schema trees."""
    binding.is_plain = not shared and is_plain(binding)
    for attr, field in binding.attrs.items():
        descriptor: Any
        if shared:
            descriptor = StructField(field)
        elif field.type.wrap is None and not field.in_union and field.type is not DATA_VIEW:
            descriptor = ScalarField(field)
        else:
            descriptor = Field(field)
        if binding.is_plain:
            descriptor = PlainField(attr, binding, descriptor)
        setattr(cls, attr, descriptor)
    cls._binding = binding
    cls._plan = binding.plan


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Struct(Record):
    """Base of classes for the structs in events: ``@bind(schema.Line) class Line(Struct): ...``."""

    __slots__ = ()


_RESERVED = frozenset(name for name in dir(Struct) if not name.startswith("_"))


def make_class(plan: StructPlan) -> type[Struct]:
    """Return a class for a struct that no class of the user's is bound to.

    Its attributes are the schema's names; one that collides with a method of ours gets an underscore behind.
    """
    attr_of = {name: f"{name}_" if name in _RESERVED else name for name in plan.fields}
    short = plan.name.rpartition(":")[2]
    cls = type(
        short.rpartition(".")[2], (Struct,), {"__slots__": (), "__qualname__": short, "__module__": __name__}
    )
    install(cls, Binding(cls, plan, attr_of, frozenset()), shared=True)
    return cls

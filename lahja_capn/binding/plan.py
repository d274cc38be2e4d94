"""Plans: what a struct of a loaded schema looks like, resolved once so that nothing is looked up per event.

A `StructPlan` belongs to a struct as one schema tree knows it (every loaded file has a tree of its own, and a
generic struct has one variant per set of type arguments). A `Binding` belongs to a Python class and a plan.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, NoReturn

import capnp
from lahja_capn.binding.fieldtypes import ANY_POINTER, AnyPointerType, ListType, StructType
from lahja_capn.binding.pointers import Segments
from lahja_capn.binding.record import (
    NESTING,
    Record,
    inactive,
    is_local,
    limit_words,
    new,
    recover,
    set_dict,
)
from lahja_capn.binding.scalars import BY_VARIANT, DATA_VIEW, EnumType, FieldType, InterfaceType
from lahja_capn.binding.values import Mismatch
from lahja_capn.errors import BindError, EventArgumentError

# No union: discriminantValue of a field outside any.
NO_DISCRIMINANT = 0xFFFF

# Scope id of a generic struct -> its type arguments, each a schema Type with the scope it is to be read in.
Scope = dict[int, list[tuple[Any, Any]]]


class FieldPlan:
    """One field of a struct.

    Attributes:
        name: as in the schema.
        capnp: pycapnp's field object: access by it is four times as fast as by name.
        type: its type.
        in_union: whether it is a member of the struct's unnamed union.
        discriminant: its number there.
        offset: of its slot, in units of its own size; for pointers the index of the pointer.
    """

    __slots__ = ("capnp", "discriminant", "in_union", "is_group", "name", "offset", "type")

    def __init__(
        self, name: str, field: Any, kind: FieldType, discriminant: int, offset: int, is_group: bool
    ) -> None:
        self.name = name
        self.capnp = field
        self.type = kind
        self.discriminant = discriminant
        self.in_union = discriminant != NO_DISCRIMINANT
        self.offset = offset
        self.is_group = is_group

    def read(self, view: Record) -> Any:
        """Return the field's value in a received record or view, or its default in a local record."""
        reader = view._reader
        if reader is None:
            reader = view._open()
            if self.in_union and is_local(view):
                active = view.which()
                assert view._binding is not None
                field = view._binding.attrs.get(active)
                if field is None or field.name != self.name:
                    raise inactive(view, self, active)
        try:
            raw = reader._get_by_field(self.capnp)
        except Exception as error:
            raw = recover(view, self, error)
        wrap = self.type.wrap
        return raw if wrap is None else wrap(raw, view, self)

    # A field is the step from a record to one part of it.
    part = read

    def take(self, reader: Any) -> Any:
        return reader._get_by_field(self.capnp)

    def text(self) -> str:
        return f".{self.name}"


class StructPlan:
    """One struct of a loaded schema."""

    __slots__ = (
        "_class",
        "_default",
        "_type",
        "container",
        "discriminant_offset",
        "fields",
        "from_segments",
        "is_group",
        "name",
        "node",
        "schema",
        "scope",
        "type_id",
        "union",
    )

    def __init__(self, schema: Any, scope: Scope) -> None:
        node = schema.node
        self.schema = schema
        self.scope = scope
        self.node = node
        self.type_id: int = node.id
        self.name: str = node.displayName
        struct = node.struct
        self.is_group: bool = struct.isGroup
        self.discriminant_offset: int = struct.discriminantOffset
        self.from_segments = capnp._StructModule(schema, self.name).from_segments
        self.fields: dict[str, FieldPlan] = {}
        self.union: dict[int, str] = {}
        for proto, field in zip(struct.fields, schema.fields_list, strict=True):
            if str(proto.which()) == "group":
                kind: FieldType = StructType(field.schema, scope, (self, field))
                offset = 0
            else:
                kind = field_type(proto.slot.type, scope, lambda field=field: field.schema)
                offset = proto.slot.offset
            plan = FieldPlan(
                proto.name,
                field,
                kind,
                proto.discriminantValue,
                offset,
                isinstance(kind, StructType) and kind.is_group,
            )
            self.fields[plan.name] = plan
            if plan.in_union:
                self.union[plan.discriminant] = plan.name
        # Of a group: the plan and field it is.
        self.container: tuple[StructPlan, Any] | None = None
        self._class: type[Record] | None = None
        self._default: Any = None
        self._type: StructType | None = None

    def default_reader(self) -> Any:
        """Return a reader of the struct with every field left out."""
        if self._default is None:
            self._default = self._default_group() if self.is_group else self.open((bytes(8),))
        return self._default

    def _default_group(self) -> Any:
        # A group exists only inside a struct; as a member of a union it reads only once it is set.
        return self._group_builder().as_reader()

    def _group_builder(self) -> Any:
        if self.container is None:
            raise BindError(
                f"{self.name} is a group: bind the struct that contains it before you use it.",
                event=self.name,
                field=None,
            )
        plan, field = self.container
        builder = (
            plan._group_builder() if plan.is_group else capnp._MallocMessageBuilder().init_root(plan.schema)
        )
        return builder._init_by_field(field)

    def open(self, segments: Segments) -> Any:
        """Return a pycapnp reader of a message with this root. Raises what pycapnp raises."""
        return self.from_segments(segments, limit_words(segments), NESTING)

    def as_type(self) -> StructType:
        if self._type is None:
            self._type = StructType(self.schema, self.scope, self.container)
        return self._type

    def view(self, reader: Any, parent: Any, step: Any) -> Record:
        """Return a view of this struct inside another value."""
        view = new(self.view_class())
        set_dict(view, {"_reader": reader, "_parent": parent, "_step": step, "_plan": self})
        return view

    def view_class(self) -> type[Record]:
        """Return the class that views of this struct have: the bound one, or one made for it."""
        from lahja_capn.binding.registry import record_class

        bound = record_class(self)
        if bound is not None:
            return bound
        if self._class is None:
            from lahja_capn.binding.structs import make_class

            self._class = make_class(self)
        return self._class


_plans: dict[int, list[StructPlan]] = {}


def get_plan(schema: Any, scope: Scope) -> StructPlan:
    """Return the plan of a struct, made on first use."""
    known = _plans.setdefault(schema.node.id, [])
    for plan in known:
        if plan.schema == schema:
            return plan
    plan = StructPlan(schema, scope)
    known.append(plan)
    return plan


def plan_for(target: Any) -> StructPlan:
    """Return the plan for a bound class, for a struct of a loaded schema, or for a plan: itself."""
    if isinstance(target, StructPlan):
        return target
    if isinstance(target, type) and issubclass(target, Record):
        if target._plan is None:
            from lahja_capn.binding.record import unbound

            raise unbound(target)
        plan: StructPlan = target._plan
        return plan
    return get_plan(struct_schema(target, describe_target(target)), {})


def describe_target(target: Any) -> str:
    name = getattr(target, "__name__", None)
    return name if isinstance(name, str) else repr(target)


def struct_schema(target: Any, owner: str) -> Any:
    """Return the struct schema of a schema module's member, refusing what is no struct."""
    schema = getattr(target, "schema", target)
    if hasattr(schema, "fields_list"):
        return schema
    what = (
        "an enum" if hasattr(schema, "enumerants") else "an interface" if hasattr(schema, "methods") else None
    )
    if what is None:
        what = f"{type(target).__name__} {target!r:.80}"
    raise BindError(
        f"{owner}: {what} is no Cap'n Proto struct. Pass a struct of a loaded schema, as in "
        f"@bind(schema.Foo).",
        event=owner,
        field=None,
    )


def field_type(kind: Any, scope: Scope, schema_of: Any) -> FieldType:
    """Return the type of a schema Type, with the type arguments of `scope` put in.

    Args:
        schema_of: called for pycapnp's schema object of this type, if one is needed (it has the arguments
            put in already).
    """
    which = str(kind.which())
    simple = BY_VARIANT.get(which)
    if simple is not None:
        return simple
    if which == "enum":
        return EnumType(schema_of())
    if which == "struct":
        return StructType(schema_of(), brand_scope(kind.struct.brand, scope))
    if which == "list":
        return ListType(field_type(kind.list.elementType, scope, lambda: schema_of().elementType))
    if which == "interface":
        return InterfaceType()
    pointer = kind.anyPointer
    which = str(pointer.which())
    if which == "parameter":
        arguments = scope.get(pointer.parameter.scopeId)
        if arguments is None:
            return ANY_POINTER
        argument, inner = arguments[pointer.parameter.parameterIndex]
        return ANY_POINTER if argument is None else field_type(argument, inner, schema_of)
    if which == "unconstrained":
        which = str(pointer.unconstrained.which())
        if which == "capability":
            return InterfaceType("Capability")
        if which in ("struct", "list"):
            return AnyPointerType("AnyStruct" if which == "struct" else "AnyList")
    return ANY_POINTER


def brand_scope(brand: Any, scope: Scope) -> Scope:
    """Return the type arguments that a brand gives, in the scope it stands in."""
    result: Scope = {}
    for entry in brand.scopes:
        if str(entry.which()) == "inherit":
            if entry.scopeId in scope:
                result[entry.scopeId] = scope[entry.scopeId]
        else:
            result[entry.scopeId] = [
                (bound.type if str(bound.which()) == "type" else None, scope) for bound in entry.bind
            ]
    return result


class Binding:
    """A class and the struct it is bound to.

    Attributes:
        cls: the class itself (a subclass inherits the attribute, not the binding).
        plan: the struct; None for a class that serializes itself.
        attrs: attribute name -> field.
        attr_of: field name in the schema -> attribute name.
        quick: attribute name -> class and range of values that need no further check.
        setters: attribute name -> pycapnp's field, how to put a value there (None: as it is), the field.
        union: attribute names of the members of the unnamed union.
        union_default: the member that is set when none was given.
        decode, encode, init, open: of a plain struct, once prepared: see flat.py. Else None.
        is_plain: whether there is something to prepare.
    """

    __slots__ = (
        "attr_of",
        "attrs",
        "cls",
        "decode",
        "encode",
        "init",
        "is_plain",
        "open",
        "plan",
        "quick",
        "setters",
        "union",
        "union_default",
    )

    def __init__(
        self, cls: type[Record], plan: StructPlan | None, attr_of: dict[str, str], views: frozenset[str]
    ) -> None:
        self.cls = cls
        self.plan = plan
        self.attr_of = attr_of
        self.attrs: dict[str, FieldPlan] = {}
        self.union: frozenset[str] = frozenset()
        self.union_default = ""
        if plan is not None:
            for name, attr in attr_of.items():
                field = plan.fields[name]
                if attr in views:
                    field = FieldPlan(name, field.capnp, DATA_VIEW, field.discriminant, field.offset, False)
                self.attrs[attr] = field
            self.union = frozenset(attr for attr, field in self.attrs.items() if field.in_union)
            if plan.union:
                self.union_default = attr_of[plan.union[0]]
        self.quick = {attr: field.type.quick for attr, field in self.attrs.items()}
        self.setters = {
            attr: (field.capnp, None if field.type.plain else field.type.put, field)
            for attr, field in self.attrs.items()
        }
        self.is_plain = False
        self.init: Callable[..., None] | None = None
        self.encode: Callable[[dict[str, Any]], Segments | None] | None = None
        self.decode: Callable[[Segments, dict[str, Any]], None] | None = None
        self.open: Callable[[Segments, str], Any] | None = None

    def prepare(self) -> None:
        """Make the short way of a plain struct. Not at once: it would cost each class that is bound a millisecond."""
        if self.is_plain and self.init is None:
            from lahja_capn.binding.flat import make_flat

            self.init, self.encode, self.decode, self.open = make_flat(self)
            if self.cls.__init__ is Record.__init__:
                self.cls.__init__ = self.init  # type: ignore[method-assign]

    def convert(self, name: str, value: Any) -> Any:
        """Check and copy one constructor argument."""
        field = self.attrs[name]
        try:
            return field.type.convert(value)
        except Mismatch as mismatch:
            raise mismatch.error(self.cls.__qualname__, name) from mismatch.__cause__

    def build(self, fields: dict[str, Any]) -> Record:
        """Return a local record of this class for a dict that stands for it. Raises Mismatch."""
        for name, value in fields.items():
            field = self.attrs.get(name)
            if field is None:
                raise Mismatch(self._known(name), f"a field {name!r}", f".{name}")
            try:
                fields[name] = field.type.convert(value)
            except Mismatch as mismatch:
                raise Mismatch(mismatch.wanted, mismatch.got, f".{name}{mismatch.path}") from None
        if len(self.union & fields.keys()) > 1:
            raise Mismatch(*self._two(fields))
        record = new(self.cls)
        set_dict(record, fields)
        return record

    def positional(self, args: tuple[Any, ...]) -> NoReturn:
        """Refuse constructor arguments without a name."""
        name = self.cls.__qualname__
        if self.plan is None:
            raise self._no_init(None)
        names = list(self.attrs)
        shown = ", ".join([f"{attr}=..." for attr in names[:4]] + (["..."] if len(names) > 4 else []))
        wanted = f"{name}({shown})"
        got = f"{len(args)} without a name"
        raise EventArgumentError(
            f"{name} takes its fields as keywords: {wanted}; got {got}.",
            event=name,
            path="",
            wanted=wanted,
            got=got,
        )

    def _no_init(self, field: str | None) -> BindError:
        name = self.cls.__qualname__
        return BindError(
            f"{name} is bound with type_id=, so it needs an __init__ of its own.", event=name, field=field
        )

    def unknown_field(self, name: str) -> NoReturn:
        if self.plan is None:
            raise self._no_init(name)
        raise Mismatch(self._known(name), "a field that does not exist").error(self.cls.__qualname__, name)

    def two_members(self, fields: dict[str, Any]) -> NoReturn:
        raise Mismatch(*self._two(fields)).error(self.cls.__qualname__)

    def _known(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.attrs, 3, 0.5)
        names = ", ".join(close or self.attrs)
        return f"a field of {self.cls.__qualname__}, {'such as ' if close else 'one of '}{names or 'none'}"

    def _two(self, fields: dict[str, Any]) -> tuple[str, str]:
        return (
            "one member of the union " + ", ".join(name for name in self.attrs if name in self.union),
            ", ".join(name for name in fields if name in self.union),
        )

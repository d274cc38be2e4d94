"""Field types whose values have parts: structs and groups, lists, AnyPointer."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import capnp
from lahja_capn.binding.anypointer import _VALUE, AnyPointer, _Box, box, box_list, box_reader
from lahja_capn.binding.lists import ListView
from lahja_capn.binding.pointers import SIZE_CODES, Segments
from lahja_capn.binding.record import NESTING, Record, is_local, list_place, reason_of, unbound
from lahja_capn.binding.scalars import (
    BY_NAME,
    LARGE_BYTES,
    EnumType,
    FieldType,
    FloatType,
    IntType,
    Late,
    VoidType,
)
from lahja_capn.binding.values import MAX_EMPTY_ITEMS, MAX_LIST_ITEMS, Mismatch, describe
from lahja_capn.errors import BindError

if TYPE_CHECKING:
    from lahja_capn.binding.plan import FieldPlan, StructPlan

# Lists of numbers shorter than this are read element by element: finding their bytes costs more.
_FEW = 8

# Lists of numbers longer than this are handed to pycapnp as a whole.
_MANY = 16


class StructType(FieldType):
    plain = False
    is_pointer = True

    def __init__(self, schema: Any, scope: Any, container: Any = None) -> None:
        """`container`: of a group, the plan and field it is."""
        self.schema = schema
        self.scope = scope
        self.container = container
        is_group = self.is_group = container is not None
        self.is_pointer = not is_group
        self.type_id: int = schema.node.id
        self.name: str = schema.node.displayName.rpartition(":")[2]
        self.wanted = f"{self.name}: its class, a dict, or a pycapnp struct of the same type"
        self._plan: StructPlan | None = None
        self.wrap = self._wrap

    @property
    def plan(self) -> StructPlan:
        # Late, because a struct may contain itself.
        plan = self._plan
        if plan is None:
            from lahja_capn.binding.plan import get_plan

            plan = self._plan = get_plan(self.schema, self.scope)
            if self.is_group:
                plan.container = self.container
        return plan

    def _wrap(self, raw: Any, parent: Any, step: Any) -> Any:
        return (self._plan or self.plan).view(raw, parent, step)

    def convert(self, value: Any) -> Any:
        if isinstance(value, Record):
            return self._from_record(value)
        if isinstance(value, Mapping):
            binding = self.plan.view_class()._binding
            assert binding is not None
            fields = {}
            for name, item in value.items():
                if not isinstance(name, str):
                    raise Mismatch("field names as keys", describe(name))
                fields[name] = item
            return binding.build(fields)
        if isinstance(value, (capnp._DynamicStructReader, capnp._DynamicStructBuilder)):
            if value.schema.node.id != self.type_id or self.is_group:
                raise Mismatch(self.wanted, f"pycapnp struct {value.schema.node.displayName}")
            return self._copied(value)
        raise Mismatch(self.wanted, describe(value))

    def _from_record(self, value: Record) -> Any:
        if value._binding is None or value._binding.plan is None:
            raise unbound(type(value))
        if value._plan.type_id != self.type_id:
            raise Mismatch(self.wanted, f"a {type(value).__qualname__} (struct {value._plan.name})")
        if is_local(value) or (value._segments is not None and value._parent is None):
            return value  # immutable, and it holds nothing but itself
        if self.is_group:
            # A group has no pointer of its own that could be copied: take it apart.
            from lahja_capn.binding.compare import present_fields

            return value._binding.build(dict(present_fields(value)))
        return self._copied(value)

    def _copied(self, source: Any) -> Any:
        """Return a view of a copy: a view of somebody else's message would keep all of that alive."""
        return AnyPointer._holding(box_copy(source, self.name)).as_struct(self.plan)

    def put(self, builder: Any, field: FieldPlan, value: Any, late: Late | None) -> None:
        if is_local(value):
            self._fill(builder._init_by_field(field.capnp), value)
        else:
            builder._set_by_field(field.capnp, self._reader(value))

    def put_item(self, builder: Any, index: int, value: Any) -> None:
        if is_local(value):
            self._fill(builder._get(index), value)
        else:
            builder._set(index, self._reader(value))

    def _fill(self, builder: Any, value: Record) -> None:
        fields = self.plan.fields
        assert value._binding is not None
        for name, item in value.__dict__.items():
            source = value._binding.attrs.get(name)
            if source is None:
                continue  # a private entry
            target = fields[source.name]
            if target.type.plain:
                builder._set_by_field(target.capnp, item)
            else:
                target.type.put(builder, target, item, None)

    def _reader(self, value: Record) -> Any:
        """Return a reader of a received record in the schema tree of this type: pycapnp sets no other."""
        if value._plan.schema == self.schema:
            return value._refresh()
        if value._parent is not None:
            return value._parent._refresh().as_struct(self.schema)
        segments = value._segments
        assert segments is not None
        return self.plan.open(segments)

    def element_schema(self) -> Any:
        return self.schema


class AnyPointerType(FieldType):
    plain = False
    is_pointer = True

    def __init__(self, name: str = "AnyPointer") -> None:
        self.name = name
        takes = {
            "AnyStruct": "a bound struct or event, or an AnyPointer to one",
            "AnyList": "an AnyPointer to a list (AnyPointer.of_list), bytes or str",
        }
        self.wanted = takes.get(name, "a bound struct or event, str, bytes, or an AnyPointer") + f" ({name})"
        self.wrap = self._wrap

    def _wrap(self, raw: Any, parent: Any, step: Any) -> Any:
        return AnyPointer._reading(raw, parent, step)

    def convert(self, value: Any) -> Any:
        if isinstance(value, AnyPointer) and value._parent is None:
            result = value
        elif value is None:
            raise Mismatch(self.wanted, "None: leave the field out instead")
        else:
            try:
                result = AnyPointer._holding(box(value))
            except Mismatch as mismatch:
                raise Mismatch(self.wanted, mismatch.got, mismatch.path) from None
        if self.name != "AnyPointer" and not result.is_null:
            from lahja_capn.binding.pointers import struct_at
            from lahja_capn.binding.record import pointer_place

            place = pointer_place(result)
            is_struct = place is not None and struct_at(place) is not None
            if is_struct != (self.name == "AnyStruct"):
                raise Mismatch(self.wanted, describe(value))
        return result

    def put(self, builder: Any, field: FieldPlan, value: Any, late: Late | None) -> None:
        # By name: with a field object pycapnp 2.2.4 does not take a pointer of its own.
        builder._set(field.name, value._refresh())


class ListType(FieldType):
    plain = False
    is_pointer = True

    def __init__(self, element: FieldType) -> None:
        self.element = element
        self.name = f"List({element.name})"
        self.wanted = f"a sequence of {element.wanted} ({self.name})"
        self.code: str | None = element.code if isinstance(element, (IntType, FloatType)) else None
        self.width = array(self.code).itemsize if self.code else 0
        self._schema: Any = None
        self.wrap = self._wrap_numbers if self.code else self._wrap

    # --- in ---

    def convert(self, value: Any) -> ListView[Any]:
        if isinstance(value, ListView) and value._type is self.element and value._items is not None:
            # It is immutable, but may be a small view on a large received message: take the numbers out of
            # it.
            return value if not self.code else self._numbers(value)
        if isinstance(value, (str, bytes, bytearray, Mapping)) or not isinstance(value, Iterable):
            if not (self.code and isinstance(value, (bytes, bytearray)) and self.width == 1):
                raise Mismatch(self.wanted, describe(value))
        if self.code:
            return self._numbers(value)
        convert = self.element.convert
        items = []
        for item in value:
            try:
                items.append(convert(item))
            except Mismatch as mismatch:
                raise Mismatch(mismatch.wanted, mismatch.got, f"[{len(items)}]{mismatch.path}") from None
        if len(items) > MAX_LIST_ITEMS:
            raise Mismatch(f"at most {MAX_LIST_ITEMS} elements", f"{len(items)}")
        if len(items) > MAX_EMPTY_ITEMS and isinstance(self.element, VoidType):
            raise Mismatch(
                f"at most {MAX_EMPTY_ITEMS} elements: a reader refuses more Voids", f"{len(items)}"
            )
        return ListView(tuple(items), self.element)

    def _numbers(self, value: Any) -> ListView[Any]:
        """Return the numbers packed as they travel."""
        code = self.code or ""
        source = value._items if isinstance(value, ListView) else value
        if isinstance(source, (array, memoryview)) and getattr(source, "typecode", None) in (code, None):
            packed = memoryview(source)
            if packed.format == code and packed.ndim == 1:
                return self._packed(packed.tobytes())
        items = list(value)
        # bool is an int to Python, and array() would take it. Checking the set of types costs little.
        kinds = set(map(type, items))
        if kinds <= ({int, float} if code in "fd" else {int}):
            try:
                if code == "f":
                    # array("f") turns a number out of range into infinity without a word.
                    return self._packed(struct.pack(f"<{len(items)}f", *items))
                return self._packed(array(code, items).tobytes())
            except (OverflowError, struct.error):
                pass  # find the one at fault below
        convert = self.element.convert
        converted = []
        for index, item in enumerate(items):
            try:
                converted.append(convert(item))
            except Mismatch as mismatch:
                raise Mismatch(mismatch.wanted, mismatch.got, f"[{index}]") from None
        return self._packed(array(code, converted).tobytes())

    def _packed(self, content: bytes) -> ListView[Any]:
        count = len(content) // self.width
        if count > MAX_LIST_ITEMS:
            raise Mismatch(f"at most {MAX_LIST_ITEMS} elements", f"{count}")
        return ListView(memoryview(content).cast(self.code or ""), self.element)  # type: ignore[call-overload]

    # --- into a message ---

    def put(self, builder: Any, field: FieldPlan, value: Any, late: Late | None) -> None:
        count = len(value)
        if late is not None and self.code and count * self.width >= LARGE_BYTES:
            builder._init_by_field(field.capnp, 0)
            late.append((field.offset, SIZE_CODES[self.width], count, value._items.obj))
        else:
            ready = self._at_once(value)
            if ready is not None:
                builder._set_by_field(field.capnp, ready)
            else:
                self.fill(builder._init_by_field(field.capnp, count), value)

    def put_item(self, builder: Any, index: int, value: Any) -> None:
        ready = self._at_once(value)
        if ready is not None:
            builder._set(index, ready)
        else:
            self.fill(builder.init(index, len(value)), value)

    def _at_once(self, value: ListView[Any]) -> Any:
        """Return a pycapnp list that can be set as a whole, or None if elements are set one by one.

        It is read from a message that is written here: cheaper than many single elements, and the only way for
        enumerants, which pycapnp takes neither by number nor, if they are unknown, by name.
        """
        if isinstance(self.element, EnumType):
            return list_reader(self, array("H", [item.raw for item in value]).tobytes(), 2)
        if self.code and len(value) > _MANY:
            return list_reader(self, value._items, self.width)  # type: ignore[arg-type]
        return None

    def fill(self, builder: Any, value: ListView[Any]) -> None:
        put_item = builder._set if self.element.plain else None
        if put_item is not None:
            for index, item in enumerate(value):
                put_item(index, item)
        else:
            element = self.element
            for index, item in enumerate(value):
                element.put_item(builder, index, item)

    # --- out of a message ---

    def _wrap(self, raw: Any, parent: Any, step: Any) -> ListView[Any]:
        return ListView.reading(raw, self.element, parent, step)

    def _wrap_numbers(self, raw: Any, parent: Any, step: Any) -> ListView[Any]:
        view = ListView.reading(raw, self.element, parent, step)
        count = view._count
        if count >= _FEW:
            place = list_place(view)
            shared = place.view(self.width) if place is not None and place.length == count else None
            if shared is not None:
                view._items = shared.cast(self.code or "")  # type: ignore[call-overload]
                # From here on the bytes are all it needs.
                view._reader = None
        return view

    def list_schema(self) -> Any:
        if self._schema is None:
            self._schema = capnp._ListSchema(self.element.element_schema())
        return self._schema

    def element_schema(self) -> Any:
        return self.list_schema()


ANY_POINTER = AnyPointerType()


def list_of(element: Any) -> ListType:
    """Return the list type for an element named by the user: see ``AnyPointer.of_list``."""
    return ListType(_named(element))


def _named(element: Any) -> FieldType:
    if isinstance(element, FieldType):
        return element
    if isinstance(element, str):
        if element in BY_NAME:
            return BY_NAME[element]
        if element.startswith("List(") and element.endswith(")"):
            return ListType(_named(element[5:-1]))
        raise BindError(
            f"{element!r} is no element type: use one of {', '.join(BY_NAME)}, List(...), a bound class, "
            "or a struct or enum of a loaded schema.",
            event=element,
            field=None,
        )
    schema = getattr(element, "schema", None)
    if schema is not None and hasattr(schema, "enumerants"):
        return EnumType(schema)
    from lahja_capn.binding.plan import plan_for

    plan = plan_for(element)
    return StructType(plan.schema, plan.scope)


def list_reader(kind: ListType, content: bytes | memoryview, width: int) -> Any:
    """Return a pycapnp reader of a list whose elements are `width` bytes each."""
    segment = box_list(content, SIZE_CODES[width], width)
    reader = _Box.from_segments((segment,), len(segment), NESTING)._get_by_field(_VALUE)
    return reader.as_list(kind.list_schema())


def box_copy(source: Any, name: str) -> Segments:
    """Return a Box with a copy of a received record or a pycapnp struct. Raises Mismatch if it is malformed."""
    try:
        return box_reader(source._refresh() if isinstance(source, Record) else source)
    except Exception as error:
        raise Mismatch(f"a readable {name}", f"one that cannot be copied: {reason_of(error)}") from error


def box_struct(value: Any) -> Segments:
    """Return a Box with a copy of a record or of a pycapnp struct. Raises Mismatch for anything else."""
    if isinstance(value, Record):
        binding = value._binding
        if binding is None or binding.plan is None:
            raise unbound(type(value))
        plan: StructPlan = value._plan
        if plan.is_group:
            raise Mismatch("a struct", f"a group ({plan.name})")
        if not is_local(value):
            return box_copy(value, plan.name)
        builder = capnp._MallocMessageBuilder().init_root(_Box.schema)
        plan.as_type()._fill(builder._get_by_field(_VALUE).as_struct(plan.schema), value)
        return tuple(builder._parent.get_segments_for_output())
    if isinstance(value, (capnp._DynamicStructReader, capnp._DynamicStructBuilder)):
        return box_copy(value, value.schema.node.displayName)
    raise Mismatch("a bound struct or event, str, bytes, or an AnyPointer", describe(value))

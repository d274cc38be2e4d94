"""What each Cap'n Proto type does with a value: check and copy it, put it into a message, wrap what is read.

Each type checks completely before pycapnp sees the value. Left to itself pycapnp decodes a str given for Data
as base64, takes invalid UTF-8 into Text, and wraps numbers that are out of range.
"""

from __future__ import annotations

import operator
import struct
from array import array
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

import capnp
from lahja_capn.binding.anypointer import _VALUE, AnyPointer, _Box, box, box_list, box_reader
from lahja_capn.binding.enumerant import EnumTable
from lahja_capn.binding.lists import ListView
from lahja_capn.binding.pointers import SIZE_CODES, Segments, list_at
from lahja_capn.binding.record import (
    NESTING,
    Record,
    active_member,
    is_local,
    list_place,
    reason_of,
    root,
    struct_place,
    unbound,
)
from lahja_capn.binding.values import (
    MAX_BLOB_BYTES,
    MAX_EMPTY_ITEMS,
    MAX_LIST_ITEMS,
    MAX_TEXT_BYTES,
    Mismatch,
    describe,
)
from lahja_capn.errors import BindError

if TYPE_CHECKING:
    from lahja_capn.binding.plan import FieldPlan, StructPlan

# From this size on, a Data or a list of numbers directly in an event becomes a segment of its own that *is*
# the bytes held by the event, instead of being copied into the message and out of it again.
LARGE_BYTES = 16384

# Lists of numbers shorter than this are read element by element: finding their bytes costs more.
_FEW = 8

# Lists of numbers longer than this are handed to pycapnp as a whole.
_MANY = 16

# (place of the pointer among the struct's pointers, element size code, element count, content)
Late = list[tuple[int, int, int, bytes | memoryview]]
Wrap = Callable[[Any, Any, Any], Any]

_NOTHING: tuple[Any, Any, Any] = (None, None, None)


class FieldType:
    """One Cap'n Proto type.

    Attributes:
        name: as the schema writes it.
        wanted: what a value must be, for messages.
        quick: ``(class, lowest, highest)`` of values that need no further look; the class is None if none do.
        wrap: makes the value from what pycapnp reads, given its parent and step; None if that is the value.
        plain: whether pycapnp's setter takes the stored value as it is.
    """

    name = ""
    wanted = ""
    quick: tuple[Any, Any, Any] = _NOTHING
    wrap: Wrap | None = None
    plain = True
    is_pointer = False

    def convert(self, value: Any) -> Any:
        """Return the value to store, checked and copied. Raises Mismatch."""
        raise NotImplementedError

    def put(self, builder: Any, field: FieldPlan, value: Any, late: Late | None) -> None:
        builder._set_by_field(field.capnp, value)

    def put_item(self, builder: Any, index: int, value: Any) -> None:
        builder._set(index, value)

    def element_schema(self) -> Any:
        """Return what pycapnp needs to know of this type as a list's element."""
        return getattr(capnp.types, self.name)


class VoidType(FieldType):
    name = "Void"
    wanted = "None (Void)"

    def convert(self, value: Any) -> None:
        if value is not None:
            raise Mismatch(self.wanted, describe(value))


class BoolType(FieldType):
    name = "Bool"
    wanted = "bool"
    quick = (bool, False, True)

    def convert(self, value: Any) -> bool:
        # numpy's bool is the one foreign type that means a bool and nothing else.
        if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
            return bool(value)
        raise Mismatch(self.wanted, describe(value))


class IntType(FieldType):
    def __init__(self, name: str, bits: int, signed: bool, code: str) -> None:
        self.name = name
        self.low = -(2 ** (bits - 1)) if signed else 0
        self.high = 2 ** (bits - signed) - 1
        self.code = code
        self.wanted = f"int from {self.low} to {self.high} ({name})"
        self.quick = (int, self.low, self.high)

    def convert(self, value: Any) -> int:
        if isinstance(value, bool):
            raise Mismatch(self.wanted, describe(value))
        try:
            number = int(operator.index(value))
        except TypeError:
            raise Mismatch(self.wanted, describe(value)) from None
        if not self.low <= number <= self.high:
            raise Mismatch(self.wanted, describe(value))
        return number


class FloatType(FieldType):
    def __init__(self, name: str, code: str) -> None:
        self.name = name
        self.code = code
        self.wanted = f"float ({name})"
        if code == "d":
            # NaN is not in the range and so takes the longer way, to the same result.
            self.quick = (float, -float("inf"), float("inf"))

    def convert(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise Mismatch(self.wanted, describe(value))
        try:
            number = float(value)
            if self.code == "f":
                # As a receiver will read it.
                number = struct.unpack("<f", struct.pack("<f", number))[0]
        except OverflowError:
            raise Mismatch(f"{self.wanted}, within its range", describe(value)) from None
        return number


class TextType(FieldType):
    name = "Text"
    wanted = "str (Text)"
    quick = (str, None, MAX_TEXT_BYTES)
    is_pointer = True

    def convert(self, value: Any) -> str:
        if not isinstance(value, str):
            hint = ": decode it" if isinstance(value, (bytes, bytearray, memoryview)) else ""
            raise Mismatch(self.wanted + hint, describe(value))
        text = value if type(value) is str else str.__str__(value)
        try:
            size = len(text) if text.isascii() else len(text.encode())
        except UnicodeEncodeError as error:
            raise Mismatch(
                f"{self.wanted} that is valid Unicode", f"a str with a lone surrogate at index {error.start}"
            ) from None
        if size > MAX_TEXT_BYTES:
            raise Mismatch(f"Text of at most {MAX_TEXT_BYTES} bytes in UTF-8", f"{size} bytes")
        return text


class DataType(FieldType):
    name = "Data"
    wanted = "bytes-like (Data)"
    quick = (bytes, None, MAX_BLOB_BYTES)
    plain = False
    is_pointer = True

    def convert(self, value: Any) -> Any:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            hint = ": encode it" if isinstance(value, str) else ""
            raise Mismatch(self.wanted + hint, describe(value))
        size = value.nbytes if isinstance(value, memoryview) else len(value)
        if size > MAX_BLOB_BYTES:
            raise Mismatch(f"Data of at most {MAX_BLOB_BYTES} bytes", f"{size} bytes")
        return value if type(value) is bytes else bytes(value)

    def put(self, builder: Any, field: FieldPlan, value: Any, late: Late | None) -> None:
        if late is not None and len(value) >= LARGE_BYTES:
            builder._set_by_field(field.capnp, b"")
            late.append((field.offset, 2, len(value), value))
        else:
            builder._set_by_field(field.capnp, value)


class DataViewType(DataType):
    """A Data field that the class annotates as ``DataView``: stored and read as a read-only memoryview."""

    name = "Data"
    quick = _NOTHING

    def convert(self, value: Any) -> memoryview:
        if isinstance(value, memoryview) and type(value.obj) is bytes and value.nbytes == len(value.obj):
            return memoryview(value.obj)  # it shows all of an immutable object: nothing to copy
        return memoryview(super().convert(value))

    def read(self, view: Record, field: FieldPlan) -> memoryview:
        """Return the bytes of a received Data, sharing memory with its message."""
        if not is_local(view) and not root(view)._once:
            if not field.in_union or active_member(view) == field.name:
                place = struct_place(view)
                pointer = place.pointer(field.offset) if place is not None else None
                found = list_at(pointer) if pointer is not None else None
                shared = found.view(1) if found is not None else None
                if shared is not None:
                    return shared
        return memoryview(field.read(view))


class EnumType(FieldType):
    plain = False

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.table = EnumTable(schema)
        self.name = self.table.name
        self.wanted = self.table.wanted
        self.convert = self.table.convert  # type: ignore[method-assign]
        self.wrap = self._wrap

    def _wrap(self, raw: Any, parent: Any, step: Any) -> Any:
        return self.table.at(raw.raw)

    def put(self, builder: Any, field: FieldPlan, value: Any, late: Late | None) -> None:
        builder._set_by_field(field.capnp, value.raw)

    def element_schema(self) -> Any:
        return self.schema


class InterfaceType(FieldType):
    """Refused: an event is data, and a capability means nothing outside the connection it came on."""

    wanted = "nothing: interfaces cannot travel in events"
    is_pointer = True

    def __init__(self, name: str = "interface") -> None:
        self.name = name

    def convert(self, value: Any) -> Any:
        raise Mismatch(self.wanted, describe(value))


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


VOID = VoidType()
BOOL = BoolType()
TEXT = TextType()
DATA = DataType()
DATA_VIEW = DataViewType()
_SCALARS: tuple[FieldType, ...] = (
    VOID,
    BOOL,
    TEXT,
    DATA,
    IntType("Int8", 8, True, "b"),
    IntType("Int16", 16, True, "h"),
    IntType("Int32", 32, True, "i"),
    IntType("Int64", 64, True, "q"),
    IntType("UInt8", 8, False, "B"),
    IntType("UInt16", 16, False, "H"),
    IntType("UInt32", 32, False, "I"),
    IntType("UInt64", 64, False, "Q"),
    FloatType("Float32", "f"),
    FloatType("Float64", "d"),
)
# By the schema's spelling, and by the name of the variant in schema.capnp's Type.
BY_NAME = {kind.name: kind for kind in _SCALARS}
BY_VARIANT = {kind.name.lower(): kind for kind in _SCALARS}
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

"""Field types whose values have no parts: Void, Bool, numbers, Text, Data, enums; and the base of all types.

Each type checks completely before pycapnp sees the value. Left to itself pycapnp decodes a str given for Data
as base64, takes invalid UTF-8 into Text, and wraps numbers that are out of range.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any

import capnp
from lahja_capn.binding.enumerant import EnumTable
from lahja_capn.binding.pointers import list_at
from lahja_capn.binding.record import Record, active_member, is_local, root, struct_place
from lahja_capn.binding.values import MAX_BLOB_BYTES, MAX_TEXT_BYTES, Mismatch, describe

if TYPE_CHECKING:
    from lahja_capn.binding.plan import FieldPlan

# From this size on, a Data or a list of numbers directly in an event becomes a segment of its own that *is*
# the bytes held by the event, instead of being copied into the message and out of it again.
LARGE_BYTES = 16384

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

"""Layouts: one number per field of a struct, by which two peers find out whether they hold the same struct.

The text that is hashed, and why, is docs/wire.md's; in short, element k of a layout is the FNV-1a hash (32
bits) of ``TYPE@OFFSET=DEFAULT`` for the field with ordinal k, followed by ``|DISCRIMINANTOFFSET:VALUE`` for
every enclosing union, outermost first, left out where the value is 0. Names do not count. Fields of groups
count by their ordinal in the struct that contains them.
"""

from __future__ import annotations

import struct
from typing import Any

import capnp
from lahja_capn.binding.anypointer import _Box
from lahja_capn.binding.plan import NO_DISCRIMINANT
from lahja_capn.errors import BindError

_SIMPLE = frozenset(
    "void bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64 text data".split()
)


def fnv1a_32(data: bytes) -> int:
    """Return the 32-bit FNV-1a hash."""
    number = 0x811C9DC5
    for byte in data:
        number = (number ^ byte) * 0x01000193 & 0xFFFFFFFF
    return number


def layout_texts(schema: Any) -> dict[int, str]:
    """Return ordinal -> canonical text for the fields of a struct, those of its groups included."""
    texts: dict[int, str] = {}
    _collect(schema, "", texts)
    return texts


def layout_of(schema: Any) -> tuple[int, ...]:
    """Return the layout of a struct: the hashes in the order of the ordinals, which leave no gaps."""
    texts = layout_texts(schema)
    return tuple(fnv1a_32(texts[ordinal].encode()) for ordinal in sorted(texts))


def _collect(schema: Any, enclosing: str, texts: dict[int, str]) -> None:
    node = schema.node.struct
    for proto, field in zip(node.fields, schema.fields_list, strict=True):
        unions = enclosing
        if proto.discriminantValue not in (NO_DISCRIMINANT, 0):
            unions += f"|{node.discriminantOffset}:{proto.discriminantValue}"
        explicit = str(proto.ordinal.which()) == "explicit"
        if str(proto.which()) == "group":
            group = field.schema
            if explicit:
                texts[proto.ordinal.explicit] = f"union@{group.node.struct.discriminantOffset}"
            _collect(group, unions, texts)
        else:
            slot = proto.slot
            try:
                default = default_text(slot)
            except UnicodeDecodeError as error:
                name = schema.node.displayName.rpartition(":")[2]
                raise BindError(
                    f"{name}: the default of the Text {proto.name} is not UTF-8 ({error.reason}). Correct it, or "
                    "make the field a Data.",
                    event=name,
                    field=proto.name,
                ) from None
            texts[proto.ordinal.explicit] = f"{type_text(slot.type)}@{slot.offset}={default}{unions}"


def type_text(kind: Any) -> str:
    """Return the canonical text of a schema Type."""
    which = str(kind.which())
    if which in _SIMPLE:
        return which
    if which == "list":
        return f"list({type_text(kind.list.elementType)})"
    if which == "enum":
        return f"enum({kind.enum.typeId:016x})"
    if which == "struct":
        return f"struct({kind.struct.typeId:016x}{_brand_text(kind.struct.brand)})"
    if which == "interface":
        return f"interface({kind.interface.typeId:016x}{_brand_text(kind.interface.brand)})"
    pointer = kind.anyPointer
    which = str(pointer.which())
    if which == "parameter":
        return f"param({pointer.parameter.scopeId:016x},{pointer.parameter.parameterIndex})"
    if which == "unconstrained":
        return {"struct": "anystruct", "list": "anylist"}.get(
            str(pointer.unconstrained.which()), "anypointer"
        )
    return "anypointer"


def _brand_text(brand: Any) -> str:
    text = ""
    for scope in brand.scopes:
        if str(scope.which()) == "inherit":
            arguments = "inherit"
        else:
            arguments = ",".join(
                type_text(bound.type) if str(bound.which()) == "type" else "anypointer"
                for bound in scope.bind
            )
        text += f";{scope.scopeId:016x}[{arguments}]"
    return text


def default_text(slot: Any) -> str:
    """Return the canonical text of a slot's default value."""
    value = slot.defaultValue
    which = str(value.which())
    if which == "void":
        return ""
    if which == "bool":
        return "1" if value.bool else "0"
    if which.startswith(("int", "uint")):
        return str(getattr(value, which))
    if which == "enum":
        return str(value.enum)
    if which == "float32":
        return f"{struct.unpack('<I', struct.pack('<f', value.float32))[0]:08x}"
    if which == "float64":
        return f"{struct.unpack('<Q', struct.pack('<d', value.float64))[0]:016x}"
    if which == "text":
        text: str = value.text
        return text.encode().hex()
    if which == "data":
        return bytes(value.data).hex()
    if which in ("struct", "list", "anyPointer") and slot.hadExplicitDefault:
        return _copied(getattr(value, which)).hex()
    return ""


def _copied(pointer: Any) -> bytes:
    """Return the one segment of a message whose root is a copy of `pointer`."""
    words = 1024
    while True:
        message = capnp._MallocMessageBuilder(words)
        message.init_root(_Box.schema)._set("value", pointer)
        segments = message.get_segments_for_output()
        if len(segments) == 1:
            # Without the pointer to the Box: what follows is the same message with the value as its root.
            content: bytes = segments[0][8:]
            return content
        words *= 8

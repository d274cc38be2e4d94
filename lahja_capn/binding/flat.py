"""The short way for plain events: constructed, encoded and read by code made for their very layout.

A struct is *plain* if its fields are numbers, Bool, Void, enums, Text and Data, with no union, no group and no default
but zero: what most events are. Its message, as every writer of the same schema version makes it, is one struct right
behind the root pointer, and then the contents of its Text and Data::

    8 bytes   root pointer: struct, offset 0, D data words, P pointers
    8 D       data section
    8 P       pointers
    ...       contents, each padded to a multiple of 8

For such a struct the three functions below are written out as Python source, compiled and kept; they cost a third to
a half of what pycapnp does with the same. **They only ever answer where the answer is certain.** Anything unusual
(another version's struct, a far pointer, a bad one, invalid UTF-8, a value that needs conversion, a field of the wrong
type, something large) they leave alone, and it takes the general way, which gives the value, the default or the error.
So nothing about validity is decided here, and every test of the general way holds for both.

The source is made of constants of the schema and of the names of its fields, which are identifiers; nothing that a
peer sends is ever part of it, and it is compiled before a peer can send an event of the type (see ``prepare``).
"""

from __future__ import annotations

import keyword
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from lahja_capn.binding.pointers import Segments
from lahja_capn.binding.record import Record, new
from lahja_capn.binding.scalars import (
    DATA_VIEW,
    LARGE_BYTES,
    BoolType,
    DataType,
    EnumType,
    FieldType,
    FloatType,
    IntType,
    TextType,
    VoidType,
)
from lahja_capn.binding.shapes import MOST_SHAPES, Shapes
from lahja_capn.binding.values import MAX_BLOB_BYTES, MAX_TEXT_BYTES

if TYPE_CHECKING:
    from lahja_capn.binding.enumerant import EnumTable
    from lahja_capn.binding.plan import Binding, FieldPlan

# The values that were read stay in the event, which may hold 1 KiB beyond twice its size. About 400 bytes of that are
# left for them: this is what each takes there, without contents, of which twice the size has room.
KEPT_BYTES = 400
NUMBER_BYTES = 40
SHARED_BYTES = 16  # Bool, Void and enumerants exist once for all events: only their place in the event

# In a larger message Data and Text are not kept in the event but read each time, as the general way does.
KEEP_BYTES = 8192

# Text beyond ASCII takes up to four bytes a character: in a message of this size that is within the 1 KiB that an event
# may take beyond twice its size.
ANY_TEXT_BYTES = 256

Encode = Callable[[dict[str, Any]], Segments | None]
Decode = Callable[[Segments, dict[str, Any]], None]
Open = Callable[[Segments, str], Any]


class Flat(NamedTuple):
    """What was made for one class.

    Attributes:
        init: its constructor.
        encode: the values of a local event -> its message, or None: take the general way.
        decode: puts what it can read of a message into an event's ``__dict__``, under the attributes' names.
        open: a received message and its origin -> the event, with what can be read of it in place.
    """

    init: Callable[..., None]
    encode: Encode
    decode: Decode
    open: Open


class _Part(NamedTuple):
    """A field, its attribute, and its number: ``a2`` is its value in the sources."""

    number: int
    attr: str
    field: FieldPlan

    @property
    def kind(self) -> FieldType:
        return self.field.type


def is_plain(binding: Binding) -> bool:
    """Say whether the struct is plain, so that :func:`make_flat` can serve it."""
    plan = binding.plan
    if plan is None or plan.is_group or plan.union:
        return False
    if plan.node.struct.dataWordCount + plan.node.struct.pointerCount == 0:
        return False
    kept = 0
    for attr, field in binding.attrs.items():
        if not isinstance(field.type, _KINDS) or keyword.iskeyword(attr) or not attr.isidentifier():
            return False
        if field.capnp.proto.slot.hadExplicitDefault:
            return False
        if isinstance(field.type, (VoidType, BoolType, EnumType)):
            kept += SHARED_BYTES
        elif field.type is not DATA_VIEW:
            # A memoryview takes 270 bytes, and is not kept: the general way makes one each time.
            kept += NUMBER_BYTES
    return kept <= KEPT_BYTES


_KINDS = (VoidType, BoolType, IntType, FloatType, EnumType, TextType, DataType)


def make_flat(binding: Binding) -> Flat:
    """Return the functions for a plain struct."""
    assert binding.plan is not None
    parts = [_Part(number, attr, field) for number, (attr, field) in enumerate(binding.attrs.items())]
    message = _Message(parts, binding.plan.node.struct)
    tables = {part.number: part.kind.table for part in parts if isinstance(part.kind, EnumType)}
    source = "\n".join(
        [
            *message.encode_source(),
            "def decode(segments, found):",
            *(f"    {line}" for line in message.decode_source("return")),
            "def make(_class):",
            *(f"    {line}" for line in _init_source(parts)),
            "    def open(segments, origin):",
            "        event = _new(_class)",
            "        found = event.__dict__",
            "        found['_segments'] = segments",
            "        found['_origin'] = origin",
            *(f"        {line}" for line in message.decode_source("return event")),
            "    return __init__, open",
        ]
    )
    key = (source, *tables.values())
    made = _made.get(key)
    if made is None:
        made = _made[key] = _compile(source, message, parts, tables)
    init, open_ = made["make"](binding.cls)
    init.__qualname__ = f"{binding.cls.__qualname__}.__init__"
    init.__module__ = binding.cls.__module__
    return Flat(init, made["encode"], made["decode"], open_)


# By source and tables of enumerants: structs of the same shape and names share their code, which Python makes quick by
# running it often, and most of their functions.
_made: dict[tuple[Any, ...], dict[str, Any]] = {}


def _compile(
    source: str, message: _Message, parts: list[_Part], tables: dict[int, EnumTable]
) -> dict[str, Any]:
    """Return the names that the source defines: ``encode``, ``decode``, and what makes the others for a class."""
    names: dict[str, Any] = {
        "_general": Record.__init__,
        "_missing": _MISSING,
        "_new": new,
        "_pack": message.shape.pack,
        "_unpack": message.shape.unpack_from,
        "_shapes": message.shapes.known,
        "_known": message.shapes.known.get,
        "_learn": message.shapes.learn,
        "_not_certain": (struct.error, UnicodeDecodeError),
        "_join": b"".join,
        "_pad": [bytes(-size % 8) for size in range(8)],
        # The padding of a Text, with the zero byte that ends it.
        "_end": [bytes(8 - size) for size in range(8)],
        # None is a null pointer, Void, or the enumerant 0.
        "_left_out": {
            part.attr: 0 if isinstance(part.kind, (BoolType, IntType, FloatType)) else None for part in parts
        },
        **{f"_{kind.__name__}": kind for kind in (type, len, int, float, str, bytes, memoryview)},
        **{f"_names{number}": table.by_name for number, table in tables.items()},
        **{f"_at{number}": table.at for number, table in tables.items()},
    }
    # As dataclasses do it, and for the same reason; of what is compiled here see the top.
    exec(compile(source, "<lahja_capn, for plain events>", "exec"), names)  # noqa: S102
    return names


class _Missing:
    """The default of a constructor's parameters: the field is left out."""

    def __repr__(self) -> str:
        return "..."


_MISSING = _Missing()


# --- the constructor ------------------------------------------------------------------------------------


def _init_source(parts: list[_Part]) -> list[str]:
    """Values that need no further look are stored; everything else is for the general constructor.

    Builtins are called by names that no field can have: a field may well be named ``type`` or ``len``.
    """
    parameters = "".join(f", {part.attr}=_missing" for part in parts)
    tests = ["_type(_self) is _class", "not _values", "not _args", "not _more"]
    stored = []
    for part in parts:
        name, kind = part.attr, part.kind
        value = name
        if isinstance(kind, VoidType):
            tests.append(f"{name} is None")
        elif isinstance(kind, BoolType):
            tests.append(f"({name} is True or {name} is False)")
        elif isinstance(kind, IntType):
            tests.append(f"_type({name}) is _int and {kind.low} <= {name} <= {kind.high}")
        elif isinstance(kind, FloatType):
            # A Float32 is rounded by the general constructor.
            tests.append(f"_type({name}) is _float" if kind.code == "d" else "False")
        elif isinstance(kind, EnumType):
            tests.append(f"_type({name}) is _str and {name} in _names{part.number}")
            value = f"_names{part.number}[{name}]"
        elif isinstance(kind, TextType):
            tests.append(f"_type({name}) is _str and {name}.isascii() and _len({name}) <= {MAX_TEXT_BYTES}")
        else:
            tests.append(f"_type({name}) is _bytes and _len({name}) <= {MAX_BLOB_BYTES}")
            if kind is DATA_VIEW:
                value = f"_memoryview({name})"
        stored.append(f"        _values[{name!r}] = {value}")
    given = ", ".join(f"({part.attr!r}, {part.attr})" for part in parts)
    return [
        f"def __init__(_self, /, *_args{parameters}, **_more):",
        "    _values = _self.__dict__",
        f"    if {' and '.join(tests)}:",
        # One by one: so it shares its keys with all others of its class, which takes half the memory of a dictionary of
        # its own, and less time.
        *stored,
        "    else:",
        "        _given = {}",
        f"        for _name, _value in ({given},):",
        "            if _value is not _missing:",
        "                _given[_name] = _value",
        "        _general(_self, *_args, **_given, **_more)",
    ]


# --- the message ----------------------------------------------------------------------------------------


class _Message:
    """The layout of the message: what :mod:`struct` packs, from the root pointer to the last pointer."""

    def __init__(self, parts: list[_Part], node: Any) -> None:
        self.parts = parts
        self.blobs = [part for part in parts if part.field.type.is_pointer]
        self.words: int = node.dataWordCount
        self.pointers: int = node.pointerCount
        self.root = self.words << 32 | self.pointers << 48
        # Byte of the data section -> code, and what is packed there.
        self.bits: dict[int, dict[int, _Part]] = {}
        places: dict[int, tuple[str, int, str]] = {}
        for part in parts:
            kind, offset = part.kind, part.field.offset
            if isinstance(kind, BoolType):
                self.bits.setdefault(offset // 8, {})[offset % 8] = part
            elif isinstance(kind, EnumType):
                places[2 * offset] = ("H", 2, f"0 if a{part.number} is None else a{part.number}.raw")
            elif isinstance(kind, (IntType, FloatType)):
                size = struct.calcsize(f"<{kind.code}")
                places[size * offset] = (kind.code, size, f"a{part.number}")
        for byte, bits in self.bits.items():
            value = " | ".join(
                f"a{part.number} << {bit}" if bit else f"a{part.number}" for bit, part in bits.items()
            )
            places[byte] = ("B", 1, value)
        code, end = "<Q", 0
        self.packed: list[str] = []
        self.offsets: list[int] = []
        for place in sorted(places):
            letter, size, value = places[place]
            code += "x" * (place - end) + letter
            end = place + size
            self.packed.append(value)
            self.offsets.append(place)
        code += "x" * (8 * self.words - end)
        self.kept = [part for part in self.blobs if part.kind is not DATA_VIEW]
        self.shapes = Shapes(
            code,
            self.pointers,
            ((part.field.offset, isinstance(part.kind, TextType)) for part in self.kept),
        )
        # Pointers in halves: Python is slower with numbers above 2**30.
        self.shape = struct.Struct(code + "II" * self.pointers)

    def encode_source(self) -> list[str]:
        values = [part for part in self.parts if not isinstance(part.kind, VoidType)]
        lines = ["def encode(given):", "    try:"]
        lines += [f"        a{part.number} = given[{part.attr!r}]" for part in values]
        lines += ["    except KeyError:", "        given = _left_out | given"]
        lines += [f"        a{part.number} = given[{part.attr!r}]" for part in values]
        # The words that the contents before take, as far as they are known here, and the sum of the others.
        used: list[str] = []
        contents = []
        for part in self.blobs:
            n, index = part.number, part.field.offset
            # Offsets count from the end of the pointer.
            first = self.pointers - index - 1
            place = " + ".join([str(first), *used])
            is_text = isinstance(part.kind, TextType)
            if is_text:
                lines += [
                    f"    if a{n} is None:",
                    f"        a{n} = e{n} = b''",
                    f"        p{n} = q{n} = w{n} = 0",
                    "    else:",
                    f"        a{n} = a{n}.encode()",
                    f"        n{n} = _len(a{n})",
                    f"        w{n} = (n{n} >> 3) + 1",
                    f"        e{n} = _end[n{n} & 7]",
                    f"        p{n} = ({place} << 2) + 1",
                    f"        q{n} = (n{n} << 3) + 10",
                ]
            else:
                lines += [
                    f"    if a{n} is None:",
                    f"        a{n} = e{n} = b''",
                    f"        p{n} = q{n} = w{n} = 0",
                    "    else:",
                    f"        n{n} = _len(a{n})",
                    # It becomes a segment of its own, which is not copied.
                    f"        if n{n} >= {LARGE_BYTES}:",
                    "            return None",
                    f"        w{n} = n{n} + 7 >> 3",
                    f"        e{n} = _pad[n{n} & 7]",
                    f"        p{n} = ({place} << 2) + 1",
                    f"        q{n} = (n{n} << 3) + 2",
                ]
            used.append(f"w{n}")
            contents += [f"a{n}", f"e{n}"]
        by_index = {part.field.offset: f"p{part.number}, q{part.number}" for part in self.blobs}
        pointers = [by_index.get(index, "0, 0") for index in range(self.pointers)]
        head = f"_pack({', '.join([str(self.root), *self.packed, *pointers])})"
        lines.append(
            f"    return (_join(({', '.join([head, *contents])})),)" if contents else f"    return ({head},)"
        )
        return lines

    def decode_source(self, done: str) -> list[str]:
        """From ``segments`` into ``found``; ``done`` is the statement that ends it."""
        by_place = {}
        for part in self.parts:
            if isinstance(part.kind, (IntType, FloatType, EnumType)):
                by_place[self._byte(part)] = f"a{part.number}"
        in_data = [by_place.get(place) or f"b{place}" for place in self.offsets]
        by_index = {part.field.offset: f"p{part.number}, q{part.number}" for part in self.blobs}
        in_pointers = [by_index.get(index, "_, _") for index in range(self.pointers)]
        numbers = []
        for part in self.parts:
            n, kind = part.number, part.kind
            if isinstance(kind, VoidType):
                numbers.append(f"found[{part.attr!r}] = None")
            elif isinstance(kind, BoolType):
                byte, bit = divmod(part.field.offset, 8)
                # Another version of the schema may have a Bool in each of the other bits.
                numbers.append(f"found[{part.attr!r}] = b{byte} & {1 << bit} != 0")
            elif isinstance(kind, EnumType):
                numbers.append(f"found[{part.attr!r}] = _at{n}(a{n})")
            elif not kind.is_pointer:
                numbers.append(f"found[{part.attr!r}] = a{n}")
        kept = self.kept
        lines = ["segment = segments[0]", "size = _len(segment)"]
        if kept:
            lines += self._known_source(["root", *in_data], numbers, done)
        lines += [
            f"if size < {self.shape.size}:",
            f"    {done}",
            f"{', '.join(['root', *in_data, *in_pointers])} = _unpack(segment)",
            f"if root != {self.root}:",
            f"    {done}",
            *numbers,
        ]
        if kept:
            # Together they may be larger than the message, if it refers to the same bytes again and again.
            total = " + ".join(f"(q{part.number} >> 3)" for part in kept)
            lines += [
                f"if size > {KEEP_BYTES} or _type(segment) is not _bytes or {total} > size:",
                f"    {done}",
            ]
        for part in kept:
            if not isinstance(part.kind, TextType):
                lines += self._blob_source(part, [f"found[{part.attr!r}] = segment[begin:end]"], "b''")
                continue
            text = [
                "if begin < end and not segment[end - 1]:",
                "    try:",
                "        text = segment[begin : end - 1].decode()",
                "    except UnicodeDecodeError:",
                "        pass",
                "    else:",
                f"        if size <= {ANY_TEXT_BYTES} or text.isascii():",
                f"            found[{part.attr!r}] = text",
            ]
            lines += self._blob_source(part, text, "''")
        return [*lines, done]

    def _known_source(self, head: list[str], numbers: list[str], done: str) -> list[str]:
        """A message with pointers that are known, see shapes.py."""
        texts = [part.number for part in self.kept if isinstance(part.kind, TextType)]
        contents = [
            f"a{part.number}, z{part.number}" if part.number in texts else f"a{part.number}"
            for part in self.kept
        ]
        tests = [f"root == {self.root}", *(f"not z{n}" for n in texts)]
        if texts:
            ascii_only = " and ".join(f"a{n}.isascii()" for n in texts)
            tests.append(f"(size <= {ANY_TEXT_BYTES} or {ascii_only})")
        return [
            f"if size <= {KEEP_BYTES} and _type(segment) is _bytes:",
            f"    unpack = _known(segment[{self.shapes.begin}:{self.shapes.end}])",
            "    if unpack:",
            "        try:",
            f"            {', '.join([*head, *contents])} = unpack(segment)",
            *(f"            a{n} = a{n}.decode()" for n in texts),
            # Too short, or no UTF-8.
            "        except _not_certain:",
            "            pass",
            "        else:",
            f"            if {' and '.join(tests)}:",
            *(f"                {line}" for line in numbers),
            *(f"                found[{part.attr!r}] = a{part.number}" for part in self.kept),
            f"                {done}",
            f"    elif unpack is None and _len(_shapes) < {MOST_SHAPES}:",
            "        _learn(segment)",
        ]

    def _byte(self, part: _Part) -> int:
        kind = part.kind
        size = 2 if isinstance(kind, EnumType) else struct.calcsize(f"<{kind.code}")  # type: ignore[attr-defined]
        return size * part.field.offset

    def _blob_source(self, part: _Part, found: list[str], null: str) -> list[str]:
        """``found`` is done with the bytes from ``begin`` to ``end``, if they are within the message."""
        n = part.number
        base = 8 * (1 + self.words + part.field.offset + 1)
        return [
            # A list of bytes in this segment. A negative offset shows as one far behind its end.
            f"if p{n} & 3 == 1 and q{n} & 7 == 2:",
            f"    begin = (p{n} << 1) + {base - 2}",
            f"    end = begin + (q{n} >> 3)",
            "    if end <= size:",
            *(f"        {line}" for line in found),
            f"elif p{n} == q{n} == 0:",
            f"    found[{part.attr!r}] = {null}",
        ]

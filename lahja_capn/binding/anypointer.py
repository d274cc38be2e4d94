"""AnyPointer fields: a value whose type the schema leaves open."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NoReturn

import capnp
from lahja_capn.binding.pointers import Segments, list_at, struct_at
from lahja_capn.binding.record import (
    NESTING,
    Record,
    limit_words,
    path_of,
    pointer_place,
    recover,
    root,
    unreadable,
)
from lahja_capn.binding.values import MAX_BLOB_BYTES, Mismatch
from lahja_capn.errors import EventFieldError
from lahja_capn.schema import own_schema

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lahja_capn.binding.lists import ListView

_Box: Any = own_schema("binding.capnp").Box
_VALUE: Any = _Box.schema.fields["value"]

# Root pointer of a Box in one segment: no data, one pointer, right behind.
_BOX_ROOT = 1 << 48
_EMPTY_BOX: Segments = (struct.pack("<QQ", _BOX_ROOT, 0),)


class Cast:
    """The step from an AnyPointer to what it is read as."""

    __slots__ = ("kind", "target")

    def __init__(self, kind: str, target: Any) -> None:
        self.kind = kind
        self.target = target

    def take(self, reader: Any) -> Any:
        return (
            reader.as_struct(self.target.schema)
            if self.kind == "struct"
            else reader.as_list(self.target.list_schema())
        )

    def part(self, parent: AnyPointer) -> Any:
        return parent._cast(self)

    def text(self) -> str:
        return f".as_{self.kind}({self.target.name})"


class AnyPointer:
    """A pointer of any kind: null, a struct, a list, text or data.

    An event is constructed with a bound struct or event, a str, bytes, or an ``AnyPointer``;
    ``AnyPointer.of_list`` makes one from a list. What arrives is an ``AnyPointer``, and the receiver says
    what to read it as; read as something it is not, it raises ``EventFieldError``.
    """

    __slots__ = ("__weakref__", "_once", "_parent", "_reader", "_segments", "_step")

    _segments: Segments | None

    def __init__(self, value: Any = None) -> None:
        try:
            self._segments = _EMPTY_BOX if value is None else box(value)
        except Mismatch as mismatch:
            raise mismatch.error("AnyPointer") from mismatch.__cause__
        self._parent: Any = None
        self._step: Any = None
        self._reader: Any = None
        self._once = False

    if TYPE_CHECKING:
        # What a type checker sees of a field annotated ``AnyPointer``: the constructor takes all these,
        # reading gives an AnyPointer. At run time a bound field has a descriptor of its own.
        def __get__(self, event: Any, owner: Any = None) -> AnyPointer: ...

        def __set__(
            self, event: Any, value: AnyPointer | Record | str | bytes | bytearray | memoryview
        ) -> None: ...

    @classmethod
    def of_list(cls, element: Any, values: Iterable[Any]) -> AnyPointer:
        """Return an AnyPointer to a list.

        Args:
            element: what the elements are: a schema name (``"UInt32"``, ``"Text"``, ``"List(Bool)"``), a
            bound
                struct class, or a struct or enum of a loaded schema.
            values: the elements, checked like a list field's.
        """
        from lahja_capn.binding.fieldtypes import list_of

        kind = list_of(element)
        try:
            items = kind.convert(values)
        except Mismatch as mismatch:
            raise mismatch.error("AnyPointer.of_list") from mismatch.__cause__
        builder = capnp._MallocMessageBuilder().init_root(_Box.schema)
        kind.fill(builder._get_by_field(_VALUE).init_as_list(kind.list_schema(), len(items)), items)
        return cls._holding(tuple(builder._parent.get_segments_for_output()))

    @classmethod
    def _holding(cls, segments: Segments) -> AnyPointer:
        self = cls()
        self._segments = segments
        return self

    @classmethod
    def _reading(cls, reader: Any, parent: Any, step: Any) -> AnyPointer:
        self = cls.__new__(cls)
        self._segments = None
        self._parent = parent
        self._step = step
        self._reader = reader
        self._once = False
        return self

    @property
    def is_null(self) -> bool:
        """Whether it points to nothing."""
        place = pointer_place(self)
        return place is None or place.word() == 0

    def as_struct(self, target: Any) -> Any:
        """Read it as a struct.

        Args:
            target: a bound class, or a struct of a loaded schema (which gives a view without a class of
            yours).

        Raises:
            EventFieldError: it holds something else.
        """
        from lahja_capn.binding.plan import plan_for

        return self._cast(Cast("struct", plan_for(target)))

    def as_list(self, element: Any) -> ListView[Any]:
        """Read it as a list; `element` as in :meth:`of_list`."""
        from lahja_capn.binding.fieldtypes import list_of

        view: ListView[Any] = self._cast(Cast("list", list_of(element)))
        return view

    def as_text(self) -> str:
        """Read it as Text. Null reads as ""."""
        content = self._blob("text")
        if content is None:
            return ""
        if len(content) == 0 or content[-1] != 0:
            raise self._not("text", "it does not end with NUL")
        try:
            return str(content[:-1], "utf-8")
        except UnicodeDecodeError as error:
            raise self._not("text", f"it is not valid UTF-8 (byte {error.start})") from error

    def as_data(self) -> bytes:
        """Read it as Data, copied. Null reads as b""."""
        content = self._blob("data")
        return b"" if content is None else bytes(content)

    def _blob(self, kind: str) -> memoryview | None:
        place = pointer_place(self)
        if place is None or place.word() == 0:
            return None
        found = list_at(place)
        content = found.view(1) if found is not None else None
        if content is None:
            raise self._not(kind, "it is a pointer of another kind, or points outside the message")
        return content

    def _not(self, kind: str, reason: str) -> EventFieldError:
        name, path = path_of(self)
        where = f"{name}.{path}" if path else name
        return EventFieldError(f"{where} cannot be read as {kind}: {reason}.", event=name, path=path)

    def _cast(self, step: Cast) -> Any:
        raw = self._get(step)
        if step.kind == "struct":
            return step.target.view(raw, self, step)
        return step.target.wrap(raw, self, step)

    def _get(self, step: Cast) -> Any:
        try:
            return step.take(self._open())
        except EventFieldError:
            raise
        except Exception as error:
            return recover(self, step, error)

    def _open(self) -> Any:
        reader = self._reader
        return self._refresh() if reader is None else reader

    def _refresh(self) -> Any:
        if self._parent is not None:
            self._reader = self._step.take(self._parent._refresh())
        else:
            segments = self._segments or _EMPTY_BOX
            self._reader = _Box.from_segments(segments, limit_words(segments), NESTING)._get_by_field(_VALUE)
        return self._reader

    def _sealed(self) -> AnyPointer:
        if root(self)._once:
            return self
        if self._parent is not None:
            sealed: AnyPointer = self._step.part(self._parent._sealed())
            return sealed
        twin = AnyPointer._holding(self._segments or _EMPTY_BOX)
        twin._once = True
        return twin

    def _copy(self) -> Segments:
        """Return a Box of its own that holds a copy of the value, laid out in libcapnp's order."""
        sealed = self._sealed()
        try:
            return box_pointer(sealed._open())
        except EventFieldError:
            raise
        except Exception as error:
            raise unreadable(self, "", error) from error

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AnyPointer):
            return NotImplemented
        return self is other or self._copy() == other._copy()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        place = pointer_place(self)
        if place is None or place.word() == 0:
            return "<AnyPointer null>"
        kind = "struct" if struct_at(place) is not None else "list, text or data"
        return f"<AnyPointer {kind}>"

    def __copy__(self) -> AnyPointer:
        return self

    def __deepcopy__(self, memo: Any) -> AnyPointer:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("An AnyPointer is not pickled: read it first.")


def box(value: Any) -> Segments:
    """Return a Box message that holds a copy of `value`: a record, text, bytes, or a pycapnp struct.

    Raises:
        Mismatch: it is none of these.
    """
    from lahja_capn.binding.fieldtypes import box_struct
    from lahja_capn.binding.scalars import TEXT

    if isinstance(value, str):
        builder = capnp._MallocMessageBuilder().init_root(_Box.schema)
        builder._set_by_field(_VALUE, TEXT.convert(value))
        return tuple(builder._parent.get_segments_for_output())
    if isinstance(value, (bytes, bytearray, memoryview)):
        return (box_bytes(value),)
    if isinstance(value, AnyPointer):
        return value._copy() if value._parent is not None else (value._segments or _EMPTY_BOX)
    return box_struct(value)


def box_bytes(value: bytes | bytearray | memoryview) -> bytes:
    """Return the one segment of a Box that holds `value` as Data."""
    size = value.nbytes if isinstance(value, memoryview) else len(value)
    if size > MAX_BLOB_BYTES:
        raise Mismatch(f"at most {MAX_BLOB_BYTES} bytes", f"{size} bytes")
    return box_list(value, 2, 1)


def box_list(content: bytes | bytearray | memoryview, code: int, width: int) -> bytes:
    """Return the one segment of a Box that holds a list of elements of `width` bytes (size code `code`)."""
    size = content.nbytes if isinstance(content, memoryview) else len(content)
    head = struct.pack("<QQ", _BOX_ROOT, 1 | code << 32 | size // width << 35)
    return b"".join((head, content, bytes(-size % 8)))


def box_reader(value: Any, words: int = 0) -> Segments:
    """Return a Box that holds a copy of a pycapnp struct (reader or builder).

    A struct's copy is made by setting a field, because the direct way, ``set_root``, ends the process when
    the source is malformed. Raises what pycapnp raises.
    """
    message = capnp._MallocMessageBuilder(words) if words else capnp._MallocMessageBuilder()
    message.init_root(_Box.schema)._set_by_field(_VALUE, value)
    return tuple(message.get_segments_for_output())


def box_pointer(pointer: Any) -> Segments:
    """Return a Box that holds a copy of what a pycapnp AnyPointer points to. Raises what pycapnp raises."""
    builder = capnp._MallocMessageBuilder().init_root(_Box.schema)
    # By name: with a field object pycapnp 2.2.4 does not take a pointer of its own.
    builder._set("value", pointer)
    return tuple(builder._parent.get_segments_for_output())


def unboxed(value: Any, words: int) -> Segments:
    """Return a message whose root is a copy of a pycapnp struct of at most `words` words.

    With room for all in one segment, a Box's pointer and what follows it are that message: the first pointer
    of a Box and a root pointer stand in the same relation to what they point to.
    """
    segments = box_reader(value, words + 8)
    if len(segments) != 1:
        raise ValueError("the struct is larger than its message")
    return (segments[0][8:],)

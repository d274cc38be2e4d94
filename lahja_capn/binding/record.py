"""Records: what events and nested structs have in common, and how a field of one is found and read.

A record is in one of three states, told apart by private entries of its instance ``__dict__``:

- *local*: made by its constructor. The checked, copied values lie in ``__dict__`` under the attribute names.
- *received*: ``_segments`` holds the message whose root it is. Nothing was read yet; ``_reader`` is pycapnp's
  reader once something was.
- *view*: part of another value, which is its ``_parent``; ``_step`` says which part.

Each bound field is a descriptor without ``__set__``. Python looks into ``__dict__`` before it asks such a
descriptor: reading a field of a local record costs what a plain attribute costs, and only received records,
views, and fields that were left out reach the descriptor's code.

**The traversal limit.** libcapnp counts the words it has followed pointers to and stops at a limit, which is
what keeps a message of 100 bytes from claiming to hold a million elements. The count never goes down, so
reading one field often enough would trip it. A read that trips is therefore repeated once with a fresh
reader, along the way from the root; the limit itself is never lifted. Before the first such renewal the message is
looked through once: if its parts are referred to again and again, so that they come to more than the limit, there is
no renewal, and all that is ever read of it is bounded by its size. Operations that walk a whole record
(``==``, ``repr``, copying) do so on a *sealed* twin, whose reader is not renewed: their total cost is
bounded by the message's size however the pointers in it are knotted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol, TypeVar

from lahja_capn.binding.enumerant import unknown
from lahja_capn.binding.pointers import (
    ELEMENT_BYTES,
    ListPlace,
    PointerPlace,
    Segments,
    StructPlace,
    is_knotted,
    list_at,
    root_pointer,
    struct_at,
)
from lahja_capn.errors import BindError, EventFieldError, InactiveUnionMember

if TYPE_CHECKING:
    from lahja_capn.binding.plan import Binding, FieldPlan, StructPlan

# A message without sharing costs its own size to read once. Eight times that lets one walk read every part
# several times (libcapnp counts a struct again each time it is fetched), and still bounds amplification:
# a word of budget per byte of message, which is how it is computed.
# The floor lets a list of elements without size (Void, empty structs), which count a word each, be read.
LIMIT_FACTOR = 8
FLOOR_WORDS = 8192

# libcapnp's default too: a message nested deeper is refused where the read gets there.
NESTING = 64

_LIMIT_TEXT = "Exceeded message traversal limit"

new = object.__new__
R = TypeVar("R", bound="Record")


class View(Protocol):
    """What records, lists and AnyPointers have in common: a place in the tree of one message."""

    _parent: Any
    _step: Any

    def _refresh(self) -> Any: ...

    def _sealed(self) -> Any: ...


class Step(Protocol):
    """How a part is taken from its parent: a field, an index, or a cast of an AnyPointer."""

    def take(self, reader: Any) -> Any: ...

    def text(self) -> str: ...


def limit_words(segments: Segments) -> int:
    """Return the traversal limit for a message, in words."""
    return sum(map(len, segments)) * LIMIT_FACTOR // 8 + FLOOR_WORDS


class Record:
    """Base of events and structs: immutable, lazily read, compared by content."""

    __slots__ = ("__dict__", "__weakref__")

    # Shared by all instances of a class.
    _binding: ClassVar[Binding | None] = None
    _plan: ClassVar[Any] = None

    # Defaults for what an instance's __dict__ may hold.
    _segments: ClassVar[Segments | None] = None
    _reader: ClassVar[Any] = None
    _parent: ClassVar[Any] = None
    _step: ClassVar[Any] = None
    _once: ClassVar[bool] = False
    # None: not looked at yet, see may_renew().
    _renewable: ClassVar[bool | None] = None

    # Equal records are equal whatever messages they came in, so a hash would have to read the whole message,
    # 64 MB of it if need be, and fail if it is malformed. Key by a field instead.
    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __init__(self, /, *args: Any, **fields: Any) -> None:
        binding = self._binding
        if binding is None or binding.cls is not type(self):
            raise unbound(type(self))
        if args:
            binding.positional(args)
        if binding.is_plain and binding.init is None:
            # The next one takes the short way.
            binding.prepare()
        quick = binding.quick
        for name, value in fields.items():
            kind, low, high = quick.get(name) or binding.unknown_field(name)
            if type(value) is kind:
                if kind is str:
                    if value.isascii() and len(value) <= high:
                        continue
                elif kind is bytes:
                    if len(value) <= high:
                        continue
                elif low <= value <= high:
                    continue
            fields[name] = binding.convert(name, value)
        if binding.union and len(binding.union & fields.keys()) > 1:
            binding.two_members(fields)
        set_dict(self, fields)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        # The habit of classes that are not made from a schema: `super().__init__(); self.count = count`.
        way_out = (
            "Construct a new one instead."
            if type(self).__init__ is Record.__init__
            or (self._binding and type(self).__init__ is self._binding.init)
            else "Delete this __init__: the schema gives the constructor, which takes the fields as keywords."
        )
        raise AttributeError(f"{type(self).__name__} is immutable: {name!r} cannot be set. {way_out}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable: {name!r} cannot be deleted.")

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other) or self._binding is None:
            return NotImplemented
        from lahja_capn.binding.compare import same_records

        return same_records(self, other)

    def __repr__(self) -> str:
        if self._binding is None or self._binding.plan is None:
            return object.__repr__(self)
        from lahja_capn.binding.compare import describe_record

        return describe_record(self)

    def __copy__(self: R) -> R:
        return self

    def __deepcopy__(self: R, memo: Any) -> R:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} is not pickled. Send it through an endpoint, or carry its fields."
        )

    def which(self) -> str:
        """Return the name of the union member that is set.

        A member that this side's schema does not know, because the sender's is newer, gives ``"unknown(9)"``.

        Raises:
            TypeError: the struct has no unnamed union.
        """
        binding = self._binding
        if binding is None:
            raise unbound(type(self))
        if not binding.union:
            raise TypeError(
                f"{type(self).__name__} has no unnamed union; a named one is asked by its own which()."
            )
        if is_local(self):
            for name in self.__dict__:
                if name in binding.union:
                    return name
            return binding.union_default
        name = active_member(self)
        return binding.attr_of.get(name, name)

    # --- how it is read ---

    def _open(self) -> Any:
        """Return the pycapnp reader, opening the message if this is the first read."""
        private = self.__dict__
        reader = private.get("_reader")
        if reader is not None:
            return reader
        segments = private.get("_segments")
        try:
            if segments is None:
                return self._refresh()
            # The hot path: the first read of a received event.
            size = len(segments[0]) if len(segments) == 1 else sum(map(len, segments))
            reader = self._plan.from_segments(segments, size + FLOOR_WORDS, NESTING)
            private["_reader"] = reader
            return reader
        except EventFieldError:
            raise
        except Exception as error:
            raise unreadable(self, "", error) from error

    def _refresh(self) -> Any:
        """Return a new pycapnp reader with an unused traversal budget. Raises what pycapnp raises."""
        parent = self._parent
        if parent is not None:
            reader = self._step.take(parent._refresh())
        elif self._segments is not None:
            reader = self._plan.open(self._segments)
        else:
            return self._plan.default_reader()
        self.__dict__["_reader"] = reader
        return reader

    def _sealed(self: R) -> R:
        """Return a twin for one walk: its traversal budget is not renewed."""
        if root(self)._once or is_local(self):
            return self
        if self._parent is not None:
            twin: R = self._step.part(self._parent._sealed())
            return twin
        twin = new(type(self))
        set_dict(twin, {"_segments": self._segments, "_once": True})
        return twin


set_dict = Record.__dict__["__dict__"].__set__


def unbound(cls: type) -> BindError:
    """Make the error for a class that `@bind` did not see."""
    bound = next((base for base in cls.__mro__[1:] if base.__dict__.get("_binding") is not None), None)
    reason = (
        f"it only inherits from {bound.__qualname__}, and a binding is not inherited: use "
        f"{bound.__qualname__} itself, or bind this class to a struct of its own"
        if bound is not None
        else "put @bind(schema.YourStruct) on it"
    )
    return BindError(
        f"{cls.__qualname__} is not bound to a Cap'n Proto struct: {reason}.",
        event=cls.__qualname__,
        field=None,
    )


def is_local(record: Record) -> bool:
    """Say whether the record's values lie in its ``__dict__``."""
    return record._segments is None and record._parent is None


def root(view: Any) -> Any:
    """Return the value whose message `view` is part of."""
    parent = view._parent
    while parent is not None:
        view = parent
        parent = view._parent
    return view


def path_of(view: Any) -> tuple[str, str]:
    """Return the class name of the root and the path from it: ``("Order", "lines[3]")``."""
    steps = []
    while view._parent is not None:
        steps.append(view._step.text())
        view = view._parent
    return type(view).__qualname__, "".join(reversed(steps)).lstrip(".")


# --- failures -------------------------------------------------------------------------------------------


def reason_of(error: BaseException) -> str:
    """Return the one telling sentence of a pycapnp exception: it carries a C++ stack and source positions."""
    if isinstance(error, UnicodeDecodeError):
        return f"the Text is not valid UTF-8 (byte {error.start})"
    text = str(error).split("\nstack:")[0].strip()
    text = text.splitlines()[-1] if text else type(error).__name__
    if "failed: " in text:
        text = text.split("failed: ", 1)[1]
    return text.rstrip("; ").removeprefix("expected ")[:300]


def unreadable(view: Any, step: str, error: BaseException) -> EventFieldError:
    """Make the error for a part of a received message that cannot be read."""
    name, path = path_of(view)
    path = (path + step).lstrip(".")
    reason = reason_of(error)
    if _LIMIT_TEXT in reason:
        reason = (
            f"reading it takes more than {LIMIT_FACTOR} times the message's size (traversal limit: the "
            "same bytes are referred to again and again)"
        )
    where = f"{name}.{path}" if path else name
    return EventFieldError(f"{where} cannot be read: {reason}.", event=name, path=path)


def may_renew(top: Any) -> bool:
    """Say whether more may be read of a message whose traversal budget was used up."""
    if top._once:
        return False
    if not isinstance(top, Record) or top._segments is None:
        return True  # made here
    renewable = top._renewable
    if renewable is None:
        segments = top._segments
        renewable = not is_knotted(segments, limit_words(segments), NESTING)
        top.__dict__["_renewable"] = renewable
    return renewable


def recover(view: Any, step: Any, error: Exception) -> Any:
    """Read the part again with a fresh budget if the old one was used up; else raise our error."""
    failure: Exception = error
    if _LIMIT_TEXT in str(error) and may_renew(root(view)):
        try:
            return step.take(view._refresh())
        except Exception as again:
            failure = again
    field_name = getattr(step, "name", None)
    if field_name is not None and step.in_union:
        active = active_member(view)
        if active != field_name:
            raise inactive(view, step, active)
    raise unreadable(view, step.text(), failure) from failure


def inactive(view: Record, field: FieldPlan, active: str) -> InactiveUnionMember:
    """Make the error for a union member that is not the one set."""
    name, path = path_of(view)
    path = f"{path}.{field.name}".lstrip(".")
    return InactiveUnionMember(
        f"{name}.{path} is not set: the union holds {active!r}. Ask which() first.",
        event=name,
        path=path,
        active=active,
    )


def active_member(view: Record) -> str:
    """Return the schema's name of the set member of a received record's union."""
    reader = view._open()
    try:
        name: str = reader._which_str()
        return name
    except Exception:
        # libcapnp has no name for the number, so it comes from our own walk.
        place = struct_place(view)
        plan: StructPlan = view._plan
        return str(unknown(place.uint16(plan.discriminant_offset) if place is not None else 0))


# --- where a view lies in its message -------------------------------------------------------------------


def struct_place(view: Any) -> StructPlace | None:
    """Return where the struct of a record lies, or None if it is not in a message, or unusual."""
    parent, step = view._parent, view._step
    if parent is None:
        segments = view._segments
        place = root_pointer(segments) if segments is not None else None
    elif isinstance(parent, Record):
        struct = struct_place(parent)
        if struct is None or step.is_group:
            return struct
        place = struct.pointer(step.offset)
    elif hasattr(parent, "_count"):
        items = list_place(parent)
        return items.element_struct(step.index) if items is not None else None
    else:
        place = pointer_place(parent)
    return struct_at(place) if place is not None else None


def pointer_place(view: Any) -> PointerPlace | None:
    """Return where the pointer word of an AnyPointer or of a list lies."""
    parent, step = view._parent, view._step
    if parent is None:
        # An AnyPointer of its own: the only pointer of the Box that is its message's root.
        if view._segments is None:
            return None
        place = root_pointer(view._segments)
        struct = struct_at(place) if place is not None else None
        return struct.pointer(0) if struct is not None else None
    if isinstance(parent, Record):
        struct = struct_place(parent)
        return struct.pointer(step.offset) if struct is not None else None
    if hasattr(parent, "_count"):
        items = list_place(parent)
        return items.element_pointer(step.index) if items is not None else None
    return pointer_place(parent)


def list_place(view: Any) -> ListPlace | None:
    """Return where the elements of a received list lie."""
    place = pointer_place(view)
    return list_at(place) if place is not None else None


def struct_size(view: Any) -> tuple[int, int]:
    """Return the size of a received list's elements as structs: bytes of the data section, and pointers.

    (0, 0) if they have no words: a list of Void, or of structs without fields.
    """
    place = list_place(view)
    if place is None:
        return 0, 0
    if place.code == 6:
        return 0, 1
    return ELEMENT_BYTES.get(place.code, 8 * place.data_words), place.pointer_count

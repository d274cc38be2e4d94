"""Lists as fields: immutable sequences, the same for local and received events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from lahja_capn.binding.record import recover, root

if TYPE_CHECKING:
    from lahja_capn.binding.scalars import FieldType

T = TypeVar("T")


class Index:
    """The step from a list to one element."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def take(self, reader: Any) -> Any:
        return reader._get(self.index)

    def part(self, parent: Any) -> Any:
        return parent[self.index]

    def text(self) -> str:
        return f"[{self.index}]"


class ListView(Sequence[T]):
    """An immutable sequence of a list's elements.

    Compares equal to any list or tuple with equal elements. Local lists, and lists of numbers, hold their
    elements (numbers as packed bytes: a received list of numbers shares its message's memory); other received
    lists read an element when it is asked for.
    """

    __slots__ = ("__weakref__", "_count", "_items", "_parent", "_reader", "_step", "_type")

    _items: Sequence[Any] | None

    def __init__(self, items: Sequence[Any], element: FieldType | None = None) -> None:
        self._items = items
        self._count = len(items)
        self._type: Any = element
        self._parent: Any = None
        self._step: Any = None
        self._reader: Any = None

    @classmethod
    def reading(cls, reader: Any, element: FieldType, parent: Any, step: Any) -> ListView[Any]:
        """Return the view of a received list."""
        self = cls.__new__(cls)
        self._items = None
        self._count = len(reader)
        self._type = element
        self._parent = parent
        self._step = step
        self._reader = reader
        return self

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> ListView[T]: ...

    def __getitem__(self, index: Any) -> Any:
        items = self._items
        if isinstance(index, slice):
            if items is None:
                items = tuple(self._read(i) for i in range(*index.indices(self._count)))
                return ListView(items, self._type)
            return ListView(items[index], self._type)
        if items is not None:
            return items[index]
        position = index + self._count if index < 0 else index
        if not 0 <= position < self._count:
            raise IndexError(f"list index {index} out of range: the list has {self._count} elements")
        return self._read(position)

    def __iter__(self) -> Iterator[T]:
        if self._items is not None:
            return iter(self._items)
        return map(self._read, range(self._count))

    def _read(self, index: int) -> Any:
        try:
            raw = self._reader._get(index)
        except Exception as error:
            raw = recover(self, Index(index), error)
        wrap = self._type.wrap
        return raw if wrap is None else wrap(raw, self, Index(index))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (ListView, list, tuple)):
            return NotImplemented
        from lahja_capn.binding.compare import same_lists

        return same_lists(self, other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        from lahja_capn.binding.compare import describe_list

        return describe_list(self)

    def __copy__(self) -> ListView[T]:
        return self

    def __deepcopy__(self, memo: Any) -> ListView[T]:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("A list of an event is not pickled: make a list() or tuple() of it.")

    def _refresh(self) -> Any:
        reader = self._step.take(self._parent._refresh())
        self._reader = reader
        return reader

    def _sealed(self) -> ListView[T]:
        if self._items is not None or root(self)._once:
            return self
        sealed: ListView[T] = self._step.part(self._parent._sealed())
        return sealed

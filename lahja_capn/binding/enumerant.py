"""Values of Cap'n Proto enums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lahja_capn.binding.values import Mismatch, describe


class Enumerant(str):
    """The name of an enumerant, with its number.

    It is the name string for every purpose (``==``, ``hash``, ``match``). A number that this side's schema
    does not know, because the sender's schema is newer, reads as ``"unknown(7)"``.

    Attributes:
        raw: the number on the wire, 0..65535.
        known: whether this side's schema has a name for it.
    """

    __slots__ = ("known", "raw")

    raw: int
    known: bool

    def __new__(cls, name: str, raw: int, known: bool = True) -> Enumerant:
        self = super().__new__(cls, name)
        self.raw = raw
        self.known = known
        return self

    if TYPE_CHECKING:
        # What a type checker sees of a field annotated ``Enumerant``: the constructor takes a name as well,
        # reading gives an Enumerant. At run time a bound field has a descriptor of its own.
        def __get__(self, event: Any, owner: Any = None) -> Enumerant: ...

        def __set__(self, event: Any, value: str | int) -> None: ...

    def __repr__(self) -> str:
        return f"<{str.__str__(self)}: {self.raw}>"

    def __reduce__(self) -> Any:
        raise TypeError("An Enumerant is not pickled: keep its name or its .raw.")

    def __copy__(self) -> Enumerant:
        return self

    def __deepcopy__(self, memo: Any) -> Enumerant:
        return self


class EnumTable:
    """The enumerants of one enum: number to value, name to value."""

    __slots__ = ("by_name", "by_raw", "name", "wanted")

    def __init__(self, schema: Any) -> None:
        self.name: str = schema.node.displayName.rpartition(":")[2]
        self.by_name = {name: Enumerant(name, raw) for name, raw in schema.enumerants.items()}
        self.by_raw = {value.raw: value for value in self.by_name.values()}
        names = ", ".join(self.by_name)
        self.wanted = f"{self.name}, one of {names if len(names) <= 200 else names[:197] + '...'}"

    def at(self, raw: int) -> Enumerant:
        """Return the enumerant with number `raw`, known or not."""
        return self.by_raw.get(raw) or unknown(raw)

    def convert(self, value: Any) -> Enumerant:
        """Return the enumerant for a name, a known number, an Enumerant, or pycapnp's own enum value."""
        kind = type(value)
        if isinstance(value, str):
            found = self.by_name.get(value)
            if found is not None:
                return found
            if isinstance(value, Enumerant) and not value.known and value.raw not in self.by_raw:
                return value
        elif kind is not bool and isinstance(value, int):
            found = self.by_raw.get(value)
            if found is not None:
                return found
        elif kind.__name__ == "_DynamicEnum":
            return self.at(value.raw)
        raise Mismatch(self.wanted, describe(value))


def unknown(raw: int) -> Enumerant:
    """Return the value for a number that the schema has no name for."""
    return Enumerant(f"unknown({raw})", raw, known=False)

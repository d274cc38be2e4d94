"""Whether two versions of a schema understand each other on the bus: the verdict of docs/wire.md 6.3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lahja_capn.binding.describe import StructDescription, describe_event, describe_struct
from lahja_capn.cli.structs import all_structs
from lahja_capn.errors import BindError


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a schema file.

    Attributes:
        structs: type id -> every struct of the file and all that is reachable from one.
        declared: name in the file -> type id, of the structs that the file itself declares.
        reaches: type id -> type ids of the structs that are reachable from it.
    """

    structs: Mapping[int, StructDescription]
    declared: Mapping[str, int]
    reaches: Mapping[int, tuple[int, ...]]


def read_version(module: Any) -> Version:
    structs: dict[int, StructDescription] = {}
    declared: dict[str, int] = {}
    reaches: dict[int, tuple[int, ...]] = {}
    for name, struct in all_structs(module):
        try:
            own, inside = describe_event(struct)
        except BindError:
            # No event type, but a part of one perhaps, in this file or another.
            own, inside = describe_struct(struct), ()
        declared[name] = own.row.type_id
        reaches[own.row.type_id] = tuple(part.row.type_id for part in inside)
        structs.update((part.row.type_id, part) for part in (own, *inside))
    return Version(structs, declared, reaches)


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that the two versions read differently."""

    struct: str
    ordinal: int
    field: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.struct} @{self.ordinal} {self.field}: {self.old or 'nothing'} became {self.new or 'nothing'}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What two versions make of one struct of either.

    Attributes:
        name: in the file; of the new version if it has the struct.
        outcome: "compatible", "incompatible", "removed" or "added".
        differences: of an incompatible one, in itself and in what is reachable from it.
        remark: what else a person should know.
    """

    name: str
    outcome: str
    differences: tuple[Difference, ...] = ()
    remark: str = ""


def compare(old: Version, new: Version) -> Iterator[Verdict]:
    """Yield a verdict for each struct that a file declares, those of the old version first."""
    names = {type_id: name for name, type_id in new.declared.items()}
    for name, type_id in old.declared.items():
        if type_id not in names and type_id not in new.structs:
            again = new.declared.get(name)
            remark = "" if again is None else _id_changed(name, type_id, again)
            yield Verdict(name, "removed", remark=remark)
            continue
        # Each side looks at what is reachable in its own schema, as far as the other has declared it too.
        looked_at = dict.fromkeys((type_id, *old.reaches[type_id], *new.reaches.get(type_id, ())))
        found = tuple(
            difference
            for struct in looked_at
            if struct in old.structs and struct in new.structs
            for difference in differences(old.structs[struct], new.structs[struct])
        )
        current = names.get(type_id, name)
        remark = "" if current == name else f"was {name}"
        yield Verdict(current, "incompatible" if found else "compatible", found, remark)
    for name, type_id in new.declared.items():
        if type_id not in old.structs:
            yield Verdict(name, "added")


def differences(old: StructDescription, new: StructDescription) -> Iterator[Difference]:
    """Yield the fields in the common part of two layouts that differ."""
    name = new.row.name.rpartition(":")[2]
    for ordinal, (before, after) in enumerate(zip(old.row.layout, new.row.layout, strict=False)):
        if before != after:
            field = new.fields[ordinal]
            if old.fields[ordinal] != field:
                field = f"{field} (was {old.fields[ordinal]})"
            yield Difference(name, ordinal, field, old.texts[ordinal], new.texts[ordinal])


def _id_changed(name: str, old: int, new: int) -> str:
    return (
        f"{name} has another type id now, 0x{new:016x}: another type to the bus. "
        f"Keep the old one: struct {name.rpartition('.')[2]} @0x{old:016x}"
    )

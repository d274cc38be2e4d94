"""What a tool is told of a struct, without a class being bound to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lahja_capn import load
from lahja_capn.binding import event_type, registry
from lahja_capn.binding.describe import describe_event, describe_struct
from lahja_capn.binding.layout import fnv1a_32, layout_texts
from lahja_capn.errors import BindError

from .support import Everything, schema


def test_an_events_rows_are_those_of_a_class_bound_to_it() -> None:
    own, inside = describe_event(schema.Everything)
    assert own.row == event_type(Everything).row
    assert tuple(part.row for part in inside) == event_type(Everything).reachable


def test_texts_and_names_stand_at_their_ordinals() -> None:
    for struct in (schema.Everything, schema.Blob, schema.Box):
        described = describe_struct(struct)
        assert dict(enumerate(described.texts)) == layout_texts(struct.schema)
        assert tuple(fnv1a_32(text.encode()) for text in described.texts) == described.row.layout
    names = describe_struct(schema.Everything).fields
    assert names[2] == "int8"
    assert names[36] == "place.label"
    assert names[42:46] == ("span.from", "span.to", "shape.circle", "shape.polygon")


def test_describing_binds_nothing() -> None:
    before = dict(registry._classes)
    describe_event(schema.Empties)
    assert registry._classes == before


@pytest.mark.parametrize(
    ("struct", "complaint"),
    [
        ("Box", "Box is generic, so it is no event type"),
        ("WithInterface", r"WithInterface\.deep\.service has the type interface"),
    ],
)
def test_what_cannot_be_an_event_type_is_refused(struct: str, complaint: str) -> None:
    with pytest.raises(BindError, match=complaint):
        describe_event(getattr(schema, struct))
    describe_struct(getattr(schema, struct))


def test_an_interface_may_be_an_argument_that_no_field_is_of(tmp_path: Path) -> None:
    path = tmp_path / "arguments.capnp"
    path.write_text(
        "@0xb7c9e1f0a3d58247; interface Service {}"
        "struct Used(T) { value @0 :T; } struct Unused(T) { n @0 :UInt8; }"
        "struct Wrong { inside @0 :Used(Service); }"
        "struct Right { inside @0 :Unused(Service); }"
    )
    arguments = load(path)
    with pytest.raises(BindError, match=r"Wrong\.inside\.value has the type interface"):
        describe_event(arguments.Wrong)
    own, _ = describe_event(arguments.Right)
    service = f"interface({arguments.Service.schema.node.id:016x})"
    unused = f"{arguments.Unused.schema.node.id:016x}"
    assert own.texts == (f"struct({unused};{unused}[{service}])@0=",)


def test_a_group_is_no_event_type() -> None:
    with pytest.raises(BindError, match=r"Everything\.place is a group, so it is no event type"):
        describe_event(schema.Everything.schema.fields["place"].schema)

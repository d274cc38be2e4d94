"""Layouts: the canonical text of each field, and what changes it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from lahja_capn.binding import BaseEvent, TypeRow, bind, event_type
from lahja_capn.binding.layout import fnv1a_32, layout_of, layout_texts
from lahja_capn.errors import BindError
from lahja_capn.schema import load

from .support import Everything, own_registry, schema


def node_id(member: Any) -> str:
    return f"{member.schema.node.id:016x}"


def test_fnv1a_has_its_published_values() -> None:
    # http://www.isthe.com/chongo/src/fnv/test_fnv.c
    assert fnv1a_32(b"") == 0x811C9DC5
    assert fnv1a_32(b"a") == 0xE40C292C
    assert fnv1a_32(b"foobar") == 0xBF9CF968


def test_the_text_of_every_kind_of_field() -> None:
    texts = layout_texts(schema.Everything.schema)
    plan = Everything._plan
    offset = {name: field.offset for name, field in plan.fields.items()}
    inner, color, box, pair = map(node_id, (schema.Inner, schema.Color, schema.Box, schema.Pair))
    everything = node_id(schema.Everything)
    expected = {
        0: "void@0=",
        1: "bool@0=0",
        2: f"int8@{offset['int8']}=0",
        9: f"uint64@{offset['uint64']}=0",
        10: f"float32@{offset['float32']}=00000000",
        11: f"float64@{offset['float64']}=0000000000000000",
        12: "text@0=",
        13: "data@1=",
        14: f"enum({color})@{offset['color']}=0",
        15: f"struct({inner})@2=",
        16: "list(void)@3=",
        31: f"list(struct({inner}))@{offset['inners']}=",
        32: f"list(list(uint16))@{offset['numberLists']}=",
        47: f"anypointer@{offset['any']}=",
        48: f"anystruct@{offset['anyStruct']}=",
        49: f"anylist@{offset['anyList']}=",
        50: f"struct({box};{box}[text])@{offset['textBox']}=",
        51: f"struct({box};{box}[struct({inner})])@{offset['innerBox']}=",
        52: f"struct({pair};{pair}[text,data])@{offset['pair']}=",
        53: f"struct({box};{box}[struct({box};{box}[list(struct({inner}))])])@{offset['nested']}=",
        54: f"bool@{offset['boolDefault']}=1",
        55: f"int16@{offset['intDefault']}=-12",
        56: f"float64@{offset['floatDefault']}={struct.pack('>d', 1.5).hex()}",
        57: f"text@{offset['textDefault']}={b'default'.hex()}",
        58: f"data@{offset['dataDefault']}=010203",
        59: f"enum({color})@{offset['colorDefault']}=2",
        # List pointer, 3 elements of one byte, right behind; then the bytes, padded.
        60: f"list(uint8)@{offset['listDefault']}={struct.pack('<Q', 1 | 2 << 32 | 3 << 35).hex()}0102030000000000",
        62: f"struct({everything})@{offset['self']}=",
    }
    assert {ordinal: texts[ordinal] for ordinal in expected} == expected
    assert sorted(texts) == list(range(63))
    # Groups count by ordinal in the struct; a union's members carry its discriminant, the first one none.
    discriminant = schema.Everything.schema.node.struct.discriminantOffset
    shape_at = schema.Everything.schema.fields["shape"].schema.node.struct.discriminantOffset
    assert texts[35].startswith("float64@")
    assert texts[35].endswith("=0000000000000000")
    assert texts[38] == "void@0="
    assert texts[39].endswith(f"=0|{discriminant}:1")
    assert texts[42].endswith(f"=0|{discriminant}:4")
    assert texts[43].endswith(f"=0|{discriminant}:4")
    assert "|" not in texts[44]
    assert texts[45].endswith(f"=|{shape_at}:1")


def test_a_struct_default_is_its_own_message() -> None:
    text = layout_texts(schema.Everything.schema)[61]
    content = bytes.fromhex(text.rpartition("=")[2])
    assert schema.Inner.from_segments([content]).number == 5


def test_a_large_default_stays_in_one_segment(tmp_path: Path) -> None:
    file = tmp_path / "large.capnp"
    numbers = ", ".join("7" for _ in range(10_000))
    file.write_text(f"@0xd3c2b1a091827364; struct Large {{ numbers @0 :List(UInt8) = [{numbers}]; }}")
    text = layout_texts(load(file).Large.schema)[0]
    assert text == "list(uint8)@0=" + struct.pack("<Q", 1 | 2 << 32 | 10_000 << 35).hex() + "07" * 10_000


def texts_of(tmp_path: Path, body: str) -> dict[int, str]:
    file = tmp_path / f"s{len(list(tmp_path.iterdir()))}.capnp"
    file.write_text("@0xd3c2b1a091827365;\nstruct Foo @0xa1b2c3d4e5f60718 {" + body + "}")
    return layout_texts(load(file).Foo.schema)


def test_a_text_default_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    with pytest.raises(BindError, match=r"^Foo: the default of the Text b is not UTF-8") as caught:
        texts_of(tmp_path, r'a @0 :Int32; b @1 :Text = "\xff";')
    assert (caught.value.event, caught.value.field) == ("Foo", "b")


def test_what_keeps_and_what_changes_a_layout(tmp_path: Path) -> None:
    base = texts_of(tmp_path, "a @0 :Int32; b @1 :Text;")
    assert texts_of(tmp_path, "renamed @0 :Int32; other @1 :Text;") == base
    assert texts_of(tmp_path, "g :group { a @0 :Int32; } b @1 :Text;") == base
    longer = texts_of(tmp_path, "a @0 :Int32; b @1 :Text; c @2 :Int8;")
    assert {k: longer[k] for k in base} == base
    # Into a new union as its first member: legal, because its discriminant is 0.
    moved = texts_of(tmp_path, "a @0 :Int32; union { b @1 :Text; c @2 :Int8; }")
    assert {k: moved[k] for k in base} == base
    for changed in (
        "a @0 :UInt32; b @1 :Text;",
        "a @0 :Int64; b @1 :Text;",
        "a @0 :Int32 = 1; b @1 :Text;",
        "a @0 :Int32; b @1 :Data;",
        'a @0 :Int32; b @1 :Text = "x";',
        "b @0 :Text; a @1 :Int32;",
        "a @0 :Int32; union { c @2 :Int8; b @1 :Text; }",
    ):
        other = texts_of(tmp_path, changed)
        same = all(other[k] == base[k] for k in base)
        # The last one gives b the first discriminant again: members are ordered by ordinal, not as written.
        assert same == (changed == "a @0 :Int32; union { c @2 :Int8; b @1 :Text; }"), changed


def test_a_union_with_an_ordinal_of_its_own_takes_an_element(tmp_path: Path) -> None:
    texts = texts_of(tmp_path, "a @0 :Int32; u @1! :union { b @2 :Text; c @3 :Int8; }")
    assert texts[1] == "union@2"
    assert sorted(texts) == [0, 1, 2, 3]
    assert texts[3].endswith("|2:1")


def test_generic_rows_are_those_of_the_generic_struct(tmp_path: Path) -> None:
    box = node_id(schema.Box)
    assert layout_texts(schema.Box.schema) == {0: f"param({box},0)@0="}
    branded = schema.Everything.schema.fields["innerBox"].schema
    assert layout_of(branded) == layout_of(schema.Box.schema)
    pair = node_id(schema.Pair)
    assert layout_texts(schema.Pair.schema)[2] == f"struct({box};{box}[param({pair},1)])@2="


def test_a_struct_inside_a_generic_one_inherits_its_parameters(tmp_path: Path) -> None:
    file = tmp_path / "inherit.capnp"
    file.write_text(
        "@0xd3c2b1a091827366; struct Outer(T) { in @0 :In; struct In { value @0 :T; } } "
        "struct Event { outer @0 :Outer(Text); }"
    )
    module = load(file)
    outer = node_id(module.Outer)
    assert layout_texts(module.Outer.schema)[0] == f"struct({node_id(module.Outer.In)};{outer}[inherit])@0="
    with own_registry():

        @bind(module.Event)
        class Event(BaseEvent):
            pass

        event: Any = event_type(Event).open(event_type(Event).encode(Event(outer={"in": {"value": "x"}})))  # type: ignore[call-arg]
        assert getattr(event.outer, "in").value == "x"


def test_a_row_names_the_file_and_not_where_it_lies_on_this_machine(tmp_path: Path) -> None:
    for folder, text in (
        ("common", "@0xb6a2d0c4e8f71935; struct Price @0xd1c0b5a4938e7f62 { cents @0 :UInt32; }"),
        (
            "shop",
            '@0xc7b3e1d5f9082a46; using Common = import "../common/price.capnp";'
            " struct Offer @0xe2d1c6b5a49f8073 { price @0 :Common.Price; }",
        ),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ("price.capnp" if folder == "common" else "offer.capnp")).write_text(text)

    with own_registry():

        @bind(load(tmp_path / "shop" / "offer.capnp").Offer)
        class Offer(BaseEvent):
            price: Any

        kind = event_type(Offer)
    assert [row.name for row in (kind.row, *kind.reachable)] == ["offer.capnp:Offer", "price.capnp:Price"]


def test_reachable_rows_are_all_structs_inside_without_the_event_itself() -> None:
    kind = event_type(Everything)
    assert [row.name for row in sorted(kind.reachable, key=lambda row: row.name)] == [
        "everything.capnp:Box",
        "everything.capnp:Inner",
        "everything.capnp:Pair",
    ]
    assert kind.row == TypeRow(
        kind.type_id, "struct", "everything.capnp:Everything", layout_of(schema.Everything.schema)
    )
    assert all(row.kind == "struct" and row.layout for row in kind.reachable)
    assert hash(kind.row) == hash(kind.row)


def test_a_generic_struct_that_grows_with_each_step_ends(tmp_path: Path) -> None:
    file = tmp_path / "growing.capnp"
    file.write_text(
        "@0xd3c2b1a091827367; struct Node(T) { next @0 :Node(Node(T)); value @1 :T; } struct Leaf {} "
        "struct Event { node @0 :Node(Leaf); }"
    )
    with own_registry():

        @bind(load(file).Event)
        class Event(BaseEvent):
            pass

        rows = event_type(Event).reachable
        assert {row.name for row in rows} == {"growing.capnp:Node", "growing.capnp:Leaf"}
        assert [row.type_id for row in rows] == sorted(row.type_id for row in rows)

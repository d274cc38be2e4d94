"""What every event has: origin, config, equality, repr, builders, copies."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from lahja_capn.binding import BroadcastConfig, RequestToken, event_type
from lahja_capn.errors import BindError, EventArgumentError

from .support import Answer, Ask, Blob, Everything, Inner, Small, opened, received, schema

NAN = float("nan")


def test_a_local_event_has_no_origin() -> None:
    event = Answer(text="x")
    assert not event.is_bound
    with pytest.raises(AttributeError, match="has no origin yet"):
        event.get_origin()
    assert event.broadcast_config() == BroadcastConfig()


def test_a_received_event_knows_its_origin_and_how_to_answer() -> None:
    token = RequestToken(3, 17)
    event: Any = event_type(Ask).open(event_type(Ask).encode(Ask(question="?")), "asker", token)
    assert event.is_bound
    assert event.get_origin() == "asker"
    assert event.broadcast_config() == BroadcastConfig(filter_endpoint="asker", filter_event_id=token)
    assert event.broadcast_config(internal=True) == BroadcastConfig(internal=True, filter_event_id=token)


def test_bind_gives_an_origin_once() -> None:
    event = Answer(text="x")
    event.bind(SimpleNamespace(name="me"), RequestToken(0, 1))
    assert event.get_origin() == "me"
    with pytest.raises(BindError, match="bound to 'me' already"):
        event.bind(SimpleNamespace(name="other"), None)


def test_the_private_bind_sets_only_what_is_missing() -> None:
    event = Answer(text="x")
    event._bind("first", None)
    event._bind("second", RequestToken(0, 2))
    event._bind("third", RequestToken(0, 3))
    assert (event.get_origin(), event._token) == ("first", RequestToken(0, 2))
    assert event == Answer(text="x"), "an origin is no content"
    assert event_type(Answer).encode(event) == event_type(Answer).encode(Answer(text="x"))


@pytest.mark.parametrize("make", [lambda e: e, received])
def test_a_twin_has_the_content_but_an_origin_of_its_own(make: Any) -> None:
    event = make(Small(id=1, value=2.0, data=b"d", text="t", flag=True))
    twin = event._twin("elsewhere", RequestToken(1, 2))
    assert twin == event
    assert (twin.get_origin(), twin._token) == ("elsewhere", RequestToken(1, 2))
    assert event._token is None
    assert twin.text == "t"


def test_a_received_event_is_sent_on_as_the_very_bytes_that_came() -> None:
    event = received(Small(id=1, value=2.0, data=b"d", text="t", flag=True))
    assert event_type(event).encode(event) is event._segments
    _ = event.text
    assert event_type(event).encode(event) is event._segments


def test_a_nested_event_can_be_sent_on_by_itself() -> None:
    outer = received(Everything(self=Everything(text="inside", texts=["a", "b"])))
    inside = outer.self
    assert received(inside) == Everything(text="inside", texts=["a", "b"])
    missing = received(Everything()).self
    assert received(missing) == Everything()
    assert received(Everything().self) == Everything()


# --- equality -------------------------------------------------------------------------------------------

DIFFERENT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"int8": 1}, {"int8": 2}),
    ({"text": "a"}, {}),
    ({"float64": NAN}, {"float64": 0.0}),
    ({"int32s": [1, 2]}, {"int32s": [1, 3]}),
    ({"int32s": [1, 2]}, {"int32s": [1]}),
    ({"int32s": range(20)}, {"int32s": range(1, 21)}),
    ({"texts": ["a"]}, {"texts": ["b"]}),
    ({"inner": {"number": 1}}, {"inner": {"number": 2}}),
    ({"inner": {"number": 1}}, {}),
    ({"inners": [{"number": 1}]}, {"inners": [{"number": 2}]}),
    ({"place": {"x": 1.0}}, {}),
    ({"count": 0}, {"none": None}),
    ({"word": ""}, {"part": {}}),
    ({"shape": {"circle": 0.0}}, {"shape": {"nothing": None}}),
    ({"any": "a"}, {"any": "b"}),
    ({"any": "a"}, {"any": b"a"}),
    ({"any": "a"}, {}),
    ({"any": Inner(number=1)}, {"any": Inner(number=2)}),
    ({"textDefault": ""}, {}),
    ({"self": {"self": {"int8": 1}}}, {"self": {"self": {"int8": 2}}}),
]

EQUAL: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"int8": 0, "text": "", "inner": {}, "texts": [], "none": None}),
    ({"float64": NAN, "float64s": [NAN] * 20}, {"float64": NAN, "float64s": [NAN] * 20}),
    ({"float64": 0.0}, {"float64": -0.0}),
    ({"textDefault": "default", "listDefault": [1, 2, 3]}, {}),
    ({"innerDefault": {"number": 5}}, {}),
    ({"self": {}}, {}),
    ({"color": "green"}, {"color": 1}),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_content_is_unequal(one: dict[str, Any], other: dict[str, Any]) -> None:
    for a in (Everything(**one), received(Everything(**one))):
        for b in (Everything(**other), received(Everything(**other))):
            assert a != b
            assert b != a


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_content_is_equal_however_it_is_stated(one: dict[str, Any], other: dict[str, Any]) -> None:
    for a in (Everything(**one), received(Everything(**one))):
        for b in (Everything(**other), received(Everything(**other))):
            assert a == b
            assert b == a


def test_events_of_different_classes_are_unequal() -> None:
    assert Answer(text="x") != Ask(question="x")
    assert Answer(text="x") != "x"
    assert Inner(number=1) != Everything(inner={"number": 1})


def test_equality_sees_what_the_schema_reads_and_not_the_bytes() -> None:
    event = Small(id=1, value=0.0, data=b"", text="", flag=False)
    (segment,) = event_type(Small).encode(event)
    longer = opened(Small, bytes(segment) + bytes(16))
    assert longer == event


def test_events_have_no_hash() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Answer(text="x"))
    with pytest.raises(TypeError, match="unhashable"):
        hash(Everything(inner={}).inner)


# --- repr -----------------------------------------------------------------------------------------------


def test_repr_shows_what_is_there_and_elides_what_is_long() -> None:
    assert repr(Answer(text="hello")) == repr(received(Answer(text="hello"))) == "Answer(text='hello')"
    event = Blob(id=1, data=b"x" * 100_000, numbers=range(1000), note="n" * 5000, parts=[{"name": "p"}] * 50)
    for text in (repr(event), repr(received(event))):
        assert len(text) < 600
        assert "100000 bytes" in text
        assert "0, 1, 2, 3, 4, 5, ... 1000 in all" in text
        assert "5000 characters" in text
        assert "... 50 in all" in text


def test_repr_of_deep_and_of_wide_events_is_bounded() -> None:
    event = Everything(int8=1)
    for _ in range(30):
        event = Everything(
            self=event, inners=[{"text": "x" * 60}] * 9, texts=["y" * 60] * 9, datas=[b"z" * 60] * 9
        )
    assert len(repr(event)) < 12_000
    assert "..." in repr(event)


def test_repr_of_lists_and_pointers() -> None:
    event = received(Everything(int8s=[1, 2], texts=["a"], any=Inner(), anyList=b"x", datas=[b"d" * 100]))
    assert repr(event.int8s) == "[1, 2]"
    assert repr(event.texts) == "['a']"
    assert repr(event.any) == "<AnyPointer struct>"
    assert repr(event.anyList) == "<AnyPointer list, text or data>"
    assert repr(event.self.any) == "<AnyPointer null>"
    assert "100 bytes" in repr(event.datas)


# --- builders -------------------------------------------------------------------------------------------


def test_from_builder_takes_the_content_now() -> None:
    builder = schema.Small.new_message(id=5, text="before")
    event = Small.from_builder(builder)
    builder.text = "after"
    assert (event.id, event.text) == (5, "before")
    assert event == received(event)
    assert not event.is_bound


def test_from_builder_may_be_called_again_without_a_warning() -> None:
    builder = schema.Small.new_message(id=5)
    builder.to_bytes()
    assert Small.from_builder(builder) == Small.from_builder(builder)


def test_from_builder_of_a_part_takes_that_part() -> None:
    whole = schema.Everything.new_message()
    part = whole.init("self")
    part.int8 = 3
    part.texts = ["x" * 100] * 200
    event = Everything.from_builder(part)
    assert event.int8 == 3
    assert event.texts == ["x" * 100] * 200
    assert event_type(event).encode(event) == event._segments


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            schema.Inner.new_message(),
            r"wanted a builder of everything\.capnp:Small, got one of everything\.capnp:Inner",
        ),
        (schema.Small.new_message().as_reader(), "wanted a pycapnp builder"),
        ({"id": 1}, "wanted a pycapnp builder of everything.capnp:Small, got dict"),
    ],
)
def test_from_builder_refuses_anything_else(value: Any, message: str) -> None:
    with pytest.raises(EventArgumentError, match=message):
        Small.from_builder(value)


def test_from_builder_of_the_same_struct_loaded_by_another_parser_is_fine_unless_the_layout_differs(
    tmp_path: Any,
) -> None:
    import capnp

    same = tmp_path / "same.capnp"
    text = "@0xe60b1e5ad4f0a999; struct Small @0x%016x { id @0 :UInt64; value @1 :Float64; data @2 :%s; }"
    same.write_text(text % (schema.Small.schema.node.id, "Data"))
    other = capnp.SchemaParser().load(str(same))
    assert Small.from_builder(other.Small.new_message(id=3, data=b"d")).data == b"d"
    broken = tmp_path / "broken.capnp"
    broken.write_text(text % (schema.Small.schema.node.id, "Text"))
    different = capnp.SchemaParser().load(str(broken))
    with pytest.raises(EventArgumentError, match="another layout"):
        Small.from_builder(different.Small.new_message(id=3))


# --- copies ---------------------------------------------------------------------------------------------


def test_copies_of_immutable_things_are_themselves_and_pickling_is_refused() -> None:
    event = received(Everything(int8s=range(9), texts=["a"], any="x", inner={}, color="red"))
    for part in (event, event.int8s, event.texts, event.any, event.inner, event.color):
        assert copy.copy(part) is part
        assert copy.deepcopy(part) is part
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(part)


# --- config and token -----------------------------------------------------------------------------------


def test_broadcast_config_has_lahjas_rules_and_text() -> None:
    config = BroadcastConfig(filter_endpoint="a")
    assert config.allowed_to_receive("a")
    assert not config.allowed_to_receive("b")
    assert BroadcastConfig().allowed_to_receive("anyone")
    assert BroadcastConfig().require_subscriber
    assert str(config) == "BroadcastConfig[external / endpoint=a / id=N/A]"
    assert str(BroadcastConfig(internal=True, filter_event_id=RequestToken(1, 2))) == (
        "BroadcastConfig[internal / endpoint=N/A / id=<request 2 on connection 1>]"
    )
    assert "BroadcastConfig[" in repr(config)
    assert config == BroadcastConfig("a")
    assert config != BroadcastConfig("b")
    assert config != "a"
    with pytest.raises(ValueError, match="leave one out"):
        BroadcastConfig("a", internal=True)


def test_tokens_are_values() -> None:
    assert RequestToken(1, 2) == RequestToken(1, 2) != RequestToken(2, 1)
    assert len({RequestToken(1, 2), RequestToken(1, 2), RequestToken(1, 3)}) == 2
    with pytest.raises(AttributeError):
        RequestToken(1, 2).number = 5

"""The short way of plain events says the same as the general way: of every value, every message, every mistake."""

from __future__ import annotations

import gc
import struct
import sys
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lahja_capn.binding import BaseEvent, DataView, bind, event_type
from lahja_capn.binding.codec import encode_values
from lahja_capn.binding.flat import ANY_TEXT_BYTES, KEEP_BYTES
from lahja_capn.binding.record import Record, new
from lahja_capn.binding.scalars import LARGE_BYTES
from lahja_capn.binding.shapes import MOST_SHAPES
from lahja_capn.errors import BindError, EventArgumentError, EventFieldError
from lahja_capn.schema import load

from .strategies import arguments
from .support import SCHEMAS

schema: Any = load(SCHEMAS / "plain.capnp")


@bind(schema.Plain)
class Plain(BaseEvent):
    view: DataView


@bind(schema.Numbers)
class Numbers(BaseEvent): ...


@bind(schema.Names, rename={"class": "class_"})
class Names(BaseEvent): ...


@bind(schema.Texts)
class Texts(BaseEvent): ...


CLASSES: list[Any] = [Plain, Numbers, Names, Texts]
every_class = pytest.mark.parametrize("cls", CLASSES)

for cls in CLASSES:
    event_type(cls).prepare()


def binding_of(cls: Any) -> Any:
    return cls._binding


def taken(cls: Any, plan_arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments by the attributes' names."""
    return {binding_of(cls).attr_of[name]: value for name, value in plan_arguments.items()}


def fields_of(cls: Any) -> st.SearchStrategy[dict[str, Any]]:
    return arguments(binding_of(cls).plan).map(lambda given_: taken(cls, given_))


class GeneralWay:
    """Reads the fields of an event in the general way."""

    def __init__(self, event: Any) -> None:
        self.event = event

    def __getattr__(self, attr: str) -> Any:
        return type(self.event).__dict__[attr]._general.__get__(self.event)


def said(event: Any, attr: str) -> Any:
    """The value of a field in a form that tells NaN, -0.0, 0 and False apart; or what reading it raises."""
    try:
        value = getattr(event, attr)
    except EventFieldError as error:
        return str(error)
    if isinstance(value, memoryview):
        return memoryview, value.readonly, bytes(value)
    if isinstance(value, float):
        return struct.pack("<d", value)
    return type(value), value, getattr(value, "raw", None)


def shapes_of(cls: Any) -> Any:
    """The known pointer sections of the class's layout; None if it has no contents."""
    return getattr(binding_of(cls).decode.__globals__["_learn"], "__self__", None)


def both_ways(cls: Any, segments: Any) -> None:
    """Every field reads as in the general way: with pointers that were never seen, and with these known."""
    other = GeneralWay(event_type(cls).open(segments))
    attrs = list(binding_of(cls).attrs)
    shapes_of(cls).known.clear()
    for opened in (event_type(cls).open, binding_of(cls).open) * 2:
        event = opened(segments, "origin")
        assert event.get_origin() == "origin"
        for attr in [*attrs, *attrs]:
            assert said(event, attr) == said(other, attr)
        for attr in attrs:
            fresh = opened(segments, "origin")  # in which this field is the first to be read
            assert said(fresh, attr) == said(other, attr)


@every_class
@given(data=st.data())
def test_a_message_is_the_same_to_the_byte(cls: Any, data: st.DataObject) -> None:
    values = data.draw(fields_of(cls))
    event = cls(**{name: values[name] for name in binding_of(cls).attrs if name in values})
    assert binding_of(cls).encode(event.__dict__) == encode_values(binding_of(cls), event.__dict__)


@every_class
@given(data=st.data())
def test_every_field_reads_the_same(cls: Any, data: st.DataObject) -> None:
    event = cls(**data.draw(fields_of(cls)))
    # Keywords in any order: the general way puts contents in their order.
    both_ways(cls, encode_values(binding_of(cls), event.__dict__))


@every_class
@given(data=st.data())
def test_every_field_of_a_damaged_message_reads_the_same_or_raises_the_same(
    cls: Any, data: st.DataObject
) -> None:
    (message,) = event_type(cls).encode(cls(**data.draw(fields_of(cls))))
    damaged = bytearray(message)
    words = len(message) // 8
    for _ in range(data.draw(st.integers(1, 3))):
        # Mostly pointers, which are most of what can go wrong.
        at = 8 * data.draw(st.integers(0, words - 1)) + data.draw(st.integers(0, 7))
        damaged[at] = data.draw(st.sampled_from([0, 1, 2, 3, 9, 10, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    size = 8 * data.draw(st.integers(1, words) | st.just(words))
    both_ways(cls, (bytes(damaged[:size]),))


@every_class
@given(data=st.data())
def test_a_damaged_message_with_pointers_that_are_known_reads_the_same(cls: Any, data: st.DataObject) -> None:
    """Everything but the pointers is damaged, or cut off."""
    event = cls(**data.draw(fields_of(cls)))
    (message,) = event_type(cls).encode(event)
    shapes = shapes_of(cls)
    damaged = bytearray(message)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(message) - 1))
        if not shapes.begin <= at < shapes.end:
            damaged[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
    size = 8 * data.draw(st.integers(shapes.end // 8, len(message) // 8) | st.just(len(message) // 8))
    segments = (bytes(damaged[:size]),)
    other = GeneralWay(event_type(cls).open(segments))
    shapes.known.clear()
    event_type(cls).binding.open((message,), "teaches it")
    for opened in (event_type(cls).open, binding_of(cls).open):
        event = opened(segments, "origin")
        for attr in binding_of(cls).attrs:
            assert said(event, attr) == said(other, attr)


def test_pointers_that_are_known_are_read_in_one_go() -> None:
    shapes = shapes_of(Texts)
    shapes.known.clear()
    message = event_type(Texts).encode(Texts(one="first", two="", three=b"thirdly"))
    binding_of(Texts).open(message, "")
    # A part of a large frame is not kept for its pointers.
    binding_of(Texts).open((memoryview(event_type(Texts).encode(Texts(one="1", two="2"))[0]),), "")
    ((pointers, unpack),) = shapes.known.items()
    assert message[0][shapes.begin : shapes.end] == pointers
    assert unpack(message[0])[1:] == (b"first", 0, b"", 0, b"thirdly")


@pytest.mark.parametrize(
    "event", [Texts(two="two", three=b"3"), Texts(one="one", two="two")], ids=["text", "data"]
)
def test_a_null_pointer_is_never_read_in_one_go(event: Any) -> None:
    shapes = shapes_of(Texts)
    shapes.known.clear()
    message = event_type(Texts).encode(event)
    binding_of(Texts).open(message, "")
    assert list(shapes.known.values()) == [False]
    both_ways(Texts, message)


def test_pointers_that_are_known_are_bounded_and_those_that_are_not_read_the_same() -> None:
    shapes = shapes_of(Texts)
    shapes.known.clear()
    for size in range(3 * MOST_SHAPES):
        for event in (Texts(one="a" * size, two="b", three=b"c"), Texts(three=bytes(size))):
            message = event_type(Texts).encode(event)
            opened = binding_of(Texts).open(message, "")
            assert [said(opened, attr) for attr in ("one", "two", "three")] == [
                said(GeneralWay(opened), attr) for attr in ("one", "two", "three")
            ]
    assert len(shapes.known) == MOST_SHAPES


def test_text_beyond_ascii_of_a_large_message_is_not_kept_though_its_pointers_are_known() -> None:
    for text, stays in (("a" * ANY_TEXT_BYTES, True), ("\xe9" * (ANY_TEXT_BYTES // 2), False)):
        message = event_type(Texts).encode(Texts(one=text, two="", three=b""))
        shapes_of(Texts).known.clear()
        for _ in range(2):
            event = binding_of(Texts).open(message, "")
            assert ("one" in event.__dict__) == stays
            assert event.one == text


def test_events_are_opened_as_the_last_one_was_used() -> None:
    kind = event_type(Texts)
    message = kind.encode(Texts(one="1", two="2", three=b"3"))
    last: Any = kind.open(message, "origin")
    unread = kind.open_as(last)(message, "origin")
    assert unread.__dict__ == {"_segments": message, "_origin": "origin"}
    assert last.two == "2"
    read = kind.open_as(last)(message, "origin")
    assert read.__dict__ == last.__dict__
    assert read.__dict__.keys() > {"one", "two", "three"}
    # In the general way nothing is read before it is asked for.
    far = kind.open((bytes(8), b""), "origin")
    far._open()
    assert "one" not in kind.open_as(far)(message, "origin").__dict__


POINTERS = {
    "null": 0,
    "of no bytes": 2 << 32 | 1,
    "to the last byte": 1 | 2 << 32 | 8 << 35,
    "a byte too far": 1 | 2 << 32 | 9 << 35,
    "before the message": 1 | (2**30 - 20) << 2 | 2 << 32 | 8 << 35,
    "to itself": 1 | (2**30 - 1) << 2 | 2 << 32 | 8 << 35,
    "behind everything": 1 | (2**29 - 1) << 2 | 2 << 32 | 8 << 35,
    "to words": 1 | 5 << 32 | 1 << 35,
    "to bits": 1 | 1 << 32 | 8 << 35,
    "a struct": 1 << 32,
    "far": 2,
    "far, double": 6,
    "a capability": 3,
}


@pytest.mark.parametrize("pointer", POINTERS.values(), ids=POINTERS)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_pointer_reads_the_same_wherever_it_points(pointer: int, index: int) -> None:
    (message,) = event_type(Texts).encode(Texts(one="first", two="second", three=b"thirdly"))
    words = list(struct.unpack(f"<{len(message) // 8}Q", message))
    # Counted from its own place, the content of the third begins where the offset is 2.
    words[1 + index] = (
        pointer + (2 << 2) if index == 2 and pointer & 3 == 1 and pointer >> 2 & 1 == 0 else pointer
    )
    both_ways(Texts, (struct.pack(f"<{len(words)}Q", *words),))


@pytest.mark.parametrize("tag", range(4))
@pytest.mark.parametrize("code", range(8))
@pytest.mark.parametrize("count", [0, 1, 8, 9])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_pointer_of_any_kind_to_its_own_content_reads_the_same(
    tag: int, code: int, count: int, index: int
) -> None:
    """What the first look at it lets pass is kept for the next message."""
    one, two, three = 3 - 1, 3 - 2 + 1, 3 - 3 + 2
    words = [3 << 48, one << 2 | 1 | 2 << 32 | 8 << 35, two << 2 | 1 | 2 << 32 | 8 << 35]
    words += [three << 2 | 1 | 2 << 32 | 8 << 35]
    words[1 + index] = (one, two, three)[index] << 2 | tag | code << 32 | count << 35
    both_ways(Texts, (struct.pack("<4Q", *words) + b"content\0content\0content\0",))


def test_a_text_that_does_not_end_or_is_no_utf8_reads_the_same_though_its_pointers_are_known() -> None:
    (message,) = event_type(Texts).encode(Texts(one="one", two="two", three=b""))
    for content, other in ((b"one\0", b"oneX"), (b"one", b"\xff\xff\xff")):
        both_ways(Texts, (message,))
        damaged = message.replace(content, other)
        for opened in (event_type(Texts).open, binding_of(Texts).open):
            event = opened((damaged,), "origin")
            for attr in ("one", "two", "three"):
                assert said(event, attr) == said(GeneralWay(opened((damaged,), "origin")), attr)
            assert "one" not in event.__dict__


@every_class
@pytest.mark.parametrize("words", [0, 1, 2, 3, 9])
def test_a_struct_of_another_version_reads_the_same(cls: Any, words: int) -> None:
    (message,) = event_type(cls).encode(cls())
    root, body = struct.unpack_from("<Q", message)[0], message[8:]
    data, pointers = root >> 32 & 0xFFFF, root >> 48
    filled = bytes(range(1, 256)) * 2
    for new_data, new_pointers in ((words, pointers), (data, 0), (words, 0), (data + 1, pointers)):
        size = 8 * (new_data + new_pointers)
        content = (filled[: 8 * new_data] + bytes(8 * new_pointers))[:size]
        both_ways(cls, (struct.pack("<Q", new_data << 32 | new_pointers << 48) + content,))
    both_ways(cls, (bytes(8),))
    both_ways(cls, (struct.pack("<Q", 1 << 2 | root) + bytes(8) + body,))  # not right behind the pointer


def test_bits_that_belong_to_nobody_do_not_show() -> None:
    (message,) = event_type(Plain).encode(Plain(flag=False, other=True))
    damaged = bytearray(message)
    damaged[8] |= 0xFC
    event: Any = event_type(Plain).open((bytes(damaged),))
    assert (event.flag, event.other) == (False, True)
    both_ways(Plain, (bytes(damaged),))


@given(
    st.sampled_from(CLASSES),
    st.dictionaries(
        st.sampled_from(
            ["flag", "small", "text", "number", "half", "data", "colour", "value", "view", "nothing"]
        )
        | st.sampled_from(["type", "len", "self", "a", "f", "one", "nope", "args"]),
        st.none()
        | st.booleans()
        | st.integers(-(2**65), 2**65)
        | st.sampled_from([2**64 - 1, 2**64, 127, 128, -128, -129])
        | st.floats()
        | st.text(max_size=3)
        | st.binary(max_size=3)
        | st.sampled_from(["red", "green", "mauve", "\ud800", b"".join, memoryview(b"abc"), bytearray(b"x")]),
        max_size=4,
    ),
)
@example(Numbers, {"small": True})
@example(Plain, {"flag": 1})
@example(Plain, {"value": 1})
@example(Numbers, {"f": 0})
def test_a_constructor_takes_and_refuses_the_same(cls: Any, fields: dict[str, Any]) -> None:
    def outcome(construct: Any) -> Any:
        event = new(cls)
        try:
            construct(event, **fields)
        except EventArgumentError as error:
            # Of several mistakes either may name another one.
            return str(error) if len(fields) == 1 else "refused"
        return {name: said(event, name) for name in binding_of(cls).attrs if name in event.__dict__}

    assert outcome(cls.__init__) == outcome(Record.__init__)


WHOLE: dict[Any, dict[str, Any]] = {
    Plain: {
        "flag": True,
        "text": "text",
        "number": 7,
        "data": b"data",
        "other": False,
        "colour": "red",
        "value": 1.5,
        "view": b"view",
        "nothing": None,
    },
    Numbers: {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": True, "half": 0.5, "small": 6, "g": 7},
    Texts: {"one": "1", "two": "2", "three": b"3"},
}
ODD = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2**64 - 1,
        2**64,
        -(2**63),
        2**63,
        127,
        128,
        -128,
        -129,
        255,
        256,
        65535,
        65536,
    ),
    *(
        2**31 - 1,
        2**31,
        2**32,
        1.5,
        0.1,
        1e300,
        -0.0,
        float("nan"),
        float("inf"),
        "",
        "red",
        "mauve",
        "\ud800",
        "\xe9",
    ),
    *("a\0b", b"", b"\0", bytearray(b"x"), memoryview(b"abc"), [], ()),
]


@pytest.mark.parametrize("cls", WHOLE)
def test_one_odd_value_among_good_ones_is_taken_and_refused_the_same(cls: Any) -> None:
    for attr in WHOLE[cls]:
        for odd in ODD:
            fields = WHOLE[cls] | {attr: odd}
            outcomes = []
            for construct in (cls.__init__, Record.__init__):
                event = new(cls)
                try:
                    construct(event, **fields)
                except EventArgumentError as error:
                    outcomes.append(str(error))
                else:
                    read = {
                        name: said(event, name) for name in binding_of(cls).attrs if name in event.__dict__
                    }
                    outcomes.append((read, event_type(cls).encode(event)))
            assert outcomes[0] == outcomes[1], (attr, odd)


def test_good_values_and_one_too_many_are_refused() -> None:
    with pytest.raises(EventArgumentError, match="takes its fields as keywords"):
        Texts("one", **WHOLE[Texts])
    with pytest.raises(EventArgumentError, match="a field that does not exist"):
        Texts(**WHOLE[Texts], four="4")

    class Unbound(Texts): ...

    with pytest.raises(BindError, match="only inherits from Texts"):
        Unbound(**WHOLE[Texts])


def test_a_field_whose_name_python_keeps_for_itself_takes_the_general_way() -> None:
    @bind(schema.Keyword)
    class Keyword(BaseEvent): ...

    event: Any = Keyword(**{"class": True})
    assert getattr(event, "class") is True
    assert not binding_of(Keyword).is_plain


def test_a_constructor_refuses_what_has_no_name_and_what_it_does_not_know() -> None:
    with pytest.raises(EventArgumentError, match="takes its fields as keywords"):
        Texts("one")
    with pytest.raises(EventArgumentError, match="a field that does not exist"):
        Texts(one="", four="")


def test_the_constructor_is_made_for_the_class() -> None:
    assert Texts.__init__ is binding_of(Texts).init is not Record.__init__


def test_a_constructor_that_is_called_again_leaves_nothing_of_what_was_there() -> None:
    for event in (Texts(one="a", two="b", three=b"c"), event_type(Texts).open((bytes(8),), "origin")):
        event.__init__(one="1", two="2", three=b"3")  # type: ignore[misc]
        assert event.__dict__ == {"one": "1", "two": "2", "three": b"3"}


def test_an_own_constructor_stays() -> None:
    @bind(schema.Own)
    class Own(BaseEvent):
        def __init__(self, number: int) -> None:
            super().__init__(text=str(number))

    events: list[Any] = [Own(3), Own(4)]
    assert [event.text for event in events] == ["3", "4"]
    assert event_type(Own).encode(events[0]) == encode_values(binding_of(Own), {"text": "3"})


@pytest.mark.parametrize("name", ["WithDefault", "WithUnion", "WithGroup", "WithList", "Wide", "OnlyVoid"])
def test_a_struct_that_is_not_plain_takes_the_general_way(name: str) -> None:
    cls: Any = bind(getattr(schema, name))(type(name, (BaseEvent,), {}))
    cls()
    event_type(cls).prepare()
    assert not binding_of(cls).is_plain
    assert binding_of(cls).encode is None


def test_large_data_becomes_a_segment_of_its_own_without_a_copy() -> None:
    data = bytes(LARGE_BYTES)
    segments = event_type(Texts).encode(Texts(one="", two="", three=data))
    assert any(segment is data for segment in segments)
    assert len(event_type(Texts).encode(Texts(one="", two="", three=data[:-8]))) == 1


# --- what an event holds --------------------------------------------------------------------------------


def kept(event: Any) -> int:
    """Bytes of the values that were read and stay."""
    return sum(sys.getsizeof(value) for name, value in event.__dict__.items() if not name.startswith("_"))


def test_data_of_a_larger_message_is_not_kept() -> None:
    for size, stays in ((100, True), (KEEP_BYTES, False)):
        segments = event_type(Texts).encode(Texts(one="one", two="two", three=bytes(size)))
        shapes_of(Texts).known.clear()
        for _ in range(2):
            event: Any = event_type(Texts).open(segments)
            assert event.three == bytes(size)
            assert ("three" in event.__dict__) == stays


def test_text_beyond_ascii_is_kept_only_of_small_messages() -> None:
    for size, stays in ((8, True), (ANY_TEXT_BYTES, False)):
        text = "\N{GRINNING FACE}" + "a" * size
        event: Any = event_type(Texts).open(event_type(Texts).encode(Texts(one=text, two="a" * size)))
        assert (event.one, event.two) == (text, "a" * size)
        assert ("one" in event.__dict__) == stays
        assert "two" in event.__dict__


def test_contents_that_are_referred_to_twice_are_not_kept() -> None:
    text = "a" * 4001
    (message,) = event_type(Texts).encode(Texts(one=text, two="", three=b""))
    words = list(struct.unpack(f"<{len(message) // 8}Q", message))
    words[2] = words[1] - (1 << 2)
    event: Any = event_type(Texts).open((struct.pack(f"<{len(words)}Q", *words),))
    assert (event.one, event.two) == (text, text)
    assert kept(event) < 200
    both_ways(Texts, event._segments)


def test_an_event_whose_values_were_all_read_holds_at_most_twice_its_size_and_1_kib() -> None:
    kind = event_type(Plain)
    values: dict[str, Any] = {"number": 2**64 - 1, "value": 1e300, "other": True}
    for size in (0, 40, 4000):
        values |= {"text": "t" * size, "data": bytes(size), "view": bytes(size), "colour": "blue"}
        (message,) = kind.encode(Plain(**values))
        count = 50

        def make(message: bytes = message, count: int = count) -> list[Any]:
            events: list[Any] = [kind.open((bytes(bytearray(message)),), "origin") for _ in range(count)]
            for event in events:
                assert event.number == 2**64 - 1
            return events

        make()
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            events = make()
            held = (tracemalloc.get_traced_memory()[0] - before) / count
        finally:
            tracemalloc.stop()
        assert len(events) == count
        assert held <= 2 * len(message) + 1024, f"{held:.0f} bytes for {len(message)}"


def test_a_view_shares_the_memory_of_its_message() -> None:
    (message,) = event_type(Plain).encode(Plain(view=b"12345678" * 4))
    event: Any = event_type(Plain).open((message,))
    assert event.view.obj is message
    assert event.view.readonly
    large = event_type(Plain).open((memoryview(message),))
    both_ways(Plain, (memoryview(message),))
    assert said(large, "view") == said(event, "view")

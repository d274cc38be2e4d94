"""Received events: laziness, shared memory, what a kept event holds, the traversal limit, bad fields."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import random
import resource
import struct
import sys
import tracemalloc
from typing import Any

import pytest

from lahja_capn.binding import AnyPointer, BaseEvent, event_type
from lahja_capn.binding.pointers import is_knotted
from lahja_capn.binding.record import FLOOR_WORDS, LIMIT_FACTOR
from lahja_capn.errors import EventFieldError, InactiveUnionMember

from .support import Blob, Choice, Everything, Inner, Small, opened, received, schema

MIB = 2**20


def address(buffer: Any) -> int:
    """Return where a buffer's bytes lie in memory."""
    view = memoryview(buffer)
    return ctypes.addressof(ctypes.c_char.from_buffer(view)) if not view.readonly else _address(view)


def _address(view: memoryview) -> int:
    holder = ctypes.py_object(view)
    raw = (ctypes.c_void_p * 10)()
    assert ctypes.pythonapi.PyObject_GetBuffer(holder, raw, 0) == 0
    try:
        return int(raw[0] or 0)
    finally:
        ctypes.pythonapi.PyBuffer_Release(raw)


def allocated(action: Any) -> tuple[Any, int]:
    """Run `action`; return its result and the most memory that was allocated meanwhile."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        result = action()
        return result, tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


# --- zero copy ------------------------------------------------------------------------------------------


def test_opening_reads_nothing() -> None:
    event = opened(Everything, b"\xff" * 64)
    assert event.get_origin() if event.is_bound else True
    with pytest.raises(EventFieldError):
        event.int8


def test_reading_a_small_field_of_a_64_mb_event_allocates_little() -> None:
    segments = event_type(Blob).encode(Blob(id=7, data=bytes(64 * MIB), note="small"))
    event = event_type(Blob).open(segments)
    (number, note), peak = allocated(lambda: (event.id, event.note))  # type: ignore[attr-defined]
    assert (number, note) == (7, "small")
    assert peak < 65536, f"{peak} bytes allocated"


def test_a_view_of_64_mb_allocates_little_and_shares_memory_with_the_events_buffer() -> None:
    event = received(Blob(data=bytes(64 * MIB - 8) + b"the tail"))
    view, peak = allocated(lambda: event.data)
    assert peak < 65536, f"{peak} bytes allocated"
    assert view.nbytes == 64 * MIB
    assert view[-8:] == b"the tail"
    assert view.readonly
    segments = event._segments
    assert segments is not None
    assert any(address(view) == address(segment) for segment in segments)


@pytest.mark.parametrize("size", [1, 7, 8, 200, 9000, 20_000])
def test_views_and_numbers_lie_inside_the_events_segments(size: int) -> None:
    event = received(Blob(data=bytes(size), numbers=range(size + 8), parts=[{"content": b"x" * size}]))
    assert event._segments is not None
    ranges = [(address(s), address(s) + len(s)) for s in event._segments]
    for view in (event.data, event.numbers._items, event.parts[0].content):  # type: ignore[attr-defined]
        assert isinstance(view, memoryview)
        start = address(view)
        assert any(low <= start and start + view.nbytes <= high for low, high in ranges)


def test_a_view_outlives_its_event() -> None:
    event = received(Blob(data=b"kept" * 10_000))
    view = event.data
    del event
    gc.collect()
    assert bytes(view) == b"kept" * 10_000


def test_a_view_of_a_writable_receive_buffer_is_read_only() -> None:
    buffer = bytearray(b"".join(event_type(Blob).encode(Blob(data=b"12345678" * 3, numbers=range(9)))))
    event: Any = event_type(Blob).open((memoryview(buffer),))
    assert bytes(event.data) == b"12345678" * 3
    with pytest.raises(TypeError, match="read-only"):
        event.data[0] = 0
    assert event.numbers == range(9) or event.numbers == list(range(9))
    assert event.numbers._items.readonly


def test_a_local_view_shares_memory_with_the_bytes_it_was_given() -> None:
    content = bytes(50_000)
    assert address(Blob(data=content).data) == address(content)
    assert address(Blob(data=memoryview(content)).data) == address(content)


def test_a_part_of_a_larger_buffer_is_copied_instead_of_keeping_all_of_it() -> None:
    content = bytes(50_000)
    assert address(Blob(data=memoryview(content)[8:]).data) != address(content) + 8
    source = received(Blob(numbers=range(10_000), data=content))
    for part in (source.numbers, source.numbers[5:10]):
        taken: Any = Blob(numbers=part).numbers
        assert taken == part
        assert address(taken._items) != address(part._items)  # type: ignore[attr-defined]
    assert address(Blob(data=source.data[8:]).data) != address(source.data[8:])
    assert Blob(numbers=source.numbers[::-2]).numbers == list(range(9_999, -1, -2))
    assert received(Blob(numbers=source.numbers[::-2])).numbers == list(range(9_999, -1, -2))


def test_views_read_the_default_and_refuse_inactive_members() -> None:
    assert bytes(Blob().data) == b""
    assert isinstance(received(Blob(id=1)).data, memoryview)
    assert bytes(received(Blob(id=1)).data) == b""


# --- memory ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 64, 1000, 100_000])
@pytest.mark.parametrize("read", [False, True])
def test_a_kept_event_holds_at_most_twice_its_size_and_1_kib(size: int, read: bool) -> None:
    kind = event_type(Small)
    example = kind.encode(Small(id=1, value=2.0, data=bytes(size), text="text", flag=True))
    total = sum(map(len, example))
    count = 50

    def make() -> list[BaseEvent]:
        # As they come from the receive buffer: every segment its own bytes.
        events = [kind.open(tuple(bytes(bytearray(s)) for s in example), "origin") for _ in range(count)]
        if read:
            for event in events:
                _ = event.id, event.value, event.data, event.text, event.flag  # type: ignore[attr-defined]
        return events

    make()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        events = make()
        gc.collect()
        held = (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()
    assert len(events) == count
    # The C++ part of an open message lies outside Python's heap: measured as 350 bytes by resident size.
    assert held + (350 if read else 0) <= 2 * total + 1024, f"{held:.0f} bytes for {total}"


def test_reading_a_field_a_million_times_works_and_does_not_leak() -> None:
    event = received(Small(id=1, value=2.0, data=b"d" * 64, text="text", flag=True))
    segment = event._segments[0]  # type: ignore[index]
    for _ in range(1000):
        _ = event.text, event.data
    references = sys.getrefcount(segment)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(1_000_000):
        if event.text != "text":
            pytest.fail("changed")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert sys.getrefcount(segment) == references
    assert grown * (1 if sys.platform == "darwin" else 1024) < 4 * MIB


def test_reading_parts_many_times_works_and_does_not_leak() -> None:
    event = received(
        Everything(
            inner={"number": 1, "text": "inner"},
            inners=[{"number": n} for n in range(5)],
            texts=["a", "b"],
            numberLists=[[1] * 20],
            place={"label": "l"},
            any="text",
            textBox={"value": "boxed"},
        )
    )
    blob = received(Blob(data=b"x" * 100, parts=[{"content": b"y" * 50}]))
    part, items, texts, box = event.inner, event.inners, event.texts, event.textBox

    def once() -> None:
        assert event.inner.text == "inner"
        assert part.text == "inner"
        assert items[3].number == 3
        assert texts[1] == "b"
        assert sum(event.numberLists[0]) == 20
        assert event.place.label == "l"
        assert event.any.as_text() == "text"
        assert box.value == "boxed"
        assert len(blob.data) == 100
        assert len(blob.parts[0].content) == 50

    for _ in range(500):
        once()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(3000):
            once()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 20_000, f"{grown} bytes more after 3000 rounds"


# --- the traversal limit --------------------------------------------------------------------------------


def shared_lists(copies: int, text_bytes: int) -> bytes:
    """Return an Everything whose `texts` has `copies` elements that all point at one long Text."""
    size = schema.Everything.schema.node.struct
    data, pointers = size.dataWordCount, size.pointerCount
    root = struct.pack("<Q", data << 32 | pointers << 48)
    field = Everything._plan.fields["texts"].offset
    words = bytearray(8 * (data + pointers))
    at = 8 * (data + field)
    distance = pointers - field - 1
    words[at : at + 8] = struct.pack("<Q", 1 | distance << 2 | 6 << 32 | copies << 35)
    elements = b"".join(
        struct.pack("<Q", 1 | (copies - k - 1) << 2 | 2 << 32 | text_bytes << 35) for k in range(copies)
    )
    text = b"x" * (text_bytes - 1) + b"\0"
    return root + bytes(words) + elements + text + bytes(-text_bytes % 8)


def test_elements_that_share_bytes_are_each_readable_but_not_all_in_one_walk() -> None:
    message = shared_lists(2000, 80_000)
    event = opened(Everything, message)
    for index in (0, 5, 1999):
        assert len(opened(Everything, message).texts[index]) == 79_999
    # One at a time, too: what is read of a message is bounded by its size, however long a handler goes on.
    texts = event.texts
    read = 0

    def read_all() -> None:
        nonlocal read
        for text in texts:
            read += len(text)

    with pytest.raises(EventFieldError, match=r"Everything\.texts\[\d+\] cannot be read: .*traversal limit"):
        read_all()
    assert 5 * len(message) < read <= LIMIT_FACTOR * len(message) + 8 * FLOOR_WORDS
    with pytest.raises(EventFieldError, match="traversal limit"):
        len(event.texts[0])
    # A walk over all would copy 160 MB out of a message of 100 KB.
    with pytest.raises(EventFieldError, match="traversal limit"):
        assert event == opened(Everything, message + bytes(8))
    with pytest.raises(EventFieldError, match="traversal limit"):
        assert texts == ["x" * 79_999] * 2000
    assert "unreadable" in repr(event) or "2000 in all" in repr(event)


def inners_of_themselves(wide: int) -> bytes:
    """Return an Everything whose ``inners`` has ``wide`` elements, the ``more`` of each being this very list."""
    size = schema.Everything.schema.node.struct
    data, pointers = size.dataWordCount, size.pointerCount
    inner = schema.Inner.schema.node.struct
    words = bytearray(8 * (data + pointers))
    at = 8 * (data + Everything._plan.fields["inners"].offset)
    step = inner.dataWordCount + inner.pointerCount
    points_to_list = 1 | 7 << 32 | wide * step << 35
    words[at : at + 8] = struct.pack("<Q", points_to_list | ((len(words) - at) // 8 - 1) << 2)
    tag = struct.pack("<Q", wide << 2 | inner.dataWordCount << 32 | inner.pointerCount << 48)
    more = inner.dataWordCount + Inner._plan.fields["more"].offset
    elements = bytearray(8 * wide * step)
    for k in range(wide):
        place = k * step + more
        elements[8 * place : 8 * place + 8] = struct.pack(
            "<Q", points_to_list | (-place - 2 & 0x3FFFFFFF) << 2
        )
    return struct.pack("<Q", data << 32 | pointers << 48) + bytes(words) + tag + bytes(elements)


def test_a_list_that_is_its_own_element_ends_for_a_handler_that_reads_all_of_it() -> None:
    # 16 lists in each of 16 lists, and so on, 60 levels deep.
    event = opened(Everything, inners_of_themselves(16))
    read = 0

    def read_all(items: Any, levels: int) -> None:
        nonlocal read
        for inner in items:
            read += 1
            if read > 100 * FLOOR_WORDS:
                pytest.fail("it goes on and on")
            if levels:
                read_all(inner.more, levels - 1)

    with pytest.raises(EventFieldError, match="traversal limit"):
        read_all(event.inners, 28)
    assert read > 100
    assert event.int8 == 0, "the event's other fields are unharmed"


def test_no_part_of_an_honest_message_counts_as_knotted(rng: random.Random) -> None:
    for _ in range(20):
        inners = [
            {"number": n, "text": "t" * n, "more": [{"number": n}] * (n % 3)} for n in range(rng.randrange(9))
        ]
        event = Everything(
            inners=inners,
            innerLists=[inners, inners],
            texts=["x" * rng.randrange(99) for _ in range(9)],
            bools=[True] * 99,
            voids=[None] * 99,
            uint16s=[1] * rng.randrange(99),
            textLists=[["a", "b"], []],
            any=AnyPointer.of_list("Text", ["a"] * 5),
            self={"inner": {"text": "deep"}},
        )
        segments = received(event)._segments
        assert segments is not None
        words = sum(map(len, segments)) // 8
        # Every word is counted but for the root pointer, and nothing twice; a Void is no word, and counts as one.
        assert not is_knotted(segments, words - 1 + 99, 64)
        assert is_knotted(segments, words - 2 + 99, 64)


def test_a_list_that_claims_a_million_elements_without_size_is_refused() -> None:
    size = schema.Everything.schema.node.struct
    data, pointers = size.dataWordCount, size.pointerCount
    message = bytearray(struct.pack("<Q", data << 32 | pointers << 48) + bytes(8 * (data + pointers)))
    at = 8 + 8 * (data + Everything._plan.fields["voids"].offset)
    message[at : at + 8] = struct.pack("<Q", 1 | 0 << 32 | 1_000_000 << 35)
    event = opened(Everything, bytes(message))
    for _ in range(3):
        with pytest.raises(EventFieldError, match=r"Everything\.voids cannot be read: .*traversal limit"):
            event.voids
    assert event.int8 == 0, "the event's other fields are unharmed"


def test_the_longest_list_of_voids_that_can_be_sent_can_be_read() -> None:
    from lahja_capn.binding.values import MAX_EMPTY_ITEMS

    assert MAX_EMPTY_ITEMS < FLOOR_WORDS
    event = received(Everything(voids=[None] * MAX_EMPTY_ITEMS))
    assert len(event.voids) == MAX_EMPTY_ITEMS
    assert event == Everything(voids=[None] * MAX_EMPTY_ITEMS)


def test_a_view_reads_on_after_its_budget_is_used_up() -> None:
    event = received(
        Everything(inner={"text": "t" * 4000}, innerLists=[[{"text": "u" * 4000}]], span={"to": 3})
    )
    inner, deep, span = event.inner, event.innerLists[0][0], event.span
    for _ in range(200):
        assert len(inner.text) == 4000
        assert len(deep.text) == 4000
        assert span.to == 3
        assert len(event.innerLists[0][0].text) == 4000


def test_deep_nesting_is_refused_where_the_read_gets_there() -> None:
    event = Everything(int8=1)
    for _ in range(70):
        event = Everything(self=event)
    current: Any = received(event)
    depth = 0
    with contextlib.suppress(EventFieldError):
        while depth < 70:
            current = current.self
            depth += 1
    with pytest.raises(EventFieldError, match="nest"):
        current.self
    assert 30 <= depth <= 64


# --- bad fields -----------------------------------------------------------------------------------------


def bad_text() -> Everything:
    segments = event_type(Everything).encode(
        Everything(text="fine text", word="fine word", inner={"text": "inside"})
    )
    return opened(
        Everything, bytes(segments[0]).replace(b"fine text", b"f\xffne text").replace(b"inside", b"ins\xffde")
    )


def test_a_text_that_is_no_utf8_is_an_error_of_that_field_only() -> None:
    event = bad_text()
    for _ in range(2):
        with pytest.raises(EventFieldError) as caught:
            event.text
        assert str(caught.value) == "Everything.text cannot be read: the Text is not valid UTF-8 (byte 1)."
        assert (caught.value.event, caught.value.path) == ("Everything", "text")
    with pytest.raises(EventFieldError) as caught:
        event.inner.text
    assert caught.value.path == "inner.text"
    assert event.word == "fine word"
    assert not isinstance(caught.value, AttributeError), "hasattr must not hide it"


def test_a_bad_field_of_a_list_names_its_path() -> None:
    segments = event_type(Everything).encode(
        Everything(inners=[{}, {"more": [{"text": "inside"}]}], texts=["a", "bb"])
    )
    event = opened(
        Everything, bytes(segments[0]).replace(b"inside", b"\xff" * 6).replace(b"bb\0", b"\xff\xff\0")
    )
    with pytest.raises(EventFieldError) as caught:
        event.inners[1].more[0].text
    assert caught.value.path == "inners[1].more[0].text"
    with pytest.raises(EventFieldError) as caught:
        list(event.texts)
    assert caught.value.path == "texts[1]"


@pytest.mark.parametrize("segments", [(b"\xff" * 8,), (b"\2" + bytes(7),), (struct.pack("<Q", 1 | 1 << 35),)])
def test_a_message_without_a_usable_root_fails_at_the_first_read(segments: tuple[bytes, ...]) -> None:
    event = opened(Everything, *segments)
    for _ in range(2):
        with pytest.raises(EventFieldError, match="Everything cannot be read"):
            event.int8
    assert "unreadable" in repr(event)


def test_an_inactive_union_member_says_which_one_is_set() -> None:
    for event in (Everything(word="x"), received(Everything(word="x"))):
        assert event.which() == "word"
        assert event.word == "x"
        for member in ("none", "count", "part", "span"):
            with pytest.raises(InactiveUnionMember) as caught:
                getattr(event, member)
            assert caught.value.active == "word"
            assert caught.value.path == member
            assert not hasattr(event, member)
    for event in (Everything(shape={"polygon": [1]}), received(Everything(shape={"polygon": [1]}))):
        with pytest.raises(InactiveUnionMember) as caught:
            event.shape.circle
        assert caught.value.path.endswith("circle")


def test_an_inactive_data_view_is_refused() -> None:
    # List(UInt8) lies in a message as Data does, and where Data would.
    for event in (Choice(bytes=[1]), received(Choice(bytes=[1]))):
        with pytest.raises(InactiveUnionMember):
            event.data
        assert event.bytes == [1]
    assert received(Choice(data=b"x")).data == b"x"


# --- immutability ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda e: e, received])
def test_events_and_their_parts_are_immutable(make: Any) -> None:
    event = make(Everything(int8=1, inner={"number": 1}, int32s=range(20), texts=["a"], any="t"))
    for part, name in ((event, "int8"), (event, "new"), (event.inner, "number"), (event.place, "x")):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(part, name, 5)
        with pytest.raises(AttributeError, match="immutable"):
            delattr(part, name)
    for items in (event.int32s, event.texts):
        with pytest.raises(TypeError):
            items[0] = 5
    with pytest.raises(AttributeError):
        event.any.value = 5


def test_a_struct_left_out_reads_as_its_defaults_as_deep_as_one_likes() -> None:
    for event in (Everything(), received(Everything())):
        assert event.self.self.self.int8 == 0
        assert event.inner.more == []
        assert event.innerDefault.number == 5
        assert event.place.inner.text == "inner default"
        assert event.shape.which() == "circle"
        assert isinstance(event.any, AnyPointer)
        assert type(event.inner) is Inner

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lahja_capn.binding import StructCodec, TypeRow
from lahja_capn.errors import RemoteProtocolError
from lahja_capn.schema import wire_schema
from lahja_capn.session.control import (
    ControlMessage,
    Credit,
    Declare,
    Dropped,
    Failed,
    Goodbye,
    Hello,
    Ping,
    Pong,
    Subscriptions,
    SubscriptionsAck,
    decode_control,
    encode_control,
)
from lahja_capn.wire import Segments
from tests.unit.session.pair import raw_control, raw_hello, read_all, struct_row

EXAMPLES: list[ControlMessage] = [
    raw_hello(features=("a", "b"), rows=((1, struct_row(1)), (0, TypeRow(9, "opaque", "ü", ())))),
    Declare(((65535, struct_row(2)),)),
    Declare(()),
    Subscriptions(2**64 - 1, (1, 2**64 - 1), (3,), True, True),
    SubscriptionsAck(7),
    Credit(2**64 - 1, 1),
    Failed(2**64 - 1, "overloaded", "ValueError", "too much"),
    Ping(),
    Pong(),
    Dropped(((1, 2), (1, 3))),
    Goodbye("notPermitted", "no"),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_a_message_reads_as_it_was_written(message: ControlMessage) -> None:
    assert decode_control(encode_control(message)) == message


def u64s() -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(0, 2**64 - 1), max_size=5).map(tuple)


rows = st.lists(
    st.tuples(
        st.integers(0, 65535),
        st.builds(
            TypeRow,
            type_id=st.integers(0, 2**64 - 1),
            kind=st.sampled_from(["struct", "opaque"]),
            name=st.text(max_size=10),
            layout=st.lists(st.integers(0, 2**32 - 1), max_size=4).map(tuple),
        ),
    ),
    max_size=4,
).map(tuple)


@given(
    st.one_of(
        st.builds(Declare, rows),
        st.builds(Subscriptions, st.integers(0, 2**64 - 1), u64s(), u64s(), st.booleans(), st.booleans()),
        st.builds(
            Failed,
            st.integers(0, 2**64 - 1),
            st.sampled_from(["handlerRaised", "noHandler", "unreadable"]),
            st.text(max_size=20),
            st.text(max_size=200),
        ),
    )
)
def test_any_values_read_as_they_were_written(message: ControlMessage) -> None:
    assert decode_control(encode_control(message)) == message


@pytest.mark.parametrize("discriminant", [10, 11, 0xFFFF])
def test_an_unknown_variant_is_refused_as_such(discriminant: int) -> None:
    (frame,) = read_all(raw_control(discriminant))
    with pytest.raises(RemoteProtocolError, match=str(discriminant)) as caught:
        decode_control(frame.segments)
    assert caught.value.code == "unknownControl"


def test_unknown_enumerants_of_a_newer_peer_are_read_as_numbers() -> None:
    segments = bytearray(encode_control(Goodbye("shutdown", ""))[0])
    # Root pointer, discriminant and pointer of Control, then Goodbye's data word with the code.
    assert segments[24:26] == b"\0\0"
    segments[24:26] = struct.pack("<H", 999)
    message = decode_control((bytes(segments),))
    assert isinstance(message, Goodbye)
    assert message.code == "unknown(999)"


def test_of_another_versions_hello_nothing_but_the_version_is_read() -> None:
    message = decode_control(encode_control(raw_hello(protocol_version=2, name="x" * 1000)))
    assert isinstance(message, Hello)
    assert (message.protocol_version, message.name, message.rows) == (2, "", ())


def damaged(message: ControlMessage, text: bytes, by: bytes) -> Segments:
    """The message with its one ``text`` replaced; both have the same length."""
    (segment,) = encode_control(message)
    data = bytes(segment)
    assert data.count(text) == 1
    return (data.replace(text, by),)


@pytest.mark.parametrize("by", [b"t\xff\xfet\0", b"textX"], ids=["no UTF-8", "no final NUL"])
@pytest.mark.parametrize(
    "message",
    [
        raw_hello(name="text"),
        raw_hello(features=("text",)),
        raw_hello(rows=((1, TypeRow(9, "struct", "text", ())),)),
        raw_hello(version="text"),
        Failed(1, "handlerRaised", "text", ""),
        Failed(1, "handlerRaised", "", "text"),
    ],
    ids=["name", "feature", "row", "version", "typeName", "text"],
)
def test_a_text_that_is_no_text_makes_its_message_unreadable(message: ControlMessage, by: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="cannot be read") as caught:
        decode_control(damaged(message, b"text\0", by))
    assert caught.value.code == "protocolError"


def test_bad_text_in_another_versions_hello_is_not_looked_at() -> None:
    segments = damaged(raw_hello(protocol_version=2, name="text"), b"text\0", b"t\xff\xfet\0")
    message = decode_control(segments)
    assert isinstance(message, Hello)
    assert message.protocol_version == 2


@pytest.mark.parametrize("by", [b"t\xff\xfet\0", b"textX"], ids=["no UTF-8", "no final NUL"])
def test_a_goodbye_with_a_bad_text_is_a_goodbye(by: bytes) -> None:
    message = decode_control(damaged(Goodbye("tooSlow", "text"), b"text\0", by))
    assert message == Goodbye("tooSlow", "its reason cannot be read")


def test_a_goodbye_whose_struct_cannot_be_read_is_a_goodbye() -> None:
    (frame,) = read_all(raw_control(9, b"\xff" * 8))
    assert decode_control(frame.segments) == Goodbye("unknown", "its reason cannot be read")


@pytest.mark.parametrize(
    ("discriminant", "message"),
    [
        (1, Declare(())),
        (2, Subscriptions(0, (), (), False, False)),
        (4, Credit(0, 0)),
        (5, Failed(0, "handlerRaised", "", "")),
        (8, Dropped(())),
        (9, Goodbye("shutdown", "")),
    ],
)
def test_a_null_pointer_reads_as_the_defaults(discriminant: int, message: ControlMessage) -> None:
    (frame,) = read_all(raw_control(discriminant))
    assert decode_control(frame.segments) == message


def test_a_null_root_is_a_hello_of_version_0() -> None:
    message = decode_control((bytes(8),))
    assert isinstance(message, Hello)
    assert message.protocol_version == 0


def test_texts_longer_than_a_sender_may_send_are_read() -> None:
    for message in (Failed(1, "handlerRaised", "n" * 2000, "t" * 20_000), Goodbye("shutdown", "t" * 2000)):
        assert decode_control(encode_control(message)) == message


def test_more_features_than_256_are_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="257 features"):
        decode_control(encode_control(raw_hello(features=("f",) * 257)))


def overlapping(count: int, elements: int) -> tuple[bytes]:
    """A declare whose rows all point to the same layout.

    Control at word 1, Declare's pointer at word 3, the list of rows from word 4 on, the layout last.
    """
    row_words = 4
    words: list[int] = []
    words.append(1 << 32 | 1 << 48)  # root: struct, 1 data word, 1 pointer
    words.append(1)  # discriminant of declare
    words.append(1 << 48)  # struct: no data, 1 pointer, right behind
    words.append(1 | 7 << 32 | (count * row_words) << 35)  # list, composite
    words.append(count << 2 | 2 << 32 | 2 << 48)  # its tag
    layout_at = len(words) + count * row_words
    for index in range(count):
        pointer_at = len(words) + 3
        words += [1 + index, 0x9000_0000_0000_0000 + index, 0]
        words.append((layout_at - pointer_at - 1) << 2 | 1 | 4 << 32 | elements << 35)
    words += [0] * (elements // 2)
    return (struct.pack(f"<{len(words)}Q", *words),)


def test_rows_that_do_not_overlap_are_read_by_the_same_hand_made_bytes() -> None:
    message = decode_control(overlapping(1, 1000))
    assert isinstance(message, Declare)
    assert message.rows[0][1].layout == (0,) * 1000


def test_rows_that_share_one_layout_are_refused_before_they_fill_the_memory() -> None:
    with pytest.raises(RemoteProtocolError, match="overlap"):
        decode_control(overlapping(1000, 100_000))


def behind(variant: int, low: int, code: int, words: list[int], count: int) -> tuple[bytes]:
    """A declare (1) or dropped (8) whose one pointer has this form; the words follow."""
    head = [1 << 32 | 1 << 48, variant, 1 << 48, low | code << 32 | count << 35]
    return (struct.pack(f"<{len(head) + len(words)}Q", *head, *words),)


ONES = 0x0101_0101_0101_0101

# Form -> element size code, words, number that stands in the pointer.
SHORT: dict[str, tuple[int, list[int], int]] = {
    "1 byte": (2, [ONES] * 1000, 8000),
    "2 bytes": (3, [ONES] * 1000, 4000),
    "4 bytes": (4, [ONES] * 1000, 2000),
    "8 bytes": (5, [ONES] * 1000, 1000),
    "pointers": (6, [0] * 1000, 1000),
    "structs of a word": (7, [1000 << 2 | 1 << 32, *[ONES] * 1000], 1000),
    "structs of a pointer": (7, [1000 << 2 | 1 << 48, *[0] * 1000], 1000),
}


@pytest.mark.parametrize("form", SHORT)
def test_drop_counts_that_are_too_short_for_a_count_say_nothing_and_are_no_overlap(form: str) -> None:
    code, words, count = SHORT[form]
    assert decode_control(behind(8, 1, code, words, count)) == Dropped(())


def test_drop_counts_of_two_words_or_more_are_read() -> None:
    words = [word for n in range(1000) for word in (n, n + 1)]
    two = behind(8, 1, 7, [1000 << 2 | 2 << 32, *words], 2000)
    assert decode_control(two) == Dropped(tuple((n, n + 1) for n in range(1000)))
    longer = behind(8, 1, 7, [1 << 2 | 3 << 32 | 1 << 48, 5, 6, 7, 0], 4)
    assert decode_control(longer) == Dropped(((5, 6),))


@pytest.mark.parametrize("form", SHORT)
def test_rows_that_are_too_short_for_a_type_id_have_type_id_0_and_are_no_overlap(form: str) -> None:
    code, words, count = SHORT[form]
    message = decode_control(behind(1, 1, code, words, count))
    assert isinstance(message, Declare)
    # The table refuses the first; a million of them would cost seconds and much memory.
    assert {row.type_id for _, row in message.rows} == {0}
    assert len(message.rows) == (1000 if "pointer" in form else 1)


@pytest.mark.parametrize("variant", [1, 8], ids=["declare", "dropped"])
@pytest.mark.parametrize("count", [1, 7])
def test_voids_are_refused_where_structs_are_expected_unless_there_are_none(variant: int, count: int) -> None:
    with pytest.raises(RemoteProtocolError, match="without words"):
        decode_control(behind(variant, 1, 0, [], count))
    assert decode_control(behind(variant, 1, 0, [], 0)) == (Declare(()) if variant == 1 else Dropped(()))


def empty_ids(code: int) -> tuple[bytes]:
    """A subscriptions whose `add` is a list of no elements of this size code."""
    words = [1 << 32 | 1 << 48, 2, 2 << 32 | 2 << 48, 1, 0, 1 | code << 32, 0]
    return (struct.pack(f"<{len(words)}Q", *words),)


@pytest.mark.parametrize("code", range(5))
def test_an_empty_list_of_a_form_that_ids_cannot_have_is_refused(code: int) -> None:
    with pytest.raises(RemoteProtocolError, match="cannot be read"):
        decode_control(empty_ids(code))
    assert decode_control(empty_ids(5)) == Subscriptions(1, (), (), False, False)


def composite(variant: int, elements: list[list[int]]) -> tuple[bytes]:
    """A declare (1), the ``add`` of a subscriptions (2) or a dropped (8): a list of structs of data words only."""
    size = len(elements[0])
    # subscriptions has 2 data words and 2 pointers, declare 1 pointer.
    head = {1: [1 << 48], 2: [2 << 32 | 2 << 48, 1, 0], 8: [1 << 48]}[variant]
    words = [1 << 32 | 1 << 48, variant, *head]
    words.append(1 | (1 if variant == 2 else 0) << 2 | 7 << 32 | (len(elements) * size) << 35)
    if variant == 2:
        words.append(0)
    words.append(len(elements) << 2 | size << 32)
    words += [word for element in elements for word in element]
    return (struct.pack(f"<{len(words)}Q", *words),)


def test_a_list_of_structs_is_read_where_numbers_are_expected() -> None:
    # What a schema of a later version could make of the list; Cap'n Proto calls the two compatible.
    message = decode_control(composite(2, [[7, 0], [8, 0]]))
    assert isinstance(message, Subscriptions)
    assert message.add == (7, 8)


def test_very_many_rows_without_names_written_short_are_no_overlap() -> None:
    message = decode_control(composite(1, [[1 + n % 2, 5 + n] for n in range(60_000)]))
    assert isinstance(message, Declare)
    assert len(message.rows) == 60_000


@pytest.mark.parametrize("variant", [1, 8], ids=["declare", "dropped"])
def test_a_list_of_elements_without_words_is_refused_before_it_is_read_out(variant: int) -> None:
    # 64 bytes that claim 8,000 elements cost 17 ms each to read out, and could be sent for ever.
    with pytest.raises(RemoteProtocolError, match="8000 elements without words"):
        decode_control(composite(variant, [[]] * 8_000))


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_damaged_messages_are_read_or_refused_but_raise_nothing_else(
    message: ControlMessage, rng: random.Random
) -> None:
    segments = encode_control(message)
    for _ in range(150):
        data = bytearray(segments[0])
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            decode_control((bytes(data), *segments[1:]))
        except RemoteProtocolError:
            pass


def test_the_codecs_of_control_and_of_tests_agree() -> None:
    view = StructCodec(wire_schema().Control).open(encode_control(Credit(5, 6)))
    assert (view.which(), view.credit.events, view.credit.requests) == ("credit", 5, 6)

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


def test_text_that_is_no_utf_8_is_refused() -> None:
    (segment,) = encode_control(Goodbye("shutdown", "text"))
    broken = bytes(segment).replace(b"text", b"t\xff\xfet")
    with pytest.raises(RemoteProtocolError, match="cannot be read") as caught:
        decode_control((broken,))
    assert caught.value.code == "protocolError"


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

"""The pointer walk: it answers only when it is right, on whatever bytes."""

from __future__ import annotations

import struct
import subprocess
import sys

import pytest

from lahja_capn.binding.pointers import (
    PointerPlace,
    far_list,
    landing_pad,
    list_at,
    root_pointer,
    struct_at,
)


def words(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *(n & 2**64 - 1 for n in numbers))


def list_pointer(distance: int, code: int, count: int) -> int:
    return 1 | (distance & 0x3FFFFFFF) << 2 | code << 32 | count << 35


def at(*segments: bytes) -> PointerPlace:
    place = root_pointer(segments)
    assert place is not None
    return place


def content(*segments: bytes, width: int = 1) -> bytes | None:
    found = list_at(at(*segments))
    view = found.view(width) if found is not None else None
    return bytes(view) if view is not None else None


def test_a_list_of_bytes_is_found() -> None:
    assert content(words(list_pointer(0, 2, 3)) + b"abc\0\0\0\0\0") == b"abc"
    assert content(words(list_pointer(1, 2, 3), 0) + b"abc\0\0\0\0\0") == b"abc"
    assert content(words(list_pointer(0, 4, 2), 1 | 2 << 32), width=4) == struct.pack("<II", 1, 2)


def test_negative_distances_count_backwards_and_stay_inside() -> None:
    place = PointerPlace((b"abcdefgh" + words(list_pointer(-2, 2, 8)),), 0, 8)
    found = list_at(place)
    assert found is not None
    view = found.view(1)
    assert view is not None
    assert bytes(view) == b"abcdefgh"
    assert list_at(PointerPlace((words(list_pointer(-2, 2, 8)),), 0, 0)) is None
    assert struct_at(at(words(-3 << 2 & 0xFFFFFFFF | 1 << 32, 0, 0))) is None


def test_far_and_double_far_pointers_are_followed() -> None:
    pad = words(list_pointer(0, 2, 3)) + b"abc\0\0\0\0\0"
    assert content(words(2 | 1 << 32), pad) == b"abc"
    assert content(words(2 | 1 << 3 | 1 << 32), bytes(8) + pad) == b"abc"
    assert content(words(far_list(1, 0)) + landing_pad(1, 2, 3), b"abc\0\0\0\0\0") == b"abc"


@pytest.mark.parametrize(
    "segments",
    [
        (words(0),),
        (words(3),),
        (words(list_pointer(0, 2, 1)),),
        (words(list_pointer(0, 2, 9), 0),),
        (words(list_pointer(5, 2, 0)),),
        (words(list_pointer(0, 1, 8), 0),),  # bits
        (words(list_pointer(0, 0, 8)),),  # no size
        (words(2 | 1 << 32),),  # no such segment
        (words(2 | 5 << 3),),  # landing pad outside
        (words(2), words(0)),  # a far pointer to itself
        (words(far_list(1, 0), 2 | 1 << 32), bytes(8)),  # landing pad cut off
        (words(far_list(1, 0), 0, 0),),  # first word of the landing pad is no far pointer
        (words(far_list(1, 0)) + landing_pad(7, 2, 3),),  # content in no segment
        (words(far_list(1, 0)) + landing_pad(1, 2, 9), bytes(8)),  # content too short
        (words(0 | 1 << 32, 5),),  # a struct
        (words(list_pointer(0, 7, 1)),),  # tag word outside
        (words(list_pointer(0, 7, 1), 1, 0),),  # tag is no struct
        (words(list_pointer(0, 7, 1), 2 << 2 | 1 << 32, 0),),  # more elements than words
    ],
)
def test_what_is_null_bad_or_unusual_has_no_answer(segments: tuple[bytes, ...]) -> None:
    assert content(*segments) is None


def test_a_struct_is_found_with_its_sections() -> None:
    found = struct_at(at(words(0 | 1 << 32 | 1 << 48, 0x0007_0006_0005_0004, 0)))
    assert found is not None
    assert (found.data, found.data_words, found.pointers, found.pointer_count) == (8, 1, 16, 1)
    assert [found.uint16(index) for index in range(5)] == [4, 5, 6, 7, 0]
    assert found.pointer(1) is None
    pointer = found.pointer(0)
    assert pointer is not None
    assert pointer.word() == 0


@pytest.mark.parametrize(
    "segment", [words(2**32), words(2**48, 0)[:8], words(list_pointer(0, 2, 0)), words(0x7FFF << 2 | 2**32)]
)
def test_a_struct_outside_the_segment_has_no_answer(segment: bytes) -> None:
    assert struct_at(at(segment)) is None


def test_elements_of_struct_lists_and_pointer_lists_are_found() -> None:
    composite = list_at(at(words(list_pointer(0, 7, 4), 2 << 2 | 1 << 32 | 1 << 48, 10, 0, 11, 0)))
    assert composite is not None
    second = composite.element_struct(1)
    assert second is not None
    assert second.uint16(0) == 11
    assert composite.element_struct(2) is None
    assert composite.element_pointer(0) is None
    assert composite.view(8) is None
    pointers = list_at(at(words(list_pointer(0, 6, 2), 0, 5)))
    assert pointers is not None
    last = pointers.element_pointer(1)
    assert last is not None
    assert last.word() == 5
    assert pointers.element_pointer(2) is None
    assert pointers.element_struct(0) is None


def test_a_message_without_a_word_has_no_root() -> None:
    assert root_pointer(()) is None
    assert root_pointer((b"",)) is None


def test_a_machine_of_32_bits_is_refused() -> None:
    # A size that libcapnp computes overflows there (its advisory of July 2026), and our own walk assumes 64 bits.
    code = "import sys; sys.maxsize = 2**31 - 1; import lahja_capn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "ImportError: lahja_capn needs a 64-bit little-endian machine" in done.stderr

"""A bounds-checked walk over the pointers of a Cap'n Proto message, to find where a value lies in its buffer.

It serves what pycapnp 2.2.4 cannot give: a view of a Data or of a list of numbers that shares the message's
memory (``get_data_as_view`` leaks a reference per call), and the number of an unknown union member.

Every function returns None for whatever is null, out of bounds or merely unusual (an upgraded list, a
capability): the caller then reads through libcapnp, which gives the value, the default or an error. So the
walk must only be right when it answers; it decides nothing about validity. :func:`is_knotted` walks a whole message
to see what reading all of it would cost.

Pointer words, least significant bit first (encoding spec, https://capnproto.org/encoding.html)::

    struct  2 bits 0 | 30 signed: words from the end of the pointer | 16 data words | 16 pointers
    list    2 bits 1 | 30 signed: same                              | 3 element size | 29 count
    far     2 bits 2 | 1 double | 29 word offset of the landing pad | 32 segment
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

Buffer: TypeAlias = bytes | memoryview
Segments: TypeAlias = tuple[Buffer, ...]

if sys.byteorder != "little" or sys.maxsize < 2**63 - 1:  # pragma: no cover
    raise ImportError(
        "lahja_capn needs a 64-bit little-endian machine: lists of numbers are read straight from the "
        "message."
    )

_word = struct.Struct("<Q").unpack_from
_uint16 = struct.Struct("<H").unpack_from

# Element size code of a list pointer -> bytes per element, for the codes whose elements are whole bytes.
ELEMENT_BYTES = {2: 1, 3: 2, 4: 4, 5: 8}
SIZE_CODES = {size: code for code, size in ELEMENT_BYTES.items()}


class StructPlace(NamedTuple):
    """Where a struct lies. Offsets in bytes from the start of the segment."""

    segments: Sequence[Buffer]
    segment: int
    data: int
    data_words: int
    pointers: int
    pointer_count: int

    def pointer(self, index: int) -> PointerPlace | None:
        """Return the place of pointer `index`, or None if this struct is older and has fewer."""
        if index >= self.pointer_count:
            return None
        return PointerPlace(self.segments, self.segment, self.pointers + 8 * index)

    def uint16(self, index: int) -> int:
        """Return the 16-bit number at `index` (in 2-byte units) of the data section, 0 beyond its end."""
        if 2 * index + 2 > 8 * self.data_words:
            return 0
        number: int = _uint16(self.segments[self.segment], self.data + 2 * index)[0]
        return number


class PointerPlace(NamedTuple):
    """Where a pointer word lies: segment and offset in bytes. It is inside the segment."""

    segments: Sequence[Buffer]
    segment: int
    offset: int

    def word(self) -> int:
        number: int = _word(self.segments[self.segment], self.offset)[0]
        return number


class ListPlace(NamedTuple):
    """Where a list's elements lie. `words` are those of a struct element (code 7)."""

    segments: Sequence[Buffer]
    segment: int
    start: int
    code: int
    length: int
    data_words: int = 0
    pointer_count: int = 0

    def element_struct(self, index: int) -> StructPlace | None:
        if self.code != 7 or index >= self.length:
            return None
        start = self.start + 8 * index * (self.data_words + self.pointer_count)
        pointers = start + 8 * self.data_words
        return StructPlace(self.segments, self.segment, start, self.data_words, pointers, self.pointer_count)

    def element_pointer(self, index: int) -> PointerPlace | None:
        if self.code != 6 or index >= self.length:
            return None
        return PointerPlace(self.segments, self.segment, self.start + 8 * index)

    def view(self, element_bytes: int) -> memoryview | None:
        """Return the elements as a read-only view of bytes, if they are stored with `element_bytes` each."""
        if ELEMENT_BYTES.get(self.code) != element_bytes:
            return None
        end = self.start + self.length * element_bytes
        return memoryview(self.segments[self.segment]).toreadonly()[self.start : end]


def root_pointer(segments: Sequence[Buffer]) -> PointerPlace | None:
    """Return the place of the message's root pointer."""
    if not segments or len(segments[0]) < 8:
        return None
    return PointerPlace(segments, 0, 0)


def struct_at(place: PointerPlace) -> StructPlace | None:
    """Return where the struct lies that the pointer at `place` points to."""
    found = _follow(place)
    if found is None or found[1] & 3 != 0:
        return None
    segment, tag, start = found
    data_words, pointer_count = tag >> 32 & 0xFFFF, tag >> 48
    pointers = start + 8 * data_words
    if start < 0 or pointers + 8 * pointer_count > len(place.segments[segment]):
        return None
    return StructPlace(place.segments, segment, start, data_words, pointers, pointer_count)


def list_at(place: PointerPlace) -> ListPlace | None:
    """Return where the list lies that the pointer at `place` points to. Lists of bits: None."""
    found = _follow(place)
    if found is None or found[1] & 3 != 1:
        return None
    segment, tag, start = found
    code, count = tag >> 32 & 7, tag >> 35
    size = len(place.segments[segment])
    if start < 0:
        return None
    if code == 7:
        # `count` is in words and leaves out the tag word, which looks like a struct pointer.
        if start + 8 + 8 * count > size:
            return None
        element = _word(place.segments[segment], start)[0]
        length, data_words, pointer_count = element >> 2 & 0x3FFFFFFF, element >> 32 & 0xFFFF, element >> 48
        if element & 3 != 0 or length * (data_words + pointer_count) > count:
            return None
        return ListPlace(place.segments, segment, start + 8, 7, length, data_words, pointer_count)
    width = 8 if code == 6 else ELEMENT_BYTES.get(code)
    if width is None or start + count * width > size:
        return None
    return ListPlace(place.segments, segment, start, code, count)


def is_knotted(segments: Sequence[Buffer], words: int, nesting: int) -> bool:
    """Say whether the parts of a message, each as often as something points to it, come to more than `words`.

    Costs are libcapnp's: a struct or list counts its words, a list of elements without size one word for each. What
    cannot be followed counts nothing, because no reader gets any further there. Looks at no more pointers than
    `words`, each of them being one of the words counted.
    """
    left = words
    # Runs of pointers that lie apart at equal distances: segment, offset of the first, pointers in a run, distance
    # of the runs, number of runs, levels that may be followed from here.
    runs = [(0, 0, 1, 8, 1, nesting)] if root_pointer(segments) is not None else []
    while runs:
        segment, start, width, distance, count, levels = runs.pop()
        buffer = segments[segment]
        for first in range(start, start + distance * count, distance):
            for offset in range(first, first + 8 * width, 8):
                if not _word(buffer, offset)[0] or not levels:
                    continue
                place = PointerPlace(segments, segment, offset)
                if (found := struct_at(place)) is not None:
                    left -= found.data_words + found.pointer_count
                    if found.pointer_count:
                        runs.append((found.segment, found.pointers, found.pointer_count, 8, 1, levels - 1))
                elif (items := list_at(place)) is not None:
                    size = items.data_words + items.pointer_count
                    if items.code == 7:
                        left -= 1 + items.length * size if size else items.length
                        if items.pointer_count and items.length:
                            first_pointer = items.start + 8 * items.data_words
                            runs.append(
                                (
                                    items.segment,
                                    first_pointer,
                                    items.pointer_count,
                                    8 * size,
                                    items.length,
                                    levels - 1,
                                )
                            )
                    elif items.code == 6:
                        left -= items.length
                        if items.length:
                            runs.append((items.segment, items.start, items.length, 8, 1, levels - 1))
                    else:
                        left -= (items.length * ELEMENT_BYTES[items.code] + 7) // 8
                else:
                    left -= _plain_words(place)
                if left < 0:
                    return True
    return False


def _plain_words(place: PointerPlace) -> int:
    """Return what a list of Void or of Bool costs to read."""
    found = _follow(place)
    if found is None or found[1] & 3 != 1 or found[1] >> 32 & 7 > 1:
        return 0
    count = found[1] >> 35
    return count if found[1] >> 32 & 7 == 0 else (count + 63) // 64


def _follow(place: PointerPlace) -> tuple[int, int, int] | None:
    """Resolve far pointers: (segment, word that describes the object, byte offset of the object)."""
    segments, segment, offset = place
    word = _word(segments[segment], offset)[0]
    if word == 0:
        return None
    if word & 3 == 2:
        double, offset, segment = word & 4, (word >> 3 & 0x1FFFFFFF) * 8, word >> 32
        if segment >= len(segments) or offset + (16 if double else 8) > len(segments[segment]):
            return None
        word, pad = _word(segments[segment], offset)[0], offset
        if double:
            if word & 7 != 2 or word >> 32 >= len(segments):
                return None
            return word >> 32, _word(segments[segment], pad + 8)[0], (word >> 3 & 0x1FFFFFFF) * 8
        if word & 3 == 2:
            return None
    distance = word >> 2 & 0x3FFFFFFF
    if distance >= 0x20000000:
        distance -= 0x40000000
    return segment, word, offset + 8 + 8 * distance


def far_list(pad_word: int, segment: int) -> int:
    """Return a far pointer to the two-word landing pad at word `pad_word` of `segment`."""
    return 2 | 4 | pad_word << 3 | segment << 32


def landing_pad(segment: int, code: int, count: int) -> bytes:
    """Return the landing pad of a list that starts at the first word of `segment`."""
    return struct.pack("<QQ", 2 | segment << 32, 1 | code << 32 | count << 35)

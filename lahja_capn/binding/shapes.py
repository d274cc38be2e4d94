"""Messages of a plain struct (flat.py) whose contents have sizes that came before: read in one go.

Where the contents of Text and Data lie, and how long they are, is all in the pointer section. So for pointers that were
seen once, a :class:`struct.Struct` of the whole message is kept, and the next message with the very same pointers is
read by it: a lookup and a call instead of a few steps for each pointer. Only what is certain is kept, as in flat.py;
anything else is left to the steps.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

# Pointer sections that are kept for one layout, 300 bytes each, by who has them learned. Which ones is up to the first
# messages: others take the steps, after a look here that costs a tenth of them.
MOST_SHAPES = 32


class Shapes:
    """The known pointer sections of one layout.

    Args:
        head: what :mod:`struct` unpacks from the root pointer to the end of the data section.
        pointers: how many there are.
        contents: those that are unpacked, in the order in which the message has to have them: index of the pointer, and
            whether it is Text, which is unpacked without the zero byte at its end and then that byte.

    Attributes:
        known: pointer section -> what unpacks the message, or False: it takes the steps.
        begin, end: where the pointer section is.
    """

    def __init__(self, head: str, pointers: int, contents: Iterable[tuple[int, bool]]) -> None:
        self.known: dict[bytes, Callable[[bytes], tuple[Any, ...]] | bool] = {}
        self._head = head
        self._contents = tuple(contents)
        self.begin = struct.calcsize(head)
        self.end = self.begin + 8 * pointers

    def learn(self, segment: bytes) -> None:
        """Look at the pointers of a message that were not seen before.

        The message may be too short for them, or of another struct: the next one with the same pointers need not be.
        """
        pointers = segment[self.begin : self.end]
        self.known[pointers] = self._unpack(pointers) or False

    def _unpack(self, pointers: bytes) -> Callable[[bytes], tuple[Any, ...]] | None:
        if len(pointers) < self.end - self.begin:
            return None
        code = f"{self._head}{len(pointers)}x"
        at = self.end
        for index, is_text in self._contents:
            offset, size = struct.unpack_from("<iI", pointers, 8 * index)
            count = size >> 3
            begin = self.begin + 8 * index + 8 + 2 * (offset - 1)
            # A list of bytes that lies behind the one before, and a Text has at least its zero byte.
            if offset & 3 != 1 or size & 7 != 2 or begin < at or count < is_text:
                return None
            code += f"{begin - at}x{count - 1}sB" if is_text else f"{begin - at}x{count}s"
            at = begin + count
        return struct.Struct(code).unpack_from

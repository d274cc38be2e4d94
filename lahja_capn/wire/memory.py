"""Memory that large frames are received into.

It is zeroed memory fresh from the allocator (``bytes(n)`` is calloc, while ``bytearray(n)`` writes its zeros): of a
frame that was announced but never sent, the operating system has not yet provided the pages if it is above the
allocator's mapping threshold (32 MiB at most with glibc).

Or it is the memory of the last large frame, if that had the same size and nobody has a view of it any more: memory that
is in use already is neither zeroed nor brought into the cache. What was there before shows nowhere, as a frame is
looked at when all of it was received.
"""

from __future__ import annotations

import io
from typing import Final

# The memory of the last large frame. One for the whole process, and none once a connection has ended; what is in the
# list is taken out before it is looked at, so no two threads have it.
_last: list[io.BytesIO] = []
# Larger memory is given back.
KEPT_BYTES: Final = 8 * 1024 * 1024


def memory_of_last(size: int) -> memoryview | None:
    """Return the memory of the last large frame, writable, if it has ``size`` bytes and is free."""
    try:
        buffer = _last.pop()
        if buffer.seek(0, io.SEEK_END) != size:
            return None
        # Refused while there is a view of it; else it changes nothing.
        buffer.truncate(size)
    except (IndexError, BufferError):
        return None
    view = buffer.getbuffer()
    # Only now that there is a view.
    _last[:] = [buffer]
    return view


def memory_for(size: int) -> memoryview:
    """Return writable memory of ``size`` bytes."""
    view = memory_of_last(size)
    if view is None:
        buffer = io.BytesIO(bytes(size))
        view = buffer.getbuffer()
        if size <= KEPT_BYTES:
            _last[:] = [buffer]
    return view


def forget_memory() -> None:
    """Give the memory of the last large frame back."""
    _last.clear()

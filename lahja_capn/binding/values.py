"""What is common to all checks of values: the internal mismatch, descriptions for messages, sizes."""

from __future__ import annotations

from typing import Any

from lahja_capn.errors import EventArgumentError

# Cap'n Proto's own bound: a list's element count has 29 bits, and a Text counts its closing NUL.
MAX_BLOB_BYTES = 2**29 - 1
MAX_TEXT_BYTES = 2**29 - 2
MAX_LIST_ITEMS = 2**29 - 1

# libcapnp counts an element without size as one word against the traversal limit, whose floor for a small
# message is FLOOR_WORDS (see record.py): longer lists of such elements could be built but not read.
MAX_EMPTY_ITEMS = 8000


class Mismatch(Exception):
    """A value does not fit its field. Internal: becomes an EventArgumentError once the event is known.

    `path` grows from the inside out while it travels: ``.price``, then ``[3].price``, then
    ``lines[3].price``.
    """

    def __init__(self, wanted: str, got: str, path: str = "") -> None:
        super().__init__(wanted, got)
        self.wanted = wanted
        self.got = got
        self.path = path

    def error(self, event: str, field: str = "") -> EventArgumentError:
        """Return what the user gets to see: the event's class and the path from there."""
        path = field + self.path
        if not field:
            path = path.removeprefix(".")
        where = f"{event}{'' if path[:1] in ('', '[') else '.'}{path}"
        return EventArgumentError(
            f"{where}: wanted {self.wanted}, got {self.got}.",
            event=event,
            path=path,
            wanted=self.wanted,
            got=self.got,
        )


def describe(value: Any) -> str:
    """Return type and shortened content of `value` for a message."""
    kind = type(value).__name__
    if value is None:
        return "None"
    try:
        text = repr(value[:40] if isinstance(value, (str, bytes, bytearray)) else value)
    except Exception:
        return kind
    if isinstance(value, (str, bytes, bytearray)) and len(value) > 40:
        text += "..."
    return f"{kind} {text if len(text) <= 80 else text[:77] + '...'}"

"""``DataView``: the annotation of a Data field that is read without copying."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any


class DataView:
    """Annotation for a Data field: ``payload: DataView``.

    The constructor takes bytes, bytearray or memoryview; reading gives a read-only memoryview that shares
    memory with the event's own buffer, and keeps that buffer alive.

    ``payload: DataView = DataView()`` makes the argument optional for type checkers, as ``= b""`` does for
    bytes.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        # At run time the bound class has a descriptor of its own in this place.
        def __get__(self, event: Any, owner: Any = None) -> memoryview: ...

        def __set__(self, event: Any, value: bytes | bytearray | memoryview) -> None: ...

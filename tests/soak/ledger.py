"""What each process has sent and received, written down so that `kill -9` loses none of it; and the comparison.

A ledger is a file that its process maps into memory: what was stored before the process was killed is in the file. It
holds lines of 64 bytes:

- a publisher has one for each connection and type: it sent the numbers `first` to `last` there, without a gap;
- a receiver has one for each run of numbers without a gap that came from one publisher of one type.

A publisher stores a number before it calls ``broadcast``, a receiver when its handler begins.

What must hold between a publisher and a receiver, both known by their incarnation, for each type: the receiver has
only what was sent to it, in order, once; of what was sent on one connection it has the beginning without a gap; and
all of it, unless the connection has ended.
"""

from __future__ import annotations

import mmap
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

LINE = struct.Struct("<BBxxIQQQ32x")
MAX_LINES = 1 << 16

SENT = 1
GOT = 2

TYPES = ("small", "large", "targeted", "streamed")


class Ledger:
    """The ledger of this process."""

    def __init__(self, path: Path) -> None:
        with open(path, "w+b") as file:
            # Sparse: a page costs nothing before it is written.
            file.truncate(MAX_LINES * LINE.size)
            self._map = mmap.mmap(file.fileno(), 0)
        self._lines = 0
        # Offset and last number of the current line, by (type, connection serial) and by (type, publisher).
        self._sent: dict[tuple[int, int], tuple[int, int, int]] = {}
        self._got: dict[tuple[int, int], tuple[int, int, int]] = {}
        self.received = 0

    def _line(self) -> int:
        if self._lines == MAX_LINES:
            raise RuntimeError("the ledger is full")
        self._lines += 1
        return (self._lines - 1) * LINE.size

    def sends(self, kind: int, serial: int, receiver: int, seq: int) -> None:
        """Event ``seq`` is about to be sent to ``receiver`` on connection ``serial``."""
        line = self._sent.get((kind, serial))
        offset, first = (self._line(), seq) if line is None else line[:2]
        LINE.pack_into(self._map, offset, SENT, kind, serial, receiver, first, seq)
        self._sent[kind, serial] = (offset, first, seq)

    def gets(self, kind: int, publisher: int, seq: int) -> str:
        """Event ``seq`` of ``publisher`` was received. Returns what is wrong with it, usually nothing."""
        self.received += 1
        line = self._got.get((kind, publisher))
        if line is not None and seq <= line[2]:
            return f"{TYPES[kind]} {seq} of {publisher:016x} came after {line[2]}"
        if line is None or seq != line[2] + 1:
            offset, first = self._line(), seq
        else:
            offset, first = line[:2]
        LINE.pack_into(self._map, offset, GOT, kind, 0, publisher, first, seq)
        self._got[kind, publisher] = (offset, first, seq)
        return ""


@dataclass
class Sent:
    """The numbers that one publisher sent to one receiver on one connection."""

    serial: int
    first: int
    last: int


@dataclass
class Pages:
    """A ledger, read: what was sent by (type, receiver), what came by (type, publisher)."""

    sent: dict[tuple[int, int], list[Sent]] = field(default_factory=lambda: defaultdict(list))
    got: dict[tuple[int, int], list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))


def read(path: Path) -> Pages:
    pages = Pages()
    with open(path, "rb") as file:
        while data := file.read(LINE.size):
            what, kind, serial, other, first, last = LINE.unpack(data)
            if what == SENT:
                pages.sent[kind, other].append(Sent(serial, first, last))
            elif what == GOT:
                pages.got[kind, other].append((first, last))
            else:
                break
    return pages


@dataclass
class Comparison:
    """What came of the events of one publisher at one receiver, of all types."""

    delivered: int = 0
    # Sent on connections that are still up, and not there (yet).
    missing: int = 0
    # By connection serial: sent on connections that have ended, and not there.
    lost: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    wrong: list[str] = field(default_factory=list)


def compare(
    publisher: tuple[int, Pages], receiver: tuple[int, Pages], up: Iterable[int], label: str = ""
) -> Comparison:
    """Compare what a publisher says it sent with what a receiver says it got; each with its incarnation.

    Args:
        up: serials of the publisher's connections that have not ended.
    """
    found = Comparison()
    living = frozenset(up)
    for kind, name in enumerate(TYPES):
        intervals = sorted(publisher[1].sent.get((kind, receiver[0]), ()), key=lambda sent: sent.first)
        ranges = receiver[1].got.get((kind, publisher[0]), ())
        _compare_type(found, intervals, ranges, living, f"{label} {name}".strip())
    return found


def _compare_type(
    found: Comparison,
    intervals: list[Sent],
    ranges: Iterable[tuple[int, int]],
    living: frozenset[int],
    label: str,
) -> None:
    # How far each interval was received.
    reached: Mapping[int, list[tuple[int, int]]] = {sent.first: [] for sent in intervals}
    for first, last in ranges:
        found.delivered += last - first + 1
        # A range may cover several intervals that follow each other without a gap.
        for sent in intervals:
            low, high = max(first, sent.first), min(last, sent.last)
            if low <= high:
                reached[sent.first].append((low, high))
        covered = sum(max(0, min(last, sent.last) - max(first, sent.first) + 1) for sent in intervals)
        if covered != last - first + 1:
            found.wrong.append(f"{label}: {first}..{last} came, and not all of it was sent there")
    for sent in intervals:
        there = sent.first - 1
        for low, high in sorted(reached[sent.first]):
            if low != there + 1:
                found.wrong.append(
                    f"{label}: {there + 1}..{low - 1} is missing, later events of connection {sent.serial} came"
                )
            there = high
        if there < sent.last:
            if sent.serial in living:
                found.missing += sent.last - there
            else:
                found.lost[sent.serial] += sent.last - there

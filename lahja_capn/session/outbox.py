"""What waits to be sent to one peer: bounded, in order, with a policy for a full queue. Nothing waits here.

Three queues, each first in first out. Control messages and answers go first and need no credit, then
requests, then events, each while its window has credit: so requests and answers may overtake events, never
each other.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Container, Iterable
from enum import Enum
from typing import Any, TypeAlias

from ..wire import Buffer
from .counters import Counters
from .credit import SendWindow


class Policy(Enum):
    """What happens to an event for which there is no room."""

    # The caller waits until there is.
    WAIT = "wait"
    DROP_NEWEST = "drop_newest"
    DROP_OLDEST = "drop_oldest"
    # At most one event per type is queued, full or not: the newest.
    NEWEST_ONLY = "newest_only"
    DISCONNECT = "disconnect"


class Offer(Enum):
    """What became of an event that was offered to a peer."""

    QUEUED = "queued"
    # Policy WAIT: not queued, offer it again when there is room.
    FULL = "full"
    # Dropped by policy, counted. Under DROP_OLDEST the new event is queued and older ones are dropped
    # instead.
    DROPPED = "dropped"
    # Over the peer's frame limit: dropped, counted.
    TOO_LARGE = "too_large"
    NOT_SUBSCRIBED = "not_subscribed"
    INCOMPATIBLE = "incompatible"
    CLOSED = "closed"
    # Policy DISCONNECT: dropped, counted; the caller closes the connection with `tooSlow`.
    DISCONNECT = "disconnect"


Buffers: TypeAlias = tuple[Buffer, ...]
# A queued event: size, type id, buffers. It never changes, so that many queues may hold it.
EventEntry: TypeAlias = tuple[int, int, Buffers]
# A list under NEWEST_ONLY, where a newer event takes its place.
_Entry: TypeAlias = EventEntry | list[Any]

# Looking a member up in an Enum costs more than the rest of offer_event (Python 3.11).
_WAIT = Policy.WAIT
_DROP_OLDEST = Policy.DROP_OLDEST
_NEWEST_ONLY = Policy.NEWEST_ONLY
_DISCONNECT = Policy.DISCONNECT
_QUEUED = Offer.QUEUED
_FULL = Offer.FULL
_DROPPED = Offer.DROPPED


class Outbox:
    """The queues of one connection.

    There is room while ``queued_bytes`` is below the limit: the queue may exceed it by one frame, so that an
    event larger than the limit still passes. ``queued_bytes`` counts events, requests, responses and
    ``failed``, not the other control messages, which the protocol bounds by itself.
    """

    __slots__ = (
        "_counters",
        "_first",
        "_line",
        "_newest",
        "_passed",
        "_purged",
        "_purged_to",
        "_requests",
        "_swept_at",
        "answered",
        "cut_short",
        "drops",
        "event_window",
        "events",
        "full_at",
        "limit",
        "policy",
        "queued_bytes",
        "queued_request_bytes",
        "request_window",
        "requests_sent_to",
    )

    def __init__(self, limit: int, counters: Counters) -> None:
        self.limit = limit
        # How many callers wait for room.
        self._line = 0
        # Queued bytes below which an event is simply appended to `events`: 0 under NEWEST_ONLY, and while anybody
        # waits, whom it would overtake.
        self.full_at = limit
        self._counters = counters
        # Changed with `set_policy` once anything is queued.
        self.policy = Policy.WAIT
        self.event_window = SendWindow()
        self.request_window = SendWindow()
        # (size counted as queued, buffers, request number that this answers or 0)
        self._first: deque[tuple[int, Buffers, int]] = deque()
        # (size, number, buffers)
        self._requests: deque[tuple[int, int, Buffers]] = deque()
        self.events: deque[_Entry] = deque()
        # Under NEWEST_ONLY what stands in `_events`, in the same order, by type; else empty.
        self._newest: OrderedDict[int, list[Any]] = OrderedDict()
        # Types whose purged events still lie in `_events`, and up to which place; places count what has left since
        # the first of these purges (`_passed`), too. `_purged_to` is the last of these places.
        self._purged: dict[int, int] = {}
        self._purged_to = 0
        self._passed = 0
        # `counters.sent` and the length of `_events` together, when all of `_events` was last looked through.
        self._swept_at = 0
        self.queued_bytes = 0
        self.queued_request_bytes = 0
        # Events dropped since the peer was last told, by type id.
        self.drops: dict[int, int] = {}
        # Numbers of requests whose answers were pulled; the session empties it.
        self.answered: list[int] = []
        # True if the last pull stopped at its limit of bytes.
        self.cut_short = False
        # The highest request number that was pulled.
        self.requests_sent_to = 0

    @property
    def is_empty(self) -> bool:
        return not (self._first or self.events or self._requests)

    @property
    def has_room(self) -> bool:
        return self.queued_bytes < self.limit

    @property
    def has_request_room(self) -> bool:
        """Requests have room of their own: a queue full of events must not hold them back."""
        return self.queued_request_bytes < self.limit

    @property
    def queued_frames(self) -> int:
        return len(self._first) + len(self._requests) + len(self.events)

    @property
    def queued_events(self) -> int:
        """May include events that the peer has just said it does not want."""
        return len(self.events)

    @property
    def waits_for_credit(self) -> bool:
        """True if all that is queued waits for the peer's handlers, not for its socket."""
        if self._first or not (self.events or self._requests):
            return False
        return not (self.events and self.event_window.balance > 0) and not (
            self._requests and self.request_window.balance > 0
        )

    def put_control(self, buffers: Buffers) -> None:
        self._first.append((0, buffers, 0))

    def put_answer(self, size: int, buffers: Buffers, number: int) -> None:
        """Queue the answer to the peer's request ``number``: a response or a ``failed``."""
        self._first.append((size, buffers, number))
        self.queued_bytes += size

    def put_request(self, number: int, size: int, buffers: Buffers) -> None:
        self._requests.append((size, number, buffers))
        self.queued_bytes += size
        self.queued_request_bytes += size

    def set_policy(self, policy: Policy) -> None:
        """Decide by ``policy`` from now on. NEWEST_ONLY drops at once what it would not have kept."""
        if policy is self.policy:
            return
        self.policy = policy
        self._set_full_at()
        self._newest.clear()
        if policy is _NEWEST_ONLY and self.events:
            if self._purged:
                self._sweep()
            events, self.events = self.events, deque()
            newest = {entry[1]: entry for entry in events}
            for entry in events:
                size, type_id, buffers = entry
                if newest[type_id] is entry:
                    self._newest[type_id] = kept = [size, type_id, buffers]
                    self.events.append(kept)
                else:
                    self.queued_bytes -= size
                    self._swept_at -= 1
                    self.drop(type_id, size)

    def join_line(self) -> None:
        """The caller's event found the queue full; it will be offered ``in_line``. Others wait until then."""
        self._line += 1
        self.full_at = 0

    def leave_line(self) -> None:
        self._line -= 1
        self._set_full_at()

    def _set_full_at(self) -> None:
        self.full_at = 0 if self._line or self.policy is _NEWEST_ONLY else self.limit

    def offer_event(self, type_id: int, size: int, buffers: Buffers, in_line: bool = False) -> Offer:
        """Queue an event if the policy lets it in.

        ``in_line``: it is the turn of this one, among those that wait for room.
        """
        policy = self.policy
        if policy is _NEWEST_ONLY:
            return self._offer_newest(type_id, size, buffers)
        if self.queued_bytes >= self.full_at:
            if policy is _DROP_OLDEST:
                self._drop_oldest()
            elif policy is _WAIT and not (in_line and self.queued_bytes < self.limit):
                return _FULL
            # Answers and requests alone may fill the queue; they are never dropped for an event.
            if self.queued_bytes >= self.limit:
                self.drop(type_id, size)
                return _DROPPED if policy is not _DISCONNECT else Offer.DISCONNECT
        self.events.append((size, type_id, buffers))
        self.queued_bytes += size
        return _QUEUED

    def _offer_newest(self, type_id: int, size: int, buffers: Buffers) -> Offer:
        """Put the event in the place of the one of its type that waits, if any: it has been its turn all the same."""
        if self._purged:
            self._sweep()
        waiting = self._newest.get(type_id)
        if waiting is not None:
            before = waiting[0]
            self.drop(type_id, before)
            self._swept_at -= 1
            self.queued_bytes -= before
            if self.queued_bytes < self.limit:
                waiting[0], waiting[2] = size, buffers
                self.queued_bytes += size
                return _QUEUED
            # The queue is over its limit by a frame that is larger than this one was.
            del self._newest[type_id]
            self.events = deque(self._newest.values())
        if self.queued_bytes >= self.limit:
            self._drop_oldest()
            if self.queued_bytes >= self.limit:
                self.drop(type_id, size)
                return Offer.DROPPED
        self._newest[type_id] = entry = [size, type_id, buffers]
        self.events.append(entry)
        self.queued_bytes += size
        return _QUEUED

    def _forget_newest(self, count: int) -> None:
        """So many have left the front of the queue."""
        for _ in range(count):
            self._newest.popitem(last=False)

    def drop(self, type_id: int, size: int) -> None:
        """Count an event as dropped for this peer, to be told."""
        counters = self._counters
        counters.dropped += 1
        counters.dropped_bytes += size
        drops = self.drops
        drops[type_id] = drops.get(type_id, 0) + 1

    def take_drops(self) -> tuple[tuple[int, int], ...]:
        """Return (type id, events dropped since the peer was last told) of each type, and begin anew."""
        taken = tuple(self.drops.items())
        _add(self._counters.dropped_by_type, self.drops)
        self.drops.clear()
        return taken

    @property
    def dropped_by_type(self) -> dict[int, int]:
        """Events dropped since the connection began, by type id: put together here, so that ``drop`` counts once."""
        counts = dict(self._counters.dropped_by_type)
        _add(counts, self.drops)
        return counts

    def remove_request(self, number: int) -> bool:
        """Take a request back that was not pulled yet."""
        for index, (size, queued, _) in enumerate(self._requests):
            if queued == number:
                del self._requests[index]
                self.queued_bytes -= size
                self.queued_request_bytes -= size
                return True
        return False

    def purge(self, unwanted: Iterable[int]) -> None:
        """Remove the events of these types. The peer does not want them: they do not count as dropped.

        At once, if as many events as a quarter of the queue have come since it was last looked through; else when
        they would be sent. So whatever the peer says, and how often, the cost stays in proportion to the events.
        """
        events = self.events
        if not events:
            return
        if 4 * (self._counters.sent + len(events) - self._swept_at) >= len(events):
            self._sweep(frozenset(unwanted))
            return
        self._purged_to = place = self._passed + len(events)
        for type_id in unwanted:
            self._purged[type_id] = place

    def purge_all_but(self, wanted: Container[int], types: Iterable[int]) -> None:
        """Remove the events of all other types, for the same reason; ``types`` are all that may be queued."""
        self.purge(type_id for type_id in types if type_id not in wanted)

    def _sweep(self, unwanted: Container[int] = ()) -> None:
        """Look through all events, and remove those that were purged earlier or are of these types."""
        get = self._purged.get
        kept = deque(
            entry
            for place, entry in enumerate(self.events, self._passed)
            if place >= get(entry[1], 0) and entry[1] not in unwanted
        )
        self.queued_bytes -= sum(size for size, _, _ in self.events) - sum(size for size, _, _ in kept)
        self.events = kept
        if self._newest:
            self._newest = OrderedDict((entry[1], entry) for entry in kept)  # type: ignore[misc]  # all are lists
        self._forget_purges()
        self._swept_at = self._counters.sent + len(kept)

    def _skip_purged(self) -> None:
        """Remove the purged events that are the next in turn."""
        events = self.events
        purged = self._purged
        while events and self._passed < purged.get(events[0][1], 0):
            self.queued_bytes -= events.popleft()[0]
            self._passed += 1
            if self._newest:
                self._forget_newest(1)
        if not events or self._passed >= self._purged_to:
            self._forget_purges()

    def _forget_purges(self) -> None:
        self._purged.clear()
        self._passed = 0

    def pull(self, max_bytes: int) -> list[Buffer]:
        """Take the next buffers to send, about ``max_bytes`` of them; the last frame may go over."""
        out: list[Buffer] = []
        extend = out.extend
        total = 0
        first = self._first
        while first and total < max_bytes:
            size, buffers, number = first.popleft()
            extend(buffers)
            # A control message's size was not counted; 64 bytes keep a row of them from being endless.
            total += size or 64
            self.queued_bytes -= size
            if number:
                self.answered.append(number)
        counters = self._counters
        requests = self._requests
        if requests and total < max_bytes:
            balance = self.request_window.balance
            while requests and total < max_bytes and balance > 0:
                size, self.requests_sent_to, buffers = requests.popleft()
                extend(buffers)
                total += size
                balance -= size
                self.queued_bytes -= size
                self.queued_request_bytes -= size
                counters.requests_sent += 1
            self.request_window.charge(balance)
        if self._purged:
            total += self._pull_between(out, max_bytes - total)
        events = self.events
        if events and total < max_bytes and not self._purged:
            balance = self.event_window.balance
            before = total
            count = len(events)
            if (
                (all_of_it := self.queued_bytes) <= balance
                and before + all_of_it <= max_bytes
                and not requests
            ):
                # Everything that is queued, and it is events alone.
                out += [buffer for _, _, buffers in events for buffer in buffers]
                events.clear()
                total += all_of_it
                balance -= all_of_it
            popleft = events.popleft
            while events and total < max_bytes and balance > 0:
                size, _, buffers = popleft()
                extend(buffers)
                total += size
                balance -= size
            if self._newest:
                self._forget_newest(count - len(events))
            sent = total - before
            self.event_window.charge(balance)
            self.queued_bytes -= sent
            counters.sent += count - len(events)
            counters.sent_bytes += sent
        self.cut_short = total >= max_bytes
        return out

    def _pull_between(self, out: list[Buffer], max_bytes: int) -> int:
        """Pull events while there are purged ones between them; return how many bytes."""
        total = 0
        window = self.event_window
        balance = window.balance
        while self._purged:
            self._skip_purged()
            if not self._purged or balance <= 0 or total >= max_bytes:
                break
            size, _, buffers = self.events.popleft()
            self._passed += 1
            if self._newest:
                self._forget_newest(1)
            out.extend(buffers)
            total += size
            balance -= size
            self._counters.sent += 1
        window.charge(balance)
        self.queued_bytes -= total
        self._counters.sent_bytes += total
        return total

    def clear(self) -> None:
        """The connection ends: count what was not sent."""
        if self._purged:
            self._sweep()
        for size, type_id, _ in self.events:
            self.drop(type_id, size)
        self.take_drops()
        self._counters.requests_dropped += len(self._requests)
        self._counters.answers_unsent += sum(1 for _, _, number in self._first if number)
        self._first.clear()
        self._requests.clear()
        self.events.clear()
        self._newest.clear()
        self.queued_bytes = self.queued_request_bytes = 0

    def _drop_oldest(self) -> None:
        """Make room. For every event while a peer does not keep up: what that costs, all others pay."""
        events = self.events
        while events and self.queued_bytes >= self.limit:
            if self._purged:
                self._skip_purged()
                if not events or self.queued_bytes < self.limit:
                    return
                self._passed += 1
            size, type_id, _ = events.popleft()
            if self._newest:
                self._forget_newest(1)
            self.queued_bytes -= size
            self.drop(type_id, size)


def _add(counts: dict[int, int], more: dict[int, int]) -> None:
    for type_id, count in more.items():
        counts[type_id] = counts.get(type_id, 0) + count

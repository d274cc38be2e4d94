"""Every limit of the bus, with its unit and its reason. docs/wire.md section 11 lists them for other peers.

Names end in their unit: ``_bytes`` counts frame size (``DATA_LENGTH + 4``) unless said otherwise, ``_s``
seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from ..errors import ConfigError

KIB: Final = 1024
MIB: Final = 1024 * KIB

# DATA_LENGTH is a u32, but languages whose sizes are signed 32-bit numbers read frames too, and a frame is a
# multiple of 8: the largest size that all of them can express. No limit may exceed it.
MAX_FRAME_BYTES: Final = 2**31 - 8

# No frame may be smaller: 16 header, 8 segment table, 8 for the one word that a root pointer takes.
MIN_FRAME_BYTES: Final = 32

# A peer that accepts less than this could not take part in anything; the smallest frame limit hello may name.
MIN_FRAME_LIMIT_BYTES: Final = 1024

# A control message is small, and must pass before the peer's limit is known: fixed, not negotiated.
CONTROL_FRAME_BYTES: Final = 1 * MIB

# Cap'n Proto libraries refuse more than 512 segments when reading; no writer with a growing allocator gets
# there.
MAX_SEGMENTS: Final = 512

# A wire id is a u16 and 0 is the control message.
MAX_TABLE_TYPES: Final = 65_535

# The rows of one peer's id table together, each counted as TABLE_ROW_BYTES + its name in UTF-8 + 4 per layout
# element. Row and type counts alone do not bound memory: one layout may have 65,535 elements.
TABLE_BYTES: Final = 16 * MIB
TABLE_ROW_BYTES: Final = 24

# Sums of credit stay below this in every language's signed 64-bit integer.
MAX_CREDIT: Final = 2**63 - 1
# A credit window that never runs out.
UNLIMITED: Final = 2**64 - 1

# A silent peer on a Unix socket is almost surely alive: the kernel reports a dead process at once. On TCP a
# vanished machine is reported by nobody.
KEEPALIVE_UNIX_S: Final = 60.0
KEEPALIVE_TCP_S: Final = 15.0

# At most one `dropped` message in this time: a peer too slow for events must not drown in notices about them.
DROP_NOTICE_S: Final = 1.0

# A sender whose credit is used up is told of what has come back at the latest after this time, even if it is less
# than half a window: the consumer may be slow, and the sender takes one that returns nothing for dead (`too_slow_s`).
# docs/wire.md allows 1 s.
CREDIT_REST_S: Final = 0.5

# A handshake that has lasted so long is hung up if others wait for its place (`Limits.handshakes`). An honest one takes
# some turns of two event loops, with TLS some round trips; and `name_probe_s` where its name is still held.
HANDSHAKE_PATIENCE_S: Final = 2.0

# What a connection that has ended counts in `Limits.left_events_bytes` besides its events: so long as one of them waits
# it is remembered.
LEFT_CONNECTION_BYTES: Final = 16 * KIB

# Texts we send are cut to this many UTF-8 bytes: an exception's text may be of any length.
GOODBYE_TEXT_BYTES: Final = 1 * KIB
FAILED_TEXT_BYTES: Final = 16 * KIB
# Names in rows and of exception classes.
NAME_TEXT_BYTES: Final = 1 * KIB

# More features than this are not a version 1 peer.
MAX_FEATURES: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits one endpoint works with. Frozen; checked when made.

    Raises:
        ConfigError: a value outside its range, named with the range.
    """

    # Largest frame accepted; also the largest event a peer may send us. 64 MiB: large enough for an image or
    # a model's weights shard, small enough that one peer cannot exhaust a machine.
    frame_bytes: int = 64 * MIB
    # Time from the connection's start until the peer's first subscriptions arrived.
    handshake_timeout_s: float = 10.0
    # Handshakes under way of peers that connect to us; more wait in the system's queue. Each may cost a receive
    # buffer, a control frame and an id table before we know who it is, and 64 are as many as a burst of honest ones
    # needs: one takes a millisecond.
    handshakes: int = 64
    # Peers connected at a time, those that we connected to included; one more that connects to us is refused. Each
    # may fill its queue and its windows. Just below the 1,024 descriptors that a process usually has, so that it is
    # this limit that speaks and names itself.
    connections: int = 1_000
    # Segments in one message that we accept.
    segments: int = MAX_SEGMENTS
    # Rows of a peer's id table: event types, and structs reachable from them.
    table_types: int = MAX_TABLE_TYPES
    table_structs: int = MAX_TABLE_TYPES
    # Credit we grant each peer: events and requests it may have sent that no handler has started on.
    event_credit_bytes: int = 16 * MIB
    request_credit_bytes: int = 4 * MIB
    # Requests of one peer that have arrived and are not answered yet; more are answered `overloaded`.
    open_requests: int = 16_384
    # Frames that wait to be sent; the last one may go over.
    queued_per_peer_bytes: int = 16 * MIB
    queued_per_endpoint_bytes: int = 256 * MIB
    # Events of peers that have gone which no handler or consumer has taken yet, all together; at least one window. Over
    # it those of the connections that left most are dropped, until half of it is left. Four windows: one peer, or two,
    # that end under load lose nothing; many that come under new names cannot fill the memory.
    left_events_bytes: int = 64 * MIB
    request_timeout_s: float = 30.0
    # None: KEEPALIVE_UNIX_S or KEEPALIVE_TCP_S, by transport. 0: never ping.
    keepalive_s: float | None = None
    # Silent intervals after which the peer is dead. Fewer than two would kill a peer that was never asked.
    keepalive_misses: int = 3
    # From our goodbye until the peer's end of stream, then the connection is closed anyway.
    close_timeout_s: float = 2.0
    # A peer that takes nothing of what waits for it for so long, while somebody waits for room in its queue, is
    # disconnected. Well above the second within which a peer returns credit.
    too_slow_s: float = 5.0
    # How long the old holder of a name has to answer a ping before a newcomer takes the name over.
    name_probe_s: float = 1.0

    def __post_init__(self) -> None:
        _within("frame_bytes", self.frame_bytes, MIN_FRAME_LIMIT_BYTES, MAX_FRAME_BYTES)
        _within("segments", self.segments, 1, MAX_SEGMENTS)
        _within("table_types", self.table_types, 1, MAX_TABLE_TYPES)
        _within("table_structs", self.table_structs, 0, MAX_TABLE_TYPES)
        for name in ("event_credit_bytes", "request_credit_bytes"):
            value = getattr(self, name)
            if value != UNLIMITED:
                _within(name, value, 0, MAX_CREDIT)
        _within("handshakes", self.handshakes, 1, MAX_CREDIT)
        _within("connections", self.connections, 1, MAX_CREDIT)
        _within("open_requests", self.open_requests, 1, MAX_CREDIT)
        _within("queued_per_peer_bytes", self.queued_per_peer_bytes, 1, MAX_CREDIT)
        _within("queued_per_endpoint_bytes", self.queued_per_endpoint_bytes, 1, MAX_CREDIT)
        _within("left_events_bytes", self.left_events_bytes, 0, MAX_CREDIT)
        _within("keepalive_misses", self.keepalive_misses, 2, 1_000)
        for name in (
            "handshake_timeout_s",
            "request_timeout_s",
            "close_timeout_s",
            "too_slow_s",
            "name_probe_s",
        ):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"{name} is a finite number of seconds above 0, got {value!r}")
        if self.keepalive_s is not None:
            check_keepalive(self.keepalive_s)


def check_keepalive(seconds: float) -> None:
    """Refuse an interval that hello cannot carry: 0, or 0.001 to 4294967 seconds (u32 milliseconds)."""
    if seconds != 0 and not 0.001 <= seconds <= (2**32 - 1) // 1000:
        raise ConfigError(f"keepalive_s is 0 (never) or 0.001 to 4294967 seconds, got {seconds!r}")


def _within(name: str, value: int, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{name} is a whole number from {low} to {high}, got {value!r}")

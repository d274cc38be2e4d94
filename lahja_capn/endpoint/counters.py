"""What an endpoint tells about the traffic with one peer."""

from __future__ import annotations

from dataclasses import dataclass

from ..session import Session


@dataclass(frozen=True, slots=True)
class PeerCounters:
    """A snapshot. Names alone count events; ``_bytes`` are sums of frame sizes.

    ``dropped`` never reached the peer: its queue was full and the policy (or ``broadcast_nowait``) dropped them,
    they were over its frame limit, or the connection ended before. ``skipped`` came for nobody here;
    ``dropped_by_peer`` is what the peer says it dropped for us; ``late`` are answers nobody waited for any more.
    """

    sent: int
    sent_bytes: int
    received: int
    received_bytes: int
    dropped: int
    dropped_by_type: dict[int, int]
    queued: int
    queued_bytes: int
    skipped: int
    dropped_by_peer: int
    late: int


def peer_counters(session: Session) -> PeerCounters:
    """What ``session`` has counted up to now."""
    counted = session.counters
    return PeerCounters(
        sent=counted.sent,
        sent_bytes=counted.sent_bytes,
        received=counted.received,
        received_bytes=counted.received_bytes,
        dropped=counted.dropped,
        dropped_by_type=dict(counted.dropped_by_type),
        queued=session.queued_frames,
        queued_bytes=session.queued_bytes,
        skipped=counted.skipped,
        dropped_by_peer=counted.dropped_by_peer,
        late=counted.late,
    )

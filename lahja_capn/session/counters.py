"""What one connection has carried and lost."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Counts of one connection. Names alone count events; ``_bytes`` are sums of frame sizes.

    An event is counted as sent when its bytes were handed to the runtime, not when the peer has them.
    """

    sent: int = 0
    sent_bytes: int = 0
    # Handed to the endpoint.
    received: int = 0
    received_bytes: int = 0
    # Not sent: policy, too large, or still queued at the end. An event whose subscription ended is none of
    # them.
    dropped: int = 0
    dropped_bytes: int = 0
    # Of a session: those that the peer was told of. Of a snapshot: all.
    dropped_by_type: dict[int, int] = field(default_factory=dict)
    # Came, but is unknown, incompatible or unsubscribed here.
    skipped: int = 0
    skipped_bytes: int = 0
    # The peer's own account of what it dropped for us.
    dropped_by_peer: int = 0

    requests_sent: int = 0
    requests_received: int = 0
    # Answered `failed` by the session itself, without the endpoint.
    requests_refused: int = 0
    # Queued and never sent.
    requests_dropped: int = 0
    responses_sent: int = 0
    responses_received: int = 0
    failed_sent: int = 0
    failed_received: int = 0
    # Answers that came after the request was forgotten or answered.
    late: int = 0
    # Our answers to requests that are closed already.
    answers_unsent: int = 0

    # Waiting to be sent when the snapshot was taken: events, and bytes of everything but control messages.
    queued: int = 0
    queued_bytes: int = 0

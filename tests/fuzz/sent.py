"""Holds what a session sends against docs/wire.md: frames, states, sequences, tables, answers, bounds of texts.

Reads with pycapnp and the second decoder, not with what is under test.
"""

from __future__ import annotations

from typing import Any

from lahja_capn.schema import wire_schema
from tests.fuzz.decoder import CONTROL_LIMIT, decode

_Control: Any = wire_schema().Control

ALLOWED = {
    "opening": {"hello", "goodbye"},
    "introduced": {"declare", "ping", "pong", "subscriptions", "goodbye"},
    "active": {
        *("declare", "subscriptions", "subscriptionsAck", "credit", "failed", "ping", "pong", "dropped"),
        *("event", "request", "response", "goodbye"),
    },
    "ended": set(),
}
_KINDS = ("event", "request", "response")


class Sent:
    """Everything that one session has sent so far."""

    def __init__(self) -> None:
        self.state = "opening"
        self.counts: dict[str, int] = {}
        self.size = 0
        self.goodbye: Any = None
        self.wire_ids: dict[int, int] = {}
        self.answered: set[int] = set()
        self.last_request = 0
        self._sequence = 0
        self._acked = 0
        self._dropped_at = -1.0
        self._rows: dict[int, Any] = {}
        self.credit = [0, 0]

    def take(self, data: bytes, session: Any, now: float) -> None:
        """Look at the bytes of one pull."""
        self.size += len(data)
        limit = max(session.peer_frame_limit, CONTROL_LIMIT)
        frames, _, must = decode(data, True, limit)
        assert not must, "sent what a receiver must refuse"
        assert sum(frame[3] for frame in frames) == len(data), "sent a part of a frame"
        once: set[str] = set()
        for wire_id, kind, correlation, size, segments in frames:
            if wire_id:
                name = _KINDS[kind]
                assert session.peer is not None
                assert size <= session.peer_frame_limit, f"{name} of {size} bytes"
                assert wire_id in self.wire_ids, f"{name} of wire id {wire_id}, never declared"
                if kind == 1:
                    assert correlation > self.last_request
                    self.last_request = correlation
                elif kind == 2:
                    self._answer(correlation, session)
            else:
                assert size <= CONTROL_LIMIT
                message = _Control.from_segments(list(segments))
                name = str(message.which())
                if name in ("pong", "ping", "subscriptionsAck", "credit"):
                    assert name not in once, f"{name} twice in one pull"
                    once.add(name)
                self._control(name, getattr(message, name), session)
            if name == "dropped":
                assert name in once or now >= self._dropped_at + 1, "dropped told twice within a second"
                once.add(name)
                self._dropped_at = now
            assert name in ALLOWED[self.state], f"{name} while {self.state}"
            self.counts[name] = self.counts.get(name, 0) + 1
            if name == "hello":
                self.state = "introduced"
            elif name == "subscriptions" and self.state == "introduced":
                self.state = "active"
            elif name == "goodbye":
                self.state = "ended"

    def _control(self, name: str, message: Any, session: Any) -> None:
        if name in ("hello", "declare"):
            self._table(message.types)
        elif name == "subscriptions":
            assert message.sequence == self._sequence + 1, message.sequence
            self._sequence += 1
            assert set(message.add) <= set(self.wire_ids.values())
        elif name == "subscriptionsAck":
            assert self._acked <= message.sequence <= session._remote_sequence, message.sequence
            assert message.sequence > 0
            self._acked = message.sequence
        elif name == "credit":
            self.credit[0] += message.events
            self.credit[1] += message.requests
        elif name == "failed":
            self._answer(message.correlation, session)
            assert len(message.typeName.encode()) <= 1024
            assert len(message.text.encode()) <= 16384
        elif name == "goodbye":
            self.goodbye = message
            assert len(message.text.encode()) <= 1024
            str(message.code)

    def _answer(self, number: int, session: Any) -> None:
        assert 0 < number <= session._incoming._last, f"an answer to request {number}"
        assert number not in self.answered, f"a second answer to request {number}"
        self.answered.add(number)

    def _table(self, rows: Any) -> None:
        for row in rows:
            facts = (str(row.kind), row.name, tuple(row.layout))
            assert self._rows.setdefault(row.typeId, facts) == facts
            if row.wireId:
                assert self.wire_ids.setdefault(row.wireId, row.typeId) == row.typeId

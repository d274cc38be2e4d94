"""Conversations in which nobody does anything wrong."""

from __future__ import annotations

from . import peer
from .peer import Script, control
from .store import Store


def add(store: Store) -> None:
    def put(name: str, note: str, script: Script) -> None:
        store.add("conversations", name, script.json(note), script.data)

    for role in ("acceptor", "connector"):
        script = Script(role, subscribe=["Count"]).come_up("Count")
        script.send(peer.event("Count", {"number": "1"}), peer.event("Count", {"number": "2"}))
        script.sees("Count", {"number": "1"}).sees("Count", {"number": "2"})
        put(f"two-events-{role}", "handshake, two events, goodbye", script.goodbye())

    script = Script().come_up().send(control(ping=None)).sent("pong").eof()
    put(
        "ping", "a ping is answered; the end of the stream without goodbye", script.expect(closed=_lost(True))
    )


def _lost(by_peer: bool) -> dict[str, object]:
    return {"code": "", "by_peer": by_peer}

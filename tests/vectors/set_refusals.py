"""Bytes that must be refused."""

from __future__ import annotations

from . import peer
from .peer import Script
from .store import Store


def add(store: Store) -> None:
    def put(name: str, rule: str, note: str, script: Script, *codes: str) -> None:
        facts = {"rule": rule, "goodbye": list(codes), **script.json(note)}
        store.add("refusals", name, facts, script.data)

    script = Script().send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    put("stranger-http", "2: rule 1", "an HTTP client", script, "protocolError", "frameTooLarge")
    script = Script().send(peer.hello(protocolVersion=2))
    put("hello-version-2", "3: protocolVersion is 1", "a later version", script, "unsupportedVersion")
    script = Script(subscribe=["Count"]).come_up("Count").send(peer.event("Count", {}, wire_id=77))
    put("unknown-wire-id", "6.1: content of an id never declared", "wire id 77", script, "unknownId")

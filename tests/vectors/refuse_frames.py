"""Refusals of docs/wire.md section 2: frames, and strangers who send none."""

from __future__ import annotations

import struct
from typing import Any

from . import peer
from .peer import Script, hello, refuse, subscriptions
from .plans import conformance, wire
from .store import Store
from .talk_types import count
from .writing import frame, framed, message, stream

LIMIT = 1048576
WIRE = peer.WIRE_IDS["Count"]
EVENT = message(conformance.Count, {"number": "5"})
PING = message(wire.Control, {"ping": None})
WRONG_SIZE = ("protocolError", "frameTooLarge")


def add(store: Store) -> None:
    _lengths(store)
    _headers(store)
    _tables(store)
    _strangers(store)


def up(**setup: Any) -> Script:
    """A connection that is up, on which one event was received."""
    script = Script(**{"subscribe": ["Count"], **setup}).come_up("Count").send(*count(0))
    return script.sees("Count", {"number": "0"})


def head(length: int, wire_id: int, flags: int = 0, correlation: int = 0) -> bytes:
    return struct.pack("<IHHQ", length, wire_id, flags, correlation)


def _lengths(store: Store) -> None:
    rule = "2: rule 1"
    for name, length in (
        ("0", 0),
        ("12", 12),
        ("20", 20),
        ("24", 24),
        ("odd", 61),
        ("not-4-mod-8", 64),
        ("large-not-4-mod-8", 1_000_001),
        ("highest", 2**32 - 1),
    ):
        codes = ("protocolError",) if length < LIMIT else WRONG_SIZE
        note = f"an event whose DATA_LENGTH is {length}"
        data = (head(length, WIRE) + stream(EVENT) * 3)[: max(16, min(length + 4, 64))]
        refuse(store, f"length-{name}", rule, note, up().send(data), *codes)
        data = (head(length, 0) + bytes(80))[: max(16, min(length + 4, 64))]
        note = f"the first frame, a control frame, has DATA_LENGTH {length}"
        refuse(store, f"length-{name}-first", rule, note, Script().send(data).count("hello", 0), *codes)

    rule = "2: rule 2"
    over = "checked before memory is taken: only the header is sent"
    refuse(store, "size-control-over-1-mib", rule, over, up().send(head(LIMIT + 4, 0)), "frameTooLarge")
    script = up(frame_limit=64 << 20).send(head(LIMIT + 4, 0))
    note = "the limit of control frames is fixed, whatever frameLimit is"
    refuse(store, "size-control-over-1-mib-large-limit", rule, note, script, "frameTooLarge")
    script = Script().send(head(LIMIT + 4, 0))
    refuse(store, "size-first-over-1-mib", rule, "the first frame", script, *WRONG_SIZE)
    refuse(store, "size-event-over-limit", rule, over, up().send(head(LIMIT + 4, WIRE)), "frameTooLarge")
    script = up(frame_limit=1024).send(head(1024 + 4, WIRE))
    refuse(store, "size-event-over-1024", rule, "frameLimit is 1,024", script, "frameTooLarge")
    script = up(frame_limit=1024).send(head(1024 + 4, WIRE, 1, 1))
    refuse(store, "size-request-over-1024", rule, "a request", script, "frameTooLarge")
    script = up(frame_limit=1024).send(head(1024 + 4, WIRE, 2, 1))
    refuse(store, "size-response-over-1024", rule, "a response", script, "frameTooLarge")
    highest = 2**32 - 4
    note = "DATA_LENGTH 2^32 - 4: the frame size, 2^32, does not fit 32 bits"
    refuse(store, "size-4-gib-event", rule, note, up().send(head(highest, WIRE)), "frameTooLarge")
    refuse(store, "size-4-gib-control", rule, note, up().send(head(highest, 0)), "frameTooLarge")
    script = Script().send(head(highest, 0)).count("hello", 0)
    refuse(store, "size-4-gib-first", rule, note, script, *WRONG_SIZE)
    note = "2 GiB: negative as a signed 32-bit number"
    refuse(store, "size-2-gib", rule, note, up().send(head(2**31 + 4, WIRE)), "frameTooLarge")


def _headers(store: Store) -> None:
    rule = "2: rule 3"
    for name, wire_id, flags, correlation in (
        ("control-flags-1", 0, 1, 0),
        ("control-flags-1-numbered", 0, 1, 1),
        ("control-flags-2", 0, 2, 0),
        ("control-flags-2-numbered", 0, 2, 1),
        ("control-correlation", 0, 0, 1),
        ("control-correlation-highest-bit", 0, 0, 2**63),
        ("event-correlation", WIRE, 0, 1),
        ("event-correlation-highest-bit", WIRE, 0, 2**63),
        ("event-correlation-2-32", WIRE, 0, 2**32),
        ("request-without-number", WIRE, 1, 0),
        ("response-without-number", WIRE, 2, 0),
        ("flags-3", WIRE, 3, 1),
        ("flags-4", WIRE, 4, 0),
        ("flags-256", WIRE, 256, 0),
        ("flags-257", WIRE, 257, 1),
        ("flags-highest-bit", WIRE, 0x8000, 0),
        ("flags-all", WIRE, 0xFFFF, 1),
    ):
        segments = EVENT if wire_id else PING
        note = f"EVENT_ID {wire_id}, FLAGS {flags}, CORRELATION {correlation}"
        script = up().send(frame(wire_id, flags, correlation, segments), *count(9))
        refuse(store, f"header-{name}", rule, note, script, "protocolError")
    script = Script().send(frame(0, 1, 0, PING)).count("hello", 0)
    refuse(store, "header-first", rule, "in the first frame", script, "protocolError")

    rule = "2: rule 4"
    for flags, kind in enumerate(("event", "request", "response")):
        data = frame(WIRE, flags, min(flags, 1), EVENT)
        refuse(
            store,
            f"early-{kind}-first",
            rule,
            f"a {kind} as the first frame",
            Script().send(data).count("hello", 0),
            "protocolError",
        )
        for role in ("acceptor", "connector"):
            note = f"a {kind} before the peer's first subscriptions"
            script = Script(role, subscribe=["Count"]).send(hello("Count"))
            if role == "acceptor":
                # A connector may wait for the acceptor's first subscriptions before it sends its own.
                script.sent("subscriptions")
            script.send(data, subscriptions())
            refuse(store, f"early-{kind}-{role}", rule, note, script, "protocolError")


def table(count: int, *sizes: int, padding: int | None = None) -> bytes:
    words = [count - 1 & 0xFFFFFFFF, *sizes]
    if padding is not None:
        words.append(padding)
    return struct.pack(f"<{len(words)}I", *words)


def _tables(store: Store) -> None:
    def bad(name: str, rule: str, note: str, body: bytes) -> None:
        script = up().send(framed(WIRE, 0, 0, body), *count(9))
        refuse(store, f"table-{name}", f"2: {rule}", note, script, "protocolError")
        script = up().send(framed(0, 0, 0, body), *count(9))
        refuse(
            store, f"table-{name}-control", f"2: {rule}", f"{note}; a control frame", script, "protocolError"
        )

    # A struct of one data word and one pointer: as Control a ping, as Count some number.
    body = struct.pack("<QQQ", 1 << 32 | 1 << 48, 6, 0)
    many = table(513, 3, *[0] * 512) + body
    bad("513-segments", "rule 5", "513 segments, all but the first empty", many)
    bad("many-segments", "rule 5", "a million segments in a frame of 48 bytes", table(1_000_000, 3) + body)
    bad("2-31-segments", "rule 5", "2^31 segments", table(2**31, 3) + body)
    bad("2-32-segments", "rule 5", "the first word of the table is 2^32 - 1", table(2**32, 3) + body)
    bad("padding", "rule 6", "padding of 1", table(2, 3, 0, padding=1) + body)
    bad("padding-highest-bit", "rule 6", "padding of 2^31", table(2, 3, 0, padding=2**31) + body)
    bad("first-empty", "rule 7", "segment 0 has no words, the others have", table(2, 0, 3, padding=0) + body)
    bad("first-empty-alone", "rule 7", "one segment of no words, and words behind it", table(1, 0) + body)
    bad("too-short", "rule 8", "the frame has a word more than the table says", table(1, 2) + body)
    bad("too-long", "rule 8", "the frame has a word less than the table says", table(1, 4) + body)
    bad("second-too-long", "rule 8", "the second segment does not fit", table(2, 3, 1, padding=0) + body)
    bad("size-2-29", "rule 8", "3 + 2^29 words: right modulo 2^32 bytes", table(1, 3 + 2**29) + body)
    bad("size-highest", "rule 8", "2^32 - 1 words", table(1, 2**32 - 1) + body)
    sizes = (2**32 - 1, 4)
    bad("sum-2-32", "rule 8", "sizes whose sum is right modulo 2^32", table(2, *sizes, padding=0) + body)
    sizes = (2**31, 2**31, 3)
    bad("sum-of-three", "rule 8", "three sizes whose sum is right modulo 2^32", table(3, *sizes) + body)
    bad("does-not-fit", "rule 8", "a table of 512 segments in a frame of 48 bytes", table(512, 3) + body)
    bad(
        "fills-the-frame",
        "rule 8",
        "a table of 6 segments that fills the frame",
        table(6, 1, 0, 0, 0, 0, 0, 0),
    )
    first = framed(0, 0, 0, table(2, 3, 0, padding=1) + body)
    refuse(
        store,
        "table-first",
        "2: rule 6",
        "in the first frame",
        Script().send(first).count("hello", 0),
        "protocolError",
    )


def _strangers(store: Store) -> None:
    # Three times what pickle makes of ("subscribe", 4).
    pickled = b"\x80\x04\x95\x11\x00\x00\x00\x00\x00\x00\x00\x8c\tsubscribe\x94K\x04\x86\x94." * 3
    # The message that lahja 0.17 sends: a length, then a pickle. Its length is made 4 modulo 8 in the second.
    aligned = pickled[: len(pickled) // 8 * 8 - 4]
    tls = bytes.fromhex("160301020001 0001fc0303".replace(" ", "")) + bytes(range(64))
    for name, note, data in (
        ("http", "an HTTP client", b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n"),
        ("http-post", "another", b"POST /api HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"),
        ("http-2", "HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
        ("tls", "a TLS client", tls),
        ("ssh", "an SSH client", b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
        ("pickle", "the original lahja", struct.pack("<I", len(pickled)) + pickled),
        (
            "pickle-aligned",
            "the original lahja, with a length that a frame may have",
            struct.pack("<I", len(aligned)) + aligned,
        ),
        ("zeros", "zeros", bytes(64)),
        ("ones", "all bits set", b"\xff" * 64),
        ("json", "JSON lines", b'{"jsonrpc": "2.0", "method": "hello", "id": 1}\n'),
    ):
        script = Script().send(data).count("hello", 0)
        refuse(store, f"stranger-{name}", "2: a first frame that is none", note, script, *WRONG_SIZE)
    answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    script = Script("connector").send(answer)
    refuse(
        store, "stranger-http-server", "2: a first frame that is none", "an HTTP server", script, *WRONG_SIZE
    )

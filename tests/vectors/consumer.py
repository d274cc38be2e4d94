"""The implementation under test, in Python: a session, with a user who does what a script says."""

from __future__ import annotations

from typing import Any

from lahja_capn import EventFieldError
from lahja_capn.session import (
    Arrived,
    Closed,
    FailedArrived,
    LocalEndpoint,
    PeerHello,
    PeerUp,
    ResponseArrived,
    Session,
    WireTable,
)
from lahja_capn.wire import FrameKind, Limits, encode_frame, frame_size
from lahja_capn.wire.limits import UNLIMITED

from . import bound, peer
from .plans import conformance, plan_of, wire
from .reading import KINDS, decode_frames, same, show_control

_INSTANCE = "c0c1c2c3c4c5c6c7c8c9cacbcccdcecf"


class Consumer:
    """What the vector talks to: ``frames`` is what it sent, ``facts`` is what its user saw, both in order."""

    def __init__(self, role: str, setup: dict[str, Any]) -> None:
        self.now = 1.0
        self.setup = setup
        limits = Limits(
            frame_bytes=setup.get("frame_limit", 1048576),
            event_credit_bytes=_window(setup.get("event_credit", 16777216)),
            request_credit_bytes=_window(setup.get("request_credit", 4194304)),
        )
        local = LocalEndpoint(
            name=setup.get("name", "consumer"),
            instance=bytes.fromhex(setup.get("instance", _INSTANCE)),
            limits=limits,
            keepalive_s=setup.get("keepalive_ms", 0) / 1000,
        )
        self.table = WireTable(limits)
        self.session = Session(
            local,
            self.table,
            connector=role == "connector",
            now=self.now,
            expected_peer="vector" if role == "connector" else None,
            find_event_type=bound.BY_ID.get,
        )
        # What the user saw, and what was sent, in order.
        self.facts: list[dict[str, Any]] = []
        self.frames: list[dict[str, Any]] = []
        self.request_numbers: list[int] = []
        self.last_sequence = 0
        self._state = "opening"
        self._names: dict[int, str] = {}
        self._tags: dict[int, str] = {}
        self._held: list[Arrived] | None = None
        self._handled = set(setup.get("subscribe", ()))
        self.settle()

    # --- bytes ------------------------------------------------------------------------------------------

    def receive(self, data: bytes, piece: int) -> None:
        for start in range(0, len(data), piece):
            if self.session.is_closed:
                return
            self.session.receive_bytes(data[start : start + piece], self.now)
            self.settle()

    def settle(self) -> None:
        """Act on all events and collect all bytes, until nothing happens."""
        while True:
            events = self.session.take_events()
            for event in events:
                self._see(event)
            data = b"".join(self.session.data_to_send())
            for frame in decode_frames(data):
                self._sent(*frame)
            if not events and not data:
                return

    def eof(self) -> None:
        self.session.receive_eof(self.now)
        self.settle()

    # --- what the session tells ---------------------------------------------------------------------------

    def _see(self, event: Any) -> None:
        match event:
            case PeerHello():
                ids = [bound.TYPES[name].type_id for name in self.setup.get("subscribe", ())]
                self.session.accept(ids, all=self.setup.get("all", False))
            case PeerUp():
                assert self.session.peer is not None
                self.facts.append({"up": self.session.peer.name})
            case Arrived():
                if self._held is not None:
                    self._held.append(event)
                else:
                    self._take(event)
            case ResponseArrived():
                tag = self._tags.pop(event.number)
                if event.event_type is bound.TYPES["Answer"]:
                    self.facts.append({"answered": {"tag": tag, **_value(event.event_type, event.segments)}})
                else:
                    self.facts.append({"failed": {"tag": tag, "code": ""}})
            case FailedArrived():
                self.facts.append(
                    {
                        "failed": {
                            "tag": self._tags.pop(event.number),
                            "code": _code(event.code),
                            "typeName": event.type_name,
                            "text": event.text,
                        }
                    }
                )
            case Closed():
                for tag in self._tags.values():
                    self.facts.append({"lost": {"tag": tag}})
                self._tags.clear()
                self.facts.append({"closed": {"code": _code(event.code), "by_peer": event.by_peer}})

    def _take(self, arrived: Arrived) -> None:
        shown = _value(arrived.event_type, arrived.segments)
        if arrived.kind == FrameKind.EVENT:
            self.facts.append({"event": shown})
            self.session.return_event_credit(arrived.size)
            return
        if arrived.event_type.name not in self._handled:
            # Came by `all`, which is no handler: the endpoint says so, see Bus.
            self.session.return_request_credit(arrived.size)
            self.session.send_failed(arrived.number, "noHandler")
            return
        self.facts.append({"request": {"number": str(arrived.number), **shown}})
        self.session.return_request_credit(arrived.size)
        if self.setup.get("serve"):
            mode, number = shown["value"]["mode"], int(shown["value"]["number"])
            if mode == "answer":
                value = {"number": str(number * 2 % 2**64), "text": f"twice {number}"}
                answer = bound.TYPES["Answer"]
                segments = answer.encode(bound.build("Answer", value))
                self.session.send_response(arrived.number, answer, segments)
            elif mode == "fail":
                self.session.send_failed(arrived.number, "handlerRaised", "ValueError", "asked to fail")

    def _sent(self, wire_id: int, flags: int, correlation: int, size: int, segments: Any) -> None:
        if wire_id:
            assert self._state == "active", f"content while {self._state}"
            name = self._names[wire_id]
            frame = {"sent": KINDS[flags], **_value(bound.TYPES[name], segments)}
            if flags:
                frame["correlation"] = str(correlation)
            if flags == FrameKind.REQUEST:
                self.request_numbers.append(correlation)
            self.frames.append(frame)
            return
        ((variant, content),) = show_control(segments).items()
        content = content or {}
        self._advance(variant)
        for row in content.get("types", ()):
            known = bound.BY_ID.get(int(row["typeId"]))
            if known is not None:
                right = peer.row(getattr(conformance, known.name))
                same(
                    {key: row[key] for key in ("kind", "layout")},
                    {key: right[key] for key in ("kind", "layout")},
                )
            if known is not None and row["wireId"]:
                self._names[row["wireId"]] = known.name
        bounds = {"goodbye": {"text": 1024}, "failed": {"typeName": 1024, "text": 16384}}
        for field, bound_ in bounds.get(variant, {}).items():
            assert len(content[field].encode()) <= bound_, f"{variant}.{field} is longer than {bound_} bytes"
        if variant == "subscriptions":
            self.last_sequence = int(content["sequence"])
        self.frames.append({"sent": variant, **content})

    def _advance(self, variant: str) -> None:
        """Hold what is sent against the state table of docs/wire.md section 4."""
        allowed = {
            "opening": ("hello", "goodbye"),
            "introduced": ("declare", "ping", "pong", "subscriptions", "goodbye"),
            "active": tuple(name for name in plan_of(wire.Control).fields if name != "hello"),
            "ended": (),
        }[self._state]
        assert variant in allowed, f"{variant} while {self._state}"
        after = {"hello": "introduced", "goodbye": "ended"}
        if self._state == "introduced":
            after["subscriptions"] = "active"
        self._state = after.get(variant, self._state)

    # --- the user -----------------------------------------------------------------------------------------

    def do(self, action: str, facts: dict[str, Any]) -> None:
        session = self.session
        if action in ("broadcast", "request"):
            kind = bound.TYPES[facts["type"]]
            segments = kind.encode(bound.build(facts["type"], facts["value"]))
            if action == "broadcast":
                frame = encode_frame(self.table.wire_id(kind), FrameKind.EVENT, 0, segments)
                session.offer_event(kind, frame_size(frame), frame)
            else:
                self.table.wire_id(kind)
                self.table.wire_id(bound.TYPES["Answer"])
                self._tags[session.send_request(kind, segments)] = facts["tag"]
        elif action == "forget":
            (number,) = [n for n, tag in self._tags.items() if tag == facts["tag"]]
            del self._tags[number]
            session.forget_request(number)
        elif action in ("subscribe", "unsubscribe"):
            ids = [bound.TYPES[name].type_id for name in facts["types"]]
            changes: Any = {"add": ids} if action == "subscribe" else {"remove": ids}
            self._handled ^= set(facts["types"])
            session.update_subscriptions(**changes, ack_wanted=True)
        elif action == "hold":
            self._held = []
        elif action == "resume":
            held, self._held = self._held, None
            for arrived in held or ():
                self._take(arrived)
        elif action == "stop":
            session.close("shutdown", "asked to", self.now)
        else:
            raise AssertionError(f"unknown action {action!r}")
        self.settle()


def _window(size: int | str) -> int:
    return UNLIMITED if size == "unlimited" else int(size)


def _value(kind: Any, segments: Any) -> dict[str, Any]:
    try:
        return {"type": kind.name, "value": bound.read(kind.open(segments))}
    except EventFieldError:
        return {"type": kind.name, "unreadable": True}


def _code(code: str) -> Any:
    return int(code[8:-1]) if code.startswith("unknown(") else code

"""Runs vectors through lahja_capn's own session and binding.

A failed vector raises AssertionError with what was wanted and what came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lahja_capn import EventFieldError, LahjaError
from lahja_capn.binding import StructCodec
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
from lahja_capn.session.control import decode_control
from lahja_capn.wire import FrameDecoder, FrameKind, Limits, encode_frame, frame_size
from lahja_capn.wire.limits import UNLIMITED

from . import bound
from .loading import Vector
from .plans import complete, plan_of, wire

KINDS = ("event", "request", "response")
# Frames of these kinds are compared one by one; the others an implementation sends as it likes.
EXACT = (*KINDS, "failed", "goodbye")
_INSTANCE = "c0c1c2c3c4c5c6c7c8c9cacbcccdcecf"
_PIECE = 4093

_control = StructCodec(wire.Control)
_opaque = StructCodec(wire.Opaque)


# --- messages, values, frames -------------------------------------------------------------------------------


def read_message(vector: Vector) -> Any:
    """Return the JSON value of a message in stream framing."""
    facts = vector.facts
    (frame,) = decode_frames(_framed(vector.data))
    assert len(frame[4]) == facts["segments"], len(frame[4])
    if facts.get("schema") == "wire":
        assert facts["type"] == "Opaque"
        return {"data": bytes(_opaque.open(frame[4]).data).hex()}
    return bound.read(bound.TYPES[facts["type"]].open(frame[4]))


def run_message(vector: Vector) -> None:
    if vector.facts.get("unreadable"):
        try:
            read_message(vector)
        except EventFieldError:
            pass
        return
    same(read_message(vector), vector.facts["value"])


def run_value(vector: Vector) -> None:
    facts = vector.facts
    event = bound.build(facts["type"], facts["build"])
    segments = bound.TYPES[facts["type"]].encode(event)
    again = bound.TYPES[facts["type"]].open(tuple(map(bytes, segments)))
    same(bound.read(again), facts["value"])


def run_frame(vector: Vector) -> None:
    facts = vector.facts
    flags = 0 if facts["kind"] == "control" else KINDS.index(facts["kind"])
    (frame,) = decode_frames(vector.data)
    wire_id, kind, correlation, size, segments = frame
    same((wire_id, kind, str(correlation)), (facts["wire_id"], flags, facts["correlation"]))
    same((size, len(segments)), (len(vector.data), facts["segments"]))
    if facts["kind"] == "control":
        same(show_control(segments), facts["control"])
        decode_control(segments)
        if facts.get("read_only"):
            return
        written: Any = _control.encode(**_controls(facts["control"]))
    else:
        same(bound.read(bound.TYPES[facts["type"]].open(segments)), facts["value"])
        written = bound.TYPES[facts["type"]].encode(bound.build(facts["type"], facts["value"]))
    data = b"".join(encode_frame(wire_id, flags, correlation, written))
    assert data[4:16] == vector.data[4:16]
    (again,) = decode_frames(data)
    if facts["kind"] == "control":
        same(show_control(again[4]), facts["control"])
    else:
        same(bound.read(bound.TYPES[facts["type"]].open(again[4])), facts["value"])


def show_control(segments: Any) -> dict[str, Any]:
    return bound._read(_control.open(segments), plan_of(wire.Control))


def _controls(value: dict[str, Any]) -> dict[str, Any]:
    return bound._arguments(plan_of(wire.Control), value)


def _framed(body: bytes) -> bytes:
    return (12 + len(body)).to_bytes(4, "little") + b"\1\0\0\0" + bytes(8) + body


def decode_frames(data: bytes) -> list[tuple[int, int, int, int, Any]]:
    decoder = FrameDecoder(Limits())
    decoder.open()
    found = []
    view = memoryview(data)
    while view:
        place = decoder.receive_buffer()
        count = min(len(place), len(view))
        place[:count] = view[:count]
        place.release()
        decoder.bytes_received(count)
        while frames := decoder.frames():
            found += frames
        view = view[count:]
    assert decoder.is_between_frames
    return found


def same(got: Any, wanted: Any, where: str = "") -> None:
    """Compare two JSON values and say where they first differ."""
    if isinstance(got, dict) and isinstance(wanted, dict):
        assert got.keys() == wanted.keys(), f"{where}: fields {list(got)}, wanted {list(wanted)}"
        for name in wanted:
            same(got[name], wanted[name], f"{where}.{name}")
    elif isinstance(got, list) and isinstance(wanted, list):
        assert len(got) == len(wanted), f"{where}: {len(got)} elements, wanted {len(wanted)}: {got}"
        for i, (one, other) in enumerate(zip(got, wanted, strict=True)):
            same(one, other, f"{where}[{i}]")
    else:
        assert type(got) is type(wanted), f"{where}: {got!r}, wanted {wanted!r}"
        assert got == wanted, f"{where}: {str(got)[:200]!r}, wanted {str(wanted)[:200]!r}"


# --- conversations and refusals -----------------------------------------------------------------------------


class Consumer:
    """The implementation under test: a session, with a user who does what the script says."""

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
        assert not (self.frames and self.frames[-1]["sent"] == "goodbye"), "a frame after goodbye"
        if wire_id:
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
        for row in content.get("types", ()):
            known = bound.BY_ID.get(int(row["typeId"]))
            if known is not None and row["wireId"]:
                self._names[row["wireId"]] = known.name
        if variant == "subscriptions":
            self.last_sequence = int(content["sequence"])
        self.frames.append({"sent": variant, **content})

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


def run_script(vector: Vector, in_pieces: bool = False) -> Consumer:
    """Run a conversation or a refusal."""
    facts = vector.facts
    consumer = Consumer(facts["role"], facts.get("setup", {}))
    piece = 1 << 40
    if in_pieces:
        piece = 1 if len(vector.data) <= 10_000 else _PIECE
    found_at = at = 0
    for number, step in enumerate(facts["script"]):
        where = f"step {number} {str(step)[:100]}"
        if "send" in step:
            data = bytearray(vector.data[at : at + step["send"]])
            assert len(data) == step["send"], where
            at += len(data)
            for patch in step.get("patch", ()):
                _patch(data, patch, consumer)
            consumer.receive(bytes(data), piece)
        elif "await" in step:
            found_at = _find(consumer, step["await"], found_at, where)
        elif "count" in step:
            sent = [frame for frame in consumer.frames if frame["sent"] == step["count"]]
            assert len(sent) == step["is"], f"{where}: {len(sent)}"
        elif "do" in step:
            consumer.do(step["do"], step)
        else:
            assert step.keys() - {"note"} == {"eof"}, where
            consumer.eof()
    assert at == len(vector.data), f"{len(vector.data) - at} bytes are in no step"
    _compare(vector, consumer)
    return consumer


def _patch(data: bytearray, patch: dict[str, Any], consumer: Consumer) -> None:
    if "request" in patch:
        number = consumer.request_numbers[patch["request"] - 1]
    else:
        assert patch["sequence"] == "last"
        number = consumer.last_sequence
    at = patch["at"]
    data[at : at + 8] = (number + patch.get("plus", 0)).to_bytes(8, "little")


def _find(consumer: Consumer, match: dict[str, Any], start: int, where: str) -> int:
    for i in range(start, len(consumer.frames)):
        if _matches(consumer.frames[: i + 1], match):
            return i + 1
    seen = [frame["sent"] for frame in consumer.frames]
    raise AssertionError(
        f"{where}: not sent. Sent: {seen[:start]}, then {seen[start:]}; {consumer.facts[-1:]}"
    )


def _matches(frames: list[dict[str, Any]], match: dict[str, Any]) -> bool:
    frame = frames[-1]
    if frame["sent"] != match["sent"]:
        return False
    for key, wanted in match.items():
        if frame["sent"] == "credit" and key != "sent":
            if sum(int(f[key]) for f in frames if f["sent"] == "credit") < int(wanted):
                return False
        elif key in ("add", "remove"):
            if not {str(bound.TYPES[name].type_id) for name in wanted} <= set(frame[key]):
                return False
        elif key == "types":
            declared = {int(row["typeId"]) for row in frame["types"] if row["wireId"]}
            if not {bound.TYPES[name].type_id for name in wanted} <= declared:
                return False
        elif frame.get(key) != wanted:
            return False
    return True


def _compare(vector: Vector, consumer: Consumer) -> None:
    facts = vector.facts
    wanted = list(facts["expect"])
    got = [*consumer.facts]
    sent = [frame for frame in consumer.frames if frame["sent"] in EXACT]
    if vector.folder == "refusals":
        (closed,) = [fact["closed"] for fact in got if "closed" in fact] or [None]
        assert closed is not None or "" in facts["goodbye"], (
            f"not refused, wanted goodbye {facts['goodbye']}; saw {str(got)[:300]}"
        )
    if vector.folder == "refusals" and closed is not None:
        assert closed["code"] in facts["goodbye"], f"{closed}, wanted {facts['goodbye']}"
        assert closed["by_peer"] is False
        last = consumer.frames[-1]
        same({"sent": last["sent"], "code": last.get("code")}, {"sent": "goodbye", "code": closed["code"]})
        assert consumer.session.send_finished
        wanted += [{"closed": closed}, {"sent": "goodbye", "code": closed["code"]}]
    kinds: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [
        (kind, lambda fact, kind=kind: kind in fact and "sent" not in fact)  # type: ignore[misc]
        for kind in ("up", "event", "request", "answered", "failed", "lost", "closed")
    ]
    for kind, is_one in kinds:
        want = [fact[kind] for fact in wanted if is_one(fact)]
        have = [fact[kind] for fact in got if is_one(fact)]
        assert len(have) == len(want), f"{kind}: {len(have)}, wanted {len(want)}: {str(have)[:300]}"
        for one, other in zip(have, want, strict=True):
            _same_fact(kind, one, other)
    for kind in EXACT:
        want = [fact for fact in wanted if fact.get("sent") == kind]
        have = [frame for frame in sent if frame["sent"] == kind]
        assert len(have) == len(want), f"sent {kind}: {len(have)}, wanted {len(want)}: {str(have)[:300]}"
        for one, other in zip(have, want, strict=True):
            same({key: one.get(key) for key in other}, other, f"sent {kind}")
    counters = consumer.session.snapshot()
    for name, number in facts.get("counters", {}).items():
        assert getattr(counters, name) == number, f"{name}: {getattr(counters, name)}, wanted {number}"


def _same_fact(kind: str, got: Any, wanted: Any) -> None:
    if isinstance(wanted, dict) and wanted.get("unreadable"):
        assert got["type"] == wanted["type"]
        return
    if kind == "closed" and wanted["code"] is None:
        got = {**got, "code": None}
    if kind == "failed":
        if isinstance(wanted["code"], int) and got["code"] == "handlerRaised":
            got = {**got, "code": wanted["code"]}
        got = {key: got.get(key) for key in wanted}
    same(got, wanted, kind)


def run(vector: Vector) -> None:
    """Run any vector, scripts in one piece and in many.

    Raises:
        AssertionError: it is not met.
    """
    if vector.folder == "messages":
        run_message(vector)
    elif vector.folder == "values":
        run_value(vector)
    elif vector.folder == "frames":
        run_frame(vector)
    elif not can_run(vector):
        raise AssertionError(f"needs {vector.facts['needs']}")
    else:
        run_script(vector)
        run_script(vector, in_pieces=True)


def can_run(vector: Vector) -> bool:
    """False for what a session alone cannot show."""
    return not vector.facts.get("needs")


__all__ = ["Consumer", "LahjaError", "can_run", "complete", "run", "run_script"]

"""Runs vectors through lahja_capn's own session and binding.

A vector that is not met raises AssertionError with what was wanted and what came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import bound
from .consumer import Consumer
from .loading import Vector
from .reading import KINDS, run_frame, run_message, run_value, same

# Frames of these kinds are compared one by one; the others an implementation sends as it likes.
EXACT = (*KINDS, "failed", "goodbye")
# Where bytes arrive in pieces: one by one, or so many if there are many.
_PIECE = 4093


def run_script(vector: Vector, in_pieces: bool = False) -> Consumer:
    """Run a conversation or a refusal."""
    facts = vector.facts
    consumer = Consumer(facts["role"], facts.get("setup", {}))
    piece = 1 << 40
    if in_pieces:
        piece = 1 if len(vector.data) <= 10_000 else _PIECE
    taken: set[int] = set()
    at = 0
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
            _find(consumer, step["await"], taken, where)
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


def _find(consumer: Consumer, match: dict[str, Any], taken: set[int], where: str) -> None:
    for i in range(len(consumer.frames)):
        if i not in taken and _matches(consumer.frames[: i + 1], match):
            if match["sent"] != "credit":
                taken.add(i)
            return
    free = [frame["sent"] for i, frame in enumerate(consumer.frames) if i not in taken]
    raise AssertionError(f"{where}: not sent. Sent, and not awaited yet: {free}; {consumer.facts[-1:]}")


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

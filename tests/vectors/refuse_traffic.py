"""Refusals of docs/wire.md sections 5, 7, 8 and 9: control messages, credit, requests."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from . import peer, writing
from .peer import Script, control, hello, hello_value, refuse, subscriptions
from .plans import plan_of, wire
from .store import Store
from .talk_flow import CORRELATION_AT, ask, credit, failed
from .talk_types import count, unknown_content, unknown_row
from .writing import Builder, Raw, Where, frame

Write = Callable[[Builder, Where], None]


def add(store: Store) -> None:
    _variants(store)
    _unreadable(store)
    _amplified(store)
    _acks(store)
    _credit(store)
    _requests(store)


def _variants(store: Store) -> None:
    for number in (10, 11, 255, 256, 65535):
        data = frame(0, 0, 0, (struct.pack("<QQQ", 1 << 32 | 1 << 48, number, 0),))
        note = f"variant {number} of Control"
        rule = "5: a variant that the receiver does not know"
        refuse(store, f"variant-{number}", rule, note, Script().come_up().send(data), "unknownControl")
        if number == 10:
            script = Script().send(data).count("hello", 0)
            refuse(
                store, "variant-opening", rule, f"{note}, first", script, "unknownControl", "protocolError"
            )
            script = Script().send(hello(), data, subscriptions())
            refuse(
                store,
                "variant-introduced",
                rule,
                f"{note}, in the handshake",
                script,
                "unknownControl",
                "protocolError",
            )


# --- what cannot be read ------------------------------------------------------------------------------------


def _word(value: int) -> Write:
    return lambda builder, at: builder.put(at, value)


def _far_cycle(builder: Builder, at: Where) -> None:
    pad = builder.alloc(at.segment, 1)
    builder.put(pad, writing.far(pad))
    builder.put(at, writing.far(pad))


def _double_far_cycle(builder: Builder, at: Where) -> None:
    pad = builder.alloc(at.segment, 2)
    builder.put(pad, writing.far(pad, double=True))
    builder.put(pad + 1, writing.far(pad, double=True))
    builder.put(at, writing.far(pad, double=True))


def _bytes(data: bytes) -> Write:
    return lambda builder, at: builder.bytes(at, data)


POINTERS: dict[str, tuple[str, Write]] = {
    "outside": ("leads behind the segment's end", _word(0 | 100_000 << 2 | 1 << 32 | 1 << 48)),
    "before": ("leads before the segment's start", _word((-9999 & writing.MASK_30) << 2 | 1 << 32)),
    "far-nowhere": ("leads to segment 77 of one", _word(2 | 77 << 32)),
    "far-outside": ("leads behind its segment", _word(2 | 99_999 << 3)),
    "far-cycle": ("is a far pointer whose landing pad leads to itself", _far_cycle),
    "double-far-cycle": ("is a double far pointer that leads to itself", _double_far_cycle),
    "list": ("is a list's where a struct's should be", _word(1 | 2 << 32)),
    "capability": ("is a capability's", _word(3)),
}


def _unreadable(store: Store) -> None:
    rule = "2, 5: a control message that cannot be read"
    for name, (note, write) in POINTERS.items():
        script = Script().come_up().send(control(subscriptions=Raw({}, write)))
        note = f"the pointer to the variant's struct {note}"
        refuse(store, f"unreadable-struct-{name}", rule, note, script, "protocolError")
        if name == "list":
            continue
        builder = Builder()
        write(builder, Where(0, 0))
        script = Script().send(frame(0, 0, 0, builder.segments)).count("hello", 0)
        refuse(
            store, f"unreadable-root-{name}", rule, "of the root; the first frame", script, "protocolError"
        )

    texts = {
        "not-utf-8": ("is not UTF-8", _bytes(b"\xff\xfe\0")),
        "overlong": ("has an overlong form", _bytes(b"\xc0\xaf\0")),
        "surrogate": ("has a surrogate", _bytes(b"\xed\xa0\x80\0")),
        "cut": ("ends inside a character", _bytes(b"a\xe2\x82\0")),
        "without-nul": ("lacks its final NUL", _bytes(b"no end!!")),
        "struct": ("is a struct", _word(0 | 1 << 32)),
        "numbers": ("is a list of UInt64", _list_of_numbers),
        "outside": ("lies outside", _word(1 | 99_999 << 2 | 2 << 32 | 4 << 35)),
        "far-cycle": ("is a far pointer that leads to itself", _far_cycle),
    }
    for name, (note, write) in texts.items():
        text = Raw("", write)
        value = hello_value("Count", implementation=text)
        script = Script().send(control(hello=value), subscriptions()).count("hello", 0)
        refuse(
            store, f"unreadable-hello-text-{name}", rule, f"`implementation` {note}", script, "protocolError"
        )
        value = hello_value("Count", name=text)
        script = Script().send(control(hello=value), subscriptions()).count("hello", 0)
        refuse(store, f"unreadable-hello-name-{name}", rule, f"`name` {note}", script, "protocolError")
        row = {**unknown_row(), "name": text}
        script = Script().come_up().send(control(declare={"types": [row]}))
        refuse(
            store, f"unreadable-row-text-{name}", rule, f"the name of a row {note}", script, "protocolError"
        )
        # A text that a receiver may have no use for.
        script = _asked().send(*_failed_with(text))
        refuse(
            store,
            f"unreadable-failed-text-{name}",
            rule,
            f"`text` of failed {note}",
            script,
            "protocolError",
            "unknownCorrelation",
        )

    lists: dict[str, tuple[str, Write]] = {
        "struct": ("is a struct", _word(0 | 1 << 32)),
        "outside": ("goes on behind the segment's end", _word(1 | 0 << 2 | 5 << 32 | 1_000_000 << 35)),
        "longest": ("has 2^29 - 1 elements that are not there", _word(1 | 5 << 32 | (2**29 - 1) << 35)),
        "composite-outside": (
            "is one of structs, behind the end",
            _word(1 | 0 << 2 | 7 << 32 | 99_999 << 35),
        ),
        "lying-tag": ("has a tag that says more elements than words", _lying_tag),
        "far-cycle": ("is a far pointer that leads to itself", _far_cycle),
        "bits": ("is a list of bits", _bits),
    }
    for name, (note, write) in lists.items():
        script = Script().come_up().send(subscriptions(sequence=2, add=Raw([], write)))
        refuse(store, f"unreadable-ids-{name}", rule, f"`add` {note}", script, "protocolError")
        script = Script().come_up().send(control(declare={"types": Raw([], write)}))
        refuse(store, f"unreadable-rows-{name}", rule, f"`types` {note}", script, "protocolError")
        row = {**unknown_row(), "layout": Raw([], write)}
        script = Script().come_up().send(control(declare={"types": [row]}))
        refuse(
            store, f"unreadable-layout-{name}", rule, f"the layout of a row {note}", script, "protocolError"
        )
        value = hello_value("Count", features=Raw([], write))
        script = Script().send(control(hello=value), subscriptions()).count("hello", 0)
        refuse(store, f"unreadable-features-{name}", rule, f"`features` {note}", script, "protocolError")
    data = control(hello=hello_value("Count", instance=Raw("", _word(1 | 99 << 2 | 2 << 32 | 16 << 35))))
    script = Script().send(data, subscriptions()).count("hello", 0)
    refuse(store, "unreadable-instance", rule, "`instance` lies outside", script, "protocolError")


def _list_of_numbers(builder: Builder, at: Where) -> None:
    builder.point(at, builder.alloc(at.segment, 2), 1, 5 | 2 << 3)


def _bits(builder: Builder, at: Where) -> None:
    builder.point(at, builder.alloc(at.segment, 1), 1, 1 | 64 << 3)


def _lying_tag(builder: Builder, at: Where) -> None:
    to = builder.alloc(at.segment, 3)
    builder.put(to, 1000 << 2 | 1 << 32 | 1 << 48)
    builder.point(at, to, 1, writing.COMPOSITE | 2 << 3)


def _asked() -> Script:
    script = Script().come_up("Ask", "Answer", wants=("Ask",))
    script.do("request", type="Ask", value={"number": "1"}, tag="a").sent("request")
    return script.expect(lost={"tag": "a"})


def _failed_with(text: Any) -> tuple[bytes]:
    return (control(failed={"correlation": "1", "code": "handlerRaised", "text": text}),)


# --- more than there is -------------------------------------------------------------------------------------


def _amplified(store: Store) -> None:
    rule = "2: parts of a control message must not overlap, nor lists have elements without words"

    def voids(elements: int) -> Write:
        return lambda builder, at: builder.point(at, builder.alloc(at.segment, 0), 1, 0 | elements << 3)

    def wordless(elements: int) -> Write:
        def write(builder: Builder, at: Where) -> None:
            to = builder.alloc(at.segment, 1)
            builder.put(to, elements << 2)
            builder.point(at, to, 1, writing.COMPOSITE)

        return write

    most = 2**29 - 1
    for name, form in (("voids", voids), ("wordless-structs", wordless)):
        note = f"{most} elements in no bytes"
        script = Script().come_up().send(subscriptions(sequence=2, add=Raw([], form(most))))
        # Read as ids they are all 0, which was never declared.
        refuse(store, f"amplified-ids-{name}", rule, f"`add`: {note}", script, "protocolError", "unknownId")
        script = Script().come_up().send(control(declare={"types": Raw([], form(most))}))
        refuse(
            store, f"amplified-rows-{name}", rule, f"`types`: {note}", script, "protocolError", "invalidTable"
        )
        row = {**unknown_row(), "layout": Raw([], form(most))}
        script = Script().come_up().send(control(declare={"types": [row]}))
        refuse(
            store,
            f"amplified-layout-{name}",
            rule,
            f"a layout: {note}",
            script,
            "protocolError",
            "invalidTable",
        )
        value = hello_value("Count", features=Raw([], form(most)))
        script = Script().send(control(hello=value), subscriptions()).count("hello", 0)
        refuse(store, f"amplified-features-{name}", rule, f"`features`: {note}", script, "protocolError")
        script = Script().come_up().send(control(dropped={"counts": Raw([], form(most))}))
        refuse(store, f"amplified-dropped-{name}", rule, f"`counts`: {note}", script, "protocolError", "")
        script = Script().come_up().send(subscriptions(sequence=2, remove=Raw([], form(most))))
        refuse(store, f"amplified-remove-{name}", rule, f"`remove`: {note}", script, "protocolError", "")

    def shared_rows(builder: Builder, at: Where) -> None:
        """500 rows that share one layout of 20,000 elements: 40 MB in 100 kB."""
        plan = plan_of(wire.TypeRow)
        size = plan.data_words + plan.pointers
        rows = [{"typeId": str(5000 + i), "wireId": 0} for i in range(500)]
        builder.composite(at, plan, rows)
        first = Where(at.segment, len(builder.parts[at.segment]) // 8 - 500 * size)
        layout = builder.alloc(at.segment, 10_000)
        for i in range(500):
            pointer = first + (i * size + plan.data_words + plan.fields["layout"].offset)
            builder.point(pointer, layout, 1, 4 | 20_000 << 3)

    script = Script().come_up().send(control(declare={"types": Raw([], shared_rows)}))
    script.period = 8
    note = "500 rows that share one layout: 40 MB in 100 kB"
    refuse(store, "amplified-shared-layout", rule, note, script, "protocolError", "invalidTable")

    def shared_text(builder: Builder, at: Where) -> None:
        to = builder.alloc(at.segment, 200)
        builder.point(at, to, 1, writing.POINTER | 200 << 3)
        text = builder.alloc(at.segment, 125)
        builder.put_bytes(text, b"x" * 999)
        for i in range(200):
            builder.point(to + i, text, 1, writing.BYTE | 1000 << 3)

    value = hello_value("Count", features=Raw([], shared_text))
    script = Script().send(control(hello=value), subscriptions())
    refuse(
        store,
        "amplified-shared-features",
        rule,
        "200 features that are the same bytes",
        script,
        "protocolError",
        "",
    )


# --- acknowledgements ---------------------------------------------------------------------------------------


def _acks(store: Store) -> None:
    rule = "5: subscriptionsAck names 1 to the highest sequence sent, and does not decrease"
    ack = control(subscriptionsAck={"sequence": "0"})
    refuse(store, "ack-0", rule, "sequence 0", Script().come_up().send(ack), "protocolError")
    for ahead in (1, 1000):
        script = Script().come_up().send(ack, patch=[{"at": _at(ack), "sequence": "last", "plus": ahead}])
        refuse(store, f"ack-ahead-{ahead}", rule, f"{ahead} above the last", script, "protocolError")
    script = Script().come_up().do("subscribe", types=["Count"]).sent("subscriptions", add=["Count"])
    one = control(subscriptionsAck={"sequence": "1"})
    script.send(ack, one, patch=[{"at": _at(ack), "sequence": "last"}])
    refuse(store, "ack-decreasing", rule, "the last, then 1", script, "protocolError")


def _at(ack: bytes) -> int:
    """Where the sequence stands: found by what differs in another one."""
    other = control(subscriptionsAck={"sequence": str(2**64 - 1)})
    return next(i for i in range(len(ack)) if ack[i] != other[i])


# --- credit -------------------------------------------------------------------------------------------------


def _credit(store: Store) -> None:
    rule = "8: a frame that arrives while the balance is 0 or below"
    script = (
        Script(subscribe=["Count"], event_credit=100).come_up("Count").do("hold").send(*count(1, 2, 3, 4))
    )
    note = "window 100, frames of 40: the fourth finds -20"
    refuse(store, "credit-exceeded-events", rule, note, script, "creditExceeded")
    script = Script(subscribe=["Count"], event_credit=80).come_up("Count").do("hold").send(*count(1, 2, 3))
    refuse(
        store,
        "credit-exceeded-at-0",
        rule,
        "window 80, frames of 40: the third finds 0",
        script,
        "creditExceeded",
    )
    script = Script(subscribe=["Count"], event_credit=0).come_up("Count").send(*count(1))
    refuse(store, "credit-exceeded-window-0", rule, "a window of 0", script, "creditExceeded")
    script = Script(subscribe=["Count"], request_credit=0, event_credit=100).come_up("Count", "Ask")
    refuse(
        store,
        "credit-exceeded-request-window-0",
        rule,
        "a window of 0 for requests",
        script.send(ask(1)),
        "creditExceeded",
    )
    size = len(ask(1))
    script = Script(subscribe=["Ask"], request_credit=2 * size).come_up("Ask", "Answer").do("hold")
    note = f"window {2 * size}, requests of {size}"
    refuse(
        store, "credit-exceeded-requests", rule, note, script.send(ask(1), ask(2), ask(3)), "creditExceeded"
    )
    blob = peer.event("Blob", {"id": 1, "data": "00" * 500})
    script = Script(subscribe=["Blob"], event_credit=100).come_up("Blob").do("hold").send(blob, blob)
    note = "a frame larger than the window, and one more"
    refuse(store, "credit-exceeded-large", rule, note, script, "creditExceeded")
    script = Script(all=True, event_credit=0).come_up(types=[unknown_row()]).send(unknown_content())
    refuse(
        store,
        "credit-exceeded-unknown-type",
        rule,
        "also for what would be skipped",
        script,
        "creditExceeded",
    )

    rule = "8: a balance must not exceed 2^63 - 1"
    for name, given in (("events", {"events": 2**63 - 1}), ("requests", {"requests": 2**63 - 1})):
        script = Script().come_up().send(credit(**given))
        note = "2^20 and 2^63 - 1"
        refuse(store, f"credit-overflow-{name}", rule, note, script, "protocolError")
    for name, size in (("2-63", 2**63), ("highest", 2**64 - 1)):
        script = Script().come_up(eventCredit="0").send(credit(events=size))
        refuse(store, f"credit-overflow-{name}", rule, f"{size} at once", script, "protocolError")
    half = credit(events=2**62)
    script = Script().come_up(eventCredit="0").send(half, half)
    refuse(store, "credit-overflow-in-steps", rule, "2^62, twice", script, "protocolError")
    script = Script().come_up(eventCredit=str(2**63 - 1)).send(credit(events=1))
    refuse(store, "credit-overflow-by-1", rule, "2^63 - 1 in hello, and 1", script, "protocolError")


# --- requests -----------------------------------------------------------------------------------------------


def _requests(store: Store) -> None:
    rule = "9: numbers strictly increase"
    for name, numbers in (
        ("equal", (5, 5)),
        ("lower", (5, 4)),
        ("back-to-1", (2**64 - 1, 1)),
        ("signed", (2**63, 5)),
    ):
        script = (
            Script(subscribe=["Ask"])
            .come_up("Ask", "Answer")
            .send(*(ask(n) for n in numbers), *count_of_ask())
        )
        script.expect(request={"number": str(numbers[0]), **peer.full("Ask", {"mode": "answer"})})
        note = f"{numbers[1]} after {numbers[0]}"
        refuse(store, f"request-numbers-{name}", rule, note, script, "protocolError")
    script = (
        Script()
        .come_up("Ask", "Answer")
        .send(ask(3))
        .sent("failed", correlation="3", code="noHandler")
        .send(ask(3))
    )
    refuse(
        store,
        "request-numbers-refused-before",
        rule,
        "the first was answered `failed`",
        script,
        "protocolError",
    )

    rule = "9: an answer to a number above the highest request sent, or 0"
    answer = peer.response(1, {"number": "2"})
    script = Script().come_up("Ask", "Answer", wants=("Ask",)).send(answer)
    refuse(store, "answer-before-any-request", rule, "no request was sent", script, "unknownCorrelation")
    for plus in (1, 1000):
        script = _asked().send(answer, patch=[{"at": CORRELATION_AT, "request": 1, "plus": plus}])
        refuse(store, f"answer-ahead-{plus}", rule, f"{plus} above", script, "unknownCorrelation")
    data, at = failed("handlerRaised")
    script = _asked().send(data, patch=[{"at": at, "request": 1, "plus": 1}])
    refuse(store, "failed-ahead", rule, "`failed`, 1 above", script, "unknownCorrelation")
    zero = control(failed={"code": "handlerRaised"})
    refuse(store, "failed-0", rule, "`failed` to number 0", _asked().send(zero), "unknownCorrelation")
    script = Script().come_up("Ask", "Answer", wants=("Ask",), requestCredit="0")
    script.do("request", type="Ask", value={}, tag="a").send(answer).expect(lost={"tag": "a"})
    note = "an answer to a request that is queued and was not sent"
    refuse(store, "answer-to-queued", rule, note, script, "unknownCorrelation")
    highest = peer.response(2**64 - 1, {"number": "2"})
    refuse(store, "answer-highest", rule, "2^64 - 1", _asked().send(highest), "unknownCorrelation")


def count_of_ask() -> list[bytes]:
    """A request after the fault, which must not be shown."""
    return [ask(2**64 - 1, 99)]

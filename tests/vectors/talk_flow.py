"""Conversations about credit and requests."""

from __future__ import annotations

from typing import Any

from . import peer
from .peer import Script, control, talk
from .store import Store
from .talk_basics import see_counts
from .talk_types import broadcasts, changed, count, unknown_content, unknown_row

# Where the number stands in the header of a request or response.
CORRELATION_AT = 8
_MARK = 0x1122334455667788


def add(store: Store) -> None:
    _credit_granted(store)
    _credit_obeyed(store)
    _served(store)
    _refused(store)
    _asked(store)


def credit(**given: int) -> bytes:
    return control(credit={name: str(size) for name, size in given.items()})


def ask(number: int, asked: int = 0, mode: str = "answer") -> bytes:
    return peer.request(number, {"number": str(asked), "mode": mode})


# --- credit -------------------------------------------------------------------------------------------------


def _credit_granted(store: Store) -> None:
    size = len(count(0)[0])
    assert size == 40
    script = Script(subscribe=["Count"], event_credit=400).come_up("Count")
    sent = 0
    for _ in range(10):
        # What came back before leaves less than half of the window outstanding: five more may go at once.
        script.send(*count(*range(sent, sent + 5)))
        sent += 5
        # At most what is below half of the window may be held back.
        script.sent("credit", events=str(sent * size - 199))
    see_counts(script, *range(sent))
    talk(
        store,
        "credit-returned",
        "more events than the window holds; each round waits for its credit",
        script.ends(),
    )

    script = Script(subscribe=["Count"], event_credit=100).come_up("Count").do("hold")
    script.send(*count(1, 2, 3)).still_there().count("credit", 0).do("resume").sent(
        "credit", events=str(3 * size - 49)
    )
    script.send(*count(4))
    talk(
        store,
        "credit-held",
        "no credit comes back for events that nobody took; the stream is read all the same",
        see_counts(script, 1, 2, 3, 4).ends(),
    )

    script = Script(subscribe=["Blob"], event_credit=100).come_up("Blob")
    value = {"id": 1, "data": "ab" * 1000}
    for _ in range(2):
        script.send(peer.event("Blob", value)).sees("Blob", value).sent("credit", events="1000")
    talk(
        store,
        "credit-larger-than-window",
        "a frame larger than the window passes while there is credit",
        script.ends(),
    )

    script = Script(event_credit=100).come_up("Count", types=[*peer.rows("Count"), unknown_row()])
    returned = 0
    for _ in range(4):
        script.send(*count(1), unknown_content())
        returned += 2 * size
        script.sent("credit", events=str(returned - 49))
    talk(
        store,
        "credit-of-skipped",
        "what is skipped gives its credit back at once",
        script.ends({"skipped": 8}),
    )

    script = Script(subscribe=["Count"], event_credit="unlimited").come_up("Count").do("hold")
    script.send(*count(*range(200))).still_there().do("resume").still_there().count("credit", 0)
    talk(
        store,
        "credit-unlimited-here",
        "an unlimited window is never charged and never filled",
        see_counts(script, *range(200)).ends(),
    )

    script = Script(subscribe=["Ask"], request_credit=100).come_up("Ask", "Answer")
    size = len(ask(1))
    numbers = []
    for i in range(4):
        first = len(numbers) + 1
        script.send(ask(first, mode="silence"), ask(first + 1, mode="silence"))
        numbers += [first, first + 1]
        script.sent("credit", requests=str(2 * size * (i + 1) - 49))
    for number in numbers:
        script.expect(request={"number": str(number), **peer.full("Ask", {"number": "0", "mode": "silence"})})
    talk(
        store,
        "credit-of-requests",
        "a request's credit comes back when its handler has started, answered or not",
        script.ends(),
    )

    script = Script(request_credit=100).come_up("Ask", "Answer")
    for number in range(1, 9):
        script.send(ask(number)).sent("failed", correlation=str(number), code="noHandler")
        if number % 2 == 0:
            script.sent("credit", requests=str(number * size - 49))
    talk(
        store,
        "credit-of-refused-requests",
        "of requests that are answered `failed` by the session itself",
        script.ends(),
    )


def _credit_obeyed(store: Store) -> None:
    script = Script().come_up("Count", wants=("Count",), eventCredit="1")
    for number in range(4):
        script.do("broadcast", type="Count", value={"number": str(number)})
    script.sent("event", **peer.full("Count", {"number": "0"})).still_there().count("event", 1)
    script.send(credit(events=1)).still_there().count("event", 1).send(credit(events=100_000))
    for number in range(1, 4):
        script.sent("event", **peer.full("Count", {"number": str(number)}))
    talk(
        store,
        "credit-obeyed",
        "the balance may go below 0 by one frame; then the sender waits, and nothing is lost",
        script.ends(),
    )

    script = Script(subscribe=["Ask"], serve=True).come_up(
        "Count", "Ask", "Answer", wants=("Count", "Ask"), eventCredit="0", requestCredit="0"
    )
    script.do("broadcast", type="Count", value={"number": "1"})
    script.do("request", type="Ask", value={"number": "7"}, tag="a")
    script.send(ask(1, 4), ask(2, 4, "fail")).sent(
        "response", correlation="1", **peer.full("Answer", {"number": "8", "text": "twice 4"})
    )
    script.sent("failed", correlation="2", code="handlerRaised").still_there().count("event", 0).count(
        "request", 0
    )
    for number, mode in ((1, "answer"), (2, "fail")):
        script.expect(request={"number": str(number), **peer.full("Ask", {"number": "4", "mode": mode})})
    script.send(credit(requests=1000)).sent("request", **peer.full("Ask", {"number": "7"})).count("event", 0)
    script.send(credit(events=1000)).sent("event", **peer.full("Count", {"number": "1"}))
    script.expect(lost={"tag": "a"})
    talk(
        store,
        "credit-windows-of-0",
        "nothing before the first credit; answers and control messages need none; the windows are apart",
        script.ends(),
    )

    unlimited = str(peer.UNLIMITED)
    script = Script().come_up("Count", wants=("Count",), eventCredit=unlimited, requestCredit=unlimited)
    script.send(credit(events=2**63 - 1, requests=2**63 - 1) * 3, credit(events=2**64 - 1)).still_there()
    for number in range(10):
        broadcasts(script, "Count", {"number": str(number)})
    talk(
        store,
        "credit-unlimited-there",
        "what `credit` says about an unlimited window is ignored",
        script.ends(),
    )

    script = Script().come_up("Count", wants=("Count",), eventCredit="1")
    script.send(credit(events=2**63 - 2, requests=2**63 - 1 - (1 << 20))).still_there()
    broadcasts(script, "Count", {"number": "1"})
    talk(store, "credit-largest-balance", "balances of exactly 2^63 - 1", script.ends())

    script = Script().come_up("Count", wants=("Count",), eventCredit="1").send(control(credit={}))
    broadcasts(script, "Count", {"number": "1"})
    talk(store, "credit-of-nothing", "a credit of 0 and 0", script.ends())

    script = Script().come_up("Blob", "Count", wants=("Blob", "Count"), frameLimit=1024)
    script.do("broadcast", type="Blob", value={"id": 1, "data": "00" * 1100})
    broadcasts(script, "Count", {"number": "1"})
    broadcasts(script, "Blob", {"id": 2, "data": "11" * 800})
    talk(
        store,
        "frame-limit-obeyed",
        "an event over the peer's frameLimit is not sent; the next one is",
        script.still_there().ends(),
    )


# --- requests to the consumer -------------------------------------------------------------------------------


def _served(store: Store) -> None:
    for role in ("acceptor", "connector"):
        script = Script(role, subscribe=["Ask"], serve=True).come_up("Ask", "Answer")
        for number, asked, mode in (
            (1, 21, "answer"),
            (2, 2**63 + 1, "answer"),
            (50, 3, "fail"),
            (51, 4, "silence"),
            (2**64 - 1, 5, "answer"),
        ):
            script.send(ask(number, asked, mode))
            script.expect(
                request={"number": str(number), **peer.full("Ask", {"number": str(asked), "mode": mode})}
            )
            if mode == "answer":
                value = {"number": str(asked * 2 % 2**64), "text": f"twice {asked}"}
                script.sent("response", correlation=str(number), **peer.full("Answer", value))
            elif mode == "fail":
                script.sent(
                    "failed",
                    correlation=str(number),
                    code="handlerRaised",
                    typeName="ValueError",
                    text="asked to fail",
                )
        talk(
            store,
            f"requests-{role}",
            "answered, failed, kept open; numbers with gaps, up to the highest",
            script.ends(),
        )

    script = Script(subscribe=["Ask"], serve=True).come_up("Ask", "Answer")
    script.send(peer.event("Ask", {"number": "1"})).sees("Ask", {"number": "1"}).still_there()
    talk(
        store,
        "request-type-as-event",
        "a request type may be sent as an event, and is not answered then",
        script.ends(),
    )

    rows = changed(peer.rows("Ask", "Answer"), "Answer")
    script = Script(subscribe=["Ask"], serve=True).come_up(types=rows).send(ask(1, 1))
    script.expect(request={"number": "1", **peer.full("Ask", {"number": "1"})})
    script.sent("failed", correlation="1", code="incompatibleType")
    talk(store, "response-incompatible-here", "instead of a response of a disabled type", script.ends())

    script = Script(subscribe=["Ask"], serve=True).come_up("Ask").send(ask(1, 1))
    script.expect(request={"number": "1", **peer.full("Ask", {"number": "1"})})
    script.sent("response", correlation="1", **peer.full("Answer", {"number": "2", "text": "twice 1"}))
    talk(
        store,
        "response-type-not-declared",
        "a requester that never declared the response's type is answered all the same",
        script.ends(),
    )


def _refused(store: Store) -> None:
    script = Script().come_up("Ask", "Answer").send(ask(1)).sent("failed", correlation="1", code="noHandler")
    talk(store, "request-no-handler", "nobody subscribes to it", script.ends())
    script = (
        Script(all=True)
        .come_up("Ask", "Answer")
        .send(ask(1))
        .sent("failed", correlation="1", code="noHandler")
    )
    talk(store, "request-no-handler-all", "`all` alone is no handler", script.ends())
    script = Script(subscribe=["Count"]).come_up("Count").send(peer.request(1, {"number": "1"}, "Count"))
    script.sent("failed", correlation="1", code="noHandler")
    talk(store, "request-of-event-type", "a type that is not meant for requests here", script.ends())
    script = Script(subscribe=["Ask"]).come_up(types=[unknown_row()]).send(unknown_content(1, 1))
    script.sent("failed", correlation="1", code="unknownType")
    talk(store, "request-unknown-type", "a type that is not known here", script.ends())
    rows = changed(peer.rows("Ask", "Answer"), "Ask", ordinal=1)
    script = (
        Script(subscribe=["Ask"])
        .come_up(types=rows)
        .send(ask(1))
        .sent("failed", correlation="1", code="incompatibleType")
    )
    talk(store, "request-incompatible", "a disabled type", script.ends())
    script = Script(subscribe=["Ask"]).come_up("Ask", "Answer").do("unsubscribe", types=["Ask"])
    script.sent("subscriptions", remove=["Ask"]).send(ask(1)).sent(
        "failed", correlation="1", code="noHandler"
    )
    talk(store, "request-after-unsubscribe", "a request that crossed the unsubscription", script.ends())
    rows = changed(peer.rows("Ask", "Answer"), "Ask", ordinal=1)
    script = Script().come_up(types=rows).send(ask(1))
    script.sent("failed", correlation="1", code="incompatibleType")
    note = "a disabled type that nobody subscribes to: the first reason counts"
    talk(store, "request-incompatible-no-handler", note, script.ends())
    rows = [{**peer.rows("Count")[0], "layout": [1]}]
    script = Script(subscribe=["Count"]).come_up(types=rows).send(peer.request(1, {"number": "1"}, "Count"))
    script.sent("failed", correlation="1", code="incompatibleType")
    note = "a disabled type that is not meant for requests: the first reason counts"
    talk(store, "request-incompatible-event-type", note, script.ends())


# --- requests of the consumer -------------------------------------------------------------------------------


def _ask(script: Script, tag: str, number: int = 1) -> Script:
    value = {"number": str(number)}
    script.do("request", type="Ask", value=value, tag=tag)
    return script.sent("request", **peer.full("Ask", value))


def failed(code: Any, **more: Any) -> tuple[bytes, int]:
    """Return a `failed`, and where its correlation stands in it."""
    data = control(failed={"correlation": str(_MARK), "code": code, **more})
    return data, data.index(_MARK.to_bytes(8, "little"))


def _asked(store: Store) -> None:
    answer = peer.response(_MARK, {"number": "2", "text": "twice 1"})
    answered = peer.full("Answer", {"number": "2", "text": "twice 1"})
    first = [{"at": CORRELATION_AT, "request": 1}]
    for role in ("acceptor", "connector"):
        script = _ask(Script(role).come_up("Ask", "Answer", wants=("Ask",)), "a").send(answer, patch=first)
        script.expect(answered={"tag": "a", **answered})
        data, at = failed("handlerRaised", typeName="KeyError", text="důvod")
        _ask(script, "b", 2).send(data, patch=[{"at": at, "request": 2}])
        script.expect(failed={"tag": "b", "code": "handlerRaised", "typeName": "KeyError", "text": "důvod"})
        talk(store, f"asked-{role}", "a response, then `failed`", script.ends({"late": 0}))

    script = Script().come_up("Ask", "Answer", wants=("Ask",))
    _ask(_ask(_ask(script, "a", 1), "b", 2), "c", 3)
    script.send(answer, patch=[{"at": CORRELATION_AT, "request": 3}]).send(answer, patch=first)
    script.expect(answered={"tag": "c", **answered}).expect(answered={"tag": "a", **answered}).expect(
        lost={"tag": "b"}
    )
    talk(
        store,
        "asked-out-of-order",
        "answers in another order; one request is open when the connection ends",
        script.ends(),
    )

    script = Script().come_up("Ask", "Answer", wants=("Ask",))
    for i, code in enumerate(
        ("noHandler", "unknownType", "incompatibleType", "unreadable", "overloaded", 99), 1
    ):
        data, at = failed(code)
        _ask(script, str(i), i).send(data, patch=[{"at": at, "request": i}])
        script.expect(failed={"tag": str(i), "code": code})
    talk(store, "asked-every-code", "every code of `failed`, and one of a later version", script.ends())

    script = _ask(Script().come_up("Ask", "Answer", wants=("Ask",)), "a").do("forget", tag="a")
    data, at = failed("handlerRaised")
    script.send(answer, data, patch=[*first, {"at": len(answer) + at, "request": 1}]).still_there()
    talk(
        store,
        "asked-late",
        "answers to a request that was given up: late, counted, ignored",
        script.ends({"late": 2}),
    )

    script = _ask(Script().come_up("Ask", "Answer", wants=("Ask",)), "a")
    twice = [*first, {"at": len(answer) + CORRELATION_AT, "request": 1}]
    script.send(answer, answer, patch=twice).expect(answered={"tag": "a", **answered}).still_there()
    talk(
        store, "asked-answered-twice", "the first response wins, the second is late", script.ends({"late": 1})
    )

    long = {"typeName": "T" * 3000, "text": "x" * 40_000}
    data, at = failed("handlerRaised", **long)
    script = _ask(Script().come_up("Ask", "Answer", wants=("Ask",)), "a").send(
        data, patch=[{"at": at, "request": 1}]
    )
    script.expect(failed={"tag": "a", "code": "handlerRaised"})
    talk(
        store,
        "asked-long-texts",
        "texts of `failed` longer than their sender should make them",
        script.still_there().ends(),
    )

    script = Script(subscribe=["Count"]).come_up("Ask", "Answer", "Count", wants=("Ask",))
    unexpected = peer.response(_MARK, {"number": "1"}, "Count")
    _ask(script, "a").send(unexpected, patch=first).expect(failed={"tag": "a", "code": ""}).still_there()
    talk(
        store,
        "asked-other-type",
        "a response of another type fails the request; it is no event",
        script.ends(),
    )

    script = Script().come_up(types=[*peer.rows("Ask", "Answer"), unknown_row()], wants=("Ask",))
    _ask(script, "a").send(unknown_content(2, _MARK), patch=first).expect(
        failed={"tag": "a", "code": ""}
    ).still_there()
    talk(store, "asked-unknown-type", "a response of a type that is not known here", script.ends())

    script = Script().come_up(types=changed(peer.rows("Ask", "Answer"), "Answer"), wants=("Ask",))
    _ask(script, "a").send(answer, patch=first).expect(failed={"tag": "a", "code": "incompatibleType"})
    talk(
        store,
        "asked-incompatible",
        "a response of a disabled type is like `failed` incompatibleType",
        script.still_there().ends(),
    )

    script = Script().come_up("Ask", types=[*peer.rows("Ask")], wants=("Ask",))
    declare = control(declare={"types": peer.rows("Answer")})
    script = _ask(script, "a").send(
        declare, answer, patch=[{"at": len(declare) + CORRELATION_AT, "request": 1}]
    )
    talk(
        store,
        "asked-late-declare",
        "a response whose type is declared just before it",
        script.expect(answered={"tag": "a", **answered}).ends(),
    )

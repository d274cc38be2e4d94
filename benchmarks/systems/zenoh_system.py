"""zenoh's Python API and msgspec: peers that are connected directly, over Unix sockets, without discovery.

Congestion control is BLOCK: a publisher waits where zenoh would drop. Handlers are plain functions, called in zenoh's
own threads.
"""

from __future__ import annotations

import importlib.metadata
import json
import threading
import time
from queue import SimpleQueue
from typing import Any

import zenoh

from benchmarks.systems.msgspec_events import Answer, Ask, Large, Receiver, Small, decode, encode
from benchmarks.worker import Link
from benchmarks.workload import (
    REQUEST_BYTES,
    VALUES,
    Job,
    Sink,
    Stopwatch,
    bursts,
    large_payload,
    small_values,
)

REQUIREMENTS = ["eclipse-zenoh==1.*", "msgspec==0.22.*"]
KINDS = ["small", "large", "selective", "fan-in", "paced", "requests", "start", "connect"]

CONNECT_TIMEOUT_S = 20.0


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("eclipse-zenoh", "msgspec")}


def open_session(job: Job, listen: list[int], connect: list[int]) -> Any:
    config = zenoh.Config()
    for key, value in (
        ("mode", "peer"),
        ("listen/endpoints", [f"unixsock-stream/{job.path(f'consumer-{index}')}" for index in listen]),
        ("connect/endpoints", [f"unixsock-stream/{job.path(f'consumer-{index}')}" for index in connect]),
        ("scouting/multicast/enabled", False),
        ("scouting/gossip/enabled", False),
    ):
        config.insert_json5(key, json.dumps(value))
    return zenoh.open(config)


def wait_for(session: Any, count: int) -> None:
    """Wait until so many receivers have said that they are there, after they had subscribed."""
    give_up_at = time.monotonic() + CONNECT_TIMEOUT_S
    while sum(1 for reply in session.liveliness().get("here/*") if reply.ok is not None) < count:
        if time.monotonic() > give_up_at:
            raise SystemExit(f"not all of {count} receivers are there")
        time.sleep(0.001)


def consume(job: Job, link: Link) -> None:
    full = threading.Event()
    sink = Sink(job, full.set)
    take = Receiver(job, sink).take
    session = open_session(job, [job.index], [])
    subscriber = session.declare_subscriber("events", lambda sample: take(sample.payload.to_bytes()))
    token = session.liveliness().declare_token(f"here/{job.index}")
    link.ready()
    full.wait()
    link.report(sink.facts())
    link.wait_stop()
    del subscriber, token
    session.close()


def publish(job: Job, link: Link) -> None:
    link.connecting()
    session = open_session(job, [], list(range(job.consumers)))
    wait_for(session, job.consumers)
    publisher = session.declare_publisher("events", congestion_control=zenoh.CongestionControl.BLOCK)
    link.go()
    first = send(publisher, job)
    link.report({"first": first})
    link.wait_stop()
    session.close()


def send(publisher: Any, job: Job) -> float:
    if job.is_large:
        payload = large_payload(job)
        first = time.monotonic()
        for number in job.numbers:
            publisher.put(encode(Large(number, payload)))
        return first
    values = small_values(job)
    first = time.monotonic()
    if job.kind == "paced":
        for due, numbers in bursts(job):
            if (left := due - time.monotonic()) > 0:
                time.sleep(left)
            for number in numbers:
                publisher.put(encode(Small(number, due, *values[number % VALUES][1:])))
    else:
        for number in job.numbers:
            publisher.put(encode(Small(number, *values[number % VALUES])))
    return first


def respond(job: Job, link: Link) -> None:
    session = open_session(job, [0], [])

    def answer(query: Any) -> None:
        with query:
            asked = decode(query.payload.to_bytes())
            query.reply("ask", encode(Answer(asked.number, asked.payload)))

    queryable = session.declare_queryable("ask", answer)
    token = session.liveliness().declare_token("here/0")
    link.ready()
    link.wait_stop()
    del queryable, token
    session.close()


def ask(job: Job, link: Link) -> None:
    payload = bytes(REQUEST_BYTES)
    link.connecting()
    session = open_session(job, [], [0])
    wait_for(session, 1)
    link.go()
    answers: SimpleQueue[Any] = SimpleQueue()
    stopwatch = Stopwatch()
    began: dict[int, float] = {}
    numbers = iter(job.numbers)

    def ask_next() -> None:
        number = next(numbers, None)
        if number is not None:
            began[number] = stopwatch.start()
            session.get("ask", answers.put, payload=encode(Ask(number, payload)))

    for _ in range(job.in_flight):
        ask_next()
    while began:
        reply = answers.get()
        if reply.ok is None:
            raise SystemExit(f"a request failed: {reply.err.payload.to_string()}")
        answer = decode(reply.ok.payload.to_bytes())
        stopwatch.stop(began.pop(answer.number))
        if len(answer.payload) != REQUEST_BYTES:
            raise SystemExit(f"request {answer.number} got the answer {answer}")
        ask_next()
    link.report(stopwatch.facts())
    link.wait_stop()
    session.close()

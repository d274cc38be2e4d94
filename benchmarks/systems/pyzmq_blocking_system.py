"""pyzmq's blocking sockets and msgspec: XPUB to SUB, DEALER to ROUTER, over ipc.

XPUB with NODROP waits for a receiver whose queue is full, where PUB would drop. A queue holds 1000 messages, or 16 MiB
of large ones. A sender waits until the subscription of every receiver has come.
"""

from __future__ import annotations

import importlib.metadata
import time

import zmq

from benchmarks.systems.msgspec_events import Answer, Ask, Large, Receiver, Small, decode, encode, window
from benchmarks.worker import Link
from benchmarks.workload import (
    REQUEST_BYTES,
    SOURCE_SHIFT,
    VALUES,
    Job,
    Sink,
    Stopwatch,
    bursts,
    large_payload,
    small_values,
)

REQUIREMENTS = ["pyzmq==27.*", "msgspec==0.22.*"]
KINDS = [
    "small",
    "large",
    "selective",
    "fan-in",
    "paced",
    "requests",
    "start",
    "connect",
    "connections",
    "queued",
]


def versions() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in ("pyzmq", "msgspec")}
    return {**versions, "libzmq": zmq.zmq_version()}


def address(job: Job, index: int) -> str:
    return f"ipc://{job.path(f'consumer-{index}')}"


def consume(job: Job, link: Link) -> None:
    sink = Sink(job, lambda: None)
    take = Receiver(job, sink).take
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.rcvhwm = window(job)
        socket.subscribe(b"")
        socket.bind(address(job, job.index))
        link.ready()
        if job.is_large:
            while sink.received < job.count:
                take(socket.recv(copy=False).buffer)
        else:
            while sink.received < job.count:
                take(socket.recv())
        link.report(sink.facts())
        link.wait_stop()


def connect(context: zmq.Context, job: Job) -> zmq.Socket:
    socket = context.socket(zmq.XPUB)
    socket.setsockopt(zmq.XPUB_NODROP, 1)
    socket.setsockopt(zmq.XPUB_VERBOSE, 1)
    # Queued events are counted by their memory, so nothing may hold them back.
    socket.sndhwm = 0 if job.kind == "queued" else window(job)
    for index in range(job.consumers):
        socket.connect(address(job, index))
    for _ in range(job.consumers):
        if socket.recv() != b"\x01":
            raise SystemExit("something else than a subscription arrived")
    return socket


def publish(job: Job, link: Link) -> None:
    with zmq.Context() as context:
        link.connecting()
        count = job.count if job.kind == "connections" else 1
        sockets = [connect(context, job) for _ in range(count)]
        link.go()
        first = time.monotonic()
        if job.kind == "connections":
            values = small_values(job)[0]
            for index, socket in enumerate(sockets):
                socket.send(encode(Small(index << SOURCE_SHIFT, *values)))
        else:
            first = send(sockets[0], job)
        link.report({"first": first})
        link.wait_stop()
        for socket in sockets:
            socket.close()


def send(socket: zmq.Socket, job: Job) -> float:
    if job.is_large:
        payload = large_payload(job)
        first = time.monotonic()
        for number in job.numbers:
            socket.send(encode(Large(number, payload)), copy=False)
        return first
    values = small_values(job)
    first = time.monotonic()
    if job.kind == "paced":
        for due, numbers in bursts(job):
            if (left := due - time.monotonic()) > 0:
                time.sleep(left)
            for number in numbers:
                socket.send(encode(Small(number, due, *values[number % VALUES][1:])))
    else:
        for number in job.numbers:
            socket.send(encode(Small(number, *values[number % VALUES])))
    return first


def respond(job: Job, link: Link) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.bind(address(job, 0))
        link.ready()
        for _ in range(job.count):
            sender, data = socket.recv_multipart()
            asked = decode(data)
            socket.send_multipart((sender, encode(Answer(asked.number, asked.payload))))
        link.wait_stop()


def ask(job: Job, link: Link) -> None:
    payload = bytes(REQUEST_BYTES)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        link.connecting()
        socket.connect(address(job, 0))
        link.go()
        stopwatch = Stopwatch()
        began: dict[int, float] = {}
        numbers = iter(job.numbers)

        def ask_next() -> None:
            number = next(numbers, None)
            if number is not None:
                began[number] = stopwatch.start()
                socket.send(encode(Ask(number, payload)))

        for _ in range(job.in_flight):
            ask_next()
        while began:
            answer = decode(socket.recv())
            stopwatch.stop(began.pop(answer.number))
            if len(answer.payload) != REQUEST_BYTES:
                raise SystemExit(f"request {answer.number} got the answer {answer}")
            ask_next()
        link.report(stopwatch.facts())
        link.wait_stop()

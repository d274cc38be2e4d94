"""No event bus: blocking Unix sockets, and memory that is received into again and again.

What large events cost with nothing but the kernel's copying and the wake-ups of the processes. Every event is as
long as the others, so nothing on the stream says where one ends; one buffer serves all of them, as nobody keeps one.
Peers are served one after the other, each until it has taken all: what does not wait for each may be faster.
"""

from __future__ import annotations

import platform
import socket
import time

from benchmarks.worker import Link
from benchmarks.workload import Job, Sink, large_payload

REQUIREMENTS: list[str] = []
KINDS: list[str] = ["large"]

# As large as this project's.
SOCKET_BUFFER_BYTES = 2 * 1024 * 1024
NUMBER_BYTES = 8


def versions() -> dict[str, str]:
    return {"sockets": platform.python_version()}


def consume(job: Job, link: Link) -> None:
    sink = Sink(job, lambda: None)
    take = sink.take_large
    event = memoryview(bytearray(NUMBER_BYTES + job.size))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(job.path(f"consumer-{job.index}")))
        listener.listen()
        link.ready()
        peer, _ = listener.accept()
        with peer:
            while sink.received < job.count:
                received = 0
                while received < len(event):
                    count = peer.recv_into(event[received:])
                    if not count:
                        raise SystemExit("the publisher has gone")
                    received += count
                take(int.from_bytes(event[:NUMBER_BYTES], "little"), event[NUMBER_BYTES:])
            link.report(sink.facts())
            link.wait_stop()


def publish(job: Job, link: Link) -> None:
    payload = large_payload(job)
    peers = []
    link.connecting()
    for index in range(job.consumers):
        peer = socket.socket(socket.AF_UNIX)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        peer.connect(str(job.path(f"consumer-{index}")))
        peers.append(peer)
    link.go()
    first = time.monotonic()
    for number in job.numbers:
        head = number.to_bytes(NUMBER_BYTES, "little")
        for peer in peers:
            sent = peer.sendmsg([head, payload]) - NUMBER_BYTES
            if sent < len(payload):
                peer.sendall(memoryview(payload)[sent:])
    link.report({"first": first})
    link.wait_stop()
    for peer in peers:
        peer.close()

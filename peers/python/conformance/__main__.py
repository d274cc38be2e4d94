"""The command line: ``conformance peer ...`` and ``conformance vectors DIR``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import anyio

from lahja_capn import ConfigError, Limits

RUNTIMES = ("asyncio", "trio", "uvloop")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="conformance", description="The conformance program in Python.")
    commands = parser.add_subparsers(dest="command", required=True)
    peer = commands.add_parser("peer", help="take part in the live matrix: JSON lines in, JSON lines out")
    peer.add_argument("--name", required=True, help="this endpoint's name")
    where = peer.add_mutually_exclusive_group(required=True)
    where.add_argument("--serve", type=Path, metavar="PATH", help="listen there")
    where.add_argument("--connect", type=Path, metavar="PATH", help="connect there, with --expect")
    peer.add_argument("--expect", default="", metavar="NAME", help="the name of the endpoint at PATH")
    peer.add_argument("--event-credit", type=int, metavar="BYTES", help="window for events to us")
    peer.add_argument("--request-credit", type=int, metavar="BYTES", help="window for requests to us")
    peer.add_argument("--frame-limit", type=int, metavar="BYTES", help="largest frame to us")
    peer.add_argument("--keepalive-ms", type=int, metavar="MS", help="0: never ping")
    peer.add_argument("--handshake-ms", type=int, metavar="MS", help="until a connection must be up")
    peer.add_argument("--runtime", choices=RUNTIMES, default="asyncio")
    peer.add_argument("--verbose", action="store_true", help="log everything, on standard error")
    vectors = commands.add_parser("vectors", help="run every vector of a folder")
    vectors.add_argument("folder", type=Path, metavar="DIR")
    parsed = parser.parse_args()
    if parsed.command == "peer" and parsed.connect is not None and not parsed.expect:
        parser.error("--connect needs --expect NAME")
    return parsed


def limits(options: argparse.Namespace) -> Limits:
    given = {
        "event_credit_bytes": options.event_credit,
        "request_credit_bytes": options.request_credit,
        "frame_bytes": options.frame_limit,
        "keepalive_s": None if options.keepalive_ms is None else options.keepalive_ms / 1000,
        "handshake_timeout_s": None if options.handshake_ms is None else options.handshake_ms / 1000,
    }
    return Limits(**{name: value for name, value in given.items() if value is not None})


def run_peer(options: argparse.Namespace) -> int:
    from .peer import Peer

    try:
        bounds = limits(options)
    except ConfigError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    anyio.run(
        Peer(bounds, options.runtime).run,
        options.name,
        options.serve,
        options.connect,
        options.expect,
        backend="trio" if options.runtime == "trio" else "asyncio",
        backend_options={"use_uvloop": True} if options.runtime == "uvloop" else {},
    )
    return 0


def main() -> int:
    options = arguments()
    if options.command == "vectors":
        from .vectors import run_vectors

        return run_vectors(options.folder)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(relativeCreated)6d ms  %(name)s %(levelname)s: %(message)s",
    )
    return run_peer(options)


if __name__ == "__main__":
    sys.exit(main())

"""``python -m tests.soak --minutes 30``: run, print progress and a report, exit with 0 if nothing was wrong."""

from __future__ import annotations

import argparse
import secrets
import sys

from tests.soak import sabotage
from tests.soak.run import Soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", default=secrets.token_hex(4))
    parser.add_argument(
        "--pace", type=float, default=1.0, help="1 is about 1,500 events a second per process"
    )
    parser.add_argument(
        "--sabotage",
        default="",
        choices=("", *sabotage.KINDS),
        help="damage one process, to see the run fail",
    )
    parser.add_argument("--quiet-every", type=float, default=None, help="seconds between quiet points")
    options = parser.parse_args()
    soak = Soak(
        seconds=options.minutes * 60,
        seed=options.seed,
        pace=options.pace,
        sabotage=options.sabotage,
        quiet_every_s=options.quiet_every,
    )
    return soak.run()


if __name__ == "__main__":
    sys.exit(main())

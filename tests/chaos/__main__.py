"""`make chaos`: the real stack under load while its processes are killed, frozen and restarted; prints what held."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.chaos.report import print_report
from tests.chaos.run import Options, run_chaos

WIDTH = 140
_LARGEST_SEED = 999_999


def main() -> int:
    """Exit code 0 only if every invariant held."""
    options = _read_options()
    # What killing the server does to the supervisor's probes is no news here.
    logging.getLogger("nats").addHandler(logging.NullHandler())
    folder = Path(tempfile.mkdtemp(prefix="quarterdeck-chaos-"))
    folder.chmod(0o711)  # PostgreSQL may run as another user
    outcome = asyncio.run(run_chaos(options, folder, say=_say))
    print_report(Console() if sys.stdout.isatty() else Console(width=WIDTH), outcome)
    if outcome.passed:
        shutil.rmtree(folder)
    return int(not outcome.passed)


def _read_options() -> Options:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of an earlier run, for the same plan; default: drawn")
    parser.add_argument("--minutes", type=float, default=17, help="over how long the faults are spread")
    parser.add_argument(
        "--kills", type=int, default=200, help="how many SIGKILLs; freezes and orderly stops come on top"
    )
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--agents", type=int, default=2)
    asked = parser.parse_args()
    seed = random.randint(1, _LARGEST_SEED) if asked.seed is None else asked.seed
    return Options(seed=seed, minutes=asked.minutes, kills=asked.kills, jobs=asked.jobs, agents=asked.agents)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)  # noqa: T201  progress for whoever waits


if __name__ == "__main__":
    sys.exit(main())

"""`make bench`: every measure beside a peer or floor of the same run; prints a table and writes build/bench.json."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tests.bench import (
    agent_cancel_command,
    agent_cancel_stream,
    agent_first_delta,
    agent_memory,
    agent_resume,
    agent_turn_writes,
    agent_turns,
    agent_write,
    drain,
    fan_out,
    flat_cost,
    nats_outage,
    recovery,
    small_job,
    stack_start,
    start_latency,
    start_noop,
    submit,
    throughput,
    vcs_commit,
    vcs_crowd,
    vcs_prepare,
    warm_prepare,
)
from tests.bench.machine import ROOT, machine_facts
from tests.bench.measure import Bench, Measure, Result
from tests.bench.report import print_report, write_json

MEASURES: tuple[Measure, ...] = (
    start_latency,
    small_job,
    stack_start,
    warm_prepare,
    vcs_prepare,
    vcs_crowd,
    vcs_commit,
    submit,
    drain,
    throughput,
    start_noop,
    flat_cost,
    fan_out,
    recovery,
    agent_turns,
    agent_turn_writes,
    agent_write,
    agent_first_delta,
    agent_cancel_stream,
    agent_cancel_command,
    agent_resume,
    agent_memory,
)
ON_REQUEST: tuple[Measure, ...] = (nats_outage,)
"""Too long for every run."""
MEASURE_SECONDS = 200
ON_REQUEST_SECONDS = 480
RUN_SECONDS = 1_200
WIDTH = 140


def main() -> int:
    """Exit code 1 where a measure could not be taken; a goal that is missed is a figure, not a failure."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", choices=[measure.NAME for measure in (*MEASURES, *ON_REQUEST)], action="append")
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    asked = parser.parse_args()
    named = asked.only or [measure.NAME for measure in MEASURES]
    chosen = [measure for measure in (*MEASURES, *ON_REQUEST) if measure.NAME in named]
    facts = machine_facts()
    results, failures = asyncio.run(_take(chosen, quick=asked.quick))
    print_report(_console(), facts, results, failures)
    write_json(ROOT / "build" / "bench.json", facts, results, failures)
    return int(bool(failures))


def _console() -> Console:
    """As wide as the terminal; wide enough for the table where there is none."""
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)


def _say(words: str) -> None:
    print(words, file=sys.stderr)  # noqa: T201  progress for whoever waits


async def _take(chosen: Sequence[Measure], *, quick: bool) -> tuple[list[Result], dict[str, str]]:
    """Take the measures one after the other; one that fails leaves the others their turn."""
    results: list[Result] = []
    failures: dict[str, str] = {}
    end = time.monotonic() + RUN_SECONDS
    for measure in chosen:
        with tempfile.TemporaryDirectory(prefix="quarterdeck-bench-") as folder:
            scratch = Path(folder)
            scratch.chmod(0o711)  # noqa: ASYNC240  before anything else runs
            bench = Bench(scratch, quick, _say)
            try:
                seconds = ON_REQUEST_SECONDS if measure in ON_REQUEST else MEASURE_SECONDS
                async with asyncio.timeout(min(seconds, end - time.monotonic())):
                    taken = await measure.measure(bench)
                results.extend([taken] if isinstance(taken, Result) else taken)
            except TimeoutError as error:
                failures[measure.NAME] = str(error) or "not done in time: the machine is too slow or too busy"
            except Exception as error:  # noqa: BLE001  it is in the table, and in the exit code
                failures[measure.NAME] = f"{type(error).__name__}: {error}"
    return results, failures


if __name__ == "__main__":
    sys.exit(main())

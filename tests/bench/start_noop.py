"""Start latency at 20 jobs a second, from before the submit until a worker has the job, beside the same peers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import asyncpg

from tests.bench.comparison import cpu_per_thousand
from tests.bench.contenders import Contender
from tests.bench.kinds import OURS, PEERS, PGQUEUER
from tests.bench.lean_stack import lean_stack
from tests.bench.measure import Bench, Result, median_ms, percentile
from tests.bench.roles import SENT_DIGITS

NAME = "start_noop"
RATE = 20.0
P50_MS = 8.0
P99_MS = 25.0
_WARM_UP = 50
_STEPS = ("sent", "submission begun", "dispatch begun", "begun with")
_ROWS = """SELECT j.prompt, ARRAY[extract(epoch FROM r.created_at), extract(epoch FROM r.started_at)]::float8[] AS steps
    FROM unnest($1::text[]) AS sent (word) JOIN jobs j ON j.prompt = sent.word JOIN runs r ON r.job_id = j.id"""


async def measure(bench: Bench) -> Result:
    starts: dict[str, Starts] = {}
    async with lean_stack(bench, NAME) as stack:
        contenders = [await Contender.install(kind, stack, bench) for kind in (*PEERS, OURS)]
        for contender in contenders:
            bench.say(f"{NAME}: {contender.kind.name}")
            starts[contender.kind.name] = await paced_starts(contender, _jobs(bench, contender))
        steps = await _steps(stack.database_url, starts[OURS.name])
    ours, beside = starts[OURS.name].latencies, starts[PGQUEUER.name].latencies
    p50, p99 = median_ms(ours), percentile(ours, 99) * 1000
    return Result(
        name=NAME,
        what=f"HTTP submit sent to the agent's start, {RATE:g} jobs/s, p50",
        figure=p50,
        unit="ms",
        compared_with="pgqueuer: enqueue sent to task started",
        baseline=median_ms(beside),
        goal=f"p50 ≤ {P50_MS:g} ms, p99 ≤ {P99_MS:g} ms",
        met=p50 <= P50_MS and p99 <= P99_MS,
        details={
            "p99": p99,
            "slowest": max(ours) * 1000,
            **steps,
            **_percentiles({kind.name: starts[kind.name].latencies for kind in PEERS}),
        },
        cpu=cpu_per_thousand(contenders, {name: len(each.pickups) for name, each in starts.items()}),
    )


def _jobs(bench: Bench, contender: Contender) -> int:
    """20 s of ours, 10 s of each peer."""
    return bench.samples(400 if contender.kind is OURS else 200, 60)


@dataclass(frozen=True)
class Starts:
    """``pickups``: epoch seconds when each job was sent, and when it was taken."""

    pickups: Sequence[tuple[float, float]]

    @property
    def latencies(self) -> list[float]:
        """Seconds from one to the other."""
        return [taken_at - sent_at for sent_at, taken_at in self.pickups]


async def paced_starts(contender: Contender, jobs: int) -> Starts:
    """With a worker that was warm before."""
    async with contender.working() as worker:
        warm = await contender.submit(_WARM_UP)
        await contender.drained(warm.began, _WARM_UP)
        contender.cpu.clear()
        async with contender.metered(worker):
            sent = await contender.pace(jobs, rate=RATE)
            await contender.drained(sent.began, jobs)
    report = await worker.stop()
    return Starts([pickup for pickup in report.pickups if pickup[0] >= sent.began])


async def _steps(database_url: str, starts: Starts) -> dict[str, float]:
    """Where our time goes: p50 of each step, as the rows have them, which is when their transactions began."""
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(_ROWS, [f"{sent:.{SENT_DIGITS}f}" for sent, _ in starts.pickups])
    finally:
        await connection.close()
    taken = dict(starts.pickups)
    marks = [[float(row["prompt"]), *row["steps"], taken[float(row["prompt"])]] for row in rows]
    return {
        f"{before} → {after}": median_ms([mark[place + 1] - mark[place] for mark in marks])
        for place, (before, after) in enumerate(pairwise(_STEPS))
    }


def _percentiles(latencies: dict[str, Sequence[float]]) -> dict[str, float]:
    return {
        f"{name} p{percent}": percentile(seconds, percent) * 1000
        for name, seconds in latencies.items()
        for percent in (50, 99)
    }

"""What a job costs in submit, drain and start beside a long queue and a long history, and on empty tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.bench.background import Background
from tests.bench.contenders import Contender
from tests.bench.drain import carry_out_backlog
from tests.bench.kinds import OURS
from tests.bench.lean_stack import lean_stack
from tests.bench.measure import Bench, Result
from tests.bench.start_noop import paced_starts

NAME = "flat_cost"
MOST_RATIO = 1.2
_WARM_UP = 500


@dataclass(frozen=True)
class Costs:
    """Of each round, in seconds: of one submit, of carrying one run out; and each run's until it started."""

    submit: list[float] = field(default_factory=list)
    drain: list[float] = field(default_factory=list)
    start: list[float] = field(default_factory=list)


async def measure(bench: Bench) -> Sequence[Result]:
    queued, finished = bench.samples(100_000, 20_000), bench.samples(1_000_000, 20_000)
    empty, full = Costs(), Costs()
    async with lean_stack(bench, f"{NAME}-empty") as bare, lean_stack(bench, f"{NAME}-full") as laden:
        bench.say(f"{NAME}: adding {queued:,} queued and {finished:,} finished runs")
        await Background(laden.database_url).add(queued=queued, finished=finished)
        sides = [
            (await Contender.install(OURS, stack, bench), costs) for stack, costs in ((bare, empty), (laden, full))
        ]
        for contender, _ in sides:
            await carry_out_backlog(contender, _WARM_UP)
        bench.say(f"{NAME}: submitting")
        # In turns, so that a busier machine weighs on both alike.
        for _ in range(bench.samples(3, 1)):
            for contender, costs in sides:
                await _take_round(contender, costs, bench)
    beside = f"beside {queued:,} queued and {finished:,} finished"
    return [
        _row("flat_submit", f"a submit, {beside}", full.submit, empty.submit),
        _row("flat_drain", f"a run of a backlog, {beside}", full.drain, empty.drain),
        _row("flat_start", f"submit to claim at 20/s, p50, {beside}", full.start, empty.start),
    ]


async def _take_round(contender: Contender, costs: Costs, bench: Bench) -> None:
    jobs = bench.samples(2_000, 1_000)
    backlog = await carry_out_backlog(contender, jobs)
    costs.submit.append(backlog.submit_seconds / jobs)
    costs.drain.append(backlog.drain_seconds / jobs)
    costs.start.extend((await paced_starts(contender, bench.samples(80, 60))).latencies)


def _row(name: str, what: str, full: Sequence[float], empty: Sequence[float]) -> Result:
    figure, baseline = statistics.median(full) * 1000, statistics.median(empty) * 1000
    return Result(
        name=name,
        what=what,
        figure=figure,
        unit="ms",
        compared_with="the same on tables with nothing else in them, in turns",
        baseline=baseline,
        goal=f"ratio ≤ {MOST_RATIO:g}",
        met=figure / baseline <= MOST_RATIO,
    )

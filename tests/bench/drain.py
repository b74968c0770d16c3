"""A backlog that was submitted while nobody worked: how fast it is carried out, beside two job queues and the floor."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.comparison import rows
from tests.bench.contenders import Contender
from tests.bench.kinds import ALL
from tests.bench.lean_stack import lean_stack
from tests.bench.measure import Bench, Result

NAME = "drain"
_WARM_UP = 200
_BREATH_SECONDS = 1.0
"""Between contenders: what the one before left to do in the background is not to weigh on the next."""


async def measure(bench: Bench) -> Sequence[Result]:
    jobs = bench.samples(5_000, 2_000)
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    async with lean_stack(bench, NAME) as stack:
        contenders = [await Contender.install(kind, stack, bench) for kind in ALL]
        for contender in contenders:
            await carry_out_backlog(contender, _WARM_UP)
            contender.cpu.clear()
        for number in range(bench.samples(2, 1)):
            for contender in contenders:
                if number and contender.kind.slow:
                    continue
                await asyncio.sleep(_BREATH_SECONDS)
                bench.say(f"{NAME}: {contender.kind.name}")
                seconds[contender.kind.name].append((await carry_out_backlog(contender, jobs)).drain_seconds)
    what = f"a backlog of {jobs:,} no-op runs, one agent, first start to last completion"
    return rows(NAME, what, contenders, seconds, jobs)


@dataclass(frozen=True)
class Backlog:
    """How long it took to submit, and to carry out from the first start to the last completion."""

    submit_seconds: float
    drain_seconds: float


async def carry_out_backlog(contender: Contender, jobs: int) -> Backlog:
    """Submit ``jobs`` while nobody works, then let one worker carry them out."""
    backlog = await contender.submit(jobs)
    async with contender.metered(), contender.working() as worker:
        span = await contender.drained(backlog.began, jobs)
    contender.cpu["worker"] += (await worker.stop()).cpu_seconds
    return Backlog(backlog.ended - backlog.began, span.ended - span.started)

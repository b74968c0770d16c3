"""Submitting and carrying out at once: jobs a second until all are final, beside two job queues and the floor."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from tests.bench.comparison import rows
from tests.bench.contenders import CLIENTS, Contender
from tests.bench.kinds import ALL
from tests.bench.lean_stack import lean_stack
from tests.bench.measure import Bench, Result

NAME = "throughput"
_WARM_UP = 200
_BREATH_SECONDS = 1.0


async def measure(bench: Bench) -> Sequence[Result]:
    jobs = bench.samples(5_000, 2_000)
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    async with lean_stack(bench, NAME) as stack:
        contenders = [await Contender.install(kind, stack, bench) for kind in ALL]
        for number in range(bench.samples(2, 1)):
            for contender in contenders:
                if number and contender.kind.slow:
                    continue
                await asyncio.sleep(_BREATH_SECONDS)
                bench.say(f"{NAME}: {contender.kind.name}")
                seconds[contender.kind.name].append(await _carried_out(contender, jobs))
    what = f"{jobs:,} no-op runs from {CLIENTS} clients while one agent works, first submit to last completion"
    return rows(NAME, what, contenders, seconds, jobs)


async def _carried_out(contender: Contender, jobs: int) -> float:
    """Seconds from the first submit to the last end, with a worker that was warm before."""
    async with contender.working() as worker:
        warm = await contender.submit(_WARM_UP)
        await contender.drained(warm.began, _WARM_UP)
        contender.cpu["submitter"] -= warm.cpu_seconds
        async with contender.metered(worker):
            submitted = await contender.submit(jobs)
            span = await contender.drained(submitted.began, jobs)
    return span.ended - submitted.began

"""NATS away for minutes under load: whether every submit is accepted, and how long after its return all is done.

Only with `--only nats_outage`: it takes as long as the outage.
"""

from __future__ import annotations

import asyncio
import time

from tests.bench.contenders import Contender
from tests.bench.kinds import OURS
from tests.bench.lean_stack import lean_stack
from tests.bench.measure import Bench, Result

NAME = "nats_outage"
RATE = 20.0
GOAL_SECONDS = 30.0
_BEFORE_SECONDS = 3.0
_AFTER_SECONDS = 5.0


async def measure(bench: Bench) -> Result:
    """Raises JobFailedError where a submit was refused, or a job is not done a minute after."""
    outage = bench.samples(300, 20)
    jobs = round(RATE * (_BEFORE_SECONDS + outage + _AFTER_SECONDS))
    async with lean_stack(bench, NAME) as stack:
        contender = await Contender.install(OURS, stack, bench)
        async with contender.working():
            began = time.time()
            submitting = asyncio.create_task(contender.pace(jobs, rate=RATE, within_seconds=outage + 60))
            await asyncio.sleep(_BEFORE_SECONDS)
            bench.say(f"{NAME}: NATS is away for {outage} s")
            await stack.servers.kill("nats")
            await asyncio.sleep(outage)
            await stack.servers.start("nats")
            back = time.time()
            await submitting
            span = await contender.drained(began, jobs)
    return Result(
        name=NAME,
        what=f"NATS back after {outage} s to the last of {jobs:,} runs done, submits going on at {RATE:g}/s",
        figure=span.ended - back,
        unit="s",
        compared_with="how long submits went on after its return",
        baseline=_AFTER_SECONDS,
        goal=f"≤ {GOAL_SECONDS:g} s, no submit refused",
        met=span.ended - back <= GOAL_SECONDS,
    )

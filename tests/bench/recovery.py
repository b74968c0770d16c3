"""Recovery: from `kill -9` of an agent until the run that it held goes on elsewhere, at its next attempt."""

from __future__ import annotations

import signal
import time

from tests.acceptance.stacks import Stack, bare_origin, running_stack
from tests.bench.measure import Bench, Result, median_ms

NAME = "recovery"
P50_SECONDS = 8.0
MOST_SECONDS = 15.0
LEASE_SECONDS = 8.0


async def measure(bench: Bench) -> Result:
    folder = bench.folder(NAME)
    # Slow enough to be killed in the middle of a run.
    async with running_stack(
        folder / "data", agents=2, variables={"QUARTERDECK_OFFLINE_TURN_DELAY_MS": "1500"}
    ) as stack:
        taken = []
        for number in range(bench.samples(10, 2)):
            bench.say(f"{NAME}: kill {number + 1}")
            taken.append(await _recovered(stack, bench, number))
    p50 = median_ms(taken) / 1000
    return Result(
        name=NAME,
        what="kill -9 of an agent to its run's next attempt, p50",
        figure=p50,
        unit="s",
        compared_with="the lease: before it is over nobody may take the run",
        baseline=LEASE_SECONDS,
        goal=f"p50 ≤ {P50_SECONDS:g} s, at most {MOST_SECONDS:g} s",
        met=p50 <= P50_SECONDS and max(taken) <= MOST_SECONDS,
        details={"slowest": max(taken), "fastest": min(taken), "kills": len(taken)},
    )


async def _recovered(stack: Stack, bench: Bench, number: int) -> float:
    """Seconds, for one job on an origin of its own."""
    folder = bench.scratch / f"{NAME}-{number}"
    folder.mkdir()
    job = await stack.submit(bare_origin(folder, "widget"))
    run = await stack.until_run(job, lambda run: run.usage.turns >= 1)
    assert run.agent is not None, "a run that has turned has an agent"
    await stack.signal(run.agent.rpartition("-")[0], signal.SIGKILL)
    killed = time.time()
    began = 0.0
    async for event in stack.client.events(job.id):
        if event.kind == "run.started" and event.attempt == run.attempt + 1:
            assert event.time is not None, "a durable event has a time"
            began = event.time.timestamp()
    await stack.until_healthy()
    return began - killed

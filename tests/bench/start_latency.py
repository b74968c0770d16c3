"""Start latency: from before the submit over HTTP until the agent's first request reaches the model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

from quarterdeck import Client
from quarterdeck.stack import DataFolder
from tests.bench.floor import durable_path, worktree_add
from tests.bench.measure import Bench, JobFailedError, Result, median_ms, percentile
from tests.bench.scripted_model import ScriptedModel
from tests.bench.stacks import running_stack, small_origin

NAME = "start_latency"
GOAL_MS = 60.0
_WARM_UP = 5
_STEPS = ("job.submitted", "run.dispatched", "run.started", "run.prepared")


@dataclass(frozen=True)
class Start:
    """One job's beginning. ``seconds``: all of it. ``answered``: seconds until the submit was answered.

    ``steps``: epoch seconds, from before the submit to the first request.
    """

    seconds: float
    answered: float
    steps: Sequence[float]


async def measure(bench: Bench) -> Result:
    bare = small_origin(bench.folder(NAME))
    rounds = bench.samples(100, 20)
    async with ScriptedModel() as model, running_stack(bench, NAME, model_url=model.url) as info:
        async with Client(info.address, info.api_key) as client:
            for _ in range(_WARM_UP):
                await _start(client, model, bare)
            bench.say(f"{NAME}: submitting")
            starts = [await _start(client, model, bare) for _ in range(rounds)]
        floor = await durable_path(info.database_url, info.nats_url, rounds)
        (mirror,) = DataFolder(Path(info.data_dir)).vcs.glob("mirrors/*.git")
        added = [worktree_add(mirror, bench.scratch / "added") for _ in range(bench.samples(20, 5))]
    totals = [start.seconds for start in starts]
    return Result(
        name=NAME,
        what="submit to the agent's first model request, warm mirror, p50",
        figure=median_ms(totals),
        unit="ms",
        compared_with="INSERT, UPDATE, publish, pull, UPDATE, git worktree add: bare, one after the other",
        baseline=median_ms(floor) + median_ms(added),
        goal=f"≤ {GOAL_MS:g} ms",
        met=median_ms(totals) <= GOAL_MS,
        details={
            "p95": percentile(totals, 95) * 1000,
            "p99": percentile(totals, 99) * 1000,
            "fastest": min(totals) * 1000,
            "floor: durable path": median_ms(floor),
            "floor: git worktree add": median_ms(added),
            "submit → response": median_ms([start.answered for start in starts]),
            **_steps(starts),
        },
    )


async def _start(client: Client, model: ScriptedModel, bare: Path) -> Start:
    mark = f"bench-{uuid4().hex}"
    arrival = model.expect(mark)
    began, began_epoch = time.perf_counter(), time.time()
    job = await client.submit(mark, [str(bare)])
    answered = time.perf_counter() - began
    told: dict[str, datetime] = {}
    async for event in client.events(job.id):
        assert event.time is not None, f"{event.kind} has no time"
        told.setdefault(event.kind, event.time)
    if not arrival.done():
        raise JobFailedError(f"job {job.id} ended without a request to the model; see the stack's logs")
    seconds = arrival.result() - began
    between = (told[step].timestamp() for step in _STEPS)
    return Start(seconds, answered, [began_epoch, *between, began_epoch + seconds])


def _steps(starts: Sequence[Start]) -> dict[str, float]:
    """Where the time goes: p50 of each step."""
    names = ("submit", *_STEPS, "first request")
    return {
        f"{before} → {after}": median_ms([start.steps[place + 1] - start.steps[place] for start in starts])
        for place, (before, after) in enumerate(pairwise(names))
    }

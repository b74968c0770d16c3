"""From the claim of a run with 150 stored turns, by an agent that never saw it, until its next request is there."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from services.contracts.rest import Job
from tests.bench.agent_model import Talk
from tests.bench.agent_scripts import Reply, at_once, call, done, held, reading
from tests.bench.agent_stack import AgentStack, agent_stack
from tests.bench.measure import Bench, Result, median_ms

NAME = "agent_resume_150"
TURNS = 150
GOAL_MS = 100.0
_WARM_UP = 2
_STEPS = """SELECT kind, extract(epoch FROM created_at)::float8 AS at FROM events
    WHERE job_id = $1 AND kind IN ('run.started', 'run.prepared')"""


@dataclass(frozen=True)
class Resumption:
    """Epoch seconds: when the transactions of claim and preparation began, and when the request was there."""

    claimed: float
    prepared: float
    asked: float


async def measure(bench: Bench) -> Result:
    times = bench.samples(20, 5) + _WARM_UP
    async with agent_stack(bench, NAME) as stack:
        await stack.script("long", [*reading(TURNS - 1), _write(TURNS - 1), held()])
        await stack.script("once", [done(0)])
        bench.say(f"{NAME}: {TURNS} turns")
        talk, job = await stack.begin("long")
        await stack.model.until(talk, TURNS + 1, "sent")
        bare = await stack.bare(talk)
        await stack.end(job)
        bench.say(f"{NAME}: resuming")
        resumed = [await _resumed(stack, job, talk, TURNS + 2 + number) for number in range(times)][_WARM_UP:]
        talks = [stack.model.talk("once") for _ in range(times)]
        began = await bare.resume(*talks)
        asked = [await _arrived(stack, talk, 1) for talk in talks]
    seconds = [each.asked - each.claimed for each in resumed]
    p50 = median_ms(seconds)
    return Result(
        name=NAME,
        what=f"a run with {TURNS} stored turns and a patch, warm mirror: claim to its next request, p50",
        figure=p50,
        unit="ms",
        compared_with="the same request sent by the SDK's bare messages.stream, its history in memory",
        baseline=median_ms([later - earlier for earlier, later in zip(began, asked, strict=True)][_WARM_UP:]),
        goal=f"≤ {GOAL_MS:g} ms",
        met=p50 <= GOAL_MS,
        details={
            "slowest": max(seconds) * 1000,
            "fastest": min(seconds) * 1000,
            "claim → worktree there": median_ms([each.prepared - each.claimed for each in resumed]),
            "worktree there → request": median_ms([each.asked - each.prepared for each in resumed]),
        },
    )


def _write(turn: int) -> Reply:
    """So that there is a patch to restore, too."""
    return at_once(call(turn, "write_file", path="src/new.py", content="new = True\n" * 100))


async def _resumed(stack: AgentStack, job: Job, talk: Talk, number: int) -> Resumption:
    """Have the ended ``job`` go on from its last checkpoint in a new one, which asks the request of that ``number``."""
    again = await stack.client.retry_job(job.id, resume=True)
    asked = await _arrived(stack, talk, number)
    await stack.end(again)
    connection = await asyncpg.connect(stack.info.database_url)
    try:
        at = {row["kind"]: row["at"] for row in await connection.fetch(_STEPS, again.id)}
    finally:
        await connection.close()
    return Resumption(at["run.started"], at["run.prepared"], asked)


async def _arrived(stack: AgentStack, talk: Talk, number: int) -> float:
    return (await stack.model.until(talk, number))[number - 1].arrived

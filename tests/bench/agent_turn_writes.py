"""What a turn that writes costs the agent, its checkpoint with the worktree's patch included."""

from __future__ import annotations

import time
from pathlib import Path

from quarterdeck.demo.git import git
from quarterdeck.stack import DataFolder
from services.contracts.rest import Job
from tests.bench.agent_model import between
from tests.bench.agent_scripts import done, held, writing
from tests.bench.agent_stack import AgentStack, agent_stack
from tests.bench.agent_turns import MOST_RATIO_SHORT, Turns, mean_ms
from tests.bench.measure import Bench, JobFailedError, Result, median_ms

NAME = "agent_turn_writes"
TURNS = 20
_DIFFS = 10


async def measure(bench: Bench) -> Result:
    taken, diffs = Turns(), list[float]()
    async with agent_stack(bench, NAME) as stack:
        # Ours stays at its end for the diff; the bare loop goes home.
        await stack.script("writing", [*writing(TURNS), held()])
        await stack.script("bare_writing", [*writing(TURNS), done(TURNS + 1)])
        bare = None
        bench.say(f"{NAME}: {TURNS} turns")
        for _ in range(bench.samples(6, 2) + 1):
            talk, job = await stack.begin("writing")
            ours = between(await stack.model.until(talk, TURNS + 2))
            plain = await _diffs(stack, job)
            await stack.end(job)
            if bare is None:  # the first is to warm up
                bare = await stack.bare(talk)
                await bare.converse(stack.model.talk("bare_writing"))
                continue
            talk = stack.model.talk("bare_writing")
            await bare.converse(talk)
            theirs = between(await stack.model.until(talk, TURNS + 2))
            # The first turn only reads.
            taken.ours.append(ours[1:])
            taken.bare.append(theirs[1:])
            diffs += plain
    return _result(taken, median_ms(diffs))


async def _diffs(stack: AgentStack, job: Job) -> list[float]:
    """Seconds of a plain `git diff` in the run's worktree, which has all of its changes."""
    run = await anext(stack.client.runs(job.id))
    (worktree,) = DataFolder(Path(stack.info.data_dir)).vcs.glob(f"worktrees/{run.id}/*/")
    seconds = []
    for _ in range(_DIFFS):
        began = time.perf_counter()
        diff = git("--no-optional-locks", "diff", "--binary", "HEAD", folder=worktree)
        seconds.append(time.perf_counter() - began)
    if diff.count(b"diff --git ") != TURNS:
        raise JobFailedError(f"the worktree of {run.id} does not have the {TURNS} changed files that were asked for")
    return seconds


def _result(taken: Turns, diff_ms: float) -> Result:
    figure, bare = mean_ms(taken.ours), mean_ms(taken.bare)
    allowed = MOST_RATIO_SHORT * bare + diff_ms
    return Result(
        name=NAME,
        what=f"wall time a turn over {TURNS} turns that each change a file, checkpoints on",
        figure=figure,
        unit="ms",
        compared_with=f"{MOST_RATIO_SHORT:g} times a turn of the SDK's bare loop, and a git diff of that worktree",
        baseline=allowed,
        goal="ratio ≤ 1",
        met=figure <= allowed,
        details={"bare": bare, "git diff": diff_ms},
    )

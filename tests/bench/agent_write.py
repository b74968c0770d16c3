"""A large file written in one call, which the model streams in small deltas: as slow as it is to put them together."""

from __future__ import annotations

from tests.bench.agent_model import Talk
from tests.bench.agent_scripts import FRAGMENT, at_once, call, done
from tests.bench.agent_stack import AgentStack, agent_stack
from tests.bench.measure import Bench, JobFailedError, Result, percentile

NAME = "agent_write_400k"
GOAL_SECONDS = 0.5
BYTES = 400_000
_LINE = "    total += weights[number] * values[number]  # and so on, in line %06d\n"


async def measure(bench: Bench) -> Result:
    line = len(_LINE % 0)
    content = "".join(_LINE % number for number in range(BYTES // line + 1))[:BYTES]
    async with agent_stack(bench, NAME) as stack:
        await stack.script("large", [at_once(call(0, "write_file", path="large.py", content=content)), done(1)])
        bare = None
        ours, theirs = [], []
        bench.say(f"{NAME}: writing")
        for _ in range(bench.samples(6, 2) + 1):
            talk, job = await stack.begin("large", publish="none")
            seconds = await _seconds(stack, talk)
            await stack.completed(job)
            if bare is None:  # the first is to warm up
                bare = await stack.bare(talk)
                await bare.converse(stack.model.talk("large"))
                continue
            ours.append(seconds)
            talk = stack.model.talk("large")
            await bare.converse(talk)
            theirs.append(await _seconds(stack, talk))
    figure, slowest = percentile(ours, 50), max(ours)
    return Result(
        name=NAME,
        what=f"write_file of {BYTES // 1000} KB in deltas of {FRAGMENT} bytes, reply's first byte to the result",
        figure=figure,
        unit="s",
        compared_with="the SDK's bare messages.stream loop, which writes no file",
        baseline=percentile(theirs, 50),
        goal=f"≤ {GOAL_SECONDS:g} s",
        met=figure <= GOAL_SECONDS,
        details={"slowest": slowest, "fastest": min(ours)},
    )


async def _seconds(stack: AgentStack, talk: Talk) -> float:
    """From the first byte of the reply that calls the tool until the request with its result is there."""
    asked, answered, *_ = await stack.model.until(talk, 2)
    if answered.size < BYTES:
        raise JobFailedError(f"the request with the result has {answered.size:,} bytes: the call is not in it")
    return answered.arrived - asked.sent[0]

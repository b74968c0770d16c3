"""From a cancel's HTTP request until the agent's connection to the model is closed, in the midst of a reply."""

from __future__ import annotations

from functools import partial

from tests.bench.agent_controls import Cancel, Controls, controls, in_detail
from tests.bench.agent_model import Talk
from tests.bench.agent_scripts import held
from tests.bench.agent_stack import AgentStack, agent_stack
from tests.bench.measure import Bench, Result, percentile

NAME = "agent_cancel_stream"
GOAL_MS = 50.0
_WARM_UP = 3


async def measure(bench: Bench) -> Result:
    runs = bench.samples(100, 20)
    async with agent_stack(bench, NAME) as stack, controls(stack) as heard:
        await stack.script("held", [held()])
        bench.say(f"{NAME}: cancelling")
        cancels = [await _cancelled(stack, heard) for _ in range(runs + _WARM_UP)][_WARM_UP:]
        like, job = await stack.begin("held", kind="task")
        await stack.model.until(like, 1, "sent")
        bare = await stack.bare(like)
        await stack.end(job)
        talks = [stack.model.talk("held") for _ in range(runs + _WARM_UP)]
        asked = await bare.cancel(*talks)
        closed = [await _closed(stack, talk) for talk in talks]
    p99 = percentile([each.over - each.asked for each in cancels], 99) * 1000
    plain = [later - earlier for earlier, later in zip(asked, closed, strict=True)][_WARM_UP:]
    return Result(
        name=NAME,
        what=f"cancel asked for over HTTP to the connection to the model closed, {runs} runs, p99",
        figure=p99,
        unit="ms",
        compared_with="the SDK's bare messages.stream in a task that is cancelled, p99",
        baseline=percentile(plain, 99) * 1000,
        goal=f"≤ {GOAL_MS:g} ms",
        met=p99 <= GOAL_MS,
        details=in_detail(cancels, "closed"),
    )


async def _cancelled(stack: AgentStack, heard: Controls) -> Cancel:
    talk, job = await stack.begin("held", kind="task")
    await stack.model.until(talk, 1, "sent")
    return await heard.cancel(job, partial(_closed, stack, talk))


async def _closed(stack: AgentStack, talk: Talk) -> float:
    (exchange,) = await stack.model.until(talk, 1, "closed")
    assert exchange.closed is not None, "it was waited for"
    return exchange.closed

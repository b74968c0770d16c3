"""What one more run costs an agent's memory while 200 go on in one process, each in the midst of its third reply."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import psutil

from tests.bench.agent_model import Talk
from tests.bench.agent_scripts import at_once, call, held, saying
from tests.bench.agent_stack import AgentStack, agent_stack
from tests.bench.measure import Bench, Result

NAME = "agent_memory"
FEW, MANY = 50, 200
GOAL_MB_A_RUN, GOAL_MB = 0.75, 300.0
_SETTLE_SECONDS = 1.0
_TURN = 3
_MB = 1_000_000

Begin = Callable[[], Awaitable[Talk]]


@dataclass(frozen=True)
class Memory:
    """Resident, in MB: with one run that is over, and with so many under way."""

    warm: float
    few: float
    many: float

    @property
    def a_run(self) -> float:
        return (self.many - self.few) / (MANY - FEW)


async def measure(bench: Bench) -> Result:
    async with agent_stack(bench, NAME, capacity=MANY) as stack:
        calls = [at_once(saying(), call(turn, "list_files", limit=turn + 1)) for turn in range(_TURN - 1)]
        await stack.script("third", [*calls, held()])
        like, job = await stack.begin("third", kind="task")
        await stack.model.until(like, _TURN, "sent")
        bare = await stack.bare(like)
        await stack.end(job)

        async def ours() -> Talk:
            talk, _ = await stack.begin("third", kind="task")
            return talk

        async def theirs() -> Talk:
            talk = stack.model.talk("third")
            bare.begin(talk)
            return talk

        await bare.cancel(stack.model.talk("third"))
        bench.say(f"{NAME}: {MANY} runs")
        taken = await _grown(stack, stack.agent_pid, ours)
        bench.say(f"{NAME}: {MANY} of the bare loop")
        return _result(taken, await _grown(stack, bare.pid, theirs))


async def _grown(stack: AgentStack, pid: int, begin: Begin) -> Memory:
    warm = await _resident(pid)
    await _until_third([await begin() for _ in range(FEW)], stack)
    few = await _resident(pid)
    await _until_third([await begin() for _ in range(MANY - FEW)], stack)
    return Memory(warm, few, await _resident(pid))


async def _until_third(talks: list[Talk], stack: AgentStack) -> None:
    for talk in talks:
        await stack.model.until(talk, _TURN, "sent")


async def _resident(pid: int) -> float:
    """Megabytes of the process, once it has come to rest."""
    await asyncio.sleep(_SETTLE_SECONDS)
    return psutil.Process(pid).memory_info().rss / _MB


def _result(ours: Memory, bare: Memory) -> Result:
    return Result(
        name=NAME,
        what=f"memory a further run, from {FEW} to {MANY} in one agent, in the midst of their third replies",
        figure=ours.a_run,
        unit="MB",
        compared_with="the SDK's bare messages.stream loop, as many at once in one process",
        baseline=bare.a_run,
        goal=f"≤ {GOAL_MB_A_RUN:g} MB, the process ≤ {GOAL_MB:g} MB",
        met=ours.a_run <= GOAL_MB_A_RUN and ours.many <= GOAL_MB,
        details={
            "process, idle and warm": ours.warm,
            f"process at {FEW}": ours.few,
            f"process at {MANY}": ours.many,
            "bare, warm": bare.warm,
            f"bare at {FEW}": bare.few,
            f"bare at {MANY}": bare.many,
        },
    )

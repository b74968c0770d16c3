"""From a cancel's HTTP request until the command that the agent runs is gone, where the command obeys SIGTERM."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from functools import partial

import psutil

from tests.bench.agent_controls import Cancel, Controls, controls, in_detail
from tests.bench.agent_model import Talk
from tests.bench.agent_scripts import at_once, call, held
from tests.bench.agent_stack import AgentStack, agent_stack
from tests.bench.measure import Bench, JobFailedError, Result, percentile

NAME = "agent_cancel_command"
GOAL_MS = 300.0
_COMMAND = ("sleep", "60")
_BEGIN_SECONDS = 15
_GONE_SECONDS = 30
_POLL_SECONDS = 0.02
_WARM_UP = 1


async def measure(bench: Bench) -> Result:
    runs = bench.samples(25, 5)
    async with agent_stack(bench, NAME) as stack, controls(stack) as heard:
        await stack.script("sleeping", [at_once(call(0, "run_command", command=" ".join(_COMMAND))), held()])
        bench.say(f"{NAME}: cancelling")
        cancels = [await _cancelled(stack, heard) for _ in range(runs + _WARM_UP)][_WARM_UP:]
    seconds = [each.over - each.asked for each in cancels]
    plain = [await _terminated() for _ in range(runs)]
    p99 = percentile(seconds, 99) * 1000
    return Result(
        name=NAME,
        what=f"cancel asked for over HTTP to the command gone, {runs} runs, p99",
        figure=p99,
        unit="ms",
        compared_with="SIGTERM to the same command without an agent, p99",
        baseline=percentile(plain, 99) * 1000,
        goal=f"≤ {GOAL_MS:g} ms",
        met=p99 <= GOAL_MS,
        details=in_detail(cancels, "gone"),
    )


async def _cancelled(stack: AgentStack, heard: Controls) -> Cancel:
    talk, job = await stack.begin("sleeping", permissionMode="bypassPermissions")
    await stack.model.until(talk, 1, "sent")
    sleeping = await _sleeping(stack, talk)
    return await heard.cancel(job, partial(_gone, sleeping))


async def _sleeping(stack: AgentStack, talk: Talk) -> int:
    """The command's pid, once it runs. Raises JobFailedError where it does not."""
    agent = psutil.Process(stack.agent_pid)
    end = time.monotonic() + _BEGIN_SECONDS
    while time.monotonic() < end:
        for child in agent.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if tuple(child.cmdline()) == _COMMAND:
                    return child.pid
        await asyncio.sleep(_POLL_SECONDS)
    raise JobFailedError(f"the command did not run, but: {await _answer(stack, talk)}")


async def _answer(stack: AgentStack, talk: Talk) -> str:
    """What the model was told instead; raises JobFailedError with it where that was an error."""
    await stack.model.until(talk, 2)
    return str((await stack.model.last_request(talk))["messages"][-1])


async def _gone(pid: int) -> float:
    """Epoch seconds when the process had ended."""
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return time.time()
    loop.add_reader(process, gone.set)
    try:
        async with asyncio.timeout(_GONE_SECONDS):
            await gone.wait()
        return time.time()
    finally:
        loop.remove_reader(process)
        os.close(process)


async def _terminated() -> float:
    """Seconds that a command takes to end when it is told to."""
    process = await asyncio.create_subprocess_exec(*_COMMAND)
    began = time.time()
    process.terminate()
    gone = await _gone(process.pid)
    await process.wait()
    return gone - began

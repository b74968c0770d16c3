"""Cancels of running jobs, timed: when each was asked for, when the agent was told, when what it did was over."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import nats
from nats.aio.msg import Msg

from services.contracts.rest import Job
from tests.bench.agent_stack import AgentStack
from tests.bench.measure import JobFailedError, median_ms, percentile

_ALL_CONTROLS = "qd.ctl.*"


@dataclass(frozen=True)
class Cancel:
    """Epoch seconds."""

    asked: float
    told: float
    over: float
    final: float


class Controls:
    """Hears what agents are told: about when they do, so that a swift agent may be done before it is noted here."""

    def __init__(self, stack: AgentStack) -> None:
        self._stack = stack
        self._told: dict[str, float] = {}

    async def hear(self, message: Msg) -> None:
        self._told.setdefault(message.subject.rpartition(".")[2], time.time())

    async def cancel(self, job: Job, over: Callable[[], Awaitable[float]]) -> Cancel:
        """Cancel the job of one run. ``over``: waits until what it did is over, and says when that was.

        Raises JobFailedError where the agent was told nothing: it found out for itself, by and by.
        """
        client = self._stack.client
        run = await anext(client.runs(job.id))
        asked = time.time()
        await client.cancel_job(job.id)
        ended = await over()
        final = await client.wait(job.id)
        assert final.finished_at is not None, "a final job has ended"
        if (told := self._told.get(str(run.id))) is None:
            raise JobFailedError(f"nothing came on qd.ctl.{run.id} when its job was cancelled")
        return Cancel(asked, told, ended, final.finished_at.timestamp())


@asynccontextmanager
async def controls(stack: AgentStack) -> AsyncIterator[Controls]:
    heard = Controls(stack)
    client = await nats.connect(stack.info.nats_url)
    try:
        await client.subscribe(_ALL_CONTROLS, cb=heard.hear)
        await client.flush()
        yield heard
    finally:
        await client.close()


def in_detail(cancels: Sequence[Cancel], over: str) -> dict[str, float]:
    """p50 and p99 of each way there, in ms."""
    ways = {
        f"agent told → {over}": [each.over - each.told for each in cancels],
        f"HTTP request sent → {over}": [each.over - each.asked for each in cancels],
        "HTTP request sent → job final": [each.final - each.asked for each in cancels],
    }
    return {
        name: value
        for way, seconds in ways.items()
        for name, value in ((f"{way}, p50", median_ms(seconds)), (f"{way}, p99", percentile(seconds, 99) * 1000))
    }

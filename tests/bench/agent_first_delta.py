"""From a reply's first delta leaving the model until its event is at those who watch: on NATS, and over SSE."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiohttp
import nats
from nats.aio.msg import Msg

from services.contracts.rest import Job
from services.contracts.subjects import ALL_EVENTS
from tests.bench.agent_model import Talk
from tests.bench.agent_scripts import Reply, call, done, in_two
from tests.bench.agent_stack import AgentStack, agent_stack
from tests.bench.measure import Bench, Result, median_ms, percentile
from tests.bench.stacks import session

NAME = "agent_first_delta"
GOAL_MS = 10.0
_MARK = re.compile(rb"<first of (\d+)>")
_PAUSE_SECONDS = 0.12
"""Two deltas a turn leave a second room, so that each turn's first goes at once."""
_WARM_UP = 5
_ALL_HERE_SECONDS = 20

Moments = Mapping[int, float]
"""Epoch seconds, by turn."""


class Watcher:
    """Notes when it first saw each turn's first delta."""

    def __init__(self, turns: int) -> None:
        self.seen: dict[int, float] = {}
        self.has_all = asyncio.Event()
        self._turns = turns
        self._rest = b""

    def look(self, data: bytes) -> None:
        now = time.time()
        data = self._rest + data
        for found in _MARK.finditer(data):
            self.seen.setdefault(int(found[1]), now)
        self._rest = data[-len("<first of 000>") + 1 :]
        if len(self.seen) == self._turns:
            self.has_all.set()

    async def hear(self, message: Msg) -> None:
        self.look(message.data)


async def measure(bench: Bench) -> Result:
    turns = bench.samples(150, 40) + _WARM_UP
    async with agent_stack(bench, NAME) as stack:
        replies = [_reply(turn) for turn in range(turns)]
        await stack.script("speaking", [*replies, done(turns)])
        on_nats, over_sse = Watcher(turns), Watcher(turns)
        bench.say(f"{NAME}: {turns} turns")
        async with _nats(stack, on_nats):
            talk, job = await stack.begin("speaking", kind="task")
            async with _sse(stack, job, over_sse):
                sent = await _sent(stack, talk, turns)
                async with asyncio.timeout(_ALL_HERE_SECONDS):
                    await on_nats.has_all.wait()
                    await over_sse.has_all.wait()
        bare = await stack.bare(talk)
        talk = stack.model.talk("speaking")
        (seen,) = await bare.converse(talk)
        plain = _ways(await _sent(stack, talk, turns), dict(enumerate(seen)))
    return _result(_ways(sent, on_nats.seen), _ways(sent, over_sse.seen), plain)


def _reply(turn: int) -> Reply:
    """No two calls are alike."""
    return in_two(f"<first of {turn}>", call(turn, "list_files", limit=turn + 1), pause_seconds=_PAUSE_SECONDS)


async def _sent(stack: AgentStack, talk: Talk, turns: int) -> Moments:
    """When each turn's first delta left the model."""
    exchanges = await stack.model.until(talk, turns + 1, "sent")
    return {turn: exchange.sent[0] for turn, exchange in enumerate(exchanges[:turns])}


def _ways(sent: Moments, seen: Moments) -> list[float]:
    """Seconds from one to the other, those to warm up left out."""
    return [seen[turn] - sent[turn] for turn in sorted(sent)[_WARM_UP:]]


@asynccontextmanager
async def _nats(stack: AgentStack, watcher: Watcher) -> AsyncIterator[None]:
    client = await nats.connect(stack.info.nats_url)
    try:
        await client.subscribe(ALL_EVENTS, cb=watcher.hear)
        await client.flush()
        yield
    finally:
        await client.close()


def _stream(client: aiohttp.ClientSession, job: Job) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
    return client.get(f"/v1/jobs/{job.id}/events", timeout=aiohttp.ClientTimeout(total=None))


@asynccontextmanager
async def _sse(stack: AgentStack, job: Job, watcher: Watcher) -> AsyncIterator[None]:
    async def watch() -> None:
        async for data in response.content.iter_any():
            watcher.look(data)

    async with session(stack.info) as client, _stream(client, job) as response:
        response.raise_for_status()
        watching = asyncio.create_task(watch(), name="sse")
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait([watching])


def _result(on_nats: list[float], over_sse: list[float], plain: list[float]) -> Result:
    nats_p99, sse_p99 = percentile(on_nats, 99) * 1000, percentile(over_sse, 99) * 1000
    return Result(
        name=NAME,
        what=f"a reply's first delta from the model to an SSE client of the gateway, {len(over_sse)} turns, p99",
        figure=sse_p99,
        unit="ms",
        compared_with="to the loop of the SDK's bare messages.stream, p99",
        baseline=percentile(plain, 99) * 1000,
        goal=f"≤ {GOAL_MS:g} ms, on NATS and over SSE",
        met=max(nats_p99, sse_p99) <= GOAL_MS,
        details={
            "SSE p50": median_ms(over_sse),
            "NATS p50": median_ms(on_nats),
            "NATS p99": nats_p99,
            "bare p50": median_ms(plain),
        },
    )

"""From nothing to a healthy stack on a new data folder, against the two servers alone."""

from __future__ import annotations

import time

from quarterdeck.stack import LocalStack
from quarterdeck.stack.embedded import EmbeddedServers
from tests.bench.measure import Bench, Result, median_ms
from tests.bench.stacks import options

NAME = "stack_start"
GOAL_MS = 10_000.0


async def measure(bench: Bench) -> Result:
    whole, bare = [], []
    for number in range(bench.samples(3, 1)):
        bench.say(f"{NAME}: start {number + 1}")
        whole.append(await _stack(bench, number))
        bare.append(await _servers(bench, number))
    figure = median_ms(whole)
    return Result(
        name=NAME,
        what="a new stack until all of it is healthy",
        figure=figure,
        unit="ms",
        compared_with="initdb, PostgreSQL and nats-server alone, until they answer",
        baseline=median_ms(bare),
        goal=f"≤ {GOAL_MS:,.0f} ms",
        met=figure <= GOAL_MS,
        details={"slowest": max(whole) * 1000},
    )


async def _stack(bench: Bench, number: int) -> float:
    stack = LocalStack(options(bench.folder(f"{NAME}-{number}")))
    began = time.perf_counter()
    await stack.start()
    seconds = time.perf_counter() - began
    await stack.stop()
    return seconds


async def _servers(bench: Bench, number: int) -> float:
    servers = EmbeddedServers(bench.folder(f"{NAME}-servers-{number}"))
    began = time.perf_counter()
    async with servers:
        return time.perf_counter() - began

"""How many submits a second the gateway takes from 32 clients. The jobs are for much later, so nothing else runs."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import aiohttp
import orjson

from quarterdeck.stack.environment import base_environment
from quarterdeck.stack.info import StackInfo
from quarterdeck.stack.ports import free_ports
from quarterdeck.stack.probes import http_health
from quarterdeck.stack.processes import ChildProcess, ProcessSpec
from tests.bench.machine import ROOT
from tests.bench.measure import Bench, Result
from tests.bench.stacks import running_stack, session

NAME = "submit_rate"
CLIENTS = 32
LEAST_RATIO = 0.5
ROUNDS = 2
_LATER = timedelta(days=7)
_WARM_UP_SECONDS = 0.5


async def measure(bench: Bench) -> Result:
    seconds = bench.samples(4, 1)
    async with running_stack(bench, NAME) as info, _bare_handler(bench, info) as bare:
        gateway_rates, bare_rates = [], []
        for target in (info, bare):
            await _rate(target, _WARM_UP_SECONDS)
        bench.say(f"{NAME}: submitting")
        # In turns, so that a growing table and a busier machine weigh on both alike.
        for _ in range(ROUNDS):
            gateway_rates.append(await _rate(info, seconds))
            bare_rates.append(await _rate(bare, seconds))
    figure, baseline = statistics.mean(gateway_rates), statistics.mean(bare_rates)
    return Result(
        name=NAME,
        what=f"submits accepted, {CLIENTS} clients",
        figure=figure,
        unit="/s",
        compared_with="a bare aiohttp handler: the same INSERTs and publish, same servers and clients",
        baseline=baseline,
        goal=f"ratio ≥ {LEAST_RATIO:g}",
        met=figure / baseline >= LEAST_RATIO,
        details={"slowest round": min(gateway_rates), "fastest round": max(gateway_rates)},
    )


@asynccontextmanager
async def _bare_handler(bench: Bench, info: StackInfo) -> AsyncIterator[StackInfo]:
    (port,) = free_ports(1)
    own = {"DATABASE_URL": info.database_url, "NATS_URL": info.nats_url, "PORT": str(port)}
    spec = ProcessSpec(
        name="bare-handler",
        command=(sys.executable, "-m", "tests.bench.bare_handler"),
        environment=base_environment() | own,
        log=bench.scratch / "bare-handler.log",
        folder=ROOT,
        probe=http_health(f"127.0.0.1:{port}"),
    )
    child = await ChildProcess.spawn(spec)
    try:
        await child.wait_ready()
        yield replace(info, address=f"http://127.0.0.1:{port}")
    finally:
        await child.stop()


async def _rate(target: StackInfo, seconds: float) -> float:
    """Submits a second, each client with one under way at any time."""
    later = (datetime.now(UTC) + _LATER).isoformat()
    body = orjson.dumps(
        {"prompt": "later", "repositories": [{"url": "https://git.invalid/a/b.git"}], "notBefore": later}
    )
    began = time.perf_counter()
    async with session(target, connections=CLIENTS) as http, asyncio.TaskGroup() as group:
        clients = [group.create_task(_submit_until(http, body, began + seconds)) for _ in range(CLIENTS)]
    return sum(client.result() for client in clients) / (time.perf_counter() - began)


async def _submit_until(http: aiohttp.ClientSession, body: bytes, end: float) -> int:
    taken = 0
    while time.perf_counter() < end:
        async with http.post("/v1/jobs", data=body, headers={"Content-Type": "application/json"}) as answer:
            await answer.read()
            answer.raise_for_status()
        taken += 1
    return taken

"""How many submits a second the gateway takes from 32 clients while no agent runs, beside a bare handler."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from quarterdeck.stack.environment import base_environment
from quarterdeck.stack.ports import free_ports
from quarterdeck.stack.probes import http_health
from quarterdeck.stack.processes import ProcessSpec
from tests.bench.comparison import cpu_per_thousand
from tests.bench.contenders import CLIENTS, Contender
from tests.bench.kinds import OURS, PEERS
from tests.bench.lean_stack import LeanStack, lean_stack, running
from tests.bench.machine import ROOT
from tests.bench.measure import Bench, Result

NAME = "submit"
GOAL = 2_000
LEAST_RATIO = 0.5
_WARM_UP = 500
_BARE = "bare-handler"


async def measure(bench: Bench) -> Result:
    jobs, rounds = bench.samples(6_000, 2_000), bench.samples(2, 1)
    async with lean_stack(bench, NAME) as stack, _bare_handler(bench, stack) as bare:
        contenders = [bare, *[await Contender.install(kind, stack, bench) for kind in (*PEERS, OURS)]]
        for contender in contenders:
            await contender.submit(_WARM_UP)
        bench.say(f"{NAME}: submitting")
        seconds: defaultdict[str, float] = defaultdict(float)
        # In turns, so that growing tables and a busier machine weigh on all alike.
        for _ in range(rounds):
            for contender in contenders:
                async with contender.metered():
                    report = await contender.submit(jobs)
                seconds[contender.kind.name] += report.ended - report.began
    rates = {name: jobs * rounds / taken for name, taken in seconds.items()}
    figure, baseline = rates.pop(OURS.name), rates.pop(_BARE)
    return Result(
        name=NAME,
        what=f"submits accepted over HTTP, {CLIENTS} clients, no agent",
        figure=figure,
        unit="/s",
        compared_with="a bare aiohttp handler: the same INSERTs and publish, same servers and clients",
        baseline=baseline,
        goal=f"≥ {GOAL:,}/s, ratio ≥ {LEAST_RATIO:g}",
        met=figure >= GOAL and figure / baseline >= LEAST_RATIO,
        details=rates,
        cpu=cpu_per_thousand(contenders, dict.fromkeys(seconds, jobs * rounds)),
    )


@asynccontextmanager
async def _bare_handler(bench: Bench, stack: LeanStack) -> AsyncIterator[Contender]:
    (port,) = free_ports(1)
    own = {"DATABASE_URL": stack.database_url, "NATS_URL": stack.nats_url, "PORT": str(port)}
    spec = ProcessSpec(
        name=_BARE,
        command=(sys.executable, "-m", "tests.bench.bare_handler"),
        environment=base_environment() | own,
        log=bench.scratch / "bare-handler.log",
        folder=ROOT,
        probe=http_health(f"127.0.0.1:{port}"),
    )
    async with running(spec) as child:
        kind = replace(OURS, name=_BARE, uses=("gateway", "nats", "postgres"))
        processes = stack.processes | {"gateway": child.pid}
        yield await Contender.install(
            kind, replace(stack, address=f"http://127.0.0.1:{port}", processes=processes), bench
        )

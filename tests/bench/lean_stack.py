"""Quarterdeck's durable path and nothing else: the two servers, the gateway and the scheduler, as `quarterdeck up`
runs them, and databases for peers beside ours. No agent, no vcs, no model.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import asyncpg

from quarterdeck.stack.embedded import EmbeddedServers
from quarterdeck.stack.ports import free_ports
from quarterdeck.stack.processes import ChildProcess, ProcessSpec, run_to_end
from quarterdeck.stack.services import HOST, ServiceSpecs
from tests.bench.measure import Bench
from tests.bench.stacks import options

MIGRATE_SECONDS = 60


@dataclass(frozen=True)
class LeanStack:
    """``address``: the gateway's, as a URL. ``processes``: the pid of each, by name."""

    address: str
    api_key: str
    database_url: str
    nats_url: str
    processes: dict[str, int]
    database_url_of: Callable[[str], str]
    servers: EmbeddedServers

    async def new_database(self, name: str) -> str:
        """Make a database on the same server; return its URL."""
        connection = await asyncpg.connect(self.database_url)
        try:
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()
        return self.database_url_of(name)


@asynccontextmanager
async def lean_stack(bench: Bench, name: str) -> AsyncIterator[LeanStack]:
    bench.say(f"{name}: starting PostgreSQL, NATS, gateway and scheduler")
    folder = bench.folder(f"{name}-stack")
    async with AsyncExitStack() as opened:
        servers = await opened.enter_async_context(EmbeddedServers(folder))
        specs = ServiceSpecs(options(folder), servers.database_url, servers.nats_url)
        await run_to_end(specs.migrate(), seconds=MIGRATE_SECONDS)
        gateway_port, scheduler_port = free_ports(2)
        children: dict[str, ChildProcess] = {
            "gateway": await opened.enter_async_context(running(specs.gateway(gateway_port))),
            "scheduler": await opened.enter_async_context(running(specs.scheduler(scheduler_port))),
            "postgres": servers.running["postgres"],
            "nats": servers.running["nats"],
        }
        yield LeanStack(
            address=f"http://{HOST}:{gateway_port}",
            api_key=specs.api_key,
            database_url=servers.database_url,
            nats_url=servers.nats_url,
            processes={key: child.pid for key, child in children.items()},
            database_url_of=servers.postgres.database_url,
            servers=servers,
        )


@asynccontextmanager
async def running(spec: ProcessSpec) -> AsyncIterator[ChildProcess]:
    """The process, once it is ready; stopped at the end."""
    child = await ChildProcess.spawn(spec)
    try:
        await child.wait_ready()
        yield child
    finally:
        await child.stop()

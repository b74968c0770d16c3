"""A real gateway that serves one published API, also on a port of its own; and a stand-in for what carries jobs out."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from quarterdeck.stack.ports import free_ports
from services.contracts.words import RunState
from services.gateway.__main__ import serve
from services.gateway.dialects.dialect import Dialect
from services.gateway.settings import GatewaySettings
from services.jobs import scheduling
from services.jobs.clients import Clients
from services.jobs.models import ClaimedRun
from services.jobs.scheduling import Dispatched
from services.runtime.postgres import Database
from tests.integration.gateway.conftest import KEY as NATIVE_KEY
from tests.integration.gateway.conftest import client_of
from tests.integration.jobs.domain import Domain
from tests.integration.waiting import until_async

STOP_SECONDS = 20
SHELL_SECONDS = 60


@dataclass
class Api:
    """``alone``: at the root of its own port. ``mounted``: in its folder of the gateway. ``native``: `/v1`, as an
    operator.
    """

    alone: httpx.AsyncClient
    mounted: httpx.AsyncClient
    native: httpx.AsyncClient

    @property
    def address(self) -> str:
        """Of the API's own port, without a slash at its end."""
        return str(self.alone.base_url).rstrip("/")

    async def shell(self, script: str, home: Path, *, shows_headers: bool = True) -> tuple[str, str]:
        """Run a printed script, whose base address was replaced by ``address``; what it wrote to stdout and stderr.

        ``home``: an empty folder, where curl looks for its settings. ``shows_headers``: answers come with theirs.
        """
        (home / ".curlrc").write_text("include\nsilent\n" if shows_headers else "silent\n")
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", script),
            env={"PATH": os.environ["PATH"], "HOME": str(home), "no_proxy": "*"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), SHELL_SECONDS)
        assert process.returncode == 0, err.decode()
        return out.decode(), err.decode()


@asynccontextmanager
async def running_api(
    database_url: str,
    nats_url: str,
    make: Callable[[int], Dialect],
    *,
    key: str | None = None,
    ready_path: str = "/health",
    **gateway_settings: Any,
) -> AsyncIterator[Api]:
    """``make``: the dialect for its own port. ``key``: what its requests bear. Up once ``ready_path`` answers 200."""
    port, own_port = free_ports(2)
    dialect = make(own_port)
    values: dict[str, Any] = {"database_url": database_url, "nats_url": nats_url, "port": port, "api_key": NATIVE_KEY}
    values |= {"drain_seconds": 2.0, "health_address": None} | gateway_settings
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(GatewaySettings(**values), stop, [dialect]))
    async with AsyncExitStack() as stack:
        alone, mounted, native = [
            await stack.enter_async_context(client_of(number, each))
            for number, each in ((own_port, key), (port, key), (port, NATIVE_KEY))
        ]
        mounted.base_url = httpx.URL(f"http://127.0.0.1:{port}/{dialect.name}")
        try:
            await until_async(lambda: _is_up(alone, native, serving, ready_path))
            yield Api(alone, mounted, native)
        finally:
            stop.set()
            await asyncio.wait_for(serving, STOP_SECONDS)


async def _is_up(api: httpx.AsyncClient, native: httpx.AsyncClient, serving: asyncio.Task[None], path: str) -> bool:
    if serving.done():
        serving.result()
    try:
        answers = [await api.get(path), await native.get("/health")]
    except httpx.TransportError:
        return False
    return all(answer.status_code == 200 for answer in answers)


class Fleet:
    """Moves jobs through their states, as scheduler, agent and vcs would."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self._orders: dict[UUID, Dispatched] = {}

    async def give(self, job_id: str | UUID) -> Dispatched:
        """Admit what waits; the order that gives the job's run to an agent; of several, the one admitted last."""
        self._orders |= {order.job_id: order for order in await self.domain.admit()}
        return self._orders[UUID(str(job_id))]

    async def claim(self, job_id: str | UUID) -> ClaimedRun:
        """Admit what waits, and let an agent begin with the job's run; of several, with the one admitted last."""
        run = await self.domain.claimed(await self.give(job_id))
        await self.domain.running.prepared(run.hold, base_sha="b" * 40, base_branch="main", events=[])
        return run


async def leave(domain: Domain, order: Dispatched) -> None:
    """Its agent does not take the run up in time: it is queued again."""
    await domain.expire(order.run_id)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(scheduling, "LEASE", timedelta(milliseconds=1))  # so long does Postgres have to be up
        await domain.lose()
    assert (await domain.row("runs", order.run_id))["state"] == RunState.QUEUED


@asynccontextmanager
async def fleet_of(database_url: str, client: str) -> AsyncIterator[Fleet]:
    """``client``: whose jobs it carries out, by name."""
    database = Database(database_url, size=4, name="test")
    domain = Domain(database)
    domain.client = await Clients(database).ensure(client)
    yield Fleet(domain)
    await database.close()

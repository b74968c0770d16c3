"""A real gateway that serves Codebot's API on a port of its own, and a stand-in for scheduler, agent and vcs."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from quarterdeck.stack.ports import free_ports
from services.gateway.__main__ import serve
from services.gateway.dialects.codebot import codebot as codebot_dialect
from services.gateway.dialects.codebot.settings import CodebotSettings
from services.gateway.settings import GatewaySettings
from services.jobs.admitting import Dispatched
from services.jobs.clients import Clients
from services.jobs.models import ClaimedRun
from services.runtime.postgres import Database
from tests.contract.codebot.document import ADDRESS, KEY, SUBMISSION
from tests.integration.conftest import (
    database_url,
    drop_database,
    execute,
    nats_server,
    nats_url,
    servers,
    template_database,
)
from tests.integration.gateway.conftest import KEY as NATIVE_KEY
from tests.integration.gateway.conftest import client_of
from tests.integration.jobs.domain import Domain
from tests.integration.waiting import until_async

__all__ = ["database_url", "nats_server", "nats_url", "servers", "template_database"]

OTHER_KEY = "other-key"
STOP_SECONDS = 20
CURL_SECONDS = 60


@dataclass
class Codebot:
    """``api``: at the root of its port, with a key. ``mounted``: in its folder. ``native``: `/v1` as an operator."""

    api: httpx.AsyncClient
    mounted: httpx.AsyncClient
    native: httpx.AsyncClient
    home: Path = field(default_factory=Path)
    """Where curl finds its settings."""

    async def submit(self, **fields: Any) -> str:
        answer = await self.api.post("/api/tasks/submit", json=SUBMISSION | fields)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["task_id"])

    async def status(self, task_id: str) -> dict[str, Any]:
        answer = await self.api.get(f"/api/tasks/{task_id}/status")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def tasks(self, **query: Any) -> list[dict[str, Any]]:
        answer = await self.api.get("/api/tasks", params=query)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["tasks"]
        assert answer.json() == {"tasks": found, "count": len(found)}
        return found

    async def shell(self, script: str) -> tuple[str, str]:
        """Run a printed script against this server; what it wrote to stdout and stderr."""
        script = script.replace(ADDRESS, str(self.api.base_url).rstrip("/"))
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", script),
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "no_proxy": "*"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), CURL_SECONDS)
        assert process.returncode == 0, err.decode()
        return out.decode(), err.decode()


@asynccontextmanager
async def running_codebot(database_url: str, nats_url: str, **settings: Any) -> AsyncIterator[Codebot]:
    """``settings``: Codebot's, by name. Up once its client is made."""
    port, own_port = free_ports(2)
    told: dict[str, Any] = {"api_keys": f"{KEY},{OTHER_KEY}", "port": own_port, "max_workers": 50} | settings
    dialect = codebot_dialect(CodebotSettings(**told))
    assert dialect is not None
    values: dict[str, Any] = {"database_url": database_url, "nats_url": nats_url, "port": port, "api_key": NATIVE_KEY}
    stop = asyncio.Event()
    serving = asyncio.create_task(
        serve(GatewaySettings(**values, drain_seconds=2.0, health_address=None), stop, [dialect])
    )
    async with AsyncExitStack() as stack:
        api, mounted, native = [
            await stack.enter_async_context(client_of(number, key))
            for number, key in ((own_port, KEY), (port, KEY), (port, NATIVE_KEY))
        ]
        mounted.base_url = httpx.URL(f"http://127.0.0.1:{port}/codebot")
        try:
            await until_async(lambda: _is_up(api, native, serving))
            yield Codebot(api, mounted, native)
        finally:
            stop.set()
            await asyncio.wait_for(serving, STOP_SECONDS)


async def _is_up(api: httpx.AsyncClient, native: httpx.AsyncClient, serving: asyncio.Task[None]) -> bool:
    if serving.done():
        serving.result()
    try:
        answers = [await client.get("/health") for client in (api, native)]
    except httpx.TransportError:
        return False
    return all(answer.status_code == 200 for answer in answers)


@pytest.fixture
async def codebot(database_url: str, servers: EmbeddedServers, tmp_path: Path) -> AsyncIterator[Codebot]:
    async with running_codebot(database_url, servers.nats_url) as running:
        running.home = tmp_path
        (tmp_path / ".curlrc").write_text("include\nsilent\n")
        yield running


@pytest.fixture(scope="session")
async def shared_codebot(servers: EmbeddedServers, template_database: str) -> AsyncIterator[Codebot]:
    """One for all the tests that are only refused."""
    name = "test_shared_codebot"
    await execute(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    async with running_codebot(servers.postgres.database_url(name), servers.nats_url) as running:
        yield running
    await drop_database(servers, name)


class Fleet:
    """Moves tasks through their states, as scheduler, agent and vcs would."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self._orders: dict[UUID, Dispatched] = {}

    async def claim(self, task_id: str) -> ClaimedRun:
        """Admit what waits, and let an agent begin with the task."""
        self._orders |= {order.job_id: order for order in await self.domain.admit()}
        run = await self.domain.claimed(self._orders[UUID(task_id)])
        await self.domain.running.prepared(run.hold, base_sha="b" * 40, base_branch="main", events=[])
        return run


@pytest.fixture
async def fleet(database_url: str) -> AsyncIterator[Fleet]:
    database = Database(database_url, size=4, name="test")
    domain = Domain(database)
    domain.client = await Clients(database).ensure("codebot")
    yield Fleet(domain)
    await database.close()

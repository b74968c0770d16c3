"""A real gateway that serves Codebot's API on a port of its own, and a stand-in for scheduler, agent and vcs."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from services.gateway.dialects.codebot import codebot as codebot_dialect
from services.gateway.dialects.codebot.settings import CodebotSettings
from services.gateway.dialects.dialect import Dialect
from tests.contract.codebot.document import ADDRESS, KEY, SUBMISSION
from tests.contract.serving import Api, Fleet, fleet_of, running_api
from tests.integration.conftest import (
    database_url,
    drop_database,
    emptied_nats_url,
    execute,
    lending,
    lent_nats,
    nats_server,
    nats_url,
    servers,
    template_database,
)

__all__ = [
    "database_url",
    "emptied_nats_url",
    "lending",
    "lent_nats",
    "nats_server",
    "nats_url",
    "servers",
    "template_database",
]

OTHER_KEY = "other-key"


@dataclass
class Codebot:
    served: Api

    async def submit(self, **fields: Any) -> str:
        answer = await self.served.alone.post("/api/tasks/submit", json=SUBMISSION | fields)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["task_id"])

    async def status(self, task_id: str) -> dict[str, Any]:
        answer = await self.served.alone.get(f"/api/tasks/{task_id}/status")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def tasks(self, **query: Any) -> list[dict[str, Any]]:
        answer = await self.served.alone.get("/api/tasks", params=query)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["tasks"]
        assert answer.json() == {"tasks": found, "count": len(found)}
        return found

    async def shell(self, script: str, *, shows_headers: bool = True) -> str:
        """Run a script as it is printed, against this server; what it wrote to stdout, answers with their headers."""
        script = script.replace(ADDRESS, self.served.address)
        with tempfile.TemporaryDirectory() as home:
            printed, _ = await self.served.shell(script, Path(home), shows_headers=shows_headers)
        return printed


@asynccontextmanager
async def running_codebot(database_url: str, nats_url: str, **settings: Any) -> AsyncIterator[Codebot]:
    """``settings``: Codebot's, by name. Up once its client is made."""

    def make(port: int) -> Dialect:
        told: dict[str, Any] = {"api_keys": f"{KEY},{OTHER_KEY}", "port": port, "max_workers": 50} | settings
        dialect = codebot_dialect(CodebotSettings(**told))
        assert dialect is not None
        return dialect

    async with running_api(database_url, nats_url, make, key=KEY) as served:
        yield Codebot(served)


@pytest.fixture
async def codebot(database_url: str, servers: EmbeddedServers) -> AsyncIterator[Codebot]:
    async with running_codebot(database_url, servers.nats_url) as running:
        yield running


@pytest.fixture(scope="session")
async def shared_codebot(servers: EmbeddedServers, template_database: str) -> AsyncIterator[Codebot]:
    """One for all the tests that are only refused."""
    name = "test_shared_codebot"
    await execute(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    async with running_codebot(servers.postgres.database_url(name), servers.nats_url) as running:
        yield running
    await drop_database(servers, name)


@pytest.fixture
async def fleet(database_url: str) -> AsyncIterator[Fleet]:
    async with fleet_of(database_url, "codebot") as fleet:
        yield fleet

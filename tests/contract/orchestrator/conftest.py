"""A real gateway that serves the Orchestrator's API, shared by all its tests, and a stand-in for what works."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from services.gateway.dialects.dialect import Dialect
from services.gateway.dialects.orchestrator import orchestrator as orchestrator_dialect
from services.gateway.dialects.orchestrator.settings import OrchestratorSettings
from services.runtime.postgres import Database
from tests.contract.orchestrator import document
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
from tests.integration.gateway.vcs_nodes import TOKEN

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

SECRET = "the-agent-api-secret"


def dialect_of(port: int, **settings: Any) -> Dialect:
    told: dict[str, Any] = {"secret": SECRET, "port": port} | settings
    dialect = orchestrator_dialect(OrchestratorSettings(**told))
    assert dialect is not None
    return dialect


@dataclass(frozen=True)
class Kept:
    """A client of the API with one repository."""

    id: str
    name: str
    repository: str
    """The repository's id."""
    full_name: str


@dataclass
class Orchestrator:
    """``api``: on its own port."""

    served: Api
    database: Database

    @property
    def api(self) -> httpx.AsyncClient:
        return self.served.alone

    async def client(self, *, client_id: str | None = None, full_name: str | None = None) -> Kept:
        """A new one; ``full_name``: of its repository."""
        name = f"Client {secrets.token_hex(4)}"
        full_name = full_name or f"acme/{secrets.token_hex(4)}"
        made = await answered(self.api.post("/clients", json={"name": name, "id": client_id}), 201)
        owner, _, repo = full_name.partition("/")
        body = document.ADD_REPOSITORY | {"githubOrg": owner, "githubRepo": repo}
        kept = await answered(self.api.post(f"/clients/{made['id']}/repository", json=body), 201)
        return Kept(made["id"], name, kept["id"], full_name)

    async def job(self, kept: Kept, **fields: Any) -> dict[str, Any]:
        """Created; on a branch of its own unless told another."""
        body = {"clientId": kept.id, "prompt": "Change one thing", "branchName": f"b-{secrets.token_hex(4)}"}
        return await answered(self.api.post("/jobs", json=body | fields), 201)

    async def shown(self, job_id: str, **query: Any) -> dict[str, Any]:
        return await answered(self.api.get(f"/jobs/{job_id}", params=query), 200)

    async def native_run(self, job_id: str) -> tuple[Any, Any]:
        """The job and its run as Postgres has them."""
        async with self.database.connection() as connection:
            job = await connection.fetchrow("SELECT * FROM jobs WHERE id = $1", UUID(job_id))
            run = await connection.fetchrow("SELECT * FROM runs WHERE job_id = $1", UUID(job_id))
        return job, run


async def answered(answer: Any, status: int) -> dict[str, Any]:
    got: httpx.Response = await answer
    assert got.status_code == status, got.text
    body: dict[str, Any] = got.json()
    return body


@pytest.fixture(scope="session")
async def orchestrator_database_url(servers: EmbeddedServers, template_database: str) -> AsyncIterator[str]:
    name = "test_orchestrator"
    await execute(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    yield servers.postgres.database_url(name)
    await drop_database(servers, name)


@pytest.fixture(scope="session")
async def orchestrator(servers: EmbeddedServers, orchestrator_database_url: str) -> AsyncIterator[Orchestrator]:
    """One for all tests: each has clients of its own in it."""
    database = Database(orchestrator_database_url, size=2, name="test")
    async with running_api(
        orchestrator_database_url,
        servers.nats_url,
        lambda port: dialect_of(port, max_concurrent_jobs=90),
        key=SECRET,
        vcs_token=TOKEN,
    ) as served:
        yield Orchestrator(served, database)
    await database.close()


@pytest.fixture(scope="session")
async def fleet(orchestrator: Orchestrator, orchestrator_database_url: str) -> AsyncIterator[Fleet]:
    async with fleet_of(orchestrator_database_url, "orchestrator") as fleet:
        yield fleet


@pytest.fixture
async def kept(orchestrator: Orchestrator) -> Kept:
    return await orchestrator.client()

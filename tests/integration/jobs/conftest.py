"""The domain over one database for all of these tests, emptied before each: making one anew takes far longer."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from services.jobs import publishing, scheduling
from services.jobs.migrate import migrate
from services.runtime.postgres import Database
from tests.integration.conftest import drop_database, execute
from tests.integration.jobs.domain import Domain

# Those that refer to others first.
TABLES = (
    *("model_usage", "void_usage", "spending", "reservations", "outputs", "budgets", "model_pace", "client_settings"),
    *("forge_comments", "work_items", "forge_apps", "forge_installations"),
    *("repositories", "customers", "forge_pace", "webhook_deliveries"),
    *("events", "event_batches", "messages", "inbox", "checkpoints", "changesets"),
    *("leases", "nodes", "limits", "fair_clocks"),
    *("idempotency_keys", "runs", "jobs", "clients"),
)


@asynccontextmanager
async def database_of(servers: EmbeddedServers, revision: str) -> AsyncIterator[str]:
    """The URL of a new database whose schema is that of ``revision``."""
    name = f"test_revision_{secrets.token_hex(4)}"
    await execute(servers.database_url, f"CREATE DATABASE {name}")
    url = servers.postgres.database_url(name)
    await asyncio.to_thread(migrate, url, to=revision)
    yield url
    await drop_database(servers, name)


@asynccontextmanager
async def copy_of(servers: EmbeddedServers, template: str) -> AsyncIterator[str]:
    """The URL of a new database that is as ``template``."""
    name = f"test_domain_{secrets.token_hex(4)}"
    await execute(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield servers.postgres.database_url(name)
    await drop_database(servers, name)


@pytest.fixture(scope="session")
async def domain_database_url(servers: EmbeddedServers, template_database: str) -> AsyncIterator[str]:
    async with copy_of(servers, template_database) as url:
        yield url


@pytest.fixture(scope="session")
async def database(domain_database_url: str) -> AsyncIterator[Database]:
    database = Database(domain_database_url, size=8, name="test")
    yield database
    await database.close()


@pytest.fixture
async def domain(database: Database) -> Domain:
    async with database.transaction() as connection:
        for table in TABLES:
            await connection.execute(f"DELETE FROM {table}")
    domain = Domain(database)
    domain.client = await domain.new_client("tester")
    return domain


@pytest.fixture
def postgres_is_up_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing expires until a lease after Postgres has started: let that be over."""
    for module in (scheduling, publishing):
        monkeypatch.setattr(module, "LEASE", timedelta(milliseconds=1))

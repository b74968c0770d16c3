"""One database for all of these tests, emptied before each: making one anew takes far longer."""

import secrets
from collections.abc import AsyncIterator

import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from services.runtime.postgres import Database
from tests.integration.conftest import drop_database, execute
from tests.integration.gateway.vcs_nodes import Plan, vcs_node
from tests.integration.gateway.webhooks.hooking import Hooked, hooked_gateway

_EMPTY = "TRUNCATE clients, webhook_deliveries, nodes, limits, forge_apps, forge_installations CASCADE"


@pytest.fixture(scope="session")
async def hooked_database_url(servers: EmbeddedServers, template_database: str) -> AsyncIterator[str]:
    name = f"test_webhooks_{secrets.token_hex(4)}"
    await execute(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    yield servers.postgres.database_url(name)
    await drop_database(servers, name)


@pytest.fixture(scope="session")
async def hooked_database(hooked_database_url: str) -> AsyncIterator[Database]:
    database = Database(hooked_database_url, size=8, name="test")
    yield database
    await database.close()


@pytest.fixture
async def database(hooked_database: Database) -> Database:
    async with hooked_database.connection() as connection:
        await connection.execute(_EMPTY)
    return hooked_database


@pytest.fixture
async def plan(database: Database) -> AsyncIterator[Plan]:
    async with vcs_node(database) as plan:
        yield plan


@pytest.fixture
async def hooked(database: Database, plan: Plan) -> AsyncIterator[Hooked]:
    async with hooked_gateway(database, plan) as hooked:
        yield hooked

"""Real servers for integration tests: one PostgreSQL a session, a fresh database a test, a fresh nats-server a test."""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator

import asyncpg
import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from quarterdeck.stack.environment import base_environment

TEMPLATE = "template_quarterdeck"
MIGRATE_SECONDS = 60
DROP_SECONDS = 60


async def execute(database_url: str, statement: str) -> None:
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        await connection.execute(statement, timeout=10)
    finally:
        await connection.close(timeout=10)


async def drop_database(servers: EmbeddedServers, name: str) -> None:
    """Throw out whoever is connected. A worker of autovacuum is not ours to throw out: it is soon done."""
    async with asyncio.timeout(DROP_SECONDS):
        while True:
            try:
                await execute(servers.database_url, f"DROP DATABASE {name} WITH (FORCE)")
            except asyncpg.InsufficientPrivilegeError:
                await asyncio.sleep(0.1)
            else:
                return


async def migrate(database_url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.jobs.migrate"),
        env=base_environment() | {"DATABASE_URL": database_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), MIGRATE_SECONDS)
    assert process.returncode == 0, output.decode()


@pytest.fixture(scope="session")
async def servers() -> AsyncIterator[EmbeddedServers]:
    """One PostgreSQL and one nats-server for the session; shared, so leave both as you found them."""
    async with EmbeddedServers(durable=False) as running:
        yield running


@pytest.fixture(scope="session")
async def template_database(servers: EmbeddedServers) -> str:
    """The name of a migrated database that others are copied from. Nobody may stay connected to it."""
    await execute(servers.database_url, f"CREATE DATABASE {TEMPLATE}")
    await migrate(servers.postgres.database_url(TEMPLATE))
    return TEMPLATE


@pytest.fixture
async def database_url(servers: EmbeddedServers, template_database: str) -> AsyncIterator[str]:
    """A migrated database of the test's own; whoever is still connected at its end is thrown out."""
    name = f"test_{secrets.token_hex(6)}"
    await execute(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    yield servers.postgres.database_url(name)
    await drop_database(servers, name)


@pytest.fixture
async def nats_server() -> AsyncIterator[EmbeddedServers]:
    """A nats-server of the test's own (it takes 60 ms), which it may kill and start again."""
    async with EmbeddedServers(servers=("nats",)) as running:
        yield running


@pytest.fixture
def nats_url(nats_server: EmbeddedServers) -> str:
    return nats_server.nats_url

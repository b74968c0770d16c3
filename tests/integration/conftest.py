"""Real servers for integration tests: one PostgreSQL a session, a fresh database a test, a fresh nats-server a test."""

import asyncio
import sys
from collections.abc import AsyncIterator

import asyncpg
import nats
import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from quarterdeck.stack.environment import base_environment
from tests.integration.lending import Lending
from tests.integration.waiting import until

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


@pytest.fixture(scope="session")
async def lending(servers: EmbeddedServers, template_database: str) -> AsyncIterator[Lending]:
    admin = await asyncpg.connect(servers.database_url, timeout=10)
    yield Lending(servers.postgres, admin, template_database)
    await admin.close(timeout=10)


@pytest.fixture
async def database_url(servers: EmbeddedServers, lending: Lending) -> AsyncIterator[str]:
    """A migrated database that is the test's alone; whoever is still connected at its end is thrown out."""
    name = await lending.lend()
    yield servers.postgres.database_url(name)
    if not await lending.take_back(name):
        await drop_database(servers, name)


@pytest.fixture
async def nats_server() -> AsyncIterator[EmbeddedServers]:
    """A nats-server of the test's own (it takes 60 ms), which it may kill and start again."""
    async with EmbeddedServers(servers=("nats",)) as running:
        yield running


@pytest.fixture(scope="session")
async def lent_nats() -> AsyncIterator[EmbeddedServers]:
    """A nats-server that tests have one after another, and none of them stops."""
    async with EmbeddedServers(servers=("nats",)) as running:
        yield running


@pytest.fixture
def nats_url(request: pytest.FixtureRequest) -> str:
    """A nats-server that is the test's alone and has no streams: its `nats_server`, else one that others have had."""
    if "nats_server" in request.fixturenames:
        own: EmbeddedServers = request.getfixturevalue("nats_server")
        return own.nats_url
    url: str = request.getfixturevalue("emptied_nats_url")
    return url


@pytest.fixture
async def emptied_nats_url(lent_nats: EmbeddedServers) -> str:
    client = await nats.connect(lent_nats.nats_url, allow_reconnect=False)
    try:
        jetstream = client.jetstream()
        for stream in await jetstream.streams_info():
            await jetstream.delete_stream(str(stream.config.name))
    finally:
        await client.close()
    # One that is made anew before the old one's files are gone has its messages (seen with nats-server 2.15.1, busy).
    store = lent_nats.folder / "nats"
    await until(lambda: not list(store.glob("jetstream/*/streams/*")))
    return lent_nats.nats_url

"""The plans of what lists repositories and clients, and finds vcs nodes: none reads a whole table that grows."""

import secrets
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import asyncpg
import orjson
import pytest

from quarterdeck.stack.embedded import EmbeddedServers
from services.jobs.unit import SQL
from services.runtime.postgres import Connection, Statements
from tests.integration.conftest import drop_database, execute
from tests.integration.jobs.test_plans import Explaining, rows_read

CLIENT = UUID(int=1)

# A thousand clients, of which each keeps twenty repositories, and the first two thousand.
FILL = """
INSERT INTO clients (id, name)
SELECT lpad(to_hex(n), 32, '0')::uuid, 'client ' || n FROM generate_series(1, 1000) n;
INSERT INTO repositories (id, client_id, name, url)
SELECT lpad(to_hex(n), 32, '0')::uuid, lpad(to_hex(CASE WHEN n <= 2000 THEN 1 ELSE 1 + n % 1000 END), 32, '0')::uuid,
       'owner/name-' || n, 'https://forge.example/owner/name-' || n
FROM generate_series(1, 22000) n;
INSERT INTO nodes (name, kind, capacity, address) VALUES ('vcs', 'vcs', 0, '127.0.0.1:1');
ANALYZE;
"""
PAGE = {"client_id": CLIENT, "after": "owner/name-15", "name": None, "most": 51}
CUSTOM, GENERIC = "force_custom_plan", "force_generic_plan"
# File, statement and parameters; as which kind of plan it is asked; most rows that it may read, and of which table.
WANTED: dict[str, tuple[str, str, dict[str, Any], str, str, int]] = {
    "page": ("repositories", "page", PAGE, CUSTOM, "repositories", 51),
    "pattern": ("repositories", "page", PAGE | {"after": None, "name": "owner/name-1%"}, CUSTOM, "repositories", 2_025),
    "imported": ("repositories", "imported", {"client_id": CLIENT, "ids": [CLIENT]}, GENERIC, "repositories", 1),
    "clients": ("clients", "page", {"after": "client 5", "name": None, "most": 51}, CUSTOM, "clients", 51),
    "one client": ("clients", "page", {"after": None, "name": "client 7", "most": 51}, CUSTOM, "clients", 1),
    "living vcs": ("nodes", "living_vcs", {"alive": timedelta(seconds=8)}, GENERIC, "nodes", 1),
}


@pytest.fixture(scope="module")
async def full_database(servers: EmbeddedServers, template_database: str) -> AsyncIterator[str]:
    name = f"test_repository_plans_{secrets.token_hex(4)}"
    await execute(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    connection = await asyncpg.connect(servers.postgres.database_url(name))
    await connection.execute(FILL, timeout=60)
    await connection.close()
    yield servers.postgres.database_url(name)
    await drop_database(servers, name)


@pytest.mark.parametrize("wanted", WANTED)
async def test_no_more_is_read_than_is_answered_or_the_client_has(full_database: str, wanted: str) -> None:
    file, statement, parameters, mode, table, most = WANTED[wanted]
    connection = await asyncpg.connect(full_database)
    try:
        await connection.execute(f"SET plan_cache_mode = {mode}")
        explaining = Explaining(connection, options="ANALYZE, FORMAT JSON")
        await Statements(SQL / f"{file}.sql").rows(cast("Connection", explaining), statement, **parameters)
    finally:
        await connection.close()
    shown = orjson.dumps(explaining.plan, option=orjson.OPT_INDENT_2).decode()
    assert rows_read(explaining.plan, table) <= most, shown

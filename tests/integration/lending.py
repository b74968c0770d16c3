"""Migrated databases that tests borrow one after another: emptying one takes a tenth of making one anew."""

from __future__ import annotations

import secrets
from graphlib import TopologicalSorter

import asyncpg

from quarterdeck.stack.postgres import PostgresServer

SECONDS = 30
GROWN_BYTES = 16 * 1024**2
"""What was in it may have been emptied, but is still to be waded through."""

# Whoever made or changed a thing of the schema, or a setting of the database, is another than in the original.
SCHEMA = """
SELECT md5(string_agg(of || id || by, ' ' ORDER BY of, id, by)) FROM (
    SELECT 'c' AS of, oid::text AS id, xmin::text AS by FROM pg_class WHERE oid >= 16384 AND relpersistence <> 't'
    UNION ALL SELECT 'a', attrelid || '.' || attnum, xmin::text FROM pg_attribute WHERE attrelid >= 16384
    UNION ALL SELECT 'k', oid::text, xmin::text FROM pg_constraint WHERE oid >= 16384
    UNION ALL SELECT 't', oid::text, xmin::text FROM pg_trigger WHERE oid >= 16384
    UNION ALL SELECT 'f', oid::text, xmin::text FROM pg_proc WHERE oid >= 16384
    UNION ALL SELECT 's', setdatabase::text, xmin::text FROM pg_db_role_setting
) AS each
"""
REFERENCES = """
SELECT conrelid::regclass::text AS referring, confrelid::regclass::text AS referred
FROM pg_constraint WHERE contype = 'f' AND conrelid <> confrelid
"""
TABLES = """
SELECT oid::regclass::text AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""
SEQUENCES = """
SELECT setval(format('%I.%I', schemaname, sequencename), start_value, false)
FROM pg_sequences WHERE last_value IS NOT NULL
"""
OTHERS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


class Lending:
    """Copies of one migrated database. What comes back is lent again where nobody is left in it and its schema is as
    it was; else it is dropped.
    """

    def __init__(self, postgres: PostgresServer, admin: asyncpg.Connection[asyncpg.Record], template: str) -> None:
        self._postgres = postgres
        self._admin = admin
        self._template = template
        self._free: list[str] = []
        self._emptying = ""
        self._schema = ""
        self._bytes = 0
        self._originals: dict[str, str] = {}
        """JSON of the rows of each table that has some from the start."""

    async def lend(self) -> str:
        """The name of an empty database, which is the borrower's alone."""
        if self._free:
            return self._free.pop()
        name = f"test_{secrets.token_hex(6)}"
        await self._admin.execute(f"CREATE DATABASE {name} TEMPLATE {self._template}", timeout=SECONDS)
        if not self._schema:
            await self._learn(name)
        return name

    async def take_back(self, name: str) -> bool:
        """Make it as it was at first; return whether that went: if not, it is to be dropped."""
        connection = await asyncpg.connect(self._postgres.database_url(name), timeout=SECONDS)
        try:
            if await self._is_changed(connection):
                return False
            async with connection.transaction():
                await connection.execute(self._emptying, timeout=SECONDS)
                for table, rows in self._originals.items():
                    insert = f"INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, $1)"
                    await connection.execute(insert, rows)
        finally:
            await connection.close(timeout=SECONDS)
        self._free.append(name)
        return True

    async def _is_changed(self, connection: asyncpg.Connection[asyncpg.Record]) -> bool:
        if await connection.fetchval(OTHERS) > 0 or await connection.fetchval(SCHEMA) != self._schema:
            return True
        grown: int = await connection.fetchval("SELECT pg_database_size(current_database())") - self._bytes
        return grown > GROWN_BYTES

    async def _learn(self, name: str) -> None:
        """Look at a copy, since nobody may be connected to what is copied."""
        connection = await asyncpg.connect(self._postgres.database_url(name), timeout=SECONDS)
        try:
            self._schema = await connection.fetchval(SCHEMA)
            self._bytes = await connection.fetchval("SELECT pg_database_size(current_database())")
            tables = [row["name"] for row in await connection.fetch(TABLES)]
            for table in tables:
                if rows := await connection.fetchval(f"SELECT json_agg(each) FROM {table} AS each"):
                    self._originals[table] = rows
            references = await connection.fetch(REFERENCES)
        finally:
            await connection.close(timeout=SECONDS)
        order: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(tables, ()))
        for each in references:
            order.add(each["referred"], each["referring"])
        deletes = [f"DELETE FROM {table}" for table in order.static_order()]
        self._emptying = "; ".join([*deletes, SEQUENCES])

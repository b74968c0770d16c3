"""Alembic's environment: one migrator at a time; each migration commits by itself."""

from __future__ import annotations

import asyncio
import time

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

# Chosen once, at random; whoever holds this advisory lock is the one that migrates.
MIGRATION_LOCK = 7_316_489_211
# A migration must not queue behind a long transaction and have everybody else queue behind it.
LOCK_TIMEOUT = "5s"
TURN_SECONDS = 120.0
_LOOK_SECONDS = 0.1


def _migrate(connection: Connection) -> None:
    _wait_for_turn(connection)
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.commit()
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


def _wait_for_turn(connection: Connection) -> None:
    """Take the lock for this session by asking again and again.

    A statement that waits for it would hold a snapshot, which the other migrator's CREATE INDEX CONCURRENTLY waits
    for: both for ever.
    """
    end = time.monotonic() + TURN_SECONDS
    while not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": MIGRATION_LOCK}).scalar():
        connection.commit()
        if time.monotonic() > end:
            raise TimeoutError(f"another process has been migrating this database for over {TURN_SECONDS:g} s")
        time.sleep(_LOOK_SECONDS)
    connection.commit()


async def _run() -> None:
    engine = create_async_engine(context.config.attributes["url"], poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(_migrate)
    await engine.dispose()


asyncio.run(_run())

"""Says what of a run's work is stored already, for those who clean up after it. Reads only."""

from __future__ import annotations

import hashlib
from uuid import UUID

from services.jobs.unit import SQL
from services.runtime.postgres import Database, Statements

_STATEMENTS = Statements(SQL / "rescuing.sql")


class Rescuing:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def is_stored(self, run_id: UUID, patch: bytes) -> bool:
        """Whether ``patch`` is what the run's checkpoint or changeset holds, byte for byte.

        Raises ``StoreUnavailableError``.
        """
        digest = hashlib.sha256(patch).digest()
        async with self._database.connection() as connection:
            stored: bool = await _STATEMENTS.value(connection, "is_stored", run_id=run_id, digest=digest)
        return stored

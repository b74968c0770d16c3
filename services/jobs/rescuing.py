"""Says whose worktrees are still wanted, and what of a run's work is stored already, for those who clean up after it.
Reads only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from uuid import UUID

from services.jobs.unit import SQL
from services.runtime.postgres import Database, Statements

_STATEMENTS = Statements(SQL / "rescuing.sql")


class Rescuing:
    """Every method raises ``StoreUnavailableError``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def is_stored(self, run_id: UUID, patch: bytes) -> bool:
        """Whether ``patch`` is what the run's checkpoint or changeset holds, byte for byte."""
        digest = hashlib.sha256(patch).digest()
        async with self._database.connection() as connection:
            stored: bool = await _STATEMENTS.value(connection, "is_stored", run_id=run_id, digest=digest)
        return stored

    async def checkpointed(self, run_id: UUID) -> bytes:
        """The patch of the run's checkpoint; empty where it has none."""
        async with self._database.connection() as connection:
            patch: bytes | None = await _STATEMENTS.value(connection, "checkpointed", run_id=run_id)
        return patch or b""

    async def attempts_held(self, run_ids: Sequence[UUID]) -> dict[UUID, int]:
        """The attempt that is running, for each of ``run_ids`` that an agent holds."""
        async with self._database.connection() as connection:
            rows = await _STATEMENTS.rows(connection, "attempts_held", ids=list(run_ids))
        return {row["id"]: row["attempt"] for row in rows}

    async def attempts_kept(self, run_ids: Sequence[UUID]) -> dict[UUID, int]:
        """The attempt whose worktree is to stay after the run's end, for each of ``run_ids`` whose job says so."""
        async with self._database.connection() as connection:
            rows = await _STATEMENTS.rows(connection, "attempts_kept", ids=list(run_ids))
        return {row["id"]: row["attempt"] for row in rows}

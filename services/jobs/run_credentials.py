"""The token that a job brought for GitHub: opened for whoever fetches and publishes for its runs, and nobody else."""

from __future__ import annotations

from uuid import UUID

from services.jobs.errors import SecretsError
from services.jobs.sealed import GITHUB_TOKEN, job_owner
from services.jobs.unit import SQL
from services.runtime.postgres import Database, Statements
from services.runtime.sealing import Sealer, SealingError

_STATEMENTS = Statements(SQL / "run_credentials.sql")


class RunCredentials:
    """Of a token, both raise ``SecretsError`` where it cannot be opened, and ``StoreUnavailableError``."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    async def github_token_of_run(self, run_id: UUID) -> str | None:
        """None: its job brought none."""
        return await self._token("of_run", run_id)

    async def owner_of_run(self, run_id: UUID) -> str:
        """Its client and, where the job names one, its customer, as one word; empty: there is no such run.

        Raises ``StoreUnavailableError``.
        """
        async with self._database.connection() as connection:
            row = await _STATEMENTS.row(connection, "owner", id=run_id)
        return f"{row['client_id']}/{row['customer']}" if row else ""

    async def github_token_of_changeset(self, changeset_id: UUID) -> str | None:
        return await self._token("of_changeset", changeset_id)

    async def _token(self, statement: str, id_: UUID) -> str | None:
        async with self._database.connection() as connection:
            row = await _STATEMENTS.row(connection, statement, id=id_)
        if row is None or row["sealed"] is None:
            return None
        try:
            secrets = self._sealer.open(row["sealed"], owners=[job_owner(row["id"])]).secrets
        except SealingError as error:
            raise SecretsError(f"the credentials that the job brought: {error}") from error
        token: str | None = secrets.get(GITHUB_TOKEN)
        return token

"""Which vcs nodes live: those whose heartbeat was seen within a lease's length."""

from __future__ import annotations

from dataclasses import dataclass

from services.jobs.scheduling import LEASE
from services.jobs.unit import SQL
from services.runtime.postgres import Database, Statements

_STATEMENTS = Statements(SQL / "nodes.sql")


@dataclass(frozen=True)
class VcsNode:
    name: str
    """Unique to one life of its process."""
    address: str
    """Where its gRPC is served."""


class Nodes:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def vcs(self) -> list[VcsNode]:
        """By name. Raises ``StoreUnavailableError``."""
        async with self._database.connection() as connection:
            rows = await _STATEMENTS.rows(connection, "living_vcs", alive=LEASE)
        return sorted((VcsNode(row["name"], row["address"]) for row in rows), key=lambda node: node.name)

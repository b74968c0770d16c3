"""How the fleet stands, for what watches over it: agents that live, a client's work of the day, its key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.jobs.models import Client
from services.jobs.scheduling import LEASE
from services.jobs.unit import SQL
from services.runtime.postgres import Database, Statements

_STATEMENTS = Statements(SQL / "measuring.sql")


@dataclass(frozen=True)
class Agent:
    """One whose heartbeat was seen within a lease's length."""

    name: str
    """Unique to one life of its process."""
    capacity: int
    """Runs at once."""


@dataclass(frozen=True)
class Work:
    """A client's runs, of jobs that were submitted in this UTC day and of older ones that are under way."""

    active: int
    started: int
    failed: int


class Measuring:
    """All raise ``StoreUnavailableError``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def agents(self) -> list[Agent]:
        """The one that lives longest first."""
        async with self._database.connection() as connection:
            rows = await _STATEMENTS.rows(connection, "living_agents", alive=LEASE)
        return [Agent(row["name"], row["capacity"]) for row in rows]

    async def work(self, client: Client) -> Work:
        async with self._database.connection() as connection:
            row = await _STATEMENTS.row(connection, "work", client_id=client.id)
        assert row is not None
        return Work(row["active"], row["started"], row["failed"])

    async def under_way(self, client: Client, *, marked: str) -> int:
        """How many jobs go on, of those that have ``marked`` in their metadata; not those that are to be cancelled."""
        async with self._database.connection() as connection:
            count: int = await _STATEMENTS.value(connection, "under_way", client_id=client.id, key=marked)
        return count

    async def key_stored_at(self, client: Client) -> datetime | None:
        """When the settings that hold the client's own key were last changed; None where it has none."""
        async with self._database.connection() as connection:
            stored_at: datetime | None = await _STATEMENTS.value(connection, "key_stored_at", client_id=client.id)
        return stored_at

"""What is shown of many jobs at once, and of what happened to one. Changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from services.contracts.words import EventKind, ExitReason, Outcome
from services.jobs.eventlog import LoggedEvent, event_of
from services.jobs.models import Client
from services.jobs.unit import SQL
from services.runtime.postgres import Database, Record, Statements

_STATEMENTS = Statements(SQL / "overviews.sql")
MOST_EVENTS = 10_000


@dataclass(frozen=True)
class FirstRun:
    """What a job of one repository comes to. ``url``: of its pull request."""

    id: UUID
    repository: str | None
    branch: str | None
    outcome: Outcome | None
    exit_reason: ExitReason | None
    error: str | None
    summary: str | None
    url: str | None


class Overviews:
    """Every method raises ``StoreUnavailableError``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def first_runs(self, client: Client, job_ids: Sequence[UUID]) -> Mapping[UUID, FirstRun]:
        """By job; those of others are missing."""
        async with self._database.connection() as connection:
            rows = await _STATEMENTS.rows(connection, "first_runs", client_id=client.id, job_ids=list(job_ids))
        return {row["job_id"]: _first_run(row) for row in rows}

    async def happened(self, client: Client, job_id: UUID, kinds: Collection[EventKind]) -> list[LoggedEvent]:
        """The job's durable events of these kinds in order: the newest 10,000."""
        names = [kind.value for kind in kinds]
        async with self._database.connection() as connection:
            rows = await _STATEMENTS.rows(
                connection, "newest_events", client_id=client.id, job_id=job_id, kinds=names, most=MOST_EVENTS
            )
        return [event_of(row) for row in reversed(rows)]


def _first_run(row: Record) -> FirstRun:
    return FirstRun(
        id=row["id"],
        repository=row["repository"],
        branch=row["branch"],
        outcome=Outcome(row["outcome"]) if row["outcome"] else None,
        exit_reason=ExitReason(row["exit_reason"]) if row["exit_reason"] else None,
        error=row["error"],
        summary=row["summary"],
        url=row["url"],
    )

"""What clients read: jobs, runs, changesets, transcripts and logs, each only where it is the client's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from services.contracts import rest
from services.contracts.model import Model
from services.contracts.spending import usd
from services.contracts.words import ChangesetState, JobKind, JobState
from services.jobs.errors import BadCursorError, NotFoundError
from services.jobs.models import Client
from services.jobs.paging import next_cursor, text_behind
from services.jobs.unit import SQL
from services.runtime.postgres import Connection, Database, Record, Statements

_STATEMENTS = Statements(SQL / "reading.sql")
MOST_NUMBERED = 100_000
"""Jobs in a list with numbered pages: to count and to skip takes longer the more there are."""


@dataclass(frozen=True)
class JobFilter:
    """None: not filtered."""

    states: tuple[JobState, ...] | None = None
    kind: JobKind | None = None
    name: str | None = None
    repository: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: Mapping[str, str] | None = None
    """Jobs that have at least these."""


@dataclass(frozen=True)
class ChangesetFilter:
    """None: not filtered."""

    state: ChangesetState | None = None
    job_id: UUID | None = None
    run_id: UUID | None = None
    repository: str | None = None


class Reading:
    """Every method raises ``StoreUnavailableError``; those that take an id, ``NotFoundError``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def job(self, client: Client, job_id: UUID) -> rest.Job:
        async with self._database.connection() as connection:
            row = await _STATEMENTS.row(connection, "job", id=job_id, client_id=client.id)
        return _job(_found(row, "job", job_id))

    async def jobs(self, client: Client, wanted: JobFilter, *, limit: int, cursor: str | None) -> rest.JobPage:
        """Newest first; ``limit``: 1 to 200. Raises ``BadCursorError``."""
        async with self._database.planned_anew() as connection:
            rows = await _STATEMENTS.rows(
                connection,
                "jobs_page",
                client_id=client.id,
                before=_uuid_cursor(cursor),
                most=limit + 1,
                skipped=0,
                **_columns_of(wanted),
            )
        return rest.JobPage(items=[_job(row) for row in rows[:limit]], next_cursor=next_cursor(rows, limit, "id"))

    async def jobs_at(
        self, client: Client, wanted: JobFilter, *, offset: int, limit: int
    ) -> tuple[list[rest.Job], int]:
        """Newest first, for lists with numbered pages: those from ``offset`` on, and how many there are in all; no more
        than 100,000 are counted or shown.

        What is submitted meanwhile moves the pages; ``jobs`` has cursors, which it does not move, and no end.
        """
        filters = _columns_of(wanted)
        async with self._database.planned_anew() as connection:
            total: int = await _STATEMENTS.value(
                connection, "jobs_count", client_id=client.id, most=MOST_NUMBERED, **filters
            )
            if not limit or offset >= total:  # to find nothing, every job there is would be read
                return [], total
            rows = await _STATEMENTS.rows(
                connection, "jobs_page", client_id=client.id, before=None, most=limit, skipped=offset, **filters
            )
        return [_job(row) for row in rows], total

    async def queue_position(self, client: Client, job_id: UUID) -> int:
        """The job's 1-based place among its client's queued ones; 0 where it is not queued, or is not there."""
        async with self._database.connection() as connection:
            place: int | None = await _STATEMENTS.value(connection, "queue_position", id=job_id, client_id=client.id)
        return place or 0

    async def runs(self, client: Client, job_id: UUID, *, limit: int, cursor: str | None) -> rest.RunPage:
        """By place in the job; ``limit``: 1 to 200. Raises ``BadCursorError``."""
        after = _position_cursor(cursor)
        async with self._database.connection() as connection:
            _found(await _STATEMENTS.row(connection, "job", id=job_id, client_id=client.id), "job", job_id)
            rows = await _STATEMENTS.rows(
                connection, "runs_page", job_id=job_id, client_id=client.id, after=after, most=limit + 1
            )
            changesets = await _changesets_of(connection, rows[:limit])
        items = [_run(row, changesets.get(row["id"])) for row in rows[:limit]]
        return rest.RunPage(items=items, next_cursor=next_cursor(rows, limit, "position"))

    async def run(self, client: Client, run_id: UUID) -> rest.Run:
        async with self._database.connection() as connection:
            row = _found(await _STATEMENTS.row(connection, "run", id=run_id, client_id=client.id), "run", run_id)
            changesets = await _changesets_of(connection, [row])
        return _run(row, changesets.get(run_id))

    async def changesets(
        self, client: Client, wanted: ChangesetFilter, *, limit: int, cursor: str | None
    ) -> rest.ChangesetPage:
        """Newest first; ``limit``: 1 to 200. Raises ``BadCursorError``."""
        rows = await self._changesets(client, wanted, before=_uuid_cursor(cursor), most=limit + 1)
        return rest.ChangesetPage(
            items=[_changeset(row) for row in rows[:limit]], next_cursor=next_cursor(rows, limit, "id")
        )

    async def changeset(self, client: Client, changeset_id: UUID) -> rest.Changeset:
        rows = await self._changesets(client, ChangesetFilter(), only=changeset_id, most=1)
        return _changeset(_found(rows[0] if rows else None, "changeset", changeset_id))

    async def _changesets(
        self,
        client: Client,
        wanted: ChangesetFilter,
        *,
        most: int,
        before: UUID | None = None,
        only: UUID | None = None,
    ) -> list[Record]:
        async with self._database.planned_anew() as connection:
            return await _STATEMENTS.rows(
                connection,
                "changesets_page",
                client_id=client.id,
                before=before,
                id=only,
                state=wanted.state.value if wanted.state else None,
                job_id=wanted.job_id,
                run_id=wanted.run_id,
                repository=wanted.repository,
                most=most,
            )

    async def diff(self, client: Client, run_id: UUID) -> bytes:
        """The run's patch; ``NotFoundError`` where it has none (yet)."""
        async with self._database.connection() as connection:
            patch: bytes | None = await _STATEMENTS.value(connection, "patch", run_id=run_id, client_id=client.id)
        if patch is None:
            raise NotFoundError("diff of run", run_id)
        return patch

    async def transcript(self, client: Client, run_id: UUID) -> rest.Transcript:
        async with self._database.connection() as connection:
            _found(await _STATEMENTS.row(connection, "run", id=run_id, client_id=client.id), "run", run_id)
            rows = await _STATEMENTS.rows(connection, "messages", run_id=run_id)
        return rest.Transcript(run_id=run_id, messages=[_message(row) for row in rows])

    async def logs(self, client: Client, run_id: UUID) -> rest.Logs:
        """The first 10,000 lines."""
        async with self._database.connection() as connection:
            _found(await _STATEMENTS.row(connection, "run", id=run_id, client_id=client.id), "run", run_id)
            rows = await _STATEMENTS.rows(connection, "logs", run_id=run_id)
        return rest.Logs(run_id=run_id, lines=[_log_line(row) for row in rows])


def _found(row: Record | None, what: str, identifier: UUID) -> Record:
    if row is None:
        raise NotFoundError(what, identifier)
    return row


async def _changesets_of(connection: Connection, runs: Sequence[Record]) -> dict[UUID, rest.Changeset]:
    rows = await _STATEMENTS.rows(connection, "changesets_of_runs", run_ids=[row["id"] for row in runs])
    return {row["run_id"]: _changeset(row) for row in rows}


def _uuid_cursor(cursor: str | None) -> UUID | None:
    text = text_behind(cursor)
    try:
        return UUID(text) if text is not None else None
    except ValueError as error:
        raise BadCursorError from error


def _position_cursor(cursor: str | None) -> int:
    text = text_behind(cursor)
    if text is None:
        return -1
    if not text.isdecimal() or len(text) > 9:  # noqa: PLR2004  a place is a 32-bit number
        raise BadCursorError
    return int(text)


def _columns_of(wanted: JobFilter) -> dict[str, Any]:
    return {
        "states": [state.value for state in wanted.states] if wanted.states else None,
        "kind": wanted.kind.value if wanted.kind else None,
        "name": wanted.name,
        "repository": wanted.repository,
        "created_after": wanted.created_after,
        "created_before": wanted.created_before,
        "metadata": dict(wanted.metadata) if wanted.metadata else None,
    }


def _fields(model: type[Model], row: Record, **derived: Any) -> dict[str, Any]:
    """The columns of ``row`` that ``model`` names alike, with those that are ``derived``."""
    columns = {name: row[name] for name in model.model_fields if name not in derived}
    return {**columns, **derived}


def _job(row: Record) -> rest.Job:
    counts = {name: row[f"runs_{name}"] for name in rest.RunCounts.model_fields}
    return rest.Job.model_validate(_fields(rest.Job, row, runs=counts))


def _run(row: Record, changeset: rest.Changeset | None) -> rest.Run:
    usage = _fields(rest.RunUsage, row, cost_usd=usd(row["cost_microusd"]))
    return rest.Run.model_validate(_fields(rest.Run, row, usage=usage, changeset=changeset))


def _changeset(row: Record) -> rest.Changeset:
    return rest.Changeset.model_validate(_fields(rest.Changeset, row))


def _message(row: Record) -> rest.TranscriptMessage:
    content = orjson.loads(row["body"])["content"]
    return rest.TranscriptMessage.model_validate(_fields(rest.TranscriptMessage, row, content=content))


def _log_line(row: Record) -> rest.LogLine:
    data = row["data"]
    return rest.LogLine(
        number=row["number"],
        time=row["created_at"],
        level=data.get("level", "info"),
        message=data.get("message", ""),
    )

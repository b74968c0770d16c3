"""The durable event log as it is read: by a job's watchers, and by the one publisher that sends it to NATS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from services.contracts.words import EventKind
from services.jobs.unit import SQL
from services.runtime.postgres import Connection, Database, Record, Statements

_STATEMENTS = Statements(SQL / "reading.sql")


@dataclass(frozen=True)
class LoggedEvent:
    """One durable event."""

    id: UUID
    job_id: UUID
    run_id: UUID | None
    number: int
    attempt: int
    kind: EventKind
    data: dict[str, Any]
    created_at: datetime

    def encoded(self) -> bytes:
        """The proto3 JSON form of the protobuf `Event`."""
        return encode_event(
            event_id=str(self.id),
            job_id=str(self.job_id),
            run_id=str(self.run_id) if self.run_id else "",
            number=self.number,
            attempt=self.attempt,
            kind=self.kind,
            time=self.created_at,
            data=self.data,
        )


def encode_event(
    *,
    event_id: str,
    job_id: str,
    run_id: str,
    number: int,
    attempt: int,
    kind: EventKind,
    time: datetime,
    data: dict[str, Any],
) -> bytes:
    """Encode an event as the proto3 JSON mapping has it: default values left out, but for the payload itself."""
    head = {"id": event_id, "jobId": job_id, "runId": run_id, "number": number, "attempt": attempt}
    event: dict[str, Any] = {name: value for name, value in head.items() if value}
    event["kind"] = kind.value
    event["time"] = time.astimezone(UTC).isoformat().replace("+00:00", "Z")
    event[payload_name(kind)] = data
    return orjson.dumps(event)


def payload_name(kind: EventKind) -> str:
    """The JSON name of the payload: `run.cancel_requested` → `runCancelRequested`."""
    first, *rest = kind.value.replace(".", "_").split("_")
    return first + "".join(word.capitalize() for word in rest)


class EventLog:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def after(self, job_id: UUID, number: int, *, most: int = 500) -> list[LoggedEvent]:
        """The job's events above ``number``, in order, at most ``most``."""
        async with self._database.connection() as connection:
            rows = await _STATEMENTS.rows(connection, "events_after", job_id=job_id, after=number, most=most)
        return [_event(row) for row in rows]

    async def unpublished(self, connection: Connection, *, most: int) -> list[LoggedEvent]:
        rows = await _STATEMENTS.rows(connection, "unpublished_events", most=most)
        return [_event(row) for row in rows]

    async def mark_published(self, connection: Connection, events: Sequence[LoggedEvent]) -> None:
        await _STATEMENTS.execute(
            connection,
            "mark_published",
            job_ids=[event.job_id for event in events],
            numbers=[event.number for event in events],
        )


def _event(row: Record) -> LoggedEvent:
    return LoggedEvent(
        id=row["id"],
        job_id=row["job_id"],
        run_id=row["run_id"],
        number=row["number"],
        attempt=row["attempt"],
        kind=EventKind(row["kind"]),
        data=row["data"],
        created_at=row["created_at"],
    )

"""The durable event log as its watchers read it: of one job, or of all that a client has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from services.contracts.words import EventKind
from services.jobs.unit import SQL
from services.runtime.postgres import Database, Record, Statements

_STATEMENTS = Statements(SQL / "reading.sql")
_SEARCHED = 20_000
"""How many sequences one page of a client's events looks through at most."""


class LoggedEvent(NamedTuple):
    """One durable event. There are so many that a dataclass would take long."""

    id: UUID
    job_id: UUID
    run_id: UUID | None
    number: int
    attempt: int
    kind: EventKind
    data: dict[str, Any]
    created_at: datetime
    client_id: UUID | None = None
    sequence: int | None = None
    """Its place over all jobs, in the order of publication; None: not published yet."""

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


@dataclass(frozen=True)
class Page:
    """A part of a client's published events. ``through``: all of its events up to this sequence are in the pages
    given so far.
    """

    events: list[LoggedEvent]
    through: int
    is_last: bool


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
    event: dict[str, Any] = {"id": event_id} if event_id else {}
    if job_id:
        event["jobId"] = job_id
    if run_id:
        event["runId"] = run_id
    if number:
        event["number"] = number
    if attempt:
        event["attempt"] = attempt
    event["kind"] = str(kind)
    event["time"] = time.astimezone(UTC)
    event[payload_name(kind)] = data
    return orjson.dumps(event, option=orjson.OPT_UTC_Z)


@cache
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
        return [event_of(row) for row in rows]

    async def published_after(self, client_id: UUID, sequence: int, *, most: int = 500) -> Page:
        """The client's published events behind ``sequence``, in order, at most ``most``.

        The search is bounded: a page may be empty and still have come further.
        """
        async with self._database.connection() as connection:
            last: int = await _STATEMENTS.value(connection, "last_assigned")
            through = min(last, sequence + _SEARCHED)
            rows = await _STATEMENTS.rows(
                connection, "published_range", client_id=client_id, after=sequence, through=through, most=most
            )
        events = [event_of(row) for row in rows]
        if len(rows) == most:
            through = rows[-1]["sequence"]
        return Page(events, max(through, sequence), is_last=through >= last)

    async def newest(self) -> int:
        """The last sequence that was given out; 0: none was."""
        async with self._database.connection() as connection:
            newest: int = await _STATEMENTS.value(connection, "last_assigned")
        return newest

    async def first_kept(self) -> int | None:
        """The lowest sequence whose event is still kept; None where there is none."""
        async with self._database.connection() as connection:
            first: int | None = await _STATEMENTS.value(connection, "first_kept")
        return first


def event_of(row: Record) -> LoggedEvent:
    return LoggedEvent(
        id=row["id"],
        job_id=row["job_id"],
        run_id=row["run_id"],
        number=row["number"],
        attempt=row["attempt"],
        kind=EventKind(row["kind"]),
        data=row["data"],
        created_at=row["created_at"],
        client_id=row["client_id"],
        sequence=row["sequence"],
    )

"""The durable event log as its watchers read it: of one job, or of all that a client has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from services.contracts.text import clipped
from services.contracts.words import EventKind
from services.jobs.unit import SQL
from services.runtime.postgres import Database, Record, Statements

_STATEMENTS = Statements(SQL / "reading.sql")
_SEARCHED = 20_000
"""How many sequences one page of a client's events looks through at most."""

MOST_BYTES = 512 * 1024
"""Of an event as a message of NATS; the whole one is in Postgres."""
MOST_SUMMARY_CHARACTERS = 50_000
"""Of what a model said last, as events tell it; the run keeps all of it."""
MOST_LINE_CHARACTERS = 4_000
"""Of an error or a line of a log."""
_SHORTENED_CHARACTERS = 1_000
"""Of each text in an event that is too large."""


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
    """Its place over all jobs, in the order of publication; None: it was not asked for."""

    def encoded(self, *, most_bytes: int | None = None) -> bytes:
        """The proto3 JSON form of the protobuf `Event`; as ``encode_event`` has it."""
        return encode_event(
            event_id=str(self.id),
            job_id=str(self.job_id),
            run_id=str(self.run_id) if self.run_id else "",
            number=self.number,
            attempt=self.attempt,
            kind=self.kind,
            time=self.created_at,
            data=self.data,
            most_bytes=most_bytes,
        )


@dataclass(frozen=True)
class Page:
    """A part of a client's published events. ``through``: all of its events up to this sequence are in the pages
    given so far.
    """

    events: list[LoggedEvent]
    through: int
    is_last: bool


def told_summary(summary: str) -> str:
    """What a model said last, as events tell it."""
    return clipped(summary, MOST_SUMMARY_CHARACTERS, where="the run's summary has them")


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
    most_bytes: int | None = None,
) -> bytes:
    """Encode an event as the proto3 JSON mapping has it: default values left out, but for the payload itself.

    ``most_bytes``: where that has more, its payload is shortened, and `leftOut` says where all of it is. None: it goes
    where any size may go.
    """
    event: dict[str, Any] = {"id": event_id} if event_id else {}
    if job_id:
        event["jobId"] = job_id
    if run_id:
        event["runId"] = run_id
    if number:
        event["number"] = number
    if attempt:
        event["attempt"] = attempt
    event["kind"] = kind
    event["time"] = time if time.tzinfo is UTC else time.astimezone(UTC)
    payload = payload_name(kind)
    event[payload] = data
    encoded = orjson.dumps(event, option=orjson.OPT_UTC_Z)
    if most_bytes is None or len(encoded) <= most_bytes:
        return encoded
    event[payload] = {name: each for name, value in data.items() if (each := _shortened(value)) is not None}
    event["leftOut"] = f"too large to be sent along ({len(encoded):,} bytes): {_where(job_id, number)}"
    return orjson.dumps(event, option=orjson.OPT_UTC_Z)


def _shortened(value: Any) -> Any:
    """A text by its beginning; None for anything else that is large."""
    if isinstance(value, str):
        return clipped(value, _SHORTENED_CHARACTERS)
    return value if len(orjson.dumps(value)) <= _SHORTENED_CHARACTERS else None


def _where(job_id: str, number: int) -> str:
    if not number:
        return "the run's transcript is the record"
    return f"GET /v1/jobs/{job_id}/events with `Last-Event-ID: {number - 1}:-:0` begins with all of it"


@cache
def kind_of(word: str) -> EventKind:
    """The kind of that name; raises ``ValueError`` where there is none. To ask the enumeration takes longer."""
    return EventKind(word)


@cache
def payload_name(kind: EventKind) -> str:
    """The JSON name of the payload: `job.cancel_requested` → `jobCancelRequested`."""
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
        kind=kind_of(row["kind"]),
        data=row["data"],
        created_at=row["created_at"],
        client_id=row["client_id"],
        sequence=row["sequence"],
    )

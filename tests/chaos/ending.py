"""What is in Postgres, in the origins and on the disk once all is over: read, not judged."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import orjson

from quarterdeck.demo.git import git

Row = TypeVar("Row")


@dataclass(frozen=True)
class JobRow:
    id: UUID
    name: str
    state: str
    cancel_requested: bool
    runs_total: int
    runs_started: int
    runs_active: int
    runs_completed: int
    runs_failed: int
    runs_cancelled: int
    last_event_number: int


@dataclass(frozen=True)
class RunRow:
    id: UUID
    job_id: UUID
    repository: str
    branch: str
    base_sha: str | None
    state: str
    outcome: str | None
    exit_reason: str | None
    error: str | None
    attempt: int
    times_lost: int
    turns: int
    cancel_requested_at: datetime | None
    has_lease_token: bool


@dataclass(frozen=True)
class ChangesetRow:
    run_id: UUID
    state: str
    branch: str
    commit_sha: str
    attempts: int


@dataclass(frozen=True)
class MessageRow:
    run_id: UUID
    number: int
    attempt: int
    role: str


@dataclass(frozen=True)
class EventRow:
    """``data``: the payload."""

    job_id: UUID
    number: int
    run_id: UUID | None
    attempt: int
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Branch:
    """A branch of ours in an origin. ``pushed_at``: when its ref was written."""

    name: str
    commit_sha: str
    parents: tuple[str, ...]
    tree: str
    pushed_at: datetime


@dataclass(frozen=True)
class Ending:
    """Events and messages are in order of their numbers, per job and per run. ``leases``: in words.
    ``branches``: by repository, as the runs name it. ``wanted_tree``: of a delivered commit.
    """

    jobs: Sequence[JobRow]
    runs: Sequence[RunRow]
    changesets: Sequence[ChangesetRow]
    messages: Sequence[MessageRow]
    events: Sequence[EventRow]
    leases: Sequence[str]
    branches: dict[str, list[Branch]]
    wanted_tree: str


_JOBS = """
SELECT id, name, state, cancel_requested_at IS NOT NULL AS cancel_requested, runs_total, runs_started, runs_active,
       runs_completed, runs_failed, runs_cancelled, last_event_number
FROM jobs ORDER BY id"""
_RUNS = """
SELECT id, job_id, repository, branch, base_sha, state, outcome, exit_reason, error, attempt, times_lost, turns,
       cancel_requested_at, lease_token IS NOT NULL AS has_lease_token
FROM runs ORDER BY id"""
_CHANGESETS = "SELECT run_id, state, branch, commit_sha, attempts FROM changesets"
_MESSAGES = "SELECT run_id, number, attempt, role FROM messages ORDER BY run_id, number"
_EVENTS = "SELECT job_id, number, run_id, attempt, kind, data FROM events ORDER BY job_id, number"
_LEASES = "SELECT format('%s %s of %s, until %s', kind, id, holder, expires_at) FROM leases"
_UNSETTLED = """
SELECT (SELECT count(*) FROM jobs WHERE finished_at IS NULL) + (SELECT count(*) FROM runs WHERE finished_at IS NULL)
     + (SELECT count(*) FROM leases)"""


class EndingReader:
    """Looks into Postgres without being able to write there. Raises what asyncpg raises where it is away."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url

    async def unsettled(self) -> int:
        """How many jobs and runs are not final, and leases are held."""
        async with self._connection() as connection:
            count: int = await connection.fetchval(_UNSETTLED)
        return count

    async def read(self, origins: Sequence[Path], wanted: Path) -> Ending:
        """Everything. ``wanted``: a repository whose HEAD is what a delivered commit must hold."""
        async with self._connection() as connection:
            return Ending(
                jobs=await _rows(connection, JobRow, _JOBS),
                runs=await _rows(connection, RunRow, _RUNS),
                changesets=await _rows(connection, ChangesetRow, _CHANGESETS),
                messages=await _rows(connection, MessageRow, _MESSAGES),
                events=await _rows(connection, EventRow, _EVENTS),
                leases=[row[0] for row in await connection.fetch(_LEASES)],
                branches={str(origin): read_branches(origin) for origin in origins},
                wanted_tree=git("rev-parse", "HEAD^{tree}", folder=wanted).decode().strip(),
            )

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
            self._url, timeout=10, command_timeout=60, server_settings={"default_transaction_read_only": "on"}
        )
        try:
            await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=orjson.dumps, decoder=orjson.loads)
            yield connection
        finally:
            await connection.close()


async def _rows(connection: asyncpg.Connection[asyncpg.Record], row: type[Row], query: str) -> list[Row]:
    """The columns of ``query`` are the fields of ``row``, by name."""
    return [row(**dict(record)) for record in await connection.fetch(query)]


def read_branches(origin: Path) -> list[Branch]:
    listed = git(
        "for-each-ref",
        "--format=%(refname:lstrip=2) %(objectname) %(tree) %(parent)",
        "refs/heads/quarterdeck",
        folder=origin,
    )
    return [_branch(origin, line.split()) for line in listed.decode().splitlines()]


def _branch(origin: Path, words: list[str]) -> Branch:
    name, commit_sha, tree, *parents = words
    # The origins are told never to pack their refs, so that each is a file of its own.
    written = (origin / "refs" / "heads" / name).stat().st_mtime
    return Branch(name, commit_sha, tuple(parents), tree, datetime.fromtimestamp(written, UTC))

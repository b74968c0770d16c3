"""The unit of work: one transaction that moves runs, counts them in their jobs and tells it in the event log.

Jobs are locked ascending, before any of their runs. A job's event numbers are handed out under its lock, so that they
are committed in order and without holes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from services.contracts.words import EventKind, JobState
from services.jobs.states import Tally, job_outcome, job_state
from services.runtime.ids import uuid7
from services.runtime.postgres import Connection, Database, Record, Statements

SQL = Path(__file__).parent / "sql"
_STATEMENTS = Statements(SQL / "unit.sql")
_LOOKED_BACK = 1_000
"""Events of a job; no more are told between two tries of a transaction."""
_FINAL = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Draft:
    """An event to be: numbered when it is written."""

    kind: EventKind
    data: dict[str, Any]
    """The payload as proto3 JSON."""
    id: UUID = field(default_factory=uuid7, compare=False)
    """The event's; one that is made before the unit stays the same when the unit is run again."""


@dataclass
class LockedJob:
    id: UUID
    client_id: UUID
    state: JobState
    cancel_requested: bool
    tally: Tally
    active: int
    last_event_number: int
    was_started: bool
    """Whether one of its runs had ever been given to an agent when it was locked."""
    max_parallel: int | None
    fair_tag: int
    look_again: bool = False
    """A run of it was queued: admission is to look at the job again."""


class Unit:
    """One open transaction over some locked jobs."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.jobs: dict[UUID, LockedJob] = {}
        self._events: list[tuple[LockedJob, int, UUID | None, int, Draft]] = []
        self._frees = False
        self.is_retried = False
        """Whether this is not the first try: an earlier one's commit may have succeeded unheard."""

    @classmethod
    async def lock(cls, connection: Connection, job_ids: Sequence[UUID]) -> Unit:
        """Lock ``job_ids``; those that do not exist are simply not in ``jobs``."""
        unit = cls(connection)
        for row in await _STATEMENTS.rows(connection, "lock_jobs", ids=sorted(set(job_ids))):
            unit.jobs[row["job_id"]] = _locked(row)
        return unit

    @property
    def rung(self) -> Rung | None:
        """What is to be told once this is committed."""
        if self._frees:
            return Rung.SLOTS
        return Rung.EVENTS if self._events else None

    def tell(self, job_id: UUID, draft: Draft, *, run_id: UUID | None = None, attempt: int = 0) -> None:
        """Append ``draft`` to the job's event log."""
        job = self.jobs[job_id]
        job.last_event_number += 1
        self._events.append((job, job.last_event_number, run_id, attempt, draft))

    async def has_told(self, job_id: UUID, drafts: Sequence[Draft]) -> bool:
        """Whether an earlier try of this unit has committed, by the first event that it tells."""
        if not self.is_retried or not drafts:
            return False
        job = self.jobs[job_id]
        told: bool = await _STATEMENTS.value(
            self.connection, "is_told", job_id=job_id, after=job.last_event_number - _LOOKED_BACK, id=drafts[0].id
        )
        return told

    def count(
        self,
        job_id: UUID,
        *,
        started: int = 0,
        active: int = 0,
        completed: int = 0,
        failed: int = 0,
        cancelled: int = 0,
        queued: int = 0,
    ) -> None:
        """Add to how many of the job's runs are where. ``queued``: how many were queued again."""
        job = self.jobs[job_id]
        job.active += active
        job.look_again = job.look_again or queued > 0
        self._frees = self._frees or active < 0 or queued > 0
        tally = job.tally
        job.tally = replace(
            tally,
            started=tally.started + started,
            completed=tally.completed + completed,
            failed=tally.failed + failed,
            cancelled=tally.cancelled + cancelled,
        )

    async def settle(self) -> None:
        """Derive each job's state from its runs, tell where it changed, and write all of it."""
        for job in self.jobs.values():
            self._derive(job)
        if self.jobs:
            columns = _columns(list(self.jobs.values())) | self._event_columns()
            await _STATEMENTS.execute(self.connection, "settle", **columns)

    def _derive(self, job: LockedJob) -> None:
        state = job_state(job.tally, cancel_requested=job.cancel_requested)
        if job.tally.started and not job.was_started:
            self.tell(job.id, Draft(EventKind.JOB_STARTED, {}))
        if state is not job.state and state in _FINAL:
            outcome = job_outcome(job.tally, state)
            data = {"state": state.value, **({"outcome": outcome.value} if outcome else {})}
            self.tell(job.id, Draft(EventKind.JOB_FINISHED, data))
        job.state = state

    def _event_columns(self) -> dict[str, list[Any]]:
        events = self._events
        return {
            "event_jobs": [job.id for job, *_ in events],
            "event_clients": [job.client_id for job, *_ in events],
            "numbers": [number for _, number, *_ in events],
            "event_ids": [draft.id for *_, draft in events],
            "run_ids": [run_id for _, _, run_id, *_ in events],
            "attempts": [attempt for *_, attempt, _ in events],
            "kinds": [draft.kind.value for *_, draft in events],
            "data": [draft.data for *_, draft in events],
        }


class Rung(StrEnum):
    """What a commit has left to do for others."""

    EVENTS = "events"
    """Events to be published."""
    SLOTS = "slots"
    """The same, and perhaps something to be admitted: a slot is free, or a run was queued again."""


class Units:
    """Runs units of work, and rings once events were committed."""

    def __init__(self, database: Database, *, ring: Callable[[Rung], Awaitable[None]]) -> None:
        """``ring``: tells the scheduler to look; may do nothing, since it also looks by itself."""
        self.database = database
        self._ring = ring

    async def run(self, job_ids: Sequence[UUID], work: Callable[[Unit], Awaitable[Result]]) -> Result:
        """Lock ``job_ids``, run ``work``, settle, commit. ``work`` may be run again from its start."""
        rung: Rung | None = None
        is_retried = False

        async def once(connection: Connection) -> Result:
            nonlocal rung, is_retried
            unit = await Unit.lock(connection, job_ids)
            unit.is_retried, is_retried = is_retried, True
            result = await work(unit)
            await unit.settle()
            rung = unit.rung
            return result

        result = await self.database.in_transaction(once)
        if rung is not None:
            await self._ring(rung)
        return result

    async def ring(self, rung: Rung) -> None:
        await self._ring(rung)


def _locked(row: Record) -> LockedJob:
    return LockedJob(
        id=row["job_id"],
        client_id=row["client_id"],
        state=JobState(row["job_state"]),
        cancel_requested=row["cancel_requested"],
        tally=Tally(
            total=row["runs_total"],
            started=row["runs_started"],
            completed=row["runs_completed"],
            failed=row["runs_failed"],
            cancelled=row["runs_cancelled"],
        ),
        active=row["runs_active"],
        last_event_number=row["last_event_number"],
        was_started=row["runs_started"] > 0,
        max_parallel=row["max_parallel"],
        fair_tag=row["fair_tag"],
    )


def _columns(jobs: list[LockedJob]) -> dict[str, list[Any]]:
    return {
        "ids": [job.id for job in jobs],
        "states": [job.state.value for job in jobs],
        "outcomes": [outcome.value if (outcome := job_outcome(job.tally, job.state)) else None for job in jobs],
        "started": [job.tally.started for job in jobs],
        "active": [job.active for job in jobs],
        "completed": [job.tally.completed for job in jobs],
        "failed": [job.tally.failed for job in jobs],
        "cancelled": [job.tally.cancelled for job in jobs],
        "last_event_numbers": [job.last_event_number for job in jobs],
        "cancel_requested": [job.cancel_requested for job in jobs],
        "fair_tags": [job.fair_tag for job in jobs],
        "look_again": [job.look_again for job in jobs],
    }

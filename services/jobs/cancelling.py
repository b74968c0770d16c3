"""Cancelling: accepted once and for good here, carried out by whoever holds the run, else by the scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from services.contracts.words import EventKind, JobState, RunState
from services.jobs.errors import NotCancellableError, NotFoundError
from services.jobs.models import Client
from services.jobs.scheduling import STATEMENTS, cancel_locked
from services.jobs.states import RunTransition, sources
from services.jobs.unit import Draft, Unit, Units
from services.runtime.postgres import Record

_ENDED = (JobState.COMPLETED, JobState.FAILED)
MOST_AT_ONCE = 200
"""Runs that one transaction cancels at most; it holds their jobs' locks."""


@dataclass(frozen=True)
class ToCancel:
    """An accepted cancel that is not carried out: ``held`` by an agent, or idle."""

    run_id: UUID
    job_id: UUID
    held: bool


class Cancelling:
    def __init__(self, units: Units) -> None:
        self._units = units

    async def request(self, client: Client, job_id: UUID) -> None:
        """Accept the cancel of a whole job; twice is once. Raises ``NotFoundError``, ``NotCancellableError``."""

        async def work(unit: Unit) -> None:
            job = unit.jobs.get(job_id)
            if job is None or job.client_id != client.id:
                raise NotFoundError("job", job_id)
            if job.state in _ENDED:
                raise NotCancellableError(f"the job has already ended: it is {job.state}")
            if job.cancel_requested:
                return
            if not await _mark(unit, job_id, run_id=None):
                raise NotCancellableError("its changes are being pushed at this moment and can no longer be stopped")
            job.cancel_requested = True
            unit.tell(job_id, Draft(EventKind.JOB_CANCEL_REQUESTED, {}))

        await self._units.run([job_id], work)

    async def request_run(self, client: Client, run_id: UUID) -> UUID:
        """Accept the cancel of one run and return its job; raises as ``request`` does."""
        async with self._units.database.connection() as connection:
            row = await STATEMENTS.row(connection, "run_of_client", id=run_id, client_id=client.id)
        if row is None:
            raise NotFoundError("run", run_id)
        job_id: UUID = row["job_id"]

        async def work(unit: Unit) -> None:
            again = await STATEMENTS.row(unit.connection, "run_of_client", id=run_id, client_id=client.id)
            assert again is not None
            _refuse_ended(again)
            if not again["cancel_requested"] and not await _mark(unit, job_id, run_id=run_id):
                raise NotCancellableError("its change is being pushed at this moment and can no longer be stopped")

        await self._units.run([job_id], work)
        return job_id

    async def waiting(self) -> list[ToCancel]:
        """The accepted cancels that are not carried out yet, oldest first: of at most ``MOST_AT_ONCE`` idle runs, and
        of as many that agents hold.
        """
        async with self._units.database.connection() as connection:
            rows = await STATEMENTS.rows(connection, "runs_to_cancel", most=MOST_AT_ONCE)
        return [ToCancel(row["id"], row["job_id"], row["state"] == RunState.RUNNING) for row in rows]

    async def cancel_idle(self, runs: list[ToCancel]) -> int:
        """Cancel those of ``runs`` that nobody works on; return how many."""

        async def work(unit: Unit) -> int:
            rows = await STATEMENTS.rows(
                unit.connection, "take_idle", ids=[r.run_id for r in runs], sources=sources(RunTransition.CANCEL)
            )
            await cancel_locked(unit, rows)
            return len(rows)

        return await self._units.run([run.job_id for run in runs], work) if runs else 0


async def _mark(unit: Unit, job_id: UUID, *, run_id: UUID | None) -> bool:
    rows = await STATEMENTS.rows(unit.connection, "lock_job_for_cancel", job_id=job_id, run_id=run_id)
    await STATEMENTS.execute(unit.connection, "mark_cancelled", ids=[row["id"] for row in rows])
    return bool(rows)


def _refuse_ended(row: Record) -> None:
    if row["state"] in (RunState.COMPLETED, RunState.FAILED):
        raise NotCancellableError(f"the run has already ended: it is {row['state']}")

"""Publications: claimed work of a vcs, after the run has handed its changeset over.

The branch, the commit and the remote SHA that is expected are fixed before the first push, so that a publication
killed at any instant is carried out by the next claim on the same branch, with the same commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from uuid_utils.compat import uuid4

from services.contracts.text import storable
from services.contracts.words import EventKind, ExitReason, Outcome, RunState
from services.jobs.errors import LeaseLostError
from services.jobs.running import grant_lease
from services.jobs.scheduling import LEASE
from services.jobs.states import RunTransition, sources
from services.jobs.unit import SQL, Draft, Unit, Units
from services.runtime.postgres import Record, Statements

_STATEMENTS = Statements(SQL / "publishing.sql")


@dataclass(frozen=True)
class PublicationHold:
    """Proof of holding a changeset."""

    changeset_id: UUID
    run_id: UUID
    job_id: UUID
    attempt: int
    """The run's attempt, which the events carry."""
    token: UUID


@dataclass(frozen=True)
class Publication:
    """A claimed changeset: all that is needed to make its commit again anywhere, and push it."""

    hold: PublicationHold
    repository: str
    branch: str
    base_sha: str
    base_branch: str | None
    commit_sha: str
    author_name: str
    author_email: str
    time: datetime
    message: str
    patch: bytes
    expected_remote_sha: str
    """Empty: the branch must not exist yet."""
    tries: int
    """This one included."""
    summary: str
    is_draft: bool
    verified: bool | None
    """Whether its tests passed; None: none were run."""


@dataclass(frozen=True)
class DuePublication:
    changeset_id: UUID
    run_id: UUID
    dispatch: int


class Publishing:
    def __init__(self, units: Units) -> None:
        self._units = units

    async def claim(self, changeset_id: UUID, run_id: UUID, *, dispatch: int, holder: str) -> Publication | None:
        """Take the changeset; None where the order is stale or the run is to be cancelled."""
        token = uuid4()
        job_id = await self._job_of(run_id)
        if job_id is None:
            return None

        async def work(unit: Unit) -> Publication | None:
            await _STATEMENTS.execute(unit.connection, "lock_run", run_id=run_id)
            row = await _STATEMENTS.row(
                unit.connection, "claim_changeset", id=changeset_id, dispatch=dispatch, token=token
            )
            if row is None:
                return None
            await grant_lease(unit.connection, changeset_id, kind="changeset", token=token, holder=holder)
            return _publication(row, token)

        return await self._units.run([job_id], work)

    async def _job_of(self, run_id: UUID) -> UUID | None:
        async with self._units.database.connection() as connection:
            job_id: UUID | None = await connection.fetchval("SELECT job_id FROM runs WHERE id = $1", run_id)
        return job_id

    async def delivered(self, hold: PublicationHold, *, url: str, branch: str, commit_sha: str) -> None:
        """The forge shows the changeset: it is open, and the run completed: as `unverified` where its tests failed."""

        async def work(unit: Unit) -> None:
            held = await _fenced(unit, hold)
            outcome = Outcome.UNVERIFIED if held["verified"] is False else Outcome.DELIVERED
            await _STATEMENTS.execute(unit.connection, "open_changeset", id=hold.changeset_id, url=url)
            await _STATEMENTS.execute(
                unit.connection,
                "complete_run",
                run_id=hold.run_id,
                outcome=outcome.value,
                sources=sources(RunTransition.COMPLETE),
            )
            unit.count(hold.job_id, active=-1, completed=+1)
            pushed = {
                "changesetId": str(hold.changeset_id),
                "commitSha": commit_sha,
                "branch": branch,
                "url": url,
            }
            _tell(unit, hold, Draft(EventKind.CHANGESET_PUSHED, pushed))
            finished = {"state": RunState.COMPLETED.value, "outcome": outcome.value}
            _tell(unit, hold, Draft(EventKind.RUN_FINISHED, finished))

        await self._units.run([hold.job_id], work)

    async def failed(self, hold: PublicationHold, *, reason: ExitReason, error: str) -> None:
        """The push is refused for good: the changeset is kept, and the run failed."""
        words = storable(error)

        async def work(unit: Unit) -> None:
            await _fenced(unit, hold)
            await _STATEMENTS.execute(unit.connection, "fail_changeset", id=hold.changeset_id, error=words)
            await _STATEMENTS.execute(
                unit.connection,
                "fail_run",
                run_id=hold.run_id,
                exit_reason=reason.value,
                error=words,
                sources=sources(RunTransition.FAIL),
            )
            unit.count(hold.job_id, active=-1, failed=+1)
            _tell(
                unit,
                hold,
                Draft(EventKind.CHANGESET_FAILED, {"changesetId": str(hold.changeset_id), "error": words}),
            )
            finished = {"state": RunState.FAILED.value, "exitReason": reason.value, "error": words}
            _tell(unit, hold, Draft(EventKind.RUN_FINISHED, finished))

        await self._units.run([hold.job_id], work)

    async def retry(self, hold: PublicationHold, *, error: str, delay: timedelta) -> None:
        """Queue the publication again, ``delay`` from now at the earliest."""

        async def work(unit: Unit) -> None:
            await _fenced(unit, hold)
            await _STATEMENTS.execute(
                unit.connection, "requeue_changeset", id=hold.changeset_id, error=storable(error), delay=delay
            )

        await self._units.run([hold.job_id], work)

    async def due(self, *, overdue: timedelta) -> list[DuePublication]:
        """Number anew, and return, the queued changesets that need an order sent now."""

        async def work(unit: Unit) -> list[DuePublication]:
            rows = await _STATEMENTS.rows(unit.connection, "due", overdue=overdue)
            return [DuePublication(row["id"], row["run_id"], row["dispatch"]) for row in rows]

        return await self._units.run([], work)

    async def lose_expired(self) -> int:
        """Queue again what a vcs stopped renewing; return how many."""
        async with self._units.database.connection() as connection:
            rows = await _STATEMENTS.rows(connection, "expired", lease=LEASE)

        async def work(unit: Unit) -> int:
            ids = [row["id"] for row in rows]
            for row in rows:
                await _STATEMENTS.execute(unit.connection, "lock_run", run_id=row["run_id"])
            await _STATEMENTS.execute(unit.connection, "requeue_expired", ids=ids)
            return len(rows)

        return await self._units.run([row["job_id"] for row in rows], work) if rows else 0


async def _fenced(unit: Unit, hold: PublicationHold) -> Record:
    await _STATEMENTS.execute(unit.connection, "lock_run", run_id=hold.run_id)
    row = await _STATEMENTS.row(unit.connection, "held", id=hold.changeset_id, token=hold.token)
    if row is None:
        raise LeaseLostError(f"changeset {hold.changeset_id} is not held by this vcs any more")
    await _STATEMENTS.execute(unit.connection, "drop_lease", id=hold.changeset_id)
    return row


def _tell(unit: Unit, hold: PublicationHold, draft: Draft) -> None:
    unit.tell(hold.job_id, draft, run_id=hold.run_id, attempt=hold.attempt)


def _publication(row: Record, token: UUID) -> Publication:
    return Publication(
        hold=PublicationHold(row["id"], row["run_id"], row["job_id"], row["attempt"], token),
        repository=row["repository"],
        branch=row["branch"],
        base_sha=row["base_sha"],
        base_branch=row["base_branch"],
        commit_sha=row["commit_sha"],
        author_name=row["commit_author_name"],
        author_email=row["commit_author_email"],
        time=row["commit_time"],
        message=row["commit_message"],
        patch=row["patch"],
        expected_remote_sha=row["expected_remote_sha"],
        tries=row["attempts"],
        summary=row["summary"] or "",
        is_draft=row["is_draft"],
        verified=row["verified"],
    )

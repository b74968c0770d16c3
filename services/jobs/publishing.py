"""Publications: claimed work of a vcs, after the run has handed its changeset over.

The branch, the commit and the remote SHA that is expected are fixed before the first push, so that a publication
killed at any instant is carried out by the next claim on the same branch, with the same commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services.contracts.rest import JobOptions
from services.contracts.text import clipped, storable
from services.contracts.words import ChangesetState, EventKind, ExitReason, Outcome, Publish, RunState
from services.jobs.errors import LeaseLostError, NotFoundError, NotPublishableError
from services.jobs.eventlog import MOST_LINE_CHARACTERS
from services.jobs.models import Client
from services.jobs.running import grant_lease
from services.jobs.scheduling import LEASE
from services.jobs.states import FINAL_RUN_STATES, RunTransition, sources
from services.jobs.unit import SQL, Draft, Unit, Units
from services.runtime.ids import uuid4
from services.runtime.postgres import Record, Statements

_STATEMENTS = Statements(SQL / "publishing.sql")
_UNDER_WAY = (ChangesetState.QUEUED, ChangesetState.PUSHING)


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
    """Empty: the branch must not exist yet. Of a review, what the branch was at when it began."""
    also_ours: Sequence[str]
    """What we had pushed to the branch before, newest first: it may be there still. Of a review, nothing."""
    tries: int
    """This one included."""
    summary: str
    publish: Publish
    verified: bool | None
    """Whether its tests passed; None: none were run."""
    name: str | None
    prompt: str
    options: JobOptions
    is_review: bool = False
    """It adds a commit to a pull request that is open, and leaves all else of that as it is."""


@dataclass(frozen=True)
class Shown:
    """Where the forge shows a changeset now. ``notes``: what of the job's wishes it did not take."""

    forge: str
    url: str
    number: int | None
    observe_after: timedelta
    """When the forge is to be asked about it for the first time."""
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class DuePublication:
    changeset_id: UUID
    run_id: UUID
    dispatch: int


class Publishing:
    def __init__(self, units: Units) -> None:
        self._units = units

    async def claim(self, changeset_id: UUID, run_id: UUID, *, dispatch: int, holder: str) -> Publication | None:
        """Take the changeset; None where the order is stale, the run is to be cancelled, or another changeset is being
        pushed to its branch: a later order has its turn.
        """
        token = uuid4()
        job_id = await self._job_of(run_id)
        if job_id is None:
            return None

        async def work(unit: Unit) -> Publication | None:
            await _STATEMENTS.execute(unit.connection, "lock_run", run_id=run_id)
            await _STATEMENTS.execute(unit.connection, "branch_turn", id=changeset_id)
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

    async def request(self, client: Client, changeset_id: UUID, publish: Publish | None) -> None:
        """Queue what was only stored, or failed to be published. What is queued already stays so.

        ``publish``: None: as the job asked, else as a pull request. Raises ``NotFoundError``, ``NotPublishableError``.
        """
        if (job_id := await self._job_of_changeset(changeset_id)) is None:
            raise NotFoundError("changeset", changeset_id)

        async def work(unit: Unit) -> None:
            row = await _STATEMENTS.row(unit.connection, "wanted", id=changeset_id, client_id=client.id)
            if row is None:
                raise NotFoundError("changeset", changeset_id)
            _refuse_unpublishable(row)
            if row["state"] in _UNDER_WAY:
                return
            asked = Publish(row["asked"] or Publish.PULL_REQUEST)
            wanted = publish or (Publish.PULL_REQUEST if asked is Publish.NONE else asked)
            await _STATEMENTS.execute(unit.connection, "queue_later", id=changeset_id, publish=wanted.value)
            told = {"changesetId": str(changeset_id), "state": ChangesetState.QUEUED.value}
            draft = Draft(EventKind.CHANGESET_UPDATED, told)
            unit.tell(row["job_id"], draft, run_id=row["run_id"], attempt=row["attempt"])

        await self._units.run([job_id], work)

    async def _job_of_changeset(self, changeset_id: UUID) -> UUID | None:
        async with self._units.database.connection() as connection:
            query = "SELECT job_id FROM changesets WHERE id = $1"
            job_id: UUID | None = await connection.fetchval(query, changeset_id)
        return job_id

    async def delivered(self, hold: PublicationHold, shown: Shown, *, branch: str, commit_sha: str) -> None:
        """The forge shows the changeset: it is open, and a run that waited for it completed: as `unverified` where its
        tests failed. What it takes the place of is closed, or about to be.
        """
        earlier = await self._earlier(hold)

        async def work(unit: Unit) -> None:
            held = await _fenced(unit, hold)
            await _STATEMENTS.execute(
                unit.connection,
                "open_changeset",
                id=hold.changeset_id,
                url=shown.url,
                forge=shown.forge,
                number=shown.number,
                observe_after=shown.observe_after,
            )
            await _take_place_of(unit, hold, shown, earlier)
            pushed = {
                "changesetId": str(hold.changeset_id),
                "commitSha": commit_sha,
                "branch": branch,
                "url": shown.url,
            }
            _tell(unit, hold, Draft(EventKind.CHANGESET_PUSHED, pushed))
            for note in shown.notes:
                _tell(unit, hold, Draft(EventKind.LOG, {"level": "warning", "message": _line(note)}))
            if held["ends_run"]:
                await _complete_run(unit, hold, held)

        await self._units.run([hold.job_id, *(row["job_id"] for row in earlier)], work)

    async def _earlier(self, hold: PublicationHold) -> list[Record]:
        async with self._units.database.connection() as connection:
            return await _STATEMENTS.rows(connection, "earlier", id=hold.changeset_id)

    async def failed(self, hold: PublicationHold, *, reason: ExitReason, error: str) -> None:
        """It is refused for good: the changeset is kept, and a run that waited for it failed."""
        words = _line(error)

        async def work(unit: Unit) -> None:
            held = await _fenced(unit, hold)
            await _STATEMENTS.execute(unit.connection, "fail_changeset", id=hold.changeset_id, error=words)
            told = {"changesetId": str(hold.changeset_id), "error": words}
            _tell(unit, hold, Draft(EventKind.CHANGESET_FAILED, told))
            if held["ends_run"]:
                await _fail_run(unit, hold, reason, words)

        await self._units.run([hold.job_id], work)

    async def retry(self, hold: PublicationHold, *, error: str, delay: timedelta) -> None:
        """Queue the publication again, ``delay`` from now at the earliest."""
        await self._requeue(hold, error=error, delay=delay, spent=1)

    async def postpone(self, hold: PublicationHold, *, error: str, delay: timedelta) -> None:
        """As ``retry``, but this try does not count: the forge, or our own rate for it, wants us to wait."""
        await self._requeue(hold, error=error, delay=delay, spent=0)

    async def _requeue(self, hold: PublicationHold, *, error: str, delay: timedelta, spent: int) -> None:
        async def work(unit: Unit) -> None:
            await _fenced(unit, hold)
            await _STATEMENTS.execute(
                unit.connection,
                "requeue_changeset",
                id=hold.changeset_id,
                error=storable(error),
                delay=delay,
                spent=spent,
            )
            await _stop_cancelled(unit, [hold.run_id])

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
            await _stop_cancelled(unit, [row["run_id"] for row in rows])
            return len(rows)

        return await self._units.run([row["job_id"] for row in rows], work) if rows else 0


async def _fenced(unit: Unit, hold: PublicationHold) -> Record:
    await _STATEMENTS.execute(unit.connection, "lock_run", run_id=hold.run_id)
    row = await _STATEMENTS.row(unit.connection, "held", id=hold.changeset_id, token=hold.token)
    if row is None:
        raise LeaseLostError(f"changeset {hold.changeset_id} is not held by this vcs any more")
    await _STATEMENTS.execute(unit.connection, "drop_lease", id=hold.changeset_id)
    return row


async def _stop_cancelled(unit: Unit, run_ids: Sequence[UUID]) -> None:
    """A cancel of their job could not reach these runs, which this unit has locked, while they were being pushed."""
    await _STATEMENTS.execute(unit.connection, "stop_cancelled", run_ids=run_ids)


def _refuse_unpublishable(row: Record) -> None:
    if row["state"] not in (*_UNDER_WAY, ChangesetState.STORED, ChangesetState.FAILED):
        raise NotPublishableError(f"the changeset is {row['state']} already: see {row['url'] or 'its branch'}")
    if row["is_cancelled"]:
        raise NotPublishableError("its run was cancelled, and nothing of that is published; retry the job instead")
    if row["state"] not in _UNDER_WAY and RunState(row["run_state"]) not in FINAL_RUN_STATES:
        raise NotPublishableError(f"its run has not ended: it is {row['run_state']}")
    if not row["repository"]:
        raise NotPublishableError("its run has no repository, so there is nowhere to publish it; take its diff")


async def _take_place_of(unit: Unit, hold: PublicationHold, shown: Shown, earlier: Sequence[Record]) -> None:
    """What is on the same branch has become this changeset; what is on another is to be closed."""
    same = [row["id"] for row in earlier if row["is_same_branch"]]
    rows = await _STATEMENTS.rows(unit.connection, "supersede", ids=same, by=hold.changeset_id)
    superseded = {row["id"] for row in rows}  # without what was merged in the meantime
    retired = [row["id"] for row in earlier if not row["is_same_branch"]]
    words = f"Replaced by {shown.url}."
    await _STATEMENTS.execute(unit.connection, "retire", ids=retired, by=hold.changeset_id, comment=words)
    for row in earlier:
        if row["id"] in superseded:
            told = {
                "changesetId": str(row["id"]),
                "state": ChangesetState.CLOSED.value,
                "url": row["url"] or "",
                "supersededBy": str(hold.changeset_id),
            }
            draft = Draft(EventKind.CHANGESET_UPDATED, told)
            unit.tell(row["job_id"], draft, run_id=row["run_id"], attempt=row["attempt"])


async def _complete_run(unit: Unit, hold: PublicationHold, held: Record) -> None:
    outcome = Outcome.UNVERIFIED if held["verified"] is False else Outcome.DELIVERED
    await _STATEMENTS.execute(
        unit.connection,
        "complete_run",
        run_id=hold.run_id,
        outcome=outcome.value,
        sources=sources(RunTransition.COMPLETE),
    )
    unit.count(hold.job_id, active=-1, completed=+1)
    finished = {"state": RunState.COMPLETED.value, "outcome": outcome.value}
    _tell(unit, hold, Draft(EventKind.RUN_FINISHED, finished))


async def _fail_run(unit: Unit, hold: PublicationHold, reason: ExitReason, words: str) -> None:
    await _STATEMENTS.execute(
        unit.connection,
        "fail_run",
        run_id=hold.run_id,
        exit_reason=reason.value,
        error=words,
        sources=sources(RunTransition.FAIL),
    )
    unit.count(hold.job_id, active=-1, failed=+1)
    finished = {"state": RunState.FAILED.value, "exitReason": reason.value, "error": words}
    _tell(unit, hold, Draft(EventKind.RUN_FINISHED, finished))


def _line(words: str) -> str:
    return clipped(storable(words), MOST_LINE_CHARACTERS)


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
        also_ours=row["also_ours"],
        tries=row["attempts"],
        summary=row["summary"] or "",
        publish=Publish(row["publish"]),
        verified=row["verified"],
        name=row["name"],
        prompt=row["prompt"],
        options=JobOptions.model_validate(row["options"]),
        is_review=row["is_review"],
    )

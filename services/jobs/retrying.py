"""Doing a job again: what is final stays so, and a new job with `retry_of` takes its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from services.contracts import rest
from services.contracts.delivery import Checkout
from services.contracts.words import JobState, Queue, RunState
from services.jobs.errors import NotFoundError, NotRetryableError
from services.jobs.models import Client
from services.jobs.submission import NewJob, NewRun, Submissions, Submitted, keyed, shares_branches
from services.jobs.unit import SQL, Units
from services.runtime.postgres import Connection, Record, Statements

_STATEMENTS = Statements(SQL / "retrying.sql")
_ENDED = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True)
class Renaming:
    """What a retry is to be called otherwise than the old job was.

    ``branch``: makes the name of a run's branch from the old one. ``metadata``: takes the place of what the old job has
    under these names.
    """

    branch: Callable[[str], str]
    metadata: Mapping[str, str]


class Retrying:
    def __init__(self, units: Units, submissions: Submissions) -> None:
        self._database = units.database
        self._submissions = submissions

    async def retry(
        self,
        client: Client,
        job_id: UUID,
        wanted: rest.RetryRequest,
        *,
        key: str | None,
        body: bytes,
        renaming: Renaming | None = None,
    ) -> Submitted:
        """Make a job like ``job_id`` of the same kind, options and secrets: whole, or only of what did not complete.

        A run's branch has a new name; the old one where the old run never stored a changeset and this is the first to
        do it again, since then nothing can be there, where jobs of its name share it, and where it goes on with a pull
        request. A run that resumes one that never began goes on from where that would have.
        ``renaming``: gives every branch its name instead, but to a pull request's. ``wanted``'s options take the place
        of the old ones.
        ``key``: as for a submit.
        Raises ``NotFoundError``, ``NotRetryableError``, and as a submit does.
        """
        async with self._database.connection() as connection:
            job = await _STATEMENTS.row(connection, "job", id=job_id, client_id=client.id)
            if job is None:
                raise NotFoundError("job", job_id)
            runs = await _STATEMENTS.rows(connection, "runs", job_id=job_id)
        _refuse_unended(job)
        chosen = [run for run in runs if wanted.only == "all" or run["state"] != RunState.COMPLETED]
        if not chosen:
            raise NotRetryableError("every run of the job has completed: there is nothing to do again")
        request = _request(job, chosen, wanted.options, renaming.metadata if renaming else {})
        is_review = job["queue"] == Queue.REVIEW
        keeps = is_review or (renaming is None and shares_branches(request))
        rename = _kept if keeps else _renamed(renaming) if renaming else await self._passing_on(client, job_id, chosen)
        new = NewJob(
            client,
            request,
            keyed(key, b"retry %b\n%b" % (job_id.bytes, body)),
            [_run(run, rename(run), resume=wanted.resume, is_review=is_review) for run in chosen],
            retry_of=job_id,
            is_review=is_review,
        )
        if job["sealed"] is not None:
            sealed = self._submissions.sealed_anew(job["sealed"], of=job_id, to=new.id)
            new = replace(new, sealed=sealed)
        submitted = await self._submissions.accept(new)
        await self._pass_on(job_id, submitted.job_id)
        return submitted

    async def _passing_on(self, client: Client, job_id: UUID, runs: Sequence[Record]) -> Callable[[Record], str | None]:
        """Says which branch of ``runs``, those of the old job, goes on; of the others a name is to be made up."""
        unused = [run["id"] for run in runs if not run["is_branch_used"]]

        async def work(connection: Connection) -> set[UUID]:
            columns = {"client_id": client.id, "job_id": job_id, "run_ids": unused}
            return {row["run_id"] for row in await _STATEMENTS.rows(connection, "take_branches", **columns)}

        taken = await self._database.in_statement(work) if unused else set()
        return lambda run: run["branch"] if run["id"] in taken else None

    async def _pass_on(self, old_id: UUID, new_id: UUID) -> None:
        """Who was told on a forge of the old job's end is told of the new one's, too. Safe to run again."""

        async def work(connection: Connection) -> None:
            await _STATEMENTS.execute(connection, "pass_on", old_id=old_id, new_id=new_id)

        await self._database.in_statement(work)


def _refuse_unended(job: Record) -> None:
    if job["state"] not in _ENDED:
        raise NotRetryableError(f"the job has not ended: it is {job['state']}; cancel it first, or wait")


def _request(
    job: Record, runs: Sequence[Record], changes: rest.RetryOptions, metadata: Mapping[str, str]
) -> rest.JobRequest:
    """The job as it was asked for, but for ``changes`` and ``metadata``; `notBefore` is over."""
    changed = {key: value for key, value in changes.model_dump(mode="json", by_alias=True).items() if value is not None}
    repositories = [
        {"url": run["repository"], "baseRef": run["base_ref"], "checkout": run["checkout"] or {}}
        for run in runs
        if run["repository"]
    ]
    return rest.JobRequest.model_validate(
        {
            "prompt": job["prompt"],
            "kind": job["kind"],
            "name": job["name"],
            "repositories": repositories,
            "priority": job["priority"],
            "metadata": job["metadata"] | metadata,
            "options": job["options"] | changed,
        }
    )


def _renamed(renaming: Renaming) -> Callable[[Record], str | None]:
    return lambda old: renaming.branch(old["branch"]) if old["branch"] else None


def _kept(old: Record) -> str | None:
    branch: str | None = old["branch"]
    return branch


def _run(old: Record, branch: str | None, *, resume: bool, is_review: bool) -> NewRun:
    """``branch``: None: its name is made up."""
    checkout = Checkout.model_validate(old["checkout"]) if old["checkout"] else None
    if not resume:
        # A review's base is its own branch: what its pull request is against cannot be told from that again.
        base_branch = old["base_branch"] if is_review else None
        return NewRun(old["repository"], old["base_ref"], branch, base_branch=base_branch, checkout=checkout)
    return NewRun(
        old["repository"],
        old["base_ref"],
        branch,
        resumes=old["leaves_off"],
        base_sha=old["base_sha"],
        base_branch=old["base_branch"],
        checkout=checkout,
    )

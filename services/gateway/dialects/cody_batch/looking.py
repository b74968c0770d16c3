"""Finds jobs and their repositories by what Cody Batch calls them, with the reads of `/v1`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from services.contracts.rest import MAX_PAGE, Job, Run
from services.contracts.words import EventKind, JobKind
from services.gateway.context import Gateway
from services.gateway.dialects.cody_batch.jobs import STATES, names_of
from services.gateway.dialects.cody_batch.models import JobStatus
from services.gateway.dialects.cody_batch.naming import job_id_of
from services.gateway.dialects.cody_batch.threads import Turns
from services.gateway.problems import ProblemError
from services.jobs.errors import NotFoundError
from services.jobs.models import Client
from services.jobs.reading import JobFilter

MOST_EVENTS = 20_000
"""Of a job, so many are looked through for the turns of one run."""
_EVENTS_AT_ONCE = 500


@dataclass(frozen=True)
class Found:
    """One repository of a job. ``name``: as the job calls it."""

    job: Job
    run: Run
    name: str


class Looking:
    """As one client. Jobs that are conversations are none of this API's."""

    def __init__(self, gateway: Gateway, client: Client) -> None:
        self._gateway = gateway
        self._client = client

    async def page(self, status: JobStatus | None, *, offset: int, limit: int) -> tuple[list[Job], int]:
        """Newest first, and how many there are in all."""
        wanted = JobFilter(states=STATES[status] if status else None, kind=JobKind.CODE)
        return await self._gateway.reading.jobs_at(self._client, wanted, offset=offset, limit=limit)

    async def job(self, name: str) -> Job:
        """Raises ``ProblemError``: 404."""
        job_id = job_id_of(name)
        try:
            job = await self._gateway.reading.job(self._client, job_id) if job_id else None
        except NotFoundError:
            job = None
        if job is None or job.kind is not JobKind.CODE:
            raise ProblemError(404, f"Job not found: {name[:100]}")
        return job

    async def runs(self, job: Job) -> list[Run]:
        """All of them, in the order of the job's repositories."""
        found: list[Run] = []
        cursor: str | None = None
        while True:
            page = await self._gateway.reading.runs(self._client, job.id, limit=MAX_PAGE, cursor=cursor)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def repository(self, job_name: str, name: str) -> Found:
        """Raises ``ProblemError``: 404. As on forges, case does not tell two names apart."""
        job = await self.job(job_name)
        runs = await self.runs(job)
        for is_meant in _readings(name):
            for called, run in zip(names_of(job, runs), runs, strict=True):
                if is_meant(called):
                    return Found(job, run, called)
        raise ProblemError(404, f"Repository not found in {job_name}: {name[:200]}")

    async def turns(self, run: Run) -> Turns:
        """What was told of the run's turns as each ended."""
        told: dict[int, dict[str, object]] = {}
        after = seen = 0
        while seen < MOST_EVENTS:
            events = await self._gateway.log.after(run.job_id, after, most=_EVENTS_AT_ONCE)
            for event in events:
                if event.run_id == run.id and event.kind is EventKind.TURN_ENDED:
                    told[int(event.data.get("turn", 0))] = event.data
            seen += len(events)
            if len(events) < _EVENTS_AT_ONCE:
                break
            after = events[-1].number
        return told

    async def patch(self, run_id: UUID) -> bytes:
        """Empty where there is none (yet)."""
        try:
            return await self._gateway.reading.diff(self._client, run_id)
        except NotFoundError:
            return b""


def _readings(name: str) -> tuple[Callable[[str], bool], ...]:
    """The ways to understand ``name``, the exact one first."""
    return (lambda called: called == name), (lambda called: called.casefold() == name.casefold())

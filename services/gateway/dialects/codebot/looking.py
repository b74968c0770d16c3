"""Finds the tasks that are still shown, by the reads of `/v1`: those that ended before the retention are not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from services.contracts.rest import MAX_PAGE, Job, Run
from services.contracts.words import JobState
from services.gateway.dialects.codebot.models import TaskStatus
from services.gateway.dialects.codebot.tasks import REPOSITORY_KEY, STATES, ended_at
from services.gateway.webhooks.requests import KIND_KEY
from services.jobs.answers import WorkKind
from services.jobs.errors import NotFoundError
from services.jobs.models import Client
from services.jobs.reading import JobFilter, Reading

MOST_LOOKED_AT = 5_000
"""Of the tasks that ended, so many of the newest are looked through for those that are still shown."""
_ENDED = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)
_EVERY_STATE = tuple(state for states in STATES.values() for state in states)


class Looking:
    """As one client, with one retention."""

    def __init__(self, reading: Reading, client: Client, retention: timedelta) -> None:
        self._reading = reading
        self._client = client
        self._retention = retention

    async def one(self, task_id: UUID) -> Job:
        """Raises ``NotFoundError``, also for a task that is not shown any more."""
        job = await self._reading.job(self._client, task_id)
        if not self._is_shown(job):
            raise NotFoundError("task", task_id)
        return job

    async def newest(self, status: TaskStatus | None, *, limit: int) -> list[Job]:
        """At most ``limit``, newest first."""
        states = STATES[status] if status else _EVERY_STATE
        going = await self._newest(tuple(state for state in states if state not in _ENDED), limit)
        ended = await self._newest(tuple(state for state in states if state in _ENDED), limit)
        return sorted(going + ended, key=lambda job: job.id, reverse=True)[:limit]

    async def _newest(self, states: tuple[JobState, ...], limit: int) -> list[Job]:
        found: list[Job] = []
        cursor: str | None = None
        looked_at = 0
        while states and len(found) < limit and looked_at < MOST_LOOKED_AT:
            wanted = JobFilter(states=states)
            page = await self._reading.jobs(self._client, wanted, limit=min(limit, MAX_PAGE), cursor=cursor)
            found += [job for job in page.items if self._is_shown(job) and not _is_follow_up(job)]
            looked_at += len(page.items)
            cursor = page.next_cursor
            if cursor is None:
                break
        return found[:limit]

    async def first_run(self, job: Job) -> Run | None:
        runs = (await self._reading.runs(self._client, job.id, limit=1, cursor=None)).items
        return runs[0] if runs else None

    async def repository(self, job: Job) -> str | None:
        """What the task says; a job that was made otherwise is asked for its first run's."""
        if told := job.metadata.get(REPOSITORY_KEY):
            return told
        run = await self.first_run(job)
        return run.repository if run else None

    def _is_shown(self, job: Job) -> bool:
        ended = ended_at(job)
        return ended is None or datetime.now(UTC) - ended < self._retention


def _is_follow_up(job: Job) -> bool:
    """Whether it is no task of its own, but goes on with the pull request of one: reviews have a queue of their own."""
    return job.metadata.get(KIND_KEY) in (WorkKind.REVIEW, WorkKind.CHECK)

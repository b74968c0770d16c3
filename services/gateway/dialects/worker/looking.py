"""Finds a session's job by the session's id, and what else is told of it, by the reads of `/v1`."""

from __future__ import annotations

from aiohttp import web

from services.contracts.rest import Job, Run
from services.gateway.auth import CLIENT
from services.gateway.context import gateway_of
from services.gateway.dialects.worker.sessions import DISCONNECT_KEY, Session, filter_of, is_gone
from services.gateway.problems import ProblemError
from services.jobs.eventlog import LoggedEvent

_EVENTS_PAGE = 500


async def newest(request: web.Request, session_id: str) -> Job | None:
    """The session's job, also where its user has ended it."""
    reading = gateway_of(request).reading
    jobs = (await reading.jobs(request[CLIENT], filter_of(session_id), limit=1, cursor=None)).items
    return jobs[0] if jobs else None


async def job_of(request: web.Request, session_id: str) -> Job:
    """Raises ``ProblemError``: 404, also for a session that its user has ended."""
    job = await newest(request, session_id)
    if job is None or is_gone(job):
        raise ProblemError(404, f"Session {session_id} not found")
    return job


async def session_of(request: web.Request, session_id: str) -> Session:
    """Raises as ``job_of`` does."""
    job = await job_of(request, session_id)
    return Session.of(session_id, job.id, job.prompt, job.metadata.get(DISCONNECT_KEY))


async def run_of(request: web.Request, job: Job) -> Run | None:
    runs = (await gateway_of(request).reading.runs(request[CLIENT], job.id, limit=1, cursor=None)).items
    return runs[0] if runs else None


async def events_of(request: web.Request, job: Job) -> list[LoggedEvent]:
    """The durable ones that are kept, in order."""
    log, found = gateway_of(request).log, list[LoggedEvent]()
    while True:
        page = await log.after(job.id, found[-1].number if found else 0, most=_EVENTS_PAGE)
        found += page
        if len(page) < _EVENTS_PAGE:
            return found

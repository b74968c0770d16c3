"""The endpoints of the server itself: its health, and its queue."""

from __future__ import annotations

from aiohttp import web

from services.contracts.rest import Job
from services.gateway.auth import CLIENT
from services.gateway.context import gateway_of
from services.gateway.dialects.dialect import LooseQuery
from services.gateway.dialects.orchestrator.models import (
    MOST_LISTED,
    Health,
    JobStatus,
    Queue,
    QueuedJob,
    RunningJob,
)
from services.gateway.dialects.orchestrator.standing import forge_look, health, max_concurrent
from services.gateway.dialects.orchestrator.translation import STATES, title_of
from services.gateway.operations import Answer, Operation, json_response
from services.gateway.query import read_query
from services.jobs.reading import JobFilter


class ServiceRoutes:
    def __init__(self) -> None:
        self._forge = forge_look()

    async def health(self, request: web.Request) -> web.StreamResponse:
        read_query(request, LooseQuery)
        return json_response(request, await health(gateway_of(request), request[CLIENT], self._forge))

    async def queue(self, request: web.Request) -> web.StreamResponse:
        read_query(request, LooseQuery)
        answer = Queue(
            running=[
                RunningJob(id=job.id, title=title_of(job), started_at=job.started_at)
                for job in await _oldest_first(request, JobStatus.RUNNING)
            ],
            queued=[
                QueuedJob(id=job.id, title=title_of(job), created_at=job.created_at)
                for job in await _oldest_first(request, JobStatus.QUEUED)
            ],
            max_concurrent=await max_concurrent(gateway_of(request), request[CLIENT]),
        )
        return json_response(request, answer)


async def _oldest_first(request: web.Request, status: JobStatus) -> list[Job]:
    """Of more than 1,000 the newest."""
    wanted = JobFilter(states=STATES[status])
    jobs, _ = await gateway_of(request).reading.jobs_at(request[CLIENT], wanted, offset=0, limit=MOST_LISTED)
    return jobs[::-1]


def operations(routes: ServiceRoutes) -> tuple[Operation, ...]:
    return (
        Operation(
            method="GET",
            path="/health",
            name="getHealth",
            summary="Check server status and dependencies",
            handler=routes.health,
            query=LooseQuery,
            is_public=True,
            answers=(Answer(200, "jobs can be taken", Health),),
        ),
        Operation(
            method="GET",
            path="/queue",
            name="getQueue",
            summary="Get current queue status",
            handler=routes.queue,
            query=LooseQuery,
            answers=(Answer(200, "what runs and what waits", Queue),),
        ),
    )

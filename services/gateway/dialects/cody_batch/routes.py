"""The endpoints of the Cody Batch API, and what each of them takes and answers."""

from __future__ import annotations

import asyncio

from aiohttp import web

from services.contracts.rest import Job, Run
from services.gateway.auth import CLIENT
from services.gateway.body import read_body
from services.gateway.context import gateway_of
from services.gateway.dialects.cody_batch.discovery import Repositories
from services.gateway.dialects.cody_batch.health import UNHEALTHY, health
from services.gateway.dialects.cody_batch.jobs import (
    ENDED,
    UrlOf,
    created,
    details,
    is_pull_request,
    job_request,
    listed,
    status_of,
)
from services.gateway.dialects.cody_batch.looking import Found, Looking
from services.gateway.dialects.cody_batch.models import (
    CancelledJob,
    JobBody,
    JobList,
    JobsQuery,
    PageQuery,
    Pagination,
    RepositoriesQuery,
    RepositoryList,
    ThreadQuery,
    View,
)
from services.gateway.dialects.cody_batch.naming import job_name
from services.gateway.dialects.cody_batch.results import result
from services.gateway.dialects.cody_batch.threads import thread
from services.gateway.dialects.serving import ROOT
from services.gateway.operations import json_response
from services.gateway.problems import ProblemError
from services.gateway.query import read_query
from services.jobs.errors import NotCancellableError


class Routes:
    def __init__(self, repositories: Repositories) -> None:
        self._repositories = repositories

    async def health(self, request: web.Request) -> web.StreamResponse:
        found = await health(gateway_of(request), request[CLIENT], self._repositories)
        return json_response(request, found, status=503 if found.status == UNHEALTHY else 200)

    async def repositories(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, RepositoriesQuery)
        found = await self._repositories.all(gateway_of(request), request[CLIENT])
        wanted = (query.filter or "").casefold()
        shown = [each for each in found if wanted in each.name.casefold()]
        first = _offset(query)
        page = shown[first : first + query.per_page]
        return json_response(
            request, RepositoryList(repositories=page, pagination=_pagination(query, total=len(shown)))
        )

    async def create(self, request: web.Request) -> web.StreamResponse:
        gateway, client = gateway_of(request), request[CLIENT]
        wanted, body = await read_body(request, JobBody)
        sources = await self._repositories.sources(gateway, client, wanted.repositories)
        submitted = await gateway.submissions.submit(client, job_request(wanted, sources), key=None, body=body)
        gateway.commands.submitted(submitted.job_id)
        made = submitted.job
        assert made is not None
        return json_response(request, created(made), status=201)

    async def jobs(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, JobsQuery)
        jobs, total = await _looking(request).page(query.status, offset=_offset(query), limit=query.per_page)
        answer = JobList(jobs=[listed(job) for job in jobs], pagination=_pagination(query, total=total))
        return json_response(request, answer)

    async def job(self, request: web.Request) -> web.StreamResponse:
        looking = _looking(request)
        job = await looking.job(request.match_info["jobId"])
        return json_response(request, details(job, await looking.runs(job), _url_for(request)))

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        gateway, client, looking = gateway_of(request), request[CLIENT], _looking(request)
        job = await looking.job(request.match_info["jobId"])
        _refuse_ended(job)
        try:
            await gateway.cancelling.request(client, job.id)
        except NotCancellableError as error:
            raise ProblemError(400, f"Job cannot be cancelled: {error}") from error
        gateway.commands.cancel_requested(job.id)
        asked_at = (await gateway.reading.job(client, job.id)).cancel_requested_at
        assert asked_at is not None
        return json_response(request, CancelledJob(job_id=job_name(job.id), cancelled_at=asked_at))

    async def result(self, request: web.Request) -> web.StreamResponse:
        reading, client, looking = gateway_of(request).reading, request[CLIENT], _looking(request)
        found = await _found(request)
        # A patch may have 63 MiB: others are not kept waiting while it is taken apart.
        answer = await asyncio.to_thread(
            result,
            found.job.id,
            found.name,
            found.run,
            patch=await looking.patch(found.run.id),
            transcript=await reading.transcript(client, found.run.id),
            logs=await reading.logs(client, found.run.id),
            url_of=_url_for(request),
        )
        return json_response(request, answer)

    async def diff(self, request: web.Request) -> web.StreamResponse:
        """The bytes as they are stored: a file in the diff may be in any encoding."""
        found = await _found(request)
        patch = await _looking(request).patch(found.run.id)
        if not patch:
            raise ProblemError(404, f"No diff of {found.name} in {job_name(found.job.id)}")
        return web.Response(body=patch, content_type="text/plain", charset="utf-8")

    async def thread(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, ThreadQuery)
        found = await _found(request)
        transcript = await gateway_of(request).reading.transcript(request[CLIENT], found.run.id)
        if not transcript.messages:
            raise ProblemError(404, f"No message thread of {found.name} in {job_name(found.job.id)} yet")
        turns = await _looking(request).turns(found.run) if query.view is View.TECHNICAL else None
        answer = thread(found.run, transcript, view=query.view, with_tools=query.include_tool, turns=turns)
        return json_response(request, answer)


def _looking(request: web.Request) -> Looking:
    return Looking(gateway_of(request), request[CLIENT])


async def _found(request: web.Request) -> Found:
    """The path's repository: in one segment, with an encoded slash, or in two."""
    path = request.match_info
    name = path["repoName"] if "repoName" in path else f"{path['owner']}/{path['name']}"
    return await _looking(request).repository(path["jobId"], name)


def _refuse_ended(job: Job) -> None:
    status = status_of(job.state)
    if status in ENDED:
        raise ProblemError(400, f"Job cannot be cancelled: it is {status} already")


def _offset(query: PageQuery) -> int:
    return (query.page - 1) * query.per_page


def _pagination(query: PageQuery, *, total: int) -> Pagination:
    return Pagination(page=query.page, per_page=query.per_page, total=total, total_pages=-(-total // query.per_page))


def _url_for(request: web.Request) -> UrlOf:
    """The pages of the local forge are served beside this API: see ``Dialect.pages``."""
    root = f"{request.url.origin()}{request.app[ROOT]}"

    def url_of(run: Run) -> str | None:
        url = run.changeset.url if run.changeset and is_pull_request(run) else None
        return f"{root}{url}" if url is not None and url.startswith("/") else url

    return url_of

"""The endpoints of jobs: made, listed, looked at, cancelled, retried and talked with."""

from __future__ import annotations

import time
from functools import partial

from aiohttp import web

from services.contracts.rest import CompleteRequest, MessageRequest, RetryRequest
from services.contracts.rest import Job as NativeJob
from services.contracts.words import JobState
from services.gateway.auth import CLIENT
from services.gateway.body import read_body
from services.gateway.context import Gateway, gateway_of
from services.gateway.dialects.dialect import LooseQuery
from services.gateway.dialects.orchestrator import translation
from services.gateway.dialects.orchestrator.messages import KINDS, messages
from services.gateway.dialects.orchestrator.models import (
    CancelledJob,
    CompletingJob,
    CreatedJob,
    CreateJob,
    Job,
    JobList,
    JobMessage,
    JobQuery,
    JobsQuery,
    JobStatus,
    JobType,
    RetriedJob,
    SendMessage,
    SentMessage,
)
from services.gateway.dialects.orchestrator.placing import place_of
from services.gateway.dialects.serving import ROOT
from services.gateway.operations import Answer, Operation, json_response
from services.gateway.problems import FieldProblemError, ProblemError
from services.gateway.query import read_id, read_query
from services.jobs.overviews import FirstRun
from services.jobs.reading import JobFilter
from services.jobs.retrying import Renaming
from services.jobs.submission import Submitted


async def list_jobs(request: web.Request) -> web.StreamResponse:
    query = read_query(request, JobsQuery)
    gateway, client = gateway_of(request), request[CLIENT]
    jobs, total = await gateway.reading.jobs_at(client, _filter(query), offset=query.offset, limit=query.limit)
    runs = await gateway.overviews.first_runs(client, [job.id for job in jobs])
    return json_response(request, JobList(jobs=[_shown(request, job, runs.get(job.id)) for job in jobs], total=total))


def _filter(query: JobsQuery) -> JobFilter:
    ids = {translation.CLIENT: query.client_id, translation.FEATURE: query.feature_id}
    states = [state for status in query.status or () for state in translation.STATES[status]]
    metadata = {key: str(value) for key, value in ids.items() if value is not None}
    return JobFilter(states=tuple(states) or None, metadata=metadata or None)


async def get_job(request: web.Request) -> web.StreamResponse:
    query = read_query(request, JobQuery)
    gateway, client = gateway_of(request), request[CLIENT]
    job = await gateway.reading.job(client, read_id(request, "job"))
    run = (await gateway.overviews.first_runs(client, [job.id])).get(job.id)
    told = await _messages(request, job, run) if query.include_messages and run else None
    return json_response(request, _shown(request, job, run, told))


async def _messages(request: web.Request, job: NativeJob, run: FirstRun) -> list[JobMessage]:
    gateway, client = gateway_of(request), request[CLIENT]
    events = await gateway.overviews.happened(client, job.id, KINDS)
    transcript = await gateway.reading.transcript(client, run.id)
    return messages(run.id, events, transcript.messages, root=_root(request))


def _shown(request: web.Request, job: NativeJob, run: FirstRun | None, told: list[JobMessage] | None = None) -> Job:
    """The pages of the local forge are served beside this API, to its secret: see ``Dialect.pages``."""
    url = run.url if run else None
    if url is not None and url.startswith("/"):
        url = f"{_root(request)}{url}"
    return translation.shown(job, run, url=url, messages=told)


def _root(request: web.Request) -> str:
    return f"{request.url.origin()}{request.app[ROOT]}"


async def create_job(request: web.Request) -> web.StreamResponse:
    read_query(request, LooseQuery)
    gateway, client = gateway_of(request), request[CLIENT]
    wanted, body = await read_body(request, CreateJob)
    branch = _branch(wanted)
    place = await place_of(gateway.customers, client, wanted)
    job = translation.job_request(wanted, place, branch)
    made = _announced(gateway, await gateway.submissions.submit(client, job, key=None, body=body))
    answer = CreatedJob(
        id=made.id,
        status=translation.status_of(made.state),
        position=await gateway.reading.queue_position(client, made.id),
        branch_name=branch,
        created_at=made.created_at,
    )
    return json_response(request, answer, status=201)


def _branch(wanted: CreateJob) -> str:
    if wanted.branch_name is not None:
        return wanted.branch_name
    if wanted.job_type is not JobType.TASK:
        raise FieldProblemError("branchName", "is required for a code job")
    return translation.task_branch(_milliseconds())


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000


def _announced(gateway: Gateway, submitted: Submitted) -> NativeJob:
    gateway.commands.submitted(submitted.job_id)
    made = submitted.job
    assert made is not None, "without an Idempotency-Key nothing is replayed"
    return made


async def cancel_job(request: web.Request) -> web.StreamResponse:
    read_query(request, LooseQuery)
    gateway, client = gateway_of(request), request[CLIENT]
    job = await gateway.reading.job(client, read_id(request, "job"))
    if translation.status_of(job.state) is JobStatus.CANCELLED:
        raise ProblemError(400, "the job has already ended: it is cancelled")
    await gateway.cancelling.request(client, job.id)
    gateway.commands.cancel_requested(job.id)
    return json_response(request, CancelledJob(id=job.id, was_running=job.state is JobState.RUNNING))


async def retry_job(request: web.Request) -> web.StreamResponse:
    read_query(request, LooseQuery)
    gateway, client = gateway_of(request), request[CLIENT]
    old = await gateway.reading.job(client, read_id(request, "job"))
    if old.state is not JobState.FAILED:
        raise ProblemError(400, f"only a failed job can be retried; this one is {translation.status_of(old.state)}")
    rename = partial(translation.retry_branch, milliseconds=_milliseconds())
    asked = old.metadata.get(translation.BRANCH)
    renaming = Renaming(rename, {translation.BRANCH: rename(asked)} if asked else {})
    again = RetryRequest.model_validate({})
    made = _announced(
        gateway, await gateway.retrying.retry(client, old.id, again, key=None, body=b"", renaming=renaming)
    )
    run = (await gateway.overviews.first_runs(client, [made.id]))[made.id]
    answer = RetriedJob(
        id=made.id,
        original_job_id=old.id,
        status=translation.status_of(made.state),
        branch_name=translation.branch_of(made, run.branch) or "",
    )
    return json_response(request, answer, status=201)


async def send_message(request: web.Request) -> web.StreamResponse:
    read_query(request, LooseQuery)
    gateway, client = gateway_of(request), request[CLIENT]
    job = await gateway.reading.job(client, read_id(request, "job"))
    wanted, _ = await read_body(request, SendMessage)
    _refuse_not_running(job)
    said = await gateway.messaging.send(client, job.id, MessageRequest.model_validate({"text": wanted.message}))
    gateway.commands.message_sent(job.id, said.run_id)
    return json_response(request, SentMessage(id=job.id))


async def complete_job(request: web.Request) -> web.StreamResponse:
    read_query(request, LooseQuery)
    gateway, client = gateway_of(request), request[CLIENT]
    job = await gateway.reading.job(client, read_id(request, "job"))
    _refuse_not_running(job)
    for run_id in await gateway.messaging.complete(client, job.id, CompleteRequest.model_validate({})):
        gateway.commands.message_sent(job.id, run_id)
    return json_response(request, CompletingJob(id=job.id))


def _refuse_not_running(job: NativeJob) -> None:
    if job.state is not JobState.RUNNING:
        raise ProblemError(400, f"the job is not running: it is {translation.status_of(job.state)}")


OPERATIONS = (
    Operation(
        method="GET",
        path="/jobs",
        name="listJobs",
        summary="List jobs, newest first",
        handler=list_jobs,
        query=JobsQuery,
        answers=(Answer(200, "the jobs", JobList),),
    ),
    Operation(
        method="GET",
        path="/jobs/{id}",
        name="getJob",
        summary="Get job details",
        handler=get_job,
        query=JobQuery,
        answers=(Answer(200, "the job", Job),),
    ),
    Operation(
        method="POST",
        path="/jobs",
        name="createJob",
        summary="Create a new job",
        handler=create_job,
        query=LooseQuery,
        body=CreateJob,
        answers=(Answer(201, "accepted", CreatedJob),),
    ),
    Operation(
        method="POST",
        path="/jobs/{id}/cancel",
        name="cancelJob",
        summary="Cancel a queued or running job",
        handler=cancel_job,
        query=LooseQuery,
        answers=(Answer(200, "accepted, and irrevocable", CancelledJob),),
    ),
    Operation(
        method="POST",
        path="/jobs/{id}/retry",
        name="retryJob",
        summary="Retry a failed job: a new one with the same prompt",
        handler=retry_job,
        query=LooseQuery,
        answers=(Answer(201, "the new job", RetriedJob),),
    ),
    Operation(
        method="POST",
        path="/jobs/{id}/message",
        name="sendMessage",
        summary="Send a message to a running interactive task job",
        handler=send_message,
        query=LooseQuery,
        body=SendMessage,
        answers=(Answer(200, "it will be heard", SentMessage),),
    ),
    Operation(
        method="POST",
        path="/jobs/{id}/complete",
        name="completeJob",
        summary="End an interactive task job session",
        handler=complete_job,
        query=LooseQuery,
        answers=(Answer(200, "it ends once Claude has finished what it is at", CompletingJob),),
    ),
)

"""Jobs: submit, list, get, cancel, and their runs."""

from __future__ import annotations

from aiohttp import web

from services.contracts.rest import (
    CompleteRequest,
    Job,
    JobPage,
    JobRequest,
    Message,
    MessageRequest,
    RetryRequest,
    RunPage,
)
from services.gateway.auth import CLIENT
from services.gateway.body import read_body
from services.gateway.context import gateway_of
from services.gateway.operations import Answer, Header, Operation, json_response
from services.gateway.problems import FieldProblemError
from services.gateway.query import JobsQuery, NoQuery, PageQuery, read_id, read_query
from services.jobs.reading import JobFilter
from services.jobs.submission import Submitted

MAX_KEY_CHARACTERS = 255


async def submit(request: web.Request) -> web.StreamResponse:
    """The job is accepted once Postgres has it; the scheduler is told on the side, and finds it if that fails."""
    read_query(request, NoQuery)
    gateway, client = gateway_of(request), request[CLIENT]
    key = _idempotency_key(request)
    wanted, body = await read_body(request, JobRequest)
    submitted = await gateway.submissions.submit(client, wanted, key=key, body=body)
    return await _answer(request, submitted)


async def retry(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    gateway, client = gateway_of(request), request[CLIENT]
    job_id, key = read_id(request, "job"), _idempotency_key(request)
    wanted, body = await read_body(request, RetryRequest)
    return await _answer(request, await gateway.retrying.retry(client, job_id, wanted, key=key, body=body))


async def _answer(request: web.Request, submitted: Submitted) -> web.StreamResponse:
    gateway = gateway_of(request)
    headers = {"Location": f"/v1/jobs/{submitted.job_id}"}
    if (made := submitted.job) is not None:
        gateway.commands.submitted(submitted.job_id)
        return json_response(request, made, status=201, headers=headers)
    headers["Idempotency-Replayed"] = "true"
    job = await gateway.reading.job(request[CLIENT], submitted.job_id)
    return json_response(request, job, headers=headers)


async def send_message(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    gateway = gateway_of(request)
    job_id = read_id(request, "job")
    wanted, _ = await read_body(request, MessageRequest)
    message = await gateway.messaging.send(request[CLIENT], job_id, wanted)
    gateway.commands.message_sent(job_id, message.run_id)
    return json_response(request, message, status=201)


async def complete(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    gateway, client = gateway_of(request), request[CLIENT]
    job_id = read_id(request, "job")
    wanted, _ = await read_body(request, CompleteRequest)
    for run_id in await gateway.messaging.complete(client, job_id, wanted):
        gateway.commands.message_sent(job_id, run_id)
    return json_response(request, await gateway.reading.job(client, job_id), status=202)


def _idempotency_key(request: web.Request) -> str | None:
    keys = request.headers.getall("Idempotency-Key", [])
    if not keys:
        return None
    key = keys[0]
    if len(keys) > 1 or not 0 < len(key) <= MAX_KEY_CHARACTERS or not all(" " <= char <= "~" for char in key):
        raise FieldProblemError("Idempotency-Key", "must be one value of 1 to 255 printable ASCII characters")
    return key


async def list_jobs(request: web.Request) -> web.StreamResponse:
    query = read_query(request, JobsQuery)
    wanted = JobFilter(
        states=tuple(query.state) if query.state else None,
        kind=query.kind,
        name=query.name,
        repository=query.repository,
        created_after=query.created_after,
        created_before=query.created_before,
    )
    reading = gateway_of(request).reading
    return json_response(request, await reading.jobs(request[CLIENT], wanted, limit=query.limit, cursor=query.cursor))


async def get_job(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    job_id = read_id(request, "job")
    return json_response(request, await gateway_of(request).reading.job(request[CLIENT], job_id))


async def cancel_job(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    gateway, client = gateway_of(request), request[CLIENT]
    job_id = read_id(request, "job")
    await gateway.cancelling.request(client, job_id)
    gateway.commands.cancel_requested(job_id)
    return json_response(request, await gateway.reading.job(client, job_id), status=202)


async def list_runs(request: web.Request) -> web.StreamResponse:
    query = read_query(request, PageQuery)
    job_id = read_id(request, "job")
    reading = gateway_of(request).reading
    return json_response(request, await reading.runs(request[CLIENT], job_id, limit=query.limit, cursor=query.cursor))


_IDEMPOTENCY_KEY = Header(
    "Idempotency-Key",
    "1 to 255 printable ASCII characters, kept 24 h: the same key and body again answer with the job of the first",
)

OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/jobs",
        name="submitJob",
        summary="Submit a job",
        handler=submit,
        body=JobRequest,
        headers=(_IDEMPOTENCY_KEY,),
        answers=(
            Answer(201, "accepted", Job, headers=("Location",)),
            Answer(200, "the job that this Idempotency-Key made", Job, headers=("Location", "Idempotency-Replayed")),
        ),
    ),
    Operation(
        method="GET",
        path="/v1/jobs",
        name="listJobs",
        summary="List jobs, newest first",
        handler=list_jobs,
        query=JobsQuery,
        answers=(Answer(200, "a page of jobs", JobPage),),
    ),
    Operation(
        method="GET",
        path="/v1/jobs/{id}",
        name="getJob",
        summary="Get a job",
        handler=get_job,
        answers=(Answer(200, "the job", Job),),
    ),
    Operation(
        method="POST",
        path="/v1/jobs/{id}/cancel",
        name="cancelJob",
        summary="Cancel a job: no change of it is pushed from then on",
        handler=cancel_job,
        answers=(Answer(202, "accepted; what runs is stopped soon", Job),),
    ),
    Operation(
        method="POST",
        path="/v1/jobs/{id}/retry",
        name="retryJob",
        summary="Do an ended job again, as a new job with `retryOf`",
        handler=retry,
        body=RetryRequest,
        headers=(_IDEMPOTENCY_KEY,),
        answers=(
            Answer(201, "the new job", Job, headers=("Location",)),
            Answer(200, "the job that this Idempotency-Key made", Job, headers=("Location", "Idempotency-Replayed")),
        ),
    ),
    Operation(
        method="POST",
        path="/v1/jobs/{id}/messages",
        name="sendMessage",
        summary="Say something to a task's run; one that waits goes on",
        handler=send_message,
        body=MessageRequest,
        answers=(Answer(201, "it will be read", Message),),
    ),
    Operation(
        method="POST",
        path="/v1/jobs/{id}/complete",
        name="completeJob",
        summary="End a task's conversation",
        handler=complete,
        body=CompleteRequest,
        answers=(Answer(202, "accepted; what an agent holds ends with its turn", Job),),
    ),
    Operation(
        method="GET",
        path="/v1/jobs/{id}/runs",
        name="listRuns",
        summary="List a job's runs, in the order of its repositories",
        handler=list_runs,
        query=PageQuery,
        answers=(Answer(200, "a page of runs", RunPage),),
    ),
)

"""Runs: get, cancel, and what they leave: diff, transcript, logs."""

from __future__ import annotations

from aiohttp import web

from services.contracts.rest import Logs, Run, Transcript
from services.gateway.auth import CLIENT
from services.gateway.context import gateway_of
from services.gateway.operations import Answer, Operation, json_response
from services.gateway.query import NoQuery, read_id, read_query


async def get_run(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    run_id = read_id(request, "run")
    return json_response(request, await gateway_of(request).reading.run(request[CLIENT], run_id))


async def cancel_run(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    gateway, client = gateway_of(request), request[CLIENT]
    run_id = read_id(request, "run")
    job_id = await gateway.cancelling.request_run(client, run_id)
    gateway.commands.cancel_requested(job_id, run_id)
    return json_response(request, await gateway.reading.run(client, run_id), status=202)


async def get_diff(request: web.Request) -> web.StreamResponse:
    """The bytes as they are stored: a file in the diff may be in any encoding."""
    read_query(request, NoQuery)
    run_id = read_id(request, "run")
    patch = await gateway_of(request).reading.diff(request[CLIENT], run_id)
    return web.Response(body=patch, content_type="text/x-diff", charset="utf-8")


async def get_transcript(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    run_id = read_id(request, "run")
    return json_response(request, await gateway_of(request).reading.transcript(request[CLIENT], run_id))


async def get_logs(request: web.Request) -> web.StreamResponse:
    read_query(request, NoQuery)
    run_id = read_id(request, "run")
    return json_response(request, await gateway_of(request).reading.logs(request[CLIENT], run_id))


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/runs/{id}",
        name="getRun",
        summary="Get a run",
        handler=get_run,
        answers=(Answer(200, "the run", Run),),
    ),
    Operation(
        method="POST",
        path="/v1/runs/{id}/cancel",
        name="cancelRun",
        summary="Cancel one run; the job's others go on",
        handler=cancel_run,
        answers=(Answer(202, "accepted; it is stopped soon", Run),),
    ),
    Operation(
        method="GET",
        path="/v1/runs/{id}/diff",
        name="getDiff",
        summary="Get a run's change as a unified diff",
        handler=get_diff,
        answers=(Answer(200, "as `git diff --binary` prints it", media_type="text/x-diff"),),
    ),
    Operation(
        method="GET",
        path="/v1/runs/{id}/transcript",
        name="getTranscript",
        summary="Get a run's conversation with the model",
        handler=get_transcript,
        answers=(Answer(200, "its messages in order", Transcript),),
    ),
    Operation(
        method="GET",
        path="/v1/runs/{id}/logs",
        name="getLogs",
        summary="Get a run's log",
        handler=get_logs,
        answers=(Answer(200, "its first 10,000 lines", Logs),),
    ),
)

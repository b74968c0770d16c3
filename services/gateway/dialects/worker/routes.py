"""The endpoints of interactive sessions."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from services.contracts.rest import JobRequest
from services.gateway.auth import CLIENT
from services.gateway.body import read_body
from services.gateway.context import gateway_of
from services.gateway.dialects.dialect import LooseQuery
from services.gateway.dialects.serving import ROOT
from services.gateway.dialects.worker.frames import Addresses
from services.gateway.dialects.worker.looking import events_of, job_of, newest, run_of, session_of
from services.gateway.dialects.worker.quota import Quota
from services.gateway.dialects.worker.session_models import (
    AttachQuery,
    SessionEnded,
    SessionId,
    SessionQuery,
    SessionStatus,
    StartRequest,
)
from services.gateway.dialects.worker.sessions import (
    DISCONNECT_KEY,
    Session,
    idempotency_key,
    is_gone,
    job_request,
    status_of,
)
from services.gateway.dialects.worker.settings import WorkerSettings
from services.gateway.dialects.worker.stream import SESSION_HEADER, stream
from services.gateway.operations import Answer, Header, Operation, json_response
from services.gateway.problems import FieldProblemError, ProblemError
from services.gateway.query import read_query
from services.jobs.errors import IdempotencyMismatchError, NotCancellableError, RefusedFieldError, SecretsError
from services.jobs.repositories import RefusedUrlError, check_url

LAST_EVENT_ID = "Last-Event-ID"
_ID = TypeAdapter[str](SessionId)


class SessionRoutes:
    def __init__(self, settings: WorkerSettings, quota: Quota) -> None:
        self._github_server = settings.server_url
        self._quota = quota
        self._starting = asyncio.Lock()
        self._worktrees = settings.worktrees

    async def start(self, request: web.Request) -> web.StreamResponse:
        """A new session; with `Last-Event-ID` one that is there."""
        read_query(request, LooseQuery)
        wanted, body = await read_body(request, StartRequest)
        if LAST_EVENT_ID in request.headers:
            if wanted.session_id is None:
                raise FieldProblemError("sessionId", f"is required beside the header {LAST_EVENT_ID}")
            session = await session_of(request, wanted.session_id)
            return await self._stream(request, session, request.headers[LAST_EVENT_ID])
        return await self._stream(request, await self._started(request, wanted, body))

    async def _started(self, request: web.Request, wanted: StartRequest, body: bytes) -> Session:
        gateway, client = gateway_of(request), request[CLIENT]
        session_id = wanted.session_id or str(uuid4())
        job = self._job(wanted, session_id)
        before = await newest(request, session_id) if wanted.session_id is not None else None
        if before is not None and not is_gone(before):
            raise _taken()
        key = idempotency_key(session_id, ended=before.id if before else None)
        try:
            async with self._starting:  # or sessions that start at once would not count one another
                await self._quota.check(request)
                submitted = await gateway.submissions.submit(client, job, key=key, body=body)
        except IdempotencyMismatchError as error:
            raise _taken() from error
        except RefusedFieldError as error:
            raise FieldProblemError("anthropicBaseUrl", error.message) from error
        except SecretsError as error:
            raise FieldProblemError(_secrets(wanted), str(error)) from error
        if submitted.replayed:
            raise _taken()
        gateway.commands.submitted(submitted.job_id)
        return Session.of(session_id, submitted.job_id, job.prompt, job.metadata.get(DISCONNECT_KEY))

    def _job(self, wanted: StartRequest, session_id: str) -> JobRequest:
        job = job_request(wanted, session_id, github_server=self._github_server)
        try:
            for repository in job.repositories:
                check_url(repository.url)
        except RefusedUrlError as error:
            raise FieldProblemError("repository.url", str(error).removeprefix("url: ")) from error
        return job

    async def attach(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, AttachQuery)
        session = await session_of(request, query.session_id)
        if header := request.headers.get(LAST_EVENT_ID, ""):
            return await self._stream(request, session, header)
        return await self._stream(request, session, query.last_event_id or "", field="lastEventId")

    async def _stream(
        self, request: web.Request, session: Session, after: str = "", *, field: str = LAST_EVENT_ID
    ) -> web.StreamResponse:
        addresses = Addresses(self._worktrees, root=f"{request.url.origin()}{request.app[ROOT]}")
        return await stream(request, session, addresses=addresses, after=after, field=field)

    async def status(self, request: web.Request) -> web.StreamResponse:
        query = read_query(request, SessionQuery)
        job = await job_of(request, query.session_id)
        return json_response(
            request, status_of(query.session_id, job, await run_of(request, job), await events_of(request, job))
        )

    async def end(self, request: web.Request) -> web.StreamResponse:
        """Cancel the work; of a session that has ended by itself, nothing is left to do."""
        read_query(request, LooseQuery)
        gateway = gateway_of(request)
        session_id = _path_id(request)
        job = await job_of(request, session_id)
        try:
            await gateway.cancelling.request(request[CLIENT], job.id)
        except NotCancellableError as error:
            if (await job_of(request, session_id)).finished_at is None:
                raise ProblemError(400, f"session {session_id}: {error}") from error
            return json_response(request, SessionEnded(message=f"Session {session_id} had already ended"))
        gateway.commands.cancel_requested(job.id)
        return json_response(request, SessionEnded(message=f"Session {session_id} ended"))


def _path_id(request: web.Request) -> str:
    try:
        return _ID.validate_python(request.match_info["sessionId"])
    except ValidationError as error:
        words = str(error.errors(include_input=False)[0]["msg"]).removeprefix("Value error, ")
        raise FieldProblemError("sessionId", words) from error


def _taken() -> ProblemError:
    words = (
        "is taken: a session with it was started before; choose another one, or go on with that one by GET "
        f"/interactive/start or the header {LAST_EVENT_ID}"
    )
    return FieldProblemError("sessionId", words)


def _secrets(wanted: StartRequest) -> str:
    given = {"anthropicApiKey": wanted.anthropic_api_key, "githubToken": wanted.github_token}
    return ", ".join(name for name, secret in given.items() if secret is not None)


_LAST_EVENT_ID = Header(LAST_EVENT_ID, "the id of the last frame seen: go on behind it, without gap or repeat")
_STREAM = (
    Answer(
        200,
        "server-sent events: `connected`, `status`, `claude_start`, `claude_delta`, `claude_end`, `file_change`, and "
        "at the end `complete` or `error`; a stream that ends before is to be taken up again",
        media_type="text/event-stream",
        headers=(SESSION_HEADER,),
    ),
    Answer(204, "nothing is left: the last frame was seen"),
)


def operations(settings: WorkerSettings, quota: Quota) -> tuple[Operation, ...]:
    routes = SessionRoutes(settings, quota)
    return (
        Operation(
            method="POST",
            path="/interactive/start",
            name="startSession",
            summary="Start a session and follow it; with `Last-Event-ID`, go on following one",
            handler=routes.start,
            query=LooseQuery,
            body=StartRequest,
            headers=(_LAST_EVENT_ID,),
            answers=_STREAM,
        ),
        Operation(
            method="GET",
            path="/interactive/start",
            name="followSession",
            summary="Follow a session from its beginning, or from behind `Last-Event-ID`",
            handler=routes.attach,
            query=AttachQuery,
            headers=(_LAST_EVENT_ID,),
            answers=_STREAM,
        ),
        Operation(
            method="GET",
            path="/interactive/status",
            name="getSessionStatus",
            summary="Get a session's status",
            handler=routes.status,
            query=SessionQuery,
            answers=(Answer(200, "the session", SessionStatus),),
        ),
        Operation(
            method="DELETE",
            path="/interactive/{sessionId}",
            name="endSession",
            summary="End a session: its work is cancelled",
            handler=routes.end,
            query=LooseQuery,
            parameters={"sessionId": "the session's id"},
            answers=(Answer(200, "it is being ended", SessionEnded),),
        ),
    )

"""The endpoints of the Codebot API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from aiohttp import web

from services.contracts.rest import Job, Run
from services.contracts.words import Queue
from services.gateway.auth import CLIENT
from services.gateway.body import read_body
from services.gateway.context import gateway_of
from services.gateway.dialects.codebot.looking import Looking
from services.gateway.dialects.codebot.models import (
    Health,
    SubmitRequest,
    SubmittedTask,
    TaskList,
    TasksQuery,
    TaskState,
)
from services.gateway.dialects.codebot.naming import new_mark
from services.gateway.dialects.codebot.settings import CodebotSettings
from services.gateway.dialects.codebot.tasks import job_request, listed, task_state
from services.gateway.dialects.dialect import LooseQuery
from services.gateway.dialects.serving import ROOT
from services.gateway.operations import Answer, Operation, json_response
from services.gateway.problems import RETRY_AFTER_SECONDS, ProblemError
from services.gateway.query import read_id, read_query
from services.gateway.webhooks.operation import webhook_operation
from services.gateway.webhooks.settings import CODEBOT
from services.jobs.errors import NotFoundError, TooManyQueuedError


class TaskRoutes:
    def __init__(self, settings: CodebotSettings) -> None:
        self._retention = timedelta(seconds=settings.task_retention_seconds)
        self._work_dir = settings.work_dir

    async def submit(self, request: web.Request) -> web.StreamResponse:
        gateway = gateway_of(request)
        wanted, body = await read_body(request, SubmitRequest)
        try:
            job = job_request(wanted, new_mark(), retention=self._retention)
            submitted = await gateway.submissions.submit(request[CLIENT], job, key=None, body=body)
        except TooManyQueuedError as error:
            detail = "The task queue is full; submit again when a task has started"
            raise ProblemError(503, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)}) from error
        gateway.commands.submitted(submitted.job_id)
        return json_response(request, SubmittedTask(task_id=submitted.job_id), status=202)

    async def status(self, request: web.Request) -> web.StreamResponse:
        read_query(request, LooseQuery)
        task_id, looking = read_id(request, "task"), self._looking(request)
        try:
            job = await looking.one(task_id)
        except NotFoundError as error:
            raise ProblemError(404, f"Task {task_id} not found") from error
        run = await looking.first_run(job)
        return json_response(request, self._state(request, job, run))

    async def tasks(self, request: web.Request) -> web.StreamResponse:
        query, looking = read_query(request, TasksQuery), self._looking(request)
        jobs = await looking.newest(query.status, limit=query.limit)
        tasks = [listed(job, await looking.repository(job)) for job in jobs]
        return json_response(request, TaskList(tasks=tasks, count=len(tasks)))

    async def health(self, request: web.Request) -> web.StreamResponse:
        queued = dict(await gateway_of(request).clients.queued(request[CLIENT]))
        reviews = queued.pop(Queue.REVIEW, 0)
        return json_response(request, Health(review_queue_size=reviews, task_queue_size=sum(queued.values())))

    def _looking(self, request: web.Request) -> Looking:
        return Looking(gateway_of(request).reading, request[CLIENT], self._retention)

    def _state(self, request: web.Request, job: Job, run: Run | None) -> TaskState:
        """The pages of the local forge are served beside this API, to its keys: see ``Dialect.pages``."""
        url = run.changeset.url if run and run.changeset else None
        if url is not None and url.startswith("/"):
            url = f"{request.url.origin()}{request.app[ROOT]}{url}"
        return task_state(job, run, url=url, work_dir=self._work_dir, now=datetime.now(UTC))


def operations(routes: TaskRoutes) -> tuple[Operation, ...]:
    return (
        Operation(
            method="POST",
            path="/api/tasks/submit",
            name="submitTask",
            summary="Submit a new task for async execution",
            handler=routes.submit,
            body=SubmitRequest,
            query=LooseQuery,
            answers=(Answer(202, "accepted", SubmittedTask),),
        ),
        Operation(
            method="GET",
            path="/api/tasks/{id}/status",
            name="getTaskStatus",
            summary="Check the status and results of a task",
            handler=routes.status,
            query=LooseQuery,
            answers=(Answer(200, "the task", TaskState),),
        ),
        Operation(
            method="GET",
            path="/api/tasks",
            name="listTasks",
            summary="List recent tasks, newest first",
            handler=routes.tasks,
            query=TasksQuery,
            answers=(Answer(200, "the tasks", TaskList),),
        ),
        Operation(
            method="GET",
            path="/health",
            name="getHealth",
            summary="Check server health and queue status",
            handler=routes.health,
            query=LooseQuery,
            is_public=True,
            answers=(Answer(200, "tasks can be taken", Health),),
        ),
        webhook_operation(CODEBOT, "/webhook", LooseQuery),
    )

"""A small gateway over real sockets that can be told to fail: the client and the command line are tested on it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from aiohttp import web

from services.contracts.rest import Job, Run, RunCounts, RunUsage
from services.contracts.words import JobKind, JobOutcome, JobState, Outcome, RunState

API_KEY = "qd_test"
START_SECONDS = 10
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
DIFF = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-old\n+new\n"


def make_job(**changes: Any) -> Job:
    values: dict[str, Any] = {
        "id": uuid4(),
        "name": None,
        "kind": JobKind.CODE,
        "state": JobState.COMPLETED,
        "outcome": JobOutcome.ALL,
        "prompt": "do it",
        "priority": 0,
        "options": {},
        "runs": RunCounts(total=1, started=1, active=0, completed=1, failed=0, cancelled=0),
        "created_at": NOW,
        "started_at": NOW,
        "finished_at": NOW,
        "cancel_requested_at": None,
        "not_before": None,
        "retry_of": None,
        "metadata": {},
    }
    return Job(**values | changes)


def make_run(job: Job, **changes: Any) -> Run:
    usage = RunUsage(
        turns=1,
        input_tokens=5,
        output_tokens=2,
        cache_read_input_tokens=0,
        cache_creation_input_tokens=0,
        cost_usd=0.001,
        unpriced_turns=0,
    )
    values: dict[str, Any] = dict.fromkeys(Run.model_fields)
    values |= {
        "id": uuid4(),
        "job_id": job.id,
        "position": 0,
        "repository": "https://forge.example/team/widget.git",
        "state": RunState.COMPLETED,
        "outcome": Outcome.DELIVERED,
        "attempt": 1,
        "usage": usage,
        "created_at": NOW,
    }
    return Run(**values | changes)


def make_event(number: int, kind: str, *, run: UUID | str = "", **payload: Any) -> dict[str, Any]:
    """An event as proto3 JSON has it: what is default is left out. ``number`` 0: a delta."""
    first, *others = kind.replace(".", "_").split("_")
    key = first + "".join(word.title() for word in others)
    event: dict[str, Any] = {"id": f"e{number}", "jobId": "j", "kind": kind, key: payload}
    event["time"] = "2026-01-31T12:00:00.123456789Z"
    if number:
        event["number"] = number
    if run:
        event |= {"runId": str(run), "attempt": 1}
    return event


@dataclass
class Stream:
    """One connection to the events: what it sends before it ends, and how it ends.

    ``events``: how many, None for all. ``cut``: in the middle of a message, without an end.
    ``overlap``: how many events from before the resumption it repeats. ``skip``: how many it leaves out.
    """

    events: int | None = None
    cut: bool = False
    overlap: int = 0
    skip: int = 0


@dataclass
class FakeGateway:
    """``faults``: answers given, one a request, before the true ones. ``streams``: one a connection to the events."""

    address: str = ""
    jobs: list[Job] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    faults: list[web.Response] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    requests: list[web.Request] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)

    def add(self, job: Job, *runs: Run) -> Job:
        self.jobs.insert(0, job)
        self.runs += runs
        return job

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard])
        application.add_routes(
            [
                web.get("/v1/jobs", self._list),
                web.post("/v1/jobs", self._submit),
                web.get("/v1/jobs/{id}", self._job),
                web.post("/v1/jobs/{id}/cancel", self._cancel),
                web.get("/v1/jobs/{id}/runs", self._runs),
                web.get("/v1/jobs/{id}/events", self._events),
                web.get("/v1/runs/{id}/diff", self._diff),
            ]
        )
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(request)
        if request.headers.get("Authorization") != f"Bearer {API_KEY}":
            return problem(401, "Unauthorized", "the API key is unknown")
        if self.faults:
            return self.faults.pop(0)
        response: web.StreamResponse = await handler(request)
        return response

    async def _list(self, request: web.Request) -> web.Response:
        start, limit = int(request.query.get("cursor", "0")), int(request.query["limit"])
        state = request.query.get("state")
        found = [job for job in self.jobs if state is None or job.state == state]
        cursor = str(start + limit) if start + limit < len(found) else None
        return _answer({"items": [_json(job) for job in found[start : start + limit]], "nextCursor": cursor})

    async def _submit(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        job = self.jobs[0] if self.jobs else self.add(make_job())
        return _answer(_json(job), status=201)

    async def _job(self, request: web.Request) -> web.Response:
        return _answer(_json(self._found(request)))

    async def _cancel(self, request: web.Request) -> web.Response:
        job = self._found(request)
        if job.finished_at is not None:
            return problem(409, "Conflict", f"the job is {job.state} already")
        return _answer(_json(job.model_copy(update={"state": JobState.CANCELLING})), status=202)

    async def _runs(self, request: web.Request) -> web.Response:
        job = self._found(request)
        return _answer({"items": [_json(run) for run in self.runs if run.job_id == job.id], "nextCursor": None})

    async def _diff(self, request: web.Request) -> web.Response:
        if not any(str(run.id) == request.match_info["id"] for run in self.runs):
            return problem(404, "Not Found", "no such run")
        return web.Response(text=DIFF, content_type="text/x-diff")

    def _found(self, request: web.Request) -> Job:
        for job in self.jobs:
            if str(job.id) == request.match_info["id"]:
                return job
        raise web.HTTPNotFound(
            text='{"title": "Not Found", "status": 404, "detail": "no such job"}',
            content_type="application/problem+json",
        )

    async def _events(self, request: web.Request) -> web.StreamResponse:
        plan = self.streams.pop(0) if self.streams else Stream()
        last = request.headers.get("Last-Event-ID", "")
        start = max(0, (int(last.rpartition(":")[2]) if last else 0) - plan.overlap) + plan.skip
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": keep-alive\n\n")
        end = len(self.events) if plan.events is None else start + plan.events
        for message in self._messages()[start:end]:
            await response.write(message)
        if plan.cut:
            await response.write(self._messages()[end][:-10])
            assert request.transport is not None
            request.transport.abort()
        return response

    def _messages(self) -> list[bytes]:
        """Each event as its message; the id holds the last durable number, and counts from 1."""
        messages, number = [], 0
        for sequence, event in enumerate(self.events, 1):
            number = event.get("number", number)
            body = web.json_response(event).text
            messages.append(f"id: {number}:one:{sequence}\nevent: {event['kind']}\ndata: {body}\n\n".encode())
        return messages


def problem(status: int, title: str, detail: str, *, retry_after: str = "", errors: Any = ()) -> web.Response:
    body = {"title": title, "status": status, "detail": detail, "errors": list(errors)}
    response = web.json_response(body, status=status, content_type="application/problem+json")
    if retry_after:
        response.headers["Retry-After"] = retry_after
    return response


def _answer(body: Any, *, status: int = 200) -> web.Response:
    return web.json_response(body, status=status)


def _json(model: Job | Run) -> Any:
    return model.model_dump(mode="json", by_alias=True)


@contextmanager
def running(gateway: FakeGateway) -> Iterator[FakeGateway]:
    """Serve it from a thread of its own: the command line runs event loops of its own in the test's thread."""
    loop, started, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        runner = web.AppRunner(gateway.application(), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        gateway.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        started.set()
        await stop.wait()
        await runner.cleanup()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(START_SECONDS), "the fake gateway did not start"
    try:
        yield gateway
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(START_SECONDS)
        assert not thread.is_alive(), "the fake gateway did not stop"

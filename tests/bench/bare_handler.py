"""The gateway's submit without the gateway: a bare aiohttp handler, the same INSERTs, the same publish. A process."""

from __future__ import annotations

import asyncio
import os
import uuid
from contextlib import AsyncExitStack
from functools import partial

import nats
import orjson
import uvloop
from aiohttp import web
from nats.js import JetStreamContext
from uuid_utils.compat import uuid7

from services.contracts import subjects
from services.contracts.v1.commands_pb2 import JobCommand
from tests.bench.pools import Pool, new_pool

_POOL = 10
_INSERT = """
WITH job AS (
    INSERT INTO jobs (id, client_id, kind, prompt, options, runs_total, last_event_number)
    SELECT $1, c.id, $2, $3, $4::jsonb, 1, 1 FROM clients c LIMIT 1
    RETURNING id, client_id, kind
), run AS (
    INSERT INTO runs (id, job_id, client_id, position, queue, branch, priority)
    SELECT $5, job.id, job.client_id, 0, job.kind, $6, 0 FROM job
)
INSERT INTO events (job_id, number, id, attempt, kind, data, created_at)
SELECT job.id, 1, $7, 0, 'job.submitted', '{"kind": "task", "runs": 1}', now() FROM job"""


class Handler:
    def __init__(self, pool: Pool, context: JetStreamContext) -> None:
        self._pool = pool
        self._context = context
        self._sending: set[asyncio.Task[object]] = set()

    async def submit(self, request: web.Request) -> web.Response:
        wanted = orjson.loads(await request.read())
        job_id, run_id, kind = uuid7(), uuid7(), wanted["kind"]
        options = orjson.dumps(wanted.get("options", {})).decode()
        values = (job_id, kind, wanted["prompt"], options, run_id, f"bare/{run_id}", uuid7())
        await self._pool.execute(_INSERT, *values)
        self._send(job_id)
        return web.Response(body=orjson.dumps({"id": str(job_id)}), status=201, content_type="application/json")

    def _send(self, job_id: uuid.UUID) -> None:
        """On the side, as the gateway does."""
        command = JobCommand(job_id=str(job_id)).SerializeToString()
        headers = {"Nats-Msg-Id": str(job_id)}
        work = self._context.publish(subjects.COMMAND_SUBMIT, command, headers=headers)
        task: asyncio.Task[object] = asyncio.create_task(work)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)


async def _health(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def serve(port: int) -> None:
    """Serve until the process is ended."""
    async with AsyncExitStack() as opened:
        pool = await opened.enter_async_context(new_pool(os.environ["DATABASE_URL"], _POOL))
        client = await nats.connect(os.environ["NATS_URL"])
        opened.push_async_callback(client.close)
        app = web.Application()
        app.router.add_post("/v1/jobs", Handler(pool, client.jetstream()).submit)
        app.router.add_get("/health", _health)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        opened.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(partial(serve, int(os.environ["PORT"]))())

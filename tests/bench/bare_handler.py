"""The gateway's submit without the gateway: a bare aiohttp handler, the same INSERTs, the same publish. A process."""

from __future__ import annotations

import asyncio
import os
import uuid
from contextlib import AsyncExitStack
from functools import partial

import asyncpg
import nats
import orjson
import uvloop
from aiohttp import web
from nats.js import JetStreamContext
from uuid_utils.compat import uuid7

from services.contracts import subjects
from services.contracts.v1.commands_pb2 import JobCommand

_POOL = 10
_INSERT_JOB = """INSERT INTO jobs (id, client_id, kind, prompt, options, not_before, runs_total, last_event_number)
    SELECT $1, c.id, 'code', $2, $3::jsonb, $4::text::timestamptz, 1, 1 FROM clients c LIMIT 1"""
_INSERT_RUN = """INSERT INTO runs (id, job_id, client_id, position, queue, repository, branch, priority, not_before)
    SELECT $1, $2, c.id, 0, 'code', $3, $4, 0, $5::text::timestamptz FROM clients c LIMIT 1"""
_INSERT_EVENT = """INSERT INTO events (job_id, number, id, attempt, kind, data, created_at)
    VALUES ($1, 1, $2, 0, 'job.submitted', '{"kind": "code", "runs": 1}', now())"""


class Handler:
    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], context: JetStreamContext) -> None:
        self._pool = pool
        self._context = context
        self._sending: set[asyncio.Task[object]] = set()

    async def submit(self, request: web.Request) -> web.Response:
        wanted = orjson.loads(await request.read())
        job_id = uuid7()
        async with self._pool.acquire() as connection, connection.transaction():
            options = orjson.dumps(wanted.get("options", {})).decode()
            await connection.execute(_INSERT_JOB, job_id, wanted["prompt"], options, wanted["notBefore"])
            run_id, repository = uuid7(), wanted["repositories"][0]["url"]
            await connection.execute(_INSERT_RUN, run_id, job_id, repository, f"bare/{run_id}", wanted["notBefore"])
            await connection.execute(_INSERT_EVENT, job_id, uuid7())
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
        pool = await opened.enter_async_context(asyncpg.create_pool(os.environ["DATABASE_URL"], max_size=_POOL))
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

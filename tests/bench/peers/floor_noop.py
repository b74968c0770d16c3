"""The floor: what any queue with this design must do. One INSERT and one JetStream publish to submit; a pull and two
UPDATEs, each of its own transaction, to carry out. No state machine, no HTTP, no events. A process.

As much is in flight as helps: publishes are not waited for one by one, messages are pulled by the hundred, and the
UPDATEs of many jobs run at once over a pool.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

import nats
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StreamConfig
from uuid_utils.compat import uuid7

from tests.bench.pools import Pool, new_pool
from tests.bench.roles import PickUp, Submit, play

POOL = 10
IN_FLIGHT = 200
_FETCH = 100
_STREAM, _SUBJECT = "FLOOR", "floor.work"
_TABLE = """CREATE TABLE floor (id uuid PRIMARY KEY, word text NOT NULL, state text NOT NULL DEFAULT 'queued',
    started_at timestamptz, finished_at timestamptz)"""
_INSERT = "INSERT INTO floor (id, word) VALUES ($1, $2)"
_START = "UPDATE floor SET state = 'running', started_at = now() WHERE id = $1 RETURNING word"
_FINISH = "UPDATE floor SET state = 'done', finished_at = now() WHERE id = $1"


@asynccontextmanager
async def _servers() -> AsyncIterator[tuple[Pool, JetStreamContext]]:
    async with AsyncExitStack() as opened:
        pool = await opened.enter_async_context(new_pool(os.environ["DATABASE_URL"], POOL))
        client = await nats.connect(os.environ["NATS_URL"])
        opened.push_async_callback(client.drain)
        yield pool, client.jetstream(publish_async_max_pending=10_000)


@asynccontextmanager
async def submitting() -> AsyncIterator[Submit]:
    async with _servers() as (pool, jetstream):

        async def submit(word: str) -> None:
            identifier = uuid7()
            await pool.execute(_INSERT, identifier, word)
            await jetstream.publish_async(_SUBJECT, identifier.bytes)

        yield submit
        await jetstream.publish_async_completed()


async def work(pick_up: PickUp) -> None:
    async with _servers() as (pool, jetstream), asyncio.TaskGroup() as group:
        places = asyncio.Semaphore(IN_FLIGHT)
        subscription = await jetstream.pull_subscribe(_SUBJECT, "floor", _STREAM)

        async def carry_out(identifier: UUID) -> None:
            pick_up(await pool.fetchval(_START, identifier))
            await pool.execute(_FINISH, identifier)
            places.release()

        while True:
            for message in await _fetched(subscription):
                await places.acquire()
                group.create_task(carry_out(UUID(bytes=message.data)))
                await message.ack()


async def _fetched(subscription: JetStreamContext.PullSubscription) -> list[Msg]:
    try:
        return await subscription.fetch(_FETCH, timeout=5)
    except TimeoutError:
        return []


async def install() -> None:
    async with _servers() as (pool, jetstream):
        await pool.execute(_TABLE)
        await jetstream.add_stream(
            StreamConfig(name=_STREAM, subjects=[_SUBJECT], retention=RetentionPolicy.WORK_QUEUE)
        )


if __name__ == "__main__":
    play(submitting=submitting, working=work, installing=install)

"""pgqueuer with a no-op task. A process; see `tests.bench.roles` for what it can be told to be.

As its documentation has it: an asyncpg pool, uvloop, durable tables. It takes jobs and logs their completions in
batches of ``BENCH_BATCH``; 10 is its default. Of 50, 100, 250 and 500, 50 gave the best drain without a later start.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pgqueuer import PgQueuer, Queries
from pgqueuer.models import Job

from tests.bench.pools import new_pool
from tests.bench.roles import PickUp, Submit, play

POOL = 10
_TASK = "noop"


@asynccontextmanager
async def submitting() -> AsyncIterator[Submit]:
    async with new_pool(os.environ["DATABASE_URL"], POOL) as pool:
        queries = Queries.from_asyncpg_pool(pool)

        async def submit(word: str) -> None:
            await queries.enqueue(_TASK, word.encode())

        yield submit


async def work(pick_up: PickUp) -> None:
    async with new_pool(os.environ["DATABASE_URL"], POOL) as pool:
        worker = PgQueuer.from_asyncpg_pool(pool)

        @worker.entrypoint(_TASK)
        async def noop(job: Job) -> None:
            assert job.payload is not None
            pick_up(job.payload.decode())

        await worker.run(batch_size=int(os.environ["BENCH_BATCH"]))


async def install() -> None:
    async with new_pool(os.environ["DATABASE_URL"], 1) as pool:
        await Queries.from_asyncpg_pool(pool).install()


if __name__ == "__main__":
    play(submitting=submitting, working=work, installing=install)

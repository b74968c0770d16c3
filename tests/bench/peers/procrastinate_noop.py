"""procrastinate with a no-op task. A process; see `tests.bench.roles` for what it can be told to be.

As its documentation has it: the psycopg connector with its C part and a pool, notifications on, finished jobs kept
(its default, and what we do). It takes one job at a time, so that more than 30 at once brought no better drain.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from procrastinate import App, PsycopgConnector

from tests.bench.roles import PickUp, Submit, play

POOL = 10
CONCURRENCY = 30
_TASK = "noop"


def _app() -> App:
    return App(connector=PsycopgConnector(conninfo=os.environ["DATABASE_URL"], min_size=POOL, max_size=POOL))


@asynccontextmanager
async def submitting() -> AsyncIterator[Submit]:
    app = _app()
    noop = app.configure_task(_TASK, allow_unknown=True)
    async with app.open_async():

        async def submit(word: str) -> None:
            await noop.defer_async(sent=word)

        yield submit


async def work(pick_up: PickUp) -> None:
    app = _app()

    @app.task(name=_TASK)
    async def noop(sent: str) -> None:
        pick_up(sent)

    async with app.open_async():
        await app.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=False)


async def install() -> None:
    app = _app()
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


if __name__ == "__main__":
    play(submitting=submitting, working=work, installing=install)

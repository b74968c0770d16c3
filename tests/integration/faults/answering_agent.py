"""`python -m tests.integration.faults.answering_agent`: an agent with the real worker, heartbeat and claims, that
answers each run at once; with the prompt `block SECONDS` only after its event loop hung for that long, and with
`pause SECONDS` after it did nothing for that long. Each begin is told on a line.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import dataclass
from datetime import timedelta

from services.agent.worker import Worker
from services.contracts import subjects
from services.contracts.words import Outcome
from services.jobs import heartbeat as heartbeat_module
from services.jobs.heartbeat import Heartbeat
from services.jobs.leases import Node, new_node_name
from services.jobs.models import ClaimedRun
from services.jobs.running import Running
from services.jobs.unit import Units
from services.runtime import lifecycle
from services.runtime.jetstream import Bus
from services.runtime.postgres import Database

CAPACITY = 16
BLOCKED_FOR_GOOD_VARIABLE = "TEST_BLOCKED_FOR_GOOD_SECONDS"
BLOCK = "block "
PAUSE = "pause "
BEGUN = "begun:"


@dataclass(frozen=True)
class Answer:
    run: ClaimedRun
    running: Running

    async def work(self) -> None:
        sys.stdout.write(f"{BEGUN} {self.run.hold.run_id}\n")
        sys.stdout.flush()
        if self.run.prompt.startswith(BLOCK):
            time.sleep(float(self.run.prompt.removeprefix(BLOCK)))  # noqa: ASYNC251  the fault: the loop hangs
        if self.run.prompt.startswith(PAUSE):
            await asyncio.sleep(float(self.run.prompt.removeprefix(PAUSE)))
        await self.running.complete(self.run.hold, Outcome.ANSWERED, summary="Nothing was done, as asked.")

    def kill(self) -> None:
        """It started no program."""

    def left(self) -> None:
        """It has nothing to store."""

    async def release(self) -> None:
        """It left nothing."""

    def hear(self) -> None:
        """It talks with nobody."""


async def serve(stop: asyncio.Event) -> None:
    if seconds := os.environ.get(BLOCKED_FOR_GOOD_VARIABLE):
        heartbeat_module.BLOCKED_FOR_GOOD = timedelta(seconds=float(seconds))
    database_url = os.environ["DATABASE_URL"]
    node = Node(new_node_name("answering"), "agent")
    database = Database(database_url, size=4, name=node.name)
    bus = Bus(os.environ["NATS_URL"], name=node.name)
    heartbeat = Heartbeat(database_url, node)
    running = Running(Units(database, ring=lambda rung: bus.ring(subjects.EVENTS_DOORBELL, rung.encode())))
    worker = Worker(
        lambda run: Answer(run, running),
        running=running,
        bus=bus,
        heartbeat=heartbeat,
        name=node.name,
        capacity=CAPACITY,
    )
    await bus.start()
    heartbeat.start()
    tasks = [asyncio.create_task(worker.hear_orders(), name="orders")]
    try:
        await lifecycle.until_stopped(stop, tasks)
    finally:
        await worker.drain(timedelta(seconds=2))
        await lifecycle.stop_tasks(tasks, timeout=timedelta(seconds=1))
        await heartbeat.stop()
        await bus.close()
        await database.close()


if __name__ == "__main__":
    lifecycle.run(serve)

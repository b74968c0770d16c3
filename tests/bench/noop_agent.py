"""The agent without the work: the real node, heartbeat, orders, claims and completions, but each run is answered at
once. No vcs, no model, no Git. A process; see `tests.bench.roles`.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from services.agent.worker import Worker
from services.contracts import subjects
from services.contracts.words import Outcome
from services.jobs.heartbeat import Heartbeat
from services.jobs.leases import Node, new_node_name
from services.jobs.models import ClaimedRun
from services.jobs.running import Running
from services.jobs.unit import Units
from services.runtime.jetstream import Bus
from services.runtime.lifecycle import look_for_garbage_less_often
from services.runtime.postgres import Database
from tests.bench.roles import PickUp, play

CAPACITY = 1_024
"""As many as the fleet may have where no limit is set."""
POOL = 8
"""What a service has by default."""


@dataclass(frozen=True)
class NoWork:
    """A run's prompt is when it was submitted."""

    run: ClaimedRun
    running: Running
    pick_up: PickUp

    async def work(self) -> None:
        self.pick_up(self.run.prompt)
        await self.running.complete(self.run.hold, Outcome.ANSWERED, summary="Nothing was done, as asked.")

    def kill(self) -> None:
        """It started no program."""

    def left(self) -> None:
        """It has nothing to store."""

    async def release(self) -> None:
        """It left nothing."""

    def hear(self) -> None:
        """It talks with nobody."""


async def work(pick_up: PickUp) -> None:
    look_for_garbage_less_often()  # as every service does
    node = Node(new_node_name("noop"), "agent")
    database = Database(os.environ["DATABASE_URL"], size=POOL, name=node.name)
    bus = Bus(os.environ["NATS_URL"], name=node.name)
    heartbeat = Heartbeat(os.environ["DATABASE_URL"], node)
    running = Running(Units(database, ring=lambda rung: bus.ring(subjects.EVENTS_DOORBELL, rung.encode())))
    worker = Worker(
        lambda run: NoWork(run, running, pick_up),
        running=running,
        bus=bus,
        heartbeat=heartbeat,
        name=node.name,
        capacity=CAPACITY,
    )
    try:
        await bus.start()
        heartbeat.start()
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.hear_orders())
            group.create_task(worker.hear_controls())
    finally:
        await heartbeat.stop()
        await bus.close()
        await database.close()


if __name__ == "__main__":
    play(working=work)

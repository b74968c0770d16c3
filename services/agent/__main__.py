"""`python -m services.agent`: claims runs and drives the Claude tool loop. Holds no Git or forge credential."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from services.agent.assembly import Shared
from services.agent.attempt import Attempt
from services.agent.budget_news import BudgetNews
from services.agent.model import Claude
from services.agent.pace import FleetPace
from services.agent.sandbox import Sandbox
from services.agent.settings import AgentSettings
from services.agent.vcs_client import VcsClient
from services.agent.worker import Worker
from services.contracts import subjects
from services.jobs.bells import Bell
from services.jobs.budgeting import Budgeting
from services.jobs.heartbeat import Heartbeat
from services.jobs.leases import Node, new_node_name
from services.jobs.messaging import Messaging
from services.jobs.pacing import Pacing
from services.jobs.running import Running
from services.jobs.unit import Units
from services.runtime import lifecycle
from services.runtime.grpc import GrpcSecurity
from services.runtime.health import serve_health
from services.runtime.jetstream import Bus
from services.runtime.postgres import Database
from services.runtime.settings import load
from services.runtime.telemetry import configure_logs, logger

log = logger("agent")

_STOP_SECONDS = 0.3
_SEARCHES = 4


async def serve(stop: asyncio.Event) -> None:
    settings = load(AgentSettings)
    configure_logs(service="agent", level=settings.log_level, log_format=settings.log_format)
    node = Node(new_node_name(settings.agent_name), "agent")
    database = Database(settings.database_url.get_secret_value(), size=settings.database_pool, name=node.name)
    bus = Bus(settings.nats_url.get_secret_value(), name=node.name)
    heartbeat = Heartbeat(settings.database_url.get_secret_value(), node)
    security = GrpcSecurity.load(settings)
    vcs = VcsClient(settings.vcs_address, settings.vcs_token.get_secret_value(), security)
    sandbox = await Sandbox.find(settings.sandbox, paths=settings.sandbox_paths)
    pace = FleetPace(Pacing(database), bus)
    claude = Claude(pace=pace)
    budget_news = BudgetNews()
    units = Units(database, ring=Bell(lambda rung: bus.ring(subjects.EVENTS_DOORBELL, rung.encode())))
    running = Running(units)
    shared = Shared(
        settings=settings,
        running=running,
        messaging=Messaging(units),
        budgeting=Budgeting(database),
        claude=claude,
        vcs=vcs,
        bus=bus,
        sealer=settings.sealer,
        sandbox=sandbox,
        budget_news=budget_news,
        searches=asyncio.Semaphore(_SEARCHES),
    )
    worker = Worker(
        lambda run: Attempt(run, shared),
        running=running,
        bus=bus,
        heartbeat=heartbeat,
        name=node.name,
        capacity=settings.agent_capacity,
    )
    checks = {"postgres": database.check, "nats": bus.check}
    async with serve_health("agent", settings.health_address, checks, {"sandbox": sandbox.words}):
        await bus.start()
        heartbeat.start()
        hearing = [
            asyncio.create_task(worker.hear_orders(), name="orders"),
            asyncio.create_task(worker.hear_controls(), name="controls"),
            asyncio.create_task(pace.hear(), name="pace"),
            asyncio.create_task(budget_news.hear(bus), name="budget news"),
        ]
        log.info(
            "started",
            node=node.name,
            capacity=settings.agent_capacity,
            model=settings.model,
            sandbox=sandbox.words,
        )
        try:
            await lifecycle.until_stopped(stop, hearing)
        finally:
            # The order matters: nothing new, finish or hand back under a live heartbeat, then the connections.
            await worker.drain(timedelta(seconds=settings.drain_seconds))
            await lifecycle.stop_tasks(hearing, timeout=timedelta(seconds=_STOP_SECONDS))
            await heartbeat.stop()
            await vcs.close()
            await claude.close()
            await bus.close()
            await database.close()
    log.info("stopped")


if __name__ == "__main__":
    lifecycle.run(serve, starts_many_processes=True)

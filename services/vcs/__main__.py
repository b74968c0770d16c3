"""`python -m services.vcs`: mirrors and worktrees for the agents of this node, and publications for the fleet."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as grpc_health
from grpc_reflection.v1alpha import reflection

from services.contracts import subjects
from services.contracts.v1 import vcs_pb2, vcs_pb2_grpc
from services.jobs.heartbeat import Heartbeat
from services.jobs.leases import Node, new_node_name
from services.jobs.publishing import Publishing
from services.jobs.running import Running
from services.jobs.unit import Units
from services.runtime import jetstream, lifecycle, postgres
from services.runtime.grpc import make_server
from services.runtime.health import serve_health
from services.runtime.jetstream import Bus
from services.runtime.postgres import Database
from services.runtime.settings import load, refuse
from services.runtime.telemetry import configure_logs, logger
from services.vcs.commits import Commits
from services.vcs.forges.local import LocalForge
from services.vcs.git import Git
from services.vcs.janitor import Janitor
from services.vcs.mirrors import Mirrors
from services.vcs.publisher import Publisher
from services.vcs.servicer import VcsServicer
from services.vcs.settings import VcsSettings
from services.vcs.worktrees import Worktrees

log = logger("vcs")

_JANITOR_EVERY = timedelta(seconds=15)
_STOP_SECONDS = 1.0


class Vcs:
    """One vcs process, wired."""

    def __init__(self, settings: VcsSettings, database: Database, bus: Bus) -> None:
        self.settings = settings
        root = settings.vcs_root
        git = Git(root / "home", allow_local=settings.allow_local_repositories)
        mirrors = Mirrors(root, git)
        self.worktrees = Worktrees(root, mirrors, git)
        commits = Commits(git, mirrors, self.worktrees)
        units = Units(database, ring=lambda rung: bus.ring(subjects.EVENTS_DOORBELL, rung.encode()))
        self._running = Running(units)
        self.janitor = Janitor(self.worktrees, self._running)
        node = Node(new_node_name(settings.node_name), "vcs", address=settings.vcs_listen)
        self.heartbeat = Heartbeat(settings.database_url.get_secret_value(), node)
        self.servicer = VcsServicer(self.worktrees, commits, self._holds, allow_local=settings.allow_local_repositories)
        self.publisher = Publisher(
            publishing=Publishing(units),
            heartbeat=self.heartbeat,
            bus=bus,
            git=git,
            mirrors=mirrors,
            commits=commits,
            forge=LocalForge(""),
            holder=node.name,
            most=settings.publications,
        )

    async def _holds(self, run_id: str, attempt: int, token: str) -> bool:
        return await self._running.holds(UUID(run_id), attempt=attempt, token=UUID(token))

    async def start_server(self) -> grpc.aio.Server:
        server = make_server(self.settings.vcs_token.get_secret_value())
        vcs_pb2_grpc.add_VcsServicer_to_server(self.servicer, server)
        health = grpc_health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        await health.set("quarterdeck.v1.Vcs", health_pb2.HealthCheckResponse.SERVING)
        service = vcs_pb2.DESCRIPTOR.services_by_name["Vcs"].full_name
        reflection.enable_server_reflection((service, reflection.SERVICE_NAME), server)
        try:
            server.add_insecure_port(self.settings.vcs_listen)
        except RuntimeError as error:
            raise SystemExit(f"QUARTERDECK_VCS_LISTEN: failed to bind {self.settings.vcs_listen}: {error}") from error
        await server.start()
        return server


async def serve(stop: asyncio.Event) -> None:
    settings = load(VcsSettings)
    configure_logs(service="vcs", level=settings.log_level, log_format=settings.log_format)
    try:
        settings.vcs_root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        refuse("QUARTERDECK_VCS_ROOT", f"cannot be used: {error}")
    database = Database(settings.database_url.get_secret_value(), size=settings.database_pool, name="vcs")
    bus = Bus(settings.nats_url.get_secret_value(), name="vcs")
    vcs = Vcs(settings, database, bus)
    await vcs.worktrees.sweep()
    checks = {"postgres": database.check, "nats": bus.check}
    server = await vcs.start_server()
    async with serve_health("vcs", settings.health_address, checks):
        await bus.start()
        vcs.heartbeat.start()
        taking = asyncio.create_task(vcs.publisher.run(), name="publications")
        janitor = asyncio.create_task(_clean(vcs.janitor), name="janitor")
        log.info("started", listen=settings.vcs_listen)
        try:
            await lifecycle.until_stopped(stop, [taking, janitor])
        finally:
            await lifecycle.stop_tasks([taking, janitor], timeout=timedelta(seconds=_STOP_SECONDS))
            await server.stop(settings.drain_seconds)
            await vcs.publisher.drain(timedelta(seconds=settings.drain_seconds))
            await vcs.heartbeat.stop()
            await bus.close()
            await database.close()
    log.info("stopped")


async def _clean(janitor: Janitor) -> None:
    async def wait() -> None:
        await asyncio.sleep(_JANITOR_EVERY.total_seconds())

    transient = (*postgres.TRANSIENT, *jetstream.TRANSIENT)
    await lifecycle.repeat("janitor", janitor.run_once, wait=wait, transient=transient)


if __name__ == "__main__":
    lifecycle.run(serve, starts_many_processes=True)

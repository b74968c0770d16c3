"""`python -m services.vcs`: mirrors and worktrees for the agents of this node, and publications for the fleet."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from uuid import UUID

from services.contracts import subjects
from services.jobs.forge_apps import ForgeApps
from services.jobs.forge_comments import ForgeComments
from services.jobs.forge_pacing import ForgePacing
from services.jobs.heartbeat import Heartbeat
from services.jobs.leases import Node, new_node_name
from services.jobs.publishing import Publishing
from services.jobs.rescuing import Rescuing
from services.jobs.run_credentials import RunCredentials
from services.jobs.running import Running
from services.jobs.tracking import Tracking
from services.jobs.unit import Units
from services.runtime import jetstream, lifecycle, postgres
from services.runtime.grpc import CannotListenError, GrpcSecurity, WrongCertificatesError
from services.runtime.health import serve_health
from services.runtime.jetstream import Bus
from services.runtime.postgres import Database
from services.runtime.settings import load, refuse
from services.runtime.telemetry import configure_logs, logger
from services.vcs.acting import Acting, Hands
from services.vcs.disk.janitor import Janitor
from services.vcs.disk.rescue import Rescue
from services.vcs.disk.usage import Disk
from services.vcs.errors import GitUnfitError
from services.vcs.forges.app_set_up import AppSetUp
from services.vcs.forges.choosing import Forges
from services.vcs.forges.github import GitHubConfig, GitHubForge
from services.vcs.forges.job_github import JobGitHub
from services.vcs.forges.local import LocalForge
from services.vcs.forges.pace import FleetPace
from services.vcs.forges.server_github import ServerGitHub
from services.vcs.git.credentials import ChainedCredentials
from services.vcs.git.runner import Git
from services.vcs.mirrors.mirrors import Mirrors
from services.vcs.mirrors.options import MirrorOptions
from services.vcs.mirrors.reach import Reach
from services.vcs.publishing.changesets import Changesets
from services.vcs.publishing.commenter import Commenter
from services.vcs.publishing.publisher import Publisher
from services.vcs.publishing.tracker import Tracker
from services.vcs.rpc.parts import Parts
from services.vcs.rpc.server import RpcServer
from services.vcs.rpc.servicer import VcsServicer
from services.vcs.settings import VcsSettings
from services.vcs.worktrees.commits import Commits
from services.vcs.worktrees.diffs import between
from services.vcs.worktrees.worktrees import Worktrees

log = logger("vcs")

_JANITOR_EVERY = timedelta(seconds=15)
_STOP_SECONDS = 1.0


class Vcs:
    """One vcs process, wired."""

    def __init__(self, settings: VcsSettings, database: Database, bus: Bus) -> None:
        self.settings = settings
        self._database = database
        self._bus = bus
        self._units = Units(database, ring=lambda rung: bus.ring(subjects.EVENTS_DOORBELL, rung.encode()))
        self._running = Running(self._units)
        self._rescuing = Rescuing(database)
        make, address = partial(_github, settings, database), settings.github_address
        apps = ForgeApps(database, settings.sealer)
        self.github = ServerGitHub(settings.github, apps, address, make)
        self._app_set_up = AppSetUp(address, apps, self.github)
        self._job_github = JobGitHub(address, make)
        self._git = _git(settings, self.github)
        root, git = settings.vcs_root, self._git
        self.mirrors = Mirrors(root, git, options=MirrorOptions(settings.clone_filter, settings.clone_depth))
        # The local forge's pages are the gateway's own: it knows its own address.
        self._forges = Forges(LocalForge(git, self.mirrors, ""), self.github)
        self._acting = self._new_acting()
        self.worktrees = Worktrees(
            root,
            self.mirrors,
            git,
            allow_lfs=settings.git_lfs,
            reach_of=self._acting.reach_of_run,
            most_spares=settings.spare_worktrees,
        )
        self._commits = Commits(git, self.mirrors, self.worktrees)
        node = Node(new_node_name(settings.node_name), "vcs", address=settings.vcs_advertise or settings.vcs_listen)
        self.heartbeat = Heartbeat(settings.database_url.get_secret_value(), node)
        self.janitor = self._new_janitor(node.name)
        tracking = Tracking(self._units)
        every = timedelta(seconds=settings.forge_poll_seconds)
        self._changesets = Changesets(
            tracking, self._acting, every=every, allow_local=settings.allow_local_repositories
        )
        self.tracker = Tracker(tracking, self._changesets)
        self.commenter = Commenter(ForgeComments(database), self._forges, allow_local=settings.allow_local_repositories)
        self.publisher = self._new_publisher(node.name)
        self.server = self._new_server(node.name)

    def _new_acting(self) -> Acting:
        credentials = RunCredentials(self._database, self.settings.sealer)
        server = Hands(Reach(self._git, self.mirrors), self._forges)
        return Acting(server, credentials, self._job_github, self.settings.static_credentials)

    def _new_janitor(self, node: str) -> Janitor:
        root = self.settings.vcs_root
        rescue = Rescue(root, self._git, self.worktrees, self._rescuing)
        return Janitor(
            worktrees=self.worktrees,
            mirrors=self.mirrors,
            holders=self._rescuing,
            rescue=rescue,
            disk=Disk(root, self.mirrors, rescue),
            limits=self.settings.disk,
            node=node,
        )

    def _new_publisher(self, node: str) -> Publisher:
        return Publisher(
            publishing=Publishing(self._units),
            heartbeat=self.heartbeat,
            bus=self._bus,
            commits=self._commits,
            hands=self._acting,
            observe_after=self._changesets.observe_after,
            holder=node,
            most=self.settings.publications,
        )

    def _new_server(self, node: str) -> RpcServer:
        parts = Parts(
            worktrees=self.worktrees,
            commits=self._commits,
            check_lease=self._holds,
            is_kept=self._keeps,
            diff_commits=partial(between, self._git, self.mirrors),
            mirrors=self.mirrors,
            janitor=self.janitor,
            forges=self._forges,
            changesets=self._changesets,
            apps=self._app_set_up,
            node=node,
            allow_local=self.settings.allow_local_repositories,
        )
        security = GrpcSecurity.load(self.settings)
        return RpcServer(VcsServicer(parts), token=self.settings.vcs_token.get_secret_value(), security=security)

    async def _holds(self, run_id: str, attempt: int, token: str) -> bool:
        return await self._running.holds(UUID(run_id), attempt=attempt, token=UUID(token))

    async def _keeps(self, run_id: str, attempt: int) -> bool:
        kept = await self._rescuing.attempts_kept([UUID(run_id)])
        return kept.get(UUID(run_id)) == attempt

    async def require_git(self) -> None:
        """End where there is no Git here that can be worked with."""
        try:
            await self._git.require_fit()
        except GitUnfitError as error:
            raise SystemExit(str(error)) from error

    async def listen(self) -> None:
        """Serve, or say which setting is wrong and end."""
        try:
            await self.server.start(self.settings.vcs_listen)
        except CannotListenError as error:
            raise SystemExit(f"QUARTERDECK_VCS_LISTEN: {error}") from error
        except WrongCertificatesError as error:
            refuse(error.variable, error.reason)

    async def close(self) -> None:
        """Once nothing is under way any more but what goes on without callers."""
        await self._app_set_up.drain(timedelta(seconds=self.settings.drain_seconds))
        await self.mirrors.close()
        await self._job_github.aclose()
        await self.github.aclose()


def _github(settings: VcsSettings, database: Database, config: GitHubConfig) -> GitHubForge:
    """GitHub as whom ``config`` says, at the pace of all who are that."""
    pacing = ForgePacing(database, config.scope, creations_per_minute=settings.pull_requests_per_minute)
    return GitHubForge(config, FleetPace(pacing))


def _git(settings: VcsSettings, github: ServerGitHub) -> Git:
    """What GitHub knows comes before what a file says."""
    return Git(
        settings.vcs_root / "home",
        allow_local=settings.allow_local_repositories,
        remotes=settings.remotes,
        credentials=ChainedCredentials(github, settings.static_credentials),
        max_file_bytes=settings.git_max_file_bytes,
    )


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
    await vcs.require_git()
    await vcs.worktrees.sweep()
    await vcs.mirrors.sweep()
    checks = {"postgres": database.check, "nats": bus.check}
    await vcs.github.begin()
    await vcs.listen()
    async with serve_health("vcs", settings.health_address, checks):
        await bus.start()
        vcs.heartbeat.start()
        tasks = [
            asyncio.create_task(vcs.publisher.run(), name="publications"),
            asyncio.create_task(vcs.github.run(), name="GitHub App"),
            asyncio.create_task(vcs.tracker.run(), name="tracker"),
            asyncio.create_task(vcs.commenter.run(), name="commenter"),
            asyncio.create_task(_clean(vcs.janitor), name="janitor"),
        ]
        log.info("started", listen=settings.vcs_listen)
        try:
            await lifecycle.until_stopped(stop, tasks)
        finally:
            await lifecycle.stop_tasks(tasks, timeout=timedelta(seconds=_STOP_SECONDS))
            await vcs.server.stop(settings.drain_seconds)
            await vcs.publisher.drain(timedelta(seconds=settings.drain_seconds))
            await vcs.heartbeat.stop()
            await vcs.close()
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

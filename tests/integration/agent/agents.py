"""Agents in this process, wired as the service's own but for what a test replaces, and what it replaces them with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Literal

from services.agent.assembly import Shared
from services.agent.attempt import Attempt
from services.agent.budget_news import BudgetNews
from services.agent.model import Claude, Patience
from services.agent.pace import FleetPace
from services.agent.sandbox import Sandbox
from services.agent.settings import AgentSettings
from services.agent.vcs_client import Progress, VcsClient, Worktree
from services.agent.worker import RUN_QUEUES, Worker
from services.contracts.v1.vcs_pb2 import CommitMetadata
from services.jobs.budgeting import Budgeting
from services.jobs.heartbeat import Heartbeat
from services.jobs.leases import Node, new_node_name
from services.jobs.messaging import Messaging
from services.jobs.models import ClaimedRun, Commit, Hold
from services.jobs.pacing import Pacing
from services.jobs.running import Running
from services.runtime import lifecycle
from services.runtime.jetstream import Bus
from tests.integration.agent.fleet import DEADLINE_SECONDS, VCS_TOKEN, Fleet
from tests.integration.jobs.domain import Domain

LONG_SECONDS = 2 * DEADLINE_SECONDS
NO_SANDBOX = Sandbox("unavailable", "unavailable: this test has none", None)
HASTE = Patience(tries=2, shortest_seconds=0.001, longest_seconds=0.002)


def settings_of(database_url: str, nats_url: str, model_url: str | None, **changes: Any) -> AgentSettings:
    environment = {
        "DATABASE_URL": database_url,
        "NATS_URL": nats_url,
        "ANTHROPIC_API_KEY": "a key",
        "ANTHROPIC_BASE_URL": model_url,
        "CLAUDE_MODEL": "claude-scripted",
        "CLAUDE_MAX_TOKENS": 1_000,
        "vcs_token": VCS_TOKEN,
        "run_budget_usd": None,  # the scripted model has no price
    }
    return AgentSettings.model_validate({**environment, **changes})


def shared_of(
    settings: AgentSettings,
    domain: Domain,
    bus: Bus,
    *,
    vcs: VcsClient,
    claude: Claude,
    running: Running | None = None,
    sandbox: Sandbox = NO_SANDBOX,
) -> Shared:
    """What the attempts of an agent share."""
    return Shared(
        settings=settings,
        running=running or Running(domain.units),
        messaging=Messaging(domain.units),
        budgeting=Budgeting(domain.database),
        claude=claude,
        vcs=vcs,
        bus=bus,
        sealer=settings.sealer,
        sandbox=sandbox,
        budget_news=BudgetNews(),
        searches=asyncio.Semaphore(2),
    )


class QuietHeartbeat(Heartbeat):
    """Renews nothing and tells nothing, as that of a stopped process."""

    def start(self) -> None:
        return

    async def stop(self) -> None:
        return


class HeldVcs(VcsClient):
    """Keeps the agent waiting at one place until it is let go."""

    def __init__(self, fleet: Fleet, at: Literal["behind prepare", "before commit", "behind commit"]) -> None:
        super().__init__(fleet.vcs_address, VCS_TOKEN)
        self._at = at
        self._reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def until_reached(self) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            await self._reached.wait()

    async def prepare(self, run: ClaimedRun, *, progress: Progress | None = None) -> Worktree:
        worktree = await super().prepare(run, progress=progress)
        await self._hold("behind prepare")
        return worktree

    async def commit(self, hold: Hold, metadata: CommitMetadata, run: ClaimedRun) -> Commit | None:
        await self._hold("before commit")
        commit = await super().commit(hold, metadata, run)
        await self._hold("behind commit")
        return commit

    async def _hold(self, place: str) -> None:
        if place == self._at:
            self._reached.set()
            await self.go_on.wait()


class Agent:
    """One agent, wired as its process is but for what a test replaces."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        heartbeat: type[Heartbeat] = Heartbeat,
        running: Running | None = None,
        bus: Bus | None = None,
        vcs: VcsClient | None = None,
        capacity: int = 8,
        sandbox: Sandbox = NO_SANDBOX,
        **changes: Any,
    ) -> None:
        """``changes``: settings that are not as usual."""
        settings = settings_of(fleet.database_url, fleet.nats_url, fleet.model.url, **changes)
        node = Node(new_node_name("agent"), "agent", capacity=capacity)
        self.name = node.name
        self._heartbeat = heartbeat(fleet.database_url, node)
        self._vcs = vcs or VcsClient(fleet.vcs_address, VCS_TOKEN)
        self._pace = FleetPace(Pacing(fleet.domain.database), fleet.bus)
        self._claude = Claude(patience=HASTE, pace=self._pace)
        running = running or Running(fleet.domain.units)
        self._bus = fleet.bus
        self._shared = shared = shared_of(
            settings,
            fleet.domain,
            fleet.bus,
            vcs=self._vcs,
            claude=self._claude,
            running=running,
            sandbox=sandbox,
        )
        self._worker = Worker(
            lambda run: Attempt(run, shared),
            running=running,
            bus=bus or fleet.bus,
            heartbeat=self._heartbeat,
            name=node.name,
            capacity=capacity,
        )
        self._taking: list[asyncio.Task[Any]] = []
        self._hearing: list[asyncio.Task[Any]] = []

    def start(self) -> None:
        self._heartbeat.start()
        self._taking = [asyncio.create_task(self._worker.take_orders(queue)) for queue in RUN_QUEUES]
        hearing = (self._worker.hear_controls(), self._pace.hear(), self._shared.budget_news.hear(self._bus))
        self._hearing = [asyncio.create_task(each) for each in hearing]

    async def has_heard_of_budgets(self) -> bool:
        return self._shared.budget_news.count > 0

    async def take_no_more(self) -> None:
        await lifecycle.stop_tasks(self._taking, timeout=timedelta(seconds=DEADLINE_SECONDS))
        self._taking = []

    async def drain(self, seconds: float) -> None:
        """Let what is under way end, and hand it back after half of ``seconds``."""
        await self.take_no_more()
        await self._worker.drain(timedelta(seconds=seconds))

    async def stop(self) -> None:
        await self.drain(0.2)
        await lifecycle.stop_tasks(self._hearing, timeout=timedelta(seconds=DEADLINE_SECONDS))
        await self._heartbeat.stop()
        await self._vcs.close()
        await self._claude.close()


StartAgent = Callable[..., Awaitable[Agent]]

"""Agents in this process, wired as the service's own but for what a test replaces, and what it replaces them with."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from quarterdeck.stack.environment import base_environment
from services.agent.assembly import Shared
from services.agent.attempt import Attempt
from services.agent.budget_news import BudgetNews
from services.agent.model import Claude, Patience
from services.agent.pace import FleetPace
from services.agent.sandbox import Sandbox
from services.agent.settings import AgentSettings
from services.agent.vcs_client import Progress, VcsClient, Worktree
from services.agent.worker import Worker
from services.contracts.v1.vcs_pb2 import CommitMetadata
from services.jobs.budgeting import Budgeting
from services.jobs.heartbeat import Heartbeat
from services.jobs.leases import Node, new_node_name, tell_seen
from services.jobs.messaging import Messaging
from services.jobs.models import ClaimedRun, Commit, Hold
from services.jobs.pacing import Pacing
from services.jobs.running import Running
from services.runtime import lifecycle
from services.runtime.jetstream import Bus
from services.runtime.postgres import connect
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
    """Renews nothing and tells nothing, as that of a stopped process, but what places there are: these stand."""

    def __init__(self, database_url: str, node: Node) -> None:
        super().__init__(database_url, node)
        self._where = node, database_url
        self._telling: asyncio.Task[None] | None = None

    def start(self) -> None:
        return

    def offer(self, places: Callable[[], int]) -> None:
        self._telling = asyncio.create_task(self._tell(places, after=self._telling))

    async def _tell(self, places: Callable[[], int], after: asyncio.Task[None] | None) -> None:
        if after is not None:
            await after
        node, database_url = self._where
        connection = await connect(database_url, name=f"{node.name} heartbeat", timeout_seconds=DEADLINE_SECONDS)
        await tell_seen(connection, replace(node, capacity=places()))
        await connection.execute("UPDATE nodes SET seen_at = now() + interval '1 hour' WHERE name = $1", node.name)
        await connection.close()

    async def stop(self) -> None:
        if self._telling is not None:
            await self._telling


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
        self._fleet = fleet
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
        self._hearing: list[asyncio.Task[Any]] = []

    def start(self) -> None:
        self._heartbeat.start()
        hearing = (
            self._worker.hear_orders(),
            self._worker.hear_controls(),
            self._pace.hear(),
            self._shared.budget_news.hear(self._bus),
        )
        self._hearing = [asyncio.create_task(each) for each in hearing]

    async def has_places(self) -> bool:
        return await self._fleet.has_places(self.name)

    async def has_no_places(self) -> bool:
        return not await self.has_places()

    async def has_heard_of_budgets(self) -> bool:
        return self._shared.budget_news.count > 0

    async def take_no_more(self) -> None:
        """Say that there are no places any more, and go on with what there is."""
        self._heartbeat.offer(lambda: 0)
        await self._fleet.until(self.has_no_places)

    async def drain(self, seconds: float) -> None:
        """Let what is under way end, and hand it back after half of ``seconds``."""
        await self._worker.drain(timedelta(seconds=seconds))
        await self._fleet.until(self.has_no_places)

    async def stop(self) -> None:
        await self._worker.drain(timedelta(seconds=0.2))
        await lifecycle.stop_tasks(self._hearing, timeout=timedelta(seconds=DEADLINE_SECONDS))
        await self._heartbeat.stop()
        await self._vcs.close()
        await self._claude.close()


@asynccontextmanager
async def agent_process(fleet: Fleet, log: Path, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m services.agent`, once it has places; killed at the end, where it runs still."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.agent"),
            env=base_environment() | fleet.agent_environment | environment,
            stdout=output,
            stderr=output,
        )
    try:
        await fleet.until(fleet.has_places)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


StartAgent = Callable[..., Awaitable[Agent]]

"""An agent in this process over real servers: Postgres, NATS, a vcs over gRPC, and a model that a test scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from quarterdeck.demo.git import commit_all
from quarterdeck.demo.git import git as run_git
from quarterdeck.stack.ports import free_ports
from services.agent.attempt import Tools
from services.agent.model import Claude, Patience
from services.agent.settings import AgentSettings
from services.agent.vcs_client import VcsClient
from services.agent.worker import RUN_QUEUES, Worker
from services.contracts import subjects
from services.contracts.v1.commands_pb2 import RunControl, WorkOrder
from services.contracts.words import RunState
from services.jobs.heartbeat import Heartbeat
from services.jobs.leases import Node, new_node_name
from services.jobs.running import Running
from services.jobs.scheduling import Dispatched
from services.runtime import lifecycle
from services.runtime.jetstream import Bus, Outgoing
from services.runtime.postgres import Database, Record
from services.vcs.__main__ import Vcs
from services.vcs.settings import VcsSettings
from tests.integration.agent.messages_server import MessagesServer
from tests.integration.jobs.domain import Domain

DEADLINE_SECONDS = 60
POLL_SECONDS = 0.02
VCS_TOKEN = "a vcs token"  # noqa: S105
HASTE = Patience(tries=2, shortest_seconds=0.001, longest_seconds=0.002)
BOTH_ENDS_SECONDS = 20.0


class QuietHeartbeat(Heartbeat):
    """Renews nothing and tells nothing: the agent has to find out by itself."""

    def start(self) -> None:
        return

    async def stop(self) -> None:
        return


@dataclass(frozen=True)
class Fleet:
    """The servers, and what the gateway and the scheduler would do to them."""

    database_url: str
    nats_url: str
    domain: Domain
    bus: Bus
    model: MessagesServer
    vcs_address: str
    vcs_root: Path
    repository: Path

    async def dispatch(self, *, kind: str = "code", repositories: list[Path] | None = None, **options: Any) -> UUID:
        """Submit a job of one run, of the one repository unless others are named, and order the work; the run's id."""
        urls = [self.repository] if repositories is None else repositories
        job_id = await self.domain.submit(
            kind=kind, prompt="Change a to b", repositories=[{"url": str(url)} for url in urls], options=options
        )
        return (await self.order(job_id)).run_id

    async def order(self, job_id: UUID) -> Dispatched:
        """Admit the queued run of a job and send its work order."""
        admitted = [each for queue in RUN_QUEUES for each in await self.domain.scheduling.admit(queue, slots=100)]
        (dispatched,) = (each for each in admitted if each.job_id == job_id)
        await self.send(dispatched)
        return dispatched

    async def send(self, run: Dispatched) -> None:
        order = WorkOrder(run_id=str(run.run_id), job_id=str(run.job_id), dispatch=run.dispatch)
        message_id = subjects.work_order_id(str(run.run_id), run.dispatch)
        await self.bus.publish(Outgoing(subjects.work(run.queue), order.SerializeToString(), message_id))

    async def again(self, run_id: UUID) -> None:
        """Order the work of a run that was queued again, without the wait before it."""
        await self.domain.execute("UPDATE runs SET not_before = NULL WHERE id = $1", run_id)
        await self.order((await self.run(run_id))["job_id"])

    async def cancel(self, run_id: UUID, *, tell: bool) -> None:
        await self.domain.cancelling.request_run(self.domain.client, run_id)
        if tell:
            control = RunControl(run_id=str(run_id), kind=RunControl.KIND_CANCEL)
            await self.bus.ring(subjects.control(str(run_id)), control.SerializeToString())

    async def run(self, run_id: UUID) -> Record:
        return await self.domain.row("runs", run_id)

    async def until_run(self, run_id: UUID, *states: RunState) -> Record:
        """The run once it is in one of ``states``."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (run := await self.run(run_id))["state"] not in states:
                await asyncio.sleep(POLL_SECONDS)
        return run

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await condition():  # noqa: ASYNC110  what happens in the servers sets no event here
                await asyncio.sleep(POLL_SECONDS)

    async def changeset(self, run_id: UUID) -> Record:
        (row,) = await self.domain.rows("SELECT * FROM changesets WHERE run_id = $1", run_id)
        return row

    async def transcript(self, run_id: UUID) -> list[bytes]:
        rows = await self.domain.rows("SELECT body FROM messages WHERE run_id = $1 ORDER BY number", run_id)
        return [row["body"] for row in rows]

    async def kinds(self, run_id: UUID) -> list[str]:
        return await self.domain.kinds((await self.run(run_id))["job_id"])

    def worktrees(self, run_id: UUID) -> list[str]:
        """Of which attempts a worktree is there."""
        folder = self.vcs_root / "worktrees" / str(run_id)
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    @property
    def agent_environment(self) -> dict[str, str]:
        """What `python -m services.agent` is told about these servers."""
        return {
            "DATABASE_URL": self.database_url,
            "NATS_URL": self.nats_url,
            "QUARTERDECK_VCS_ADDRESS": self.vcs_address,
            "QUARTERDECK_VCS_TOKEN": VCS_TOKEN,
            "ANTHROPIC_API_KEY": "a key",
            "ANTHROPIC_BASE_URL": self.model.url,
        }


class Agent:
    """One agent, wired as its process is but for what a test replaces."""

    def __init__(self, fleet: Fleet, *, heartbeat: type[Heartbeat], running: type[Running], bus: Bus | None) -> None:
        names = {"DATABASE_URL": fleet.database_url, "NATS_URL": fleet.nats_url, "ANTHROPIC_API_KEY": "a key"}
        settings = AgentSettings.model_validate({**names, "vcs_token": VCS_TOKEN})
        node = Node(new_node_name("agent"), "agent", capacity=settings.agent_capacity)
        self.heartbeat = heartbeat(fleet.database_url, node)
        self._vcs = VcsClient(fleet.vcs_address, VCS_TOKEN)
        self._claude = Claude(
            api_key="a key", base_url=fleet.model.url, model="claude-scripted", max_tokens=1_000, patience=HASTE
        )
        self.running = running(fleet.domain.units)
        self._bus = bus or fleet.bus
        tools = Tools(settings, self.running, self._claude, self._vcs, fleet.bus, asyncio.Semaphore(2))
        self.worker = Worker(tools, running=self.running, bus=self._bus, heartbeat=self.heartbeat, name=node.name)
        self._background: list[asyncio.Task[Any]] = []

    def start(self) -> None:
        self.heartbeat.start()
        self._background = [asyncio.create_task(self.worker.take_orders(queue)) for queue in RUN_QUEUES]
        self._background.append(asyncio.create_task(self.worker.hear_controls()))

    async def drain(self, seconds: float = BOTH_ENDS_SECONDS) -> None:
        """Stop taking orders and hand back what is under way."""
        await lifecycle.stop_tasks(self._background, timeout=timedelta(seconds=DEADLINE_SECONDS))
        self._background = []
        await self.worker.drain(timedelta(seconds=seconds))

    async def stop(self) -> None:
        await self.drain(0.2)
        await self.heartbeat.stop()
        await self._vcs.close()
        await self._claude.close()


StartAgent = Callable[..., Awaitable[Agent]]


@pytest.fixture
async def model() -> AsyncIterator[MessagesServer]:
    async with MessagesServer() as server:
        yield server


@pytest.fixture
async def domain(database_url: str) -> AsyncIterator[Domain]:
    database = Database(database_url, size=6, name="test")
    domain = Domain(database)
    domain.client = await domain.new_client("tester")
    yield domain
    await database.close()


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    bus = Bus(nats_url, name="test")
    await bus.start(wait=timedelta(seconds=DEADLINE_SECONDS))
    yield bus
    await bus.close()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A bare repository with one commit: f.txt, which says a."""
    work, bare = tmp_path / "work", tmp_path / "origin.git"
    work.mkdir()
    run_git(work, "init", "--quiet", "--initial-branch=main")
    (work / "f.txt").write_text("a\n")
    commit_all(work, "Begin")
    run_git(tmp_path, "clone", "--quiet", "--bare", str(work), str(bare))
    return bare


@pytest.fixture
async def vcs_address(database_url: str, nats_url: str, bus: Bus, domain: Domain, tmp_path: Path) -> AsyncIterator[str]:
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    names = {"DATABASE_URL": database_url, "NATS_URL": nats_url, "vcs_token": VCS_TOKEN, "vcs_listen": address}
    settings = VcsSettings.model_validate({**names, "vcs_root": tmp_path / "vcs", "allow_local_repositories": True})
    settings.vcs_root.mkdir()
    server = await Vcs(settings, domain.database, bus).start_server()
    yield address
    await server.stop(None)


@pytest.fixture
async def fleet(
    database_url: str,
    nats_url: str,
    domain: Domain,
    bus: Bus,
    model: MessagesServer,
    vcs_address: str,
    repository: Path,
    tmp_path: Path,
) -> Fleet:
    return Fleet(database_url, nats_url, domain, bus, model, vcs_address, tmp_path / "vcs", repository)


@pytest.fixture
async def start_agent(fleet: Fleet) -> AsyncIterator[StartAgent]:
    """Start agents; they stop with the test."""
    async with AsyncExitStack() as stack:

        async def start(
            *, heartbeat: type[Heartbeat] = Heartbeat, running: type[Running] = Running, bus: Bus | None = None
        ) -> Agent:
            agent = Agent(fleet, heartbeat=heartbeat, running=running, bus=bus)
            agent.start()
            stack.push_async_callback(agent.stop)
            return agent

        yield start

"""The servers that an agent works over, and what the gateway and the scheduler would do to them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from quarterdeck.demo.git import commit_all, git
from services.contracts import subjects
from services.contracts.v1.commands_pb2 import RunControl
from services.contracts.words import RunState
from services.jobs.scheduling import Dispatched
from services.runtime.jetstream import Bus
from services.runtime.postgres import Record
from services.scheduler.admission import encoded_orders
from tests.integration.agent.messages_server import MessagesServer
from tests.integration.jobs.domain import Domain

DEADLINE_SECONDS = 60
POLL_SECONDS = 0.02
VCS_TOKEN = "a vcs token"


def make_repository(folder: Path, name: str) -> Path:
    files = folder / f"files of {name}"
    files.mkdir()
    (files / "f.txt").write_text("a\n")
    bare = folder / f"{name}.git"
    commit_all(files, bare, "Begin")
    return bare


@dataclass(frozen=True)
class Fleet:
    database_url: str
    nats_url: str
    domain: Domain
    bus: Bus
    model: MessagesServer
    vcs_address: str
    vcs_root: Path
    repository: Path

    async def submit(self, *, kind: str = "code", repositories: list[Path] | None = None, **options: Any) -> UUID:
        """Submit a job, of one run on the one repository unless others are named; its id."""
        urls = [self.repository] if repositories is None else repositories
        return await self.domain.submit(
            kind=kind, prompt="Change a to b", repositories=[{"url": str(url)} for url in urls], options=options
        )

    async def order(self, *job_ids: UUID, must_claim: bool = False) -> list[Dispatched]:
        """Give the queued runs of these jobs to agents that have places, and tell those of them; ``must_claim``: so
        little that they have to ask.
        """
        orders = await self.admit()
        if must_claim:
            orders = [replace(order, work=None) for order in orders]
        assert {order.job_id for order in orders} == set(job_ids)
        await self.send(*orders)
        return orders

    async def admit(self) -> list[Dispatched]:
        """Give queued runs to agents that have places, without telling them."""
        await self.until(self.has_places)
        orders: list[Dispatched] = []
        while True:
            admitted = await self.domain.admitting.admit()
            orders += admitted.orders
            await self.domain.admitting.hide(admitted.short)
            if not admitted.look_again:
                return orders

    async def has_places(self, agent: str | None = None) -> bool:
        """Whether ``agent`` has said that it takes runs; None: whether any has."""
        statement = "SELECT FROM nodes WHERE kind = 'agent' AND capacity > 0 AND name = coalesce($1, name)"
        return bool(await self.domain.rows(statement, agent))

    async def dispatch(self, **fields: Any) -> UUID:
        """Submit a job of one run and give it to an agent; the run's id."""
        (order,) = await self.order(await self.submit(**fields))
        return order.run_id

    async def dispatch_to_claim(self, **fields: Any) -> UUID:
        """The same of a run of which its agent has to ask what it is."""
        (order,) = await self.order(await self.submit(**fields), must_claim=True)
        return order.run_id

    async def again(self, run_id: UUID) -> None:
        """Give a run that was queued again to an agent, without the wait before it."""
        job_id = await self.job_of(run_id)
        await self.domain.execute("UPDATE runs SET not_before = NULL WHERE id = $1", run_id)
        await self.domain.execute("UPDATE jobs SET ready_from = NULL WHERE id = $1", job_id)
        await self.order(job_id)

    async def send(self, *orders: Dispatched) -> None:
        """Tell each agent of the runs that were given to it; raises ``BusUnavailableError`` where it does not hear."""
        by_agent: defaultdict[str, list[Dispatched]] = defaultdict(list)
        for order in orders:
            by_agent[order.agent].append(order)
        for agent, given in by_agent.items():
            await self.bus.tell(subjects.orders(agent), encoded_orders(given))

    async def cancel(self, run_id: UUID, *, tell: bool) -> None:
        await self.domain.cancelling.request_run(self.domain.client, run_id)
        if tell:
            await self.tell_cancel(run_id)

    async def tell_cancel(self, run_id: UUID) -> None:
        control = RunControl(run_id=str(run_id), kind=RunControl.KIND_CANCEL)
        await self.bus.ring(subjects.control(str(run_id)), control.SerializeToString())

    async def lose(self, run_id: UUID) -> None:
        """Take the run from its agent, as the sweep does once its lease has run out. Needs ``postgres_is_up_long``."""

        async def lost() -> bool:
            await self.domain.expire(run_id)
            return await self.domain.lose() == 1  # else the heartbeat came in between

        await self.until(lost)

    async def run(self, run_id: UUID) -> Record:
        return await self.domain.row("runs", run_id)

    async def job_of(self, run_id: UUID) -> UUID:
        job_id: UUID = (await self.run(run_id))["job_id"]
        return job_id

    async def until_run(self, run_id: UUID, *states: RunState) -> Record:
        """The run once it is in one of ``states``."""

        async def is_there() -> bool:
            return (await self.run(run_id))["state"] in states

        await self.until(is_there)
        return await self.run(run_id)

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await condition():  # noqa: ASYNC110  what happens in the servers sets no event here
                await asyncio.sleep(POLL_SECONDS)

    async def until_released(self, run_id: UUID) -> None:
        async def released() -> bool:
            return not self.worktrees(run_id)

        await self.until(released)

    async def publications_ordered(self) -> int:
        """How many orders of publications there ever were."""
        return (await self.bus.stream_position(subjects.WORK_STREAM)).last_sequence

    async def changesets(self, run_id: UUID) -> list[Record]:
        return await self.domain.rows("SELECT * FROM changesets WHERE run_id = $1", run_id)

    async def changeset(self, run_id: UUID) -> Record:
        (row,) = await self.changesets(run_id)
        return row

    async def transcript(self, run_id: UUID) -> list[bytes]:
        rows = await self.domain.rows("SELECT body FROM messages WHERE run_id = $1 ORDER BY number", run_id)
        return [row["body"] for row in rows]

    async def kinds(self, run_id: UUID) -> list[str]:
        return await self.domain.kinds(await self.job_of(run_id))

    def worktrees(self, run_id: UUID) -> list[str]:
        """Of which attempts a worktree is there."""
        folder = self.vcs_root / "worktrees" / str(run_id)
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def branches(self) -> list[str]:
        """Of the repository that the runs work for."""
        return git("branch", "--format=%(refname:short)", folder=self.repository).decode().split()

    def model_replies(self) -> bool:
        """Whether the model is in the middle of a reply that somebody still hears."""
        return self.model.waits.is_set() and not (self.model.gone.is_set() or self.model.go_on.is_set())

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

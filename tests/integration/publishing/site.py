"""A place to publish: servers of its own, services as processes, and jobs that come to a stored change at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from quarterdeck.stack.ports import free_ports
from services.contracts import subjects
from services.contracts.v1.commands_pb2 import PublishOrder
from services.contracts.words import Outcome, Publish, Queue
from services.jobs.leases import Node, tell_seen
from services.jobs.models import ClaimedRun
from services.jobs.orders import Order
from services.jobs.submission import NewJob, NewRun
from services.runtime.jetstream import Bus, Message, Outgoing
from services.runtime.postgres import Database, Record
from tests.integration.faults.processes import SCHEDULER, Service
from tests.integration.jobs.domain import Domain, job_request
from tests.integration.publishing.forge_git import ForgeGit
from tests.integration.publishing.made import Made
from tests.integration.vcs.github.emulated import TOKEN, Emulate, Json
from tests.integration.vcs.github.faults import FaultProxy
from tests.integration.waiting import until

VCS: Final = "services.vcs"
DYING_VCS: Final = "tests.integration.publishing.dying_vcs"
HASTY_VCS: Final = "tests.integration.publishing.hasty_vcs"
POLL_SECONDS: Final = 0.1
PATIENCE_SECONDS: Final = 100
BUS_SECONDS: Final = 20
SETTLED: Final = frozenset({"open", "failed", "merged", "closed"})
AGENT: Final = Node("agent-1", "agent", capacity=1_000)
_IN_ORDER: Final = """SELECT c.* FROM changesets c
    JOIN unnest($1::uuid[]) WITH ORDINALITY AS i (id, place) USING (id) ORDER BY i.place"""
_STALE: Final = "Closed: a new run of the same job found nothing to change."


@dataclass(frozen=True)
class Change:
    """A changeset under way, and what is to come of it."""

    name: str
    job_id: UUID
    run_id: UUID
    id: UUID
    branch: str
    made: Made


@dataclass
class Site:
    folder: Path
    git: ForgeGit
    emulate: Emulate
    proxy: FaultProxy
    domain: Domain
    addresses: dict[str, str]
    """Of Postgres and NATS, as services are told them."""
    bus: Bus
    stack: AsyncExitStack
    services: list[Service] = field(default_factory=list)
    _numbers: Any = field(default_factory=lambda: count(1))

    async def start(self, module: str, **variables: str) -> Service:
        log = self.folder / f"{module}-{next(self._numbers)}.log"
        service = await Service.start(module, log, self.addresses | variables)
        self.stack.push_async_callback(service.stop)
        self.services.append(service)
        return service

    async def start_scheduler(self) -> Service:
        return await self.start(SCHEDULER)

    async def start_vcs(self, module: str = VCS, **variables: str) -> Service:
        (port,) = free_ports(1)
        settings = {
            "GITHUB_TOKEN": TOKEN,
            "GITHUB_API_URL": self.proxy.address,
            "GITHUB_SERVER_URL": self.git.url,
            "QUARTERDECK_GIT_ALLOW_INSECURE_HTTP": "1",
            "QUARTERDECK_GIT_ALLOWED_REMOTES": "127.0.0.1",
            "QUARTERDECK_FORGE_POLL_SECONDS": "3600",
            "QUARTERDECK_PULL_REQUESTS_PER_MINUTE": "1000",
            "QUARTERDECK_PUBLICATIONS": "8",
            "QUARTERDECK_VCS_LISTEN": f"127.0.0.1:{port}",
            "QUARTERDECK_VCS_TOKEN": "of-this-site",
            "QUARTERDECK_VCS_ROOT": str(self.folder / f"vcs-{port}"),
        }
        return await self.start(module, **(settings | variables))

    async def repository(self, *, token: str = TOKEN, is_shown: bool = True) -> str:
        """A new one with the base on main, on both halves; its full name. ``is_shown``: whether GitHub shows it."""
        name = await self.emulate.ada.make_repository() if is_shown else f"acme/hidden-{next(self._numbers)}"
        await self.git.open(name, token=token, is_shown=is_shown)
        return name

    async def begin(self, name: str, *, job: str | None = None, token: str | None = None, **options: Any) -> ClaimedRun:
        """A job's run that an agent has just prepared. ``job``: its name. ``token``: that it brings for GitHub.
        ``options``: as JSON has them.
        """
        brought: dict[str, Any] = {"credentials": {"githubToken": token}} if token else {}
        job_id = await self.domain.submit(self.git.address(name), name=job, options=options, **brought)
        run = await self._claimed(job_id)
        sha = self.git.workshop.base.sha
        await self.domain.running.prepared(run.hold, base_sha=sha, base_branch="main", events=[])
        return run

    async def begin_review(self, of: Change, *, on: Made, job: str | None = None, **options: Any) -> ClaimedRun:
        """A run that goes on with a change's pull request, whose branch is at ``on`` when it is prepared."""
        address = self.git.address(of.name)
        request = job_request(address, name=job, options=options)
        run = NewRun(address, base_ref=of.branch, branch=of.branch, base_branch="main")
        asked = NewJob(self.domain.client, request, runs=[run], is_review=True)
        await self.domain.submissions.accept(asked)
        claimed = await self._claimed(asked.id)
        # As a vcs says it: the branch that it began at is the pull request's own.
        await self.domain.running.prepared(claimed.hold, base_sha=on.sha, base_branch=of.branch, events=[])
        return claimed

    async def _claimed(self, job_id: UUID) -> ClaimedRun:
        """Whoever admits the run, the scheduler or this test, it is claimed here."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                async with self.domain.database.connection() as connection:
                    await tell_seen(connection, AGENT)
                await self.domain.admitting.admit()
                (row,) = await self.domain.rows("SELECT id, lease_token FROM runs WHERE job_id = $1", job_id)
                if row["lease_token"] is not None:
                    claims = await self.domain.running.claim([Order(row["id"], row["lease_token"])])
                    if claims:
                        return await self.domain.running.take_up(claims[0])
                await asyncio.sleep(POLL_SECONDS)

    async def hand_over(
        self, run: ClaimedRun, text: str = "one", message: str = "Change one thing\n", *, on: Made | None = None
    ) -> Change:
        """The run's change, on the base or ``on`` another commit, is stored, and published as its job asked."""
        made = await asyncio.to_thread(self.git.workshop.change, text, message, on=on)
        publish = run.options.publish
        changeset_id = await self.domain.running.deliver(run.hold, made.commit, publish=publish, summary="Because.")
        row = await self.row(changeset_id)
        name = row["repository"].removeprefix(f"{self.git.url}/").removesuffix(".git")
        change = Change(name, run.hold.job_id, run.hold.run_id, changeset_id, row["branch"], made)
        if publish is not Publish.NONE:
            await self.order(change)
        return change

    async def order(self, change: Change, *, times: int = 1) -> None:
        """Send the first publish order, as the agent does; as often as that, as messages that none takes for one."""
        order = PublishOrder(changeset_id=str(change.id), run_id=str(change.run_id), dispatch=1).SerializeToString()
        names = [subjects.publish_order_id(str(change.id), 1), *(f"{change.id} {number}" for number in range(1, times))]
        await self.bus.publish_all([Outgoing(subjects.work(Queue.PUBLISH), order, name) for name in names])

    async def store(
        self, name: str, text: str = "one", message: str = "Change one thing\n", **described: Any
    ) -> Change:
        """A job whose one run is over at once, but for its publication. ``described``: as for ``begin``."""
        return await self.hand_over(await self.begin(name, **described), text, message)

    async def review(self, of: Change, *, on: Made, text: str = "reviewed", **described: Any) -> Change:
        """A review's run that is over at once, but for its publication. ``described``: as for ``begin_review``."""
        run = await self.begin_review(of, on=on, **described)
        return await self.hand_over(run, text, "As you wish\n", on=on)

    async def find_nothing(self, name: str, **described: Any) -> UUID:
        """A job whose run finds nothing to change; its id."""
        return await self.end_without_change(await self.begin(name, **described))

    async def end_without_change(self, run: ClaimedRun) -> UUID:
        """As an agent does that finds nothing to change; the job's id."""
        await self.domain.running.retire_earlier(run.hold, comment=_STALE)
        await self.domain.running.complete(run.hold, Outcome.NO_CHANGES, summary="nothing to do")
        return run.hold.job_id

    async def settle(self, *changes: Change, states: Collection[str] = SETTLED, hurry: bool = True) -> list[Record]:
        """Wait until each is in one of ``states``. ``hurry``: what a try waits before the next passes at once."""
        ids = [change.id for change in changes]
        rows: list[Record] = []
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not rows or any(row["state"] not in states for row in rows):
                    if hurry:
                        await self.pass_delays(*changes)
                    await asyncio.sleep(POLL_SECONDS)
                    rows = await self.domain.rows(_IN_ORDER, ids)
        except TimeoutError:
            raise AssertionError([(r["repository"], r["state"], r["attempts"], r["error"]) for r in rows]) from None
        return rows

    async def pass_delays(self, *changes: Change) -> None:
        """Let time pass for what waits for its next try."""
        statement = "UPDATE changesets SET not_before = now() WHERE id = ANY($1::uuid[]) AND not_before > now()"
        await self.domain.execute(statement, [change.id for change in changes])

    async def row(self, changeset_id: UUID) -> Record:
        return await self.domain.row("changesets", changeset_id)

    async def pulls(self, name: str) -> list[Json]:
        """Every pull request there ever was, by the emulator's own list, oldest first."""
        return sorted(await self.emulate.ada.pulls(name), key=lambda pull: pull["number"])

    async def assert_delivered_once(self, change: Change, *, pulls: int = 1) -> None:
        """One branch, one commit on it, one pull request, by the two servers' count; its end was told once."""
        branches = await asyncio.to_thread(self.git.branches, change.name)
        assert branches == {"main": self.git.workshop.base.sha, change.branch: change.made.sha}, change
        above = await asyncio.to_thread(self.git.commits_above_base, change.name, change.branch)
        assert above == [change.made.sha]
        shown = [(pull["head"]["ref"], pull["head"]["sha"], pull["state"]) for pull in await self.pulls(change.name)]
        assert shown == [(change.branch, change.made.sha, "open")] * pulls, change
        await self.assert_told_once(change)

    async def assert_told_once(self, change: Change) -> None:
        run = await self.domain.row("runs", change.run_id)
        assert (run["state"], run["outcome"], run["error"]) == ("completed", "delivered", None)
        kinds = Counter(await self.domain.kinds(change.job_id))
        told = ("changeset.stored", "changeset.pushed", "run.finished", "job.finished")
        assert {kind: kinds[kind] for kind in told} == dict.fromkeys(told, 1), kinds
        leases = await self.domain.rows("SELECT FROM leases WHERE id = $1", change.id)
        assert leases == [], "a lease outlived its publication"


@asynccontextmanager
async def open_site(
    folder: Path, git: ForgeGit, emulate: Emulate, proxy: FaultProxy, addresses: dict[str, str]
) -> AsyncIterator[Site]:
    """``addresses``: DATABASE_URL and NATS_URL of servers that nobody else uses."""
    database = Database(addresses["DATABASE_URL"], size=4, name="test")
    try:
        async with AsyncExitStack() as stack:
            domain = Domain(database)
            domain.client = await domain.new_client("tester")
            bus = Bus(addresses["NATS_URL"], name="test")
            await bus.start(wait=timedelta(seconds=BUS_SECONDS))
            stack.push_async_callback(bus.close)
            await until(lambda: bus.is_connected)
            await bus.listen(subjects.orders(AGENT.name), _answer)
            yield Site(folder, git, emulate, proxy, domain, addresses, bus, stack)
    finally:
        await database.close()


async def _answer(message: Message) -> None:
    """As the agent does, which looks into Postgres for what is its own."""
    await message.respond(b"")


async def logs_of(services: Sequence[Service]) -> str:
    return "\n".join([await asyncio.to_thread(service.log.read_text) for service in services])

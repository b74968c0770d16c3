"""Runs that are given to agents: each is told of its own, and what nobody hears or takes up is given again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from quarterdeck.stack.embedded import EmbeddedServers
from services.contracts import subjects
from services.contracts.v1.commands_pb2 import WorkOrders
from services.jobs import scheduling
from services.jobs.admitting import Admitted, Admitting
from services.jobs.fairness import Candidate
from services.jobs.orders import Order
from services.jobs.scheduling import LEASE, Dispatched
from services.runtime import jetstream
from services.runtime.jetstream import Bus, Message
from services.runtime.postgres import StoreUnavailableError
from services.scheduler import reconcile
from services.scheduler.admission import Admission
from services.scheduler.reconcile import Reconciler
from tests.integration.jobs.domain import Domain
from tests.integration.scheduler.hearing import Agent, let_live, orders_in
from tests.integration.waiting import DEADLINE_SECONDS, until, until_async

PATIENCE = timedelta(seconds=DEADLINE_SECONDS)
MOST_RUNS = 20


@pytest.fixture
async def admission(domain: Domain, bus: Bus) -> AsyncIterator[Admission]:
    admission = Admission(Admitting(domain.units, most_runs=MOST_RUNS), domain.scheduling, bus)
    yield admission
    await admission.settle(PATIENCE)


@pytest.fixture
def sweeps_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing expires until Postgres has been up, and reachable, for a lease: let that be over."""
    monkeypatch.setattr(scheduling, "LEASE", timedelta(milliseconds=1))
    monkeypatch.setattr(reconcile, "LEASE", timedelta())


async def expired(domain: Domain) -> list[UUID]:
    """The runs that the next sweep takes back."""
    rows = await domain.rows("SELECT id FROM leases WHERE expires_at < clock_timestamp()")
    return [row["id"] for row in rows]


async def only_run(domain: Domain) -> UUID:
    (row,) = await domain.rows("SELECT id FROM runs")
    run_id: UUID = row["id"]
    return run_id


async def living(domain: Domain) -> set[str]:
    return {row["name"] for row in await domain.rows("SELECT name FROM nodes WHERE capacity > 0")}


async def test_each_agent_is_told_of_its_own_runs_in_one_message(
    domain: Domain, bus: Bus, admission: Admission
) -> None:
    agents = [Agent(name, domain) for name in ("agent-1", "agent-2")]
    for agent, capacity in zip(agents, (4, 2), strict=True):
        await agent.listen(bus, capacity)
    await domain.submit(*(f"https://a/{n}" for n in range(9)))

    await admission.run_once()
    await admission.settle(PATIENCE)

    assert [len(agent.messages) for agent in agents] == [1, 1]
    for agent, capacity in zip(agents, (4, 2), strict=True):
        rows = await domain.rows(
            "SELECT r.id, r.job_id, l.token FROM runs r JOIN leases l ON l.id = r.id AND l.token = r.lease_token "
            "WHERE r.state = 'running' AND r.agent = $1 AND l.holder = $1 AND l.kind = 'run' AND NOT l.taken",
            agent.name,
        )
        assert len(rows) == capacity
        told = {(order.run_id, order.job_id, order.token) for order in agent.messages[0].orders}
        assert told == {(str(row["id"]), str(row["job_id"]), row["token"].bytes) for row in rows}
    assert await living(domain) == {"agent-1", "agent-2"}
    assert await expired(domain) == []


async def test_an_agent_is_told_in_the_order_in_which_its_runs_are_to_begin(
    domain: Domain, bus: Bus, admission: Admission
) -> None:
    agent = Agent("agent-1", domain)
    await agent.listen(bus, 8)
    jobs = {priority: await domain.submit(priority=priority) for priority in (0, 5, -1, 3)}

    await admission.run_once()
    await admission.settle(PATIENCE)

    (message,) = agent.messages
    assert [order.job_id for order in message.orders] == [str(jobs[priority]) for priority in (5, 3, 0, -1)]


@pytest.mark.parametrize("name", ["ada's laptop", "rack.7*a>b", "köln"])
async def test_an_agent_is_reached_whatever_it_is_called(
    domain: Domain, bus: Bus, admission: Admission, name: str
) -> None:
    agent = Agent(f"{name}-0123abcd", domain)
    await agent.listen(bus, 1)
    await domain.submit()

    await admission.run_once()
    await admission.settle(PATIENCE)

    assert [order.run_id for order in agent.ordered] == [await only_run(domain)]


@pytest.mark.parametrize(("capacity", "admitted"), [(0, 0), (2, 2), (MOST_RUNS + 9, MOST_RUNS)])
async def test_the_agents_places_and_the_limit_bound_it(
    domain: Domain, bus: Bus, admission: Admission, capacity: int, admitted: int
) -> None:
    agent = Agent("agent-1", domain)
    await agent.listen(bus, capacity)
    await domain.submit(*(f"https://a/{n}" for n in range(MOST_RUNS + 5)))

    for _ in range(2):
        await admission.run_once()
    await admission.settle(PATIENCE)

    assert len(agent.ordered) == admitted
    assert len(await domain.rows("SELECT FROM runs WHERE state = 'running'")) == admitted


async def test_a_dead_agents_places_do_not_count(domain: Domain, admission: Admission) -> None:
    await let_live(domain, "agent-1", 2)
    await domain.execute("UPDATE nodes SET seen_at = now() - interval '9 seconds'")
    job_id = await domain.submit()

    await admission.run_once()

    assert await domain.run_states(job_id) == ["queued"]


async def test_without_nats_runs_stay_queued(
    domain: Domain, bus: Bus, admission: Admission, nats_server: EmbeddedServers
) -> None:
    await let_live(domain, "agent-1", 2)
    job_id = await domain.submit()
    await nats_server.kill("nats")
    await until(lambda: not bus.is_connected)

    await admission.run_once()

    assert await domain.run_states(job_id) == ["queued"]
    assert await domain.kinds(job_id) == ["job.submitted"]


@pytest.mark.usefixtures("sweeps_at_once")
async def test_an_order_that_nobody_listens_for_is_recalled_at_once(
    domain: Domain, bus: Bus, admission: Admission, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its agent is given nothing more until it says again that it lives."""
    monkeypatch.setattr(jetstream, "PUBLISH_SECONDS", 3600)  # no answer is waited for
    await let_live(domain, "agent-1", 2)
    job_id = await domain.submit()
    run_id = await only_run(domain)
    before = await domain.row("runs", run_id)

    await admission.run_once()
    await admission.settle(PATIENCE)

    assert await expired(domain) == [run_id]
    assert await living(domain) == set()

    await reconciler.run_once()

    run = await domain.row("runs", run_id)
    kept = ("state", "queue_deadline", "attempts_spent", "times_lost", "not_before", "run_seconds")
    assert {name: run[name] for name in kept} == {name: before[name] for name in kept}
    assert run["time_left"].total_seconds() == run["run_seconds"]
    assert await domain.rows("SELECT FROM leases") == []
    events = await domain.events(job_id)
    assert [event.kind for event in events] == ["job.submitted", "run.started", "job.started", "run.requeued"]
    assert events[-1].data == {"reason": "unclaimed"}

    await admission.run_once()
    assert await domain.run_states(job_id) == ["queued"], "nobody is known to live"

    agent = Agent("agent-1", domain)
    await agent.listen(bus, 2)
    await admission.run_once()
    await admission.settle(PATIENCE)
    again = await domain.row("runs", run_id)
    assert agent.ordered == [Order(run_id, again["lease_token"])]
    assert again["attempt"] == 2


@pytest.mark.usefixtures("sweeps_at_once")
@pytest.mark.parametrize("takes_up", [False, True])
async def test_an_order_without_an_answer_stands_until_its_lease_runs_out(
    domain: Domain,
    bus: Bus,
    admission: Admission,
    reconciler: Reconciler,
    monkeypatch: pytest.MonkeyPatch,
    takes_up: bool,
) -> None:
    monkeypatch.setattr(jetstream, "PUBLISH_SECONDS", 0.5)
    agent = Agent("agent-1", domain, answers=False, takes_up=takes_up)
    await agent.listen(bus, 2)
    job_id = await domain.submit()

    await admission.run_once()
    await admission.settle(PATIENCE)

    assert len(agent.ordered) == 1
    assert await living(domain) == set()
    assert await expired(domain) == []
    await reconciler.run_once()
    assert await domain.run_states(job_id) == ["running"]

    if not takes_up:
        await domain.expire(await only_run(domain))
    await reconciler.run_once()

    assert await domain.run_states(job_id) == (["running"] if takes_up else ["queued"])
    for run in agent.runs:
        await domain.finish(run)
        assert await domain.run_states(job_id) == ["completed"]


async def test_orders_that_nats_would_not_take_say_less(
    domain: Domain, bus: Bus, admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their agent claims them."""
    agent = Agent("agent-1", domain)
    await agent.listen(bus, 10)
    await domain.submit(*(f"https://a/{n}" for n in range(3)))
    with monkeypatch.context() as patched:
        patched.setattr(Bus, "most_bytes", 2_000)
        await admission.run_once()
        await admission.settle(PATIENCE)
    assert [order.work for message in agent.messages for order in message.orders] == [b"", b"", b""]

    await domain.submit("https://a/another")
    await admission.run_once()
    await admission.settle(PATIENCE)

    assert all(order.work for order in agent.messages[-1].orders)


async def test_one_deaf_agent_holds_up_no_other(
    domain: Domain, bus: Bus, admission: Admission, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor the next round."""
    monkeypatch.setattr(jetstream, "PUBLISH_SECONDS", 3600)
    deaf, other = Agent("agent-1", domain, answers=False), Agent("agent-2", domain)
    for agent in (deaf, other):
        await agent.listen(bus, 2)
    for round_ in range(2):
        await domain.submit(*(f"https://a/{round_}/{n}" for n in range(2)))
        await admission.run_once()

    await until(lambda: len(deaf.ordered) == len(other.ordered) == 2)
    assert await living(domain) == {"agent-1", "agent-2"}
    await deaf.answer()


class Quitting(Admitting):
    """NATS goes away between what it decides and whoever is to be told."""

    nats: EmbeddedServers
    bus: Bus

    async def admit(self, newcomer: Candidate | None = None, *, anew: bool = False) -> Admitted:
        admitted = await super().admit(newcomer, anew=anew)
        await self.nats.kill("nats")
        await until(lambda: not self.bus.is_connected)
        return admitted


async def test_what_could_not_be_told_is_left_to_its_lease(
    domain: Domain, bus: Bus, nats_server: EmbeddedServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream, "PUBLISH_SECONDS", 0.5)
    quitting = Quitting(domain.units, most_runs=MOST_RUNS)
    quitting.nats, quitting.bus = nats_server, bus
    admission = Admission(quitting, domain.scheduling, bus)
    await let_live(domain, "agent-1", 2)
    await domain.submit()

    await admission.run_once()
    await admission.settle(PATIENCE)

    assert await expired(domain) == []  # NATS may have it, and tell it yet
    assert await living(domain) == set()


@pytest.mark.usefixtures("sweeps_at_once")
async def test_what_a_scheduler_died_before_telling_is_given_again(
    domain: Domain, bus: Bus, admission: Admission, reconciler: Reconciler
) -> None:
    """Killed between its commit and its word: the lease that was granted with the order runs out by itself."""
    agent = Agent("agent-1", domain, takes_up=True)
    await agent.listen(bus, 1)
    job_id = await domain.submit()
    (untold,) = (await Admitting(domain.units, most_runs=MOST_RUNS).admit()).orders
    await domain.expire(untold.run_id)

    await reconciler.run_once()
    assert await domain.run_states(job_id) == ["queued"]
    await admission.run_once()
    await until(lambda: bool(agent.runs))

    (run,) = agent.runs
    assert (run.hold.run_id, run.hold.attempt) == (untold.run_id, 2)
    assert run.hold.token != untold.token
    await domain.finish(run)
    row = await domain.row("runs", untold.run_id)
    assert (row["state"], row["attempts_spent"], row["times_lost"]) == ("completed", 0, 0)


async def test_an_order_stands_for_as_long_as_a_lease(domain: Domain, bus: Bus, admission: Admission) -> None:
    agent = Agent("agent-1", domain)
    await agent.listen(bus, 1)
    await domain.submit()

    await admission.run_once()
    await admission.settle(PATIENCE)

    (lease,) = await domain.rows("SELECT expires_at - clock_timestamp() AS left FROM leases")
    assert timedelta() < lease["left"] <= LEASE


class FailingAdmission(Admission):
    """With a bug in its way to say what was given."""

    fails = True

    async def _tell_agent(self, agent: str, orders: Sequence[Dispatched]) -> None:
        if self.fails:
            raise ZeroDivisionError("a bug")
        await super()._tell_agent(agent, orders)


async def test_a_bug_on_the_way_to_an_agent_is_told_and_ends_no_admission(domain: Domain, bus: Bus) -> None:
    admission = FailingAdmission(Admitting(domain.units, most_runs=MOST_RUNS), domain.scheduling, bus)
    agent = Agent("agent-1", domain)
    await agent.listen(bus, 2)
    await domain.submit()
    with capture_logs() as logs:
        await admission.run_once()
        await admission.settle(PATIENCE)
    assert [type(line["exc_info"]) for line in logs if line["log_level"] == "error"] == [ZeroDivisionError]

    admission.fails = False
    await domain.submit("https://a/behind")
    await admission.run_once()
    await admission.settle(PATIENCE)

    assert len(agent.ordered) == 1


async def test_a_recall_that_postgres_does_not_hear_is_left_to_the_lease(
    domain: Domain, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: Sequence[Dispatched]) -> None:
        raise StoreUnavailableError("away")

    monkeypatch.setattr(domain.scheduling, "recall_orders", away)
    admission = Admission(Admitting(domain.units, most_runs=MOST_RUNS), domain.scheduling, bus)
    await let_live(domain, "agent-1", 1)
    await domain.submit()

    with capture_logs() as logs:
        await admission.run_once()
        await admission.settle(PATIENCE)

    assert [line["log_level"] for line in logs] == ["warning", "warning"]
    (lease,) = await domain.rows("SELECT taken, expires_at - clock_timestamp() AS left FROM leases")
    assert not lease["taken"]
    assert lease["left"] <= LEASE


@dataclass
class Ending:
    """An agent that ends what it is told at once, and counts how much it had at most."""

    name: str
    domain: Domain
    capacity: int
    held: int = 0
    most: int = 0
    told: list[UUID] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def on_orders(self, message: Message) -> None:
        orders = orders_in(WorkOrders.FromString(message.data))
        self.told += [order.run_id for order in orders]
        self.held += len(orders)
        self.most = max(self.most, self.held)
        await message.respond(b"")
        self.tasks += [asyncio.create_task(self._end(order)) for order in orders]

    async def _end(self, order: Order) -> None:
        (claim,) = await self.domain.running.claim([order])
        run = await self.domain.running.take_up(claim)
        self.held -= 1  # before its place is free
        await self.domain.finish(run)


async def test_two_schedulers_at_once_give_no_agent_more_than_its_places(domain: Domain, bus: Bus) -> None:
    schedulers = [Admission(Admitting(domain.units, most_runs=MOST_RUNS), domain.scheduling, bus) for _ in range(2)]
    agents = [Ending("agent-1", domain, 3), Ending("agent-2", domain, 1), Ending("agent-3", domain, 2)]
    for agent in agents:
        await bus.listen(subjects.orders(agent.name), agent.on_orders)
        await let_live(domain, agent.name, agent.capacity)
    await domain.submit(*(f"https://a/{n}" for n in range(60)))

    async def is_done() -> bool:
        await asyncio.gather(*(scheduler.run_once() for scheduler in schedulers))
        return not await domain.rows("SELECT FROM runs WHERE state <> 'completed'")

    await until_async(is_done)
    for scheduler in schedulers:
        await scheduler.settle(PATIENCE)
    await asyncio.gather(*(task for agent in agents for task in agent.tasks))

    assert [agent.most for agent in agents] == [agent.capacity for agent in agents]
    told = [run_id for agent in agents for run_id in agent.told]
    assert len(told) == len(set(told)) == 60
    assert {row["attempt"] for row in await domain.rows("SELECT attempt FROM runs")} == {1}

"""A job that comes where there is room and nobody waits begins without another look, and never where it must not."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from services.jobs import admitting, looking
from services.jobs.fairness import Candidate
from services.jobs.leases import Node, tell_gone, tell_seen
from services.jobs.looking import Seen
from services.jobs.scheduling import Dispatched
from tests.integration.jobs.domain import Domain, tell_capacity
from tests.integration.jobs.test_admission import is_blocked
from tests.integration.waiting import until_async

Looks = list[Seen]


@pytest.fixture
def looks(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> Looks:
    """What admission has looked at."""
    look, seen = domain.admitting._look, list[Seen]()

    async def looked() -> Seen:
        seen.append(await look())
        return seen[-1]

    monkeypatch.setattr(domain.admitting, "_look", looked)
    return seen


async def newcomer(domain: Domain, *repositories: str, **fields: Any) -> Candidate:
    """What is heard of a job that is submitted by itself."""
    await domain.submit(*repositories, **fields)
    heard, domain.newcomers = domain.newcomers, []
    return heard[-1]


async def admitted(domain: Domain, new: Candidate) -> list[Dispatched]:
    """What is dispatched for the newcomer alone."""
    return [order for order in (await domain.admitting.admit(new)).orders if order.job_id == new.job_id]


async def test_where_there_is_room_a_newcomer_begins_without_a_look(domain: Domain, looks: Looks) -> None:
    await tell_capacity(domain.database, 3, agent_2=3)
    await domain.admitting.admit()
    orders = [await admitted(domain, await newcomer(domain, "https://a/1", "https://a/2")) for _ in range(3)]

    assert len(looks) == 1
    assert [len(each) for each in orders] == [2, 2, 2]
    assert sorted(order.agent for each in orders for order in each) == ["agent-1"] * 3 + ["agent-2"] * 3
    for each in orders:
        events = [(event.number, event.kind) for event in await domain.events(each[0].job_id)]
        assert events[1:] == [(2, "run.started"), (3, "run.started"), (4, "job.started")]
        for order in each:
            assert (await domain.claimed(order)).hold.job_id == order.job_id

    assert await admitted(domain, await newcomer(domain)) == [], "no place is left"
    assert len(looks) == 2


async def test_one_that_has_no_room_for_all_of_it_is_looked_at(domain: Domain, looks: Looks) -> None:
    await tell_capacity(domain.database, 2)
    await domain.admitting.admit()
    assert len(await admitted(domain, await newcomer(domain, *(f"https://a/{n}" for n in range(3))))) == 2
    assert len(looks) == 2


async def test_where_somebody_waits_a_newcomer_has_its_turn_behind(domain: Domain, looks: Looks) -> None:
    running = await domain.start()
    await tell_capacity(domain.database, 1)
    waiting = await domain.submit(priority=5)
    await domain.admitting.admit()
    new = await newcomer(domain)
    await domain.finish(running)
    before = len(looks)

    assert [order.job_id for order in (await domain.admitting.admit(new)).orders] == [waiting]
    assert len(looks) > before


async def test_one_that_came_before_and_has_waited_since_is_not_passed_by(domain: Domain, looks: Looks) -> None:
    """More was to be given away than there was room for."""
    await tell_capacity(domain.database, 1)
    first = await domain.submit()
    second = await domain.submit()
    assert [order.job_id for order in await domain.admit(1)] == [first]
    new = await newcomer(domain)
    await tell_capacity(domain.database, 2)

    assert [order.job_id for order in (await domain.admitting.admit(new)).orders] == [second]


async def other_admits(domain: Domain) -> None:
    other = admitting.Admitting(domain.units, most_runs=10_000)
    await domain.submit()
    assert len((await other.admit()).orders) == 1


async def limit_falls(domain: Domain) -> None:
    await domain.set_limits(fleet=0)


async def drains(domain: Domain) -> None:
    async with domain.database.transaction() as connection:
        await tell_seen(connection, Node("agent-1", "agent", capacity=0))


async def leaves(domain: Domain) -> None:
    async with domain.database.transaction() as connection:
        await tell_gone(connection, Node("agent-1", "agent"))


async def dies(domain: Domain) -> None:
    await domain.execute("UPDATE nodes SET seen_at = now() - interval '9 seconds'")


async def is_deaf(domain: Domain) -> None:
    await domain.scheduling.avoid("agent-1")


async def test_a_place_that_goes_while_another_is_given_is_not_given(domain: Domain, looks: Looks) -> None:
    """The agent says so while a dispatch waits for its job, and heartbeats wait for nobody."""
    await tell_capacity(domain.database, 0, agent_2=5)
    await domain.admitting.admit()
    first = await newcomer(domain)
    async with domain.database.transaction() as other:
        await other.execute("SELECT FROM jobs WHERE id = $1 FOR NO KEY UPDATE", first.job_id)
        admitting = asyncio.create_task(admitted(domain, first))
        await until_async(lambda: is_blocked(domain))
        async with domain.database.transaction() as connection:
            await tell_seen(connection, Node("agent-2", "agent", capacity=0))
    assert len(await admitting) == 1
    assert await admitted(domain, await newcomer(domain)) == []


@pytest.mark.parametrize("change", [other_admits, limit_falls, drains, leaves, dies, is_deaf])
async def test_what_takes_room_away_is_seen(
    domain: Domain, looks: Looks, change: Callable[[Domain], Awaitable[None]]
) -> None:
    await tell_capacity(domain.database, 1)
    await domain.admitting.admit()
    await change(domain)
    assert await admitted(domain, await newcomer(domain)) == []
    assert len(looks) > 1


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs are given away at once, and four seen."""
    monkeypatch.setattr(admitting, "MOST_AT_ONCE", 2)
    monkeypatch.setattr(admitting, "_MOST_AT_FIRST", 2)
    monkeypatch.setattr(admitting, "_MOST_SEEN", 4)


@pytest.mark.usefixtures("small_parts")
async def test_what_is_left_of_a_look_is_given_away_without_another(domain: Domain, looks: Looks) -> None:
    await tell_capacity(domain.database, 10)
    jobs = [await domain.submit() for _ in range(6)]
    urgent: UUID | None = None
    given = []
    for expected_looks in (1, 1, 2, 2):
        admitted = await domain.admitting.admit()
        given.append([order.job_id for order in admitted.orders])
        assert len(looks) == expected_looks
        assert admitted.look_again, "what has come since the look was not seen by it"
        urgent = urgent or await domain.submit(priority=1)

    assert urgent is not None
    assert given == [jobs[:2], jobs[2:4], [urgent, jobs[4]], [jobs[5]]]
    assert not (await domain.admitting.admit()).look_again
    assert len(looks) == 3


@pytest.mark.usefixtures("small_parts")
async def test_where_nobody_works_fewer_are_given_away_at_first(
    domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admitting, "_MOST_AT_FIRST", 1)
    await tell_capacity(domain.database, 10)
    jobs = [await domain.submit() for _ in range(4)]
    first = await domain.admitting.admit()
    assert [order.job_id for order in first.orders] == jobs[:1]
    assert first.look_again
    assert [order.job_id for order in (await domain.admitting.admit()).orders] == jobs[1:3]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("is_alone", [True, False])
async def test_one_that_is_heard_of_while_some_is_left_may_go_before_that(
    domain: Domain, looks: Looks, is_alone: bool
) -> None:
    await tell_capacity(domain.database, 3)
    jobs = [await domain.submit() for _ in range(4)]
    await domain.admitting.admit()
    urgent = await newcomer(domain, priority=1)

    late = await domain.admitting.admit(urgent if is_alone else None, anew=True)
    assert [order.job_id for order in late.orders] == [urgent.job_id]
    assert len(looks) == 2
    assert len(await domain.rows("SELECT FROM runs WHERE state = 'queued'")) == len(jobs) - 2


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("change", [other_admits, limit_falls, drains, leaves, dies, is_deaf])
async def test_what_takes_room_away_between_two_parts_is_seen(
    domain: Domain, looks: Looks, change: Callable[[Domain], Awaitable[None]]
) -> None:
    await tell_capacity(domain.database, 3)
    for _ in range(3):
        await domain.submit()
    assert len((await domain.admitting.admit()).orders) == 2
    await change(domain)
    assert list((await domain.admitting.admit()).orders) == []
    assert len(looks) == 2


@pytest.mark.usefixtures("small_parts")
async def test_limits_hold_over_all_parts_of_a_look(domain: Domain, looks: Looks) -> None:
    await tell_capacity(domain.database, 10)
    await domain.set_limits(queues={"code": 3})
    for _ in range(4):
        await domain.submit()
    assert [len((await domain.admitting.admit()).orders) for _ in range(3)] == [2, 1, 0]


async def test_an_old_look_says_nothing(domain: Domain, looks: Looks, monkeypatch: pytest.MonkeyPatch) -> None:
    await tell_capacity(domain.database, 4)
    await domain.admitting.admit()
    monkeypatch.setattr(looking, "_LASTS", timedelta())
    assert len(await admitted(domain, await newcomer(domain))) == 1
    assert len(looks) == 2


async def test_clients_and_queues_keep_to_their_limits(domain: Domain, looks: Looks) -> None:
    await tell_capacity(domain.database, 10)
    await domain.set_limits(client={"default": 2}, queues={"task": 1})
    await domain.admitting.admit()
    assert len(await admitted(domain, await newcomer(domain, kind="task"))) == 1
    assert await admitted(domain, await newcomer(domain, kind="task")) == []
    assert len(await admitted(domain, await newcomer(domain))) == 1
    assert await admitted(domain, await newcomer(domain)) == []


async def test_one_that_is_cancelled_or_whose_branch_is_busy_does_not_begin(domain: Domain) -> None:
    busy = await domain.start()
    await tell_capacity(domain.database, 10)
    await domain.admitting.admit()
    held = await newcomer(domain)
    await domain.execute("UPDATE runs SET branch = $1 WHERE job_id = $2", busy.branch, held.job_id)
    assert await admitted(domain, held) == []

    await domain.admitting.admit()
    cancelled = await newcomer(domain)
    await domain.cancelling.request(domain.client, cancelled.job_id)
    assert await admitted(domain, cancelled) == []
    assert (await domain.row("jobs", cancelled.job_id))["runs_active"] == 0


async def test_the_same_bell_twice_begins_with_nothing_more(domain: Domain) -> None:
    await tell_capacity(domain.database, 10)
    await domain.admitting.admit()
    new = await newcomer(domain)
    assert [len(await admitted(domain, new)) for _ in range(3)] == [1, 0, 0]
    assert len(await domain.rows("SELECT FROM leases")) == 1

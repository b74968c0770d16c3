"""Admission: never over the slots, highest priority first, and whoever must wait does not hold up others."""

import asyncio
import random
from collections import Counter

import asyncpg
import pytest

from services.contracts.words import Outcome, Queue
from services.jobs import admitting
from services.jobs.admitting import Admitting
from services.jobs.leases import Node, tell_seen
from services.jobs.looking import Seen
from services.jobs.reading import JobFilter
from services.jobs.scheduling import Dispatched
from services.jobs.unit import Rung, Units
from services.runtime.postgres import Database
from tests.integration.jobs.domain import REPOSITORY, Domain, tell_capacity
from tests.integration.waiting import until_async


async def test_no_more_are_admitted_than_slots_are_free(domain: Domain) -> None:
    job_id = await domain.submit(*(f"https://a/{n}" for n in range(5)))

    assert len(await domain.admit(slots=3)) == 3
    assert await domain.admit(slots=3) == []
    assert len(await domain.admit(slots=4)) == 1
    assert (await domain.row("jobs", job_id))["runs_active"] == 4


async def test_a_run_that_ends_frees_its_slot_and_one_that_publishes_holds_none(domain: Domain) -> None:
    await domain.submit()
    await domain.hand_over()  # takes both slots, gives one back

    assert len(await domain.rows("SELECT FROM runs WHERE state = 'running'")) == 1
    await domain.submit()
    assert len(await domain.admit(slots=2)) == 1


async def test_highest_priority_goes_first_then_the_oldest(domain: Domain) -> None:
    jobs = [await domain.submit(priority=priority) for priority in (0, 5, 0, 5, -1)]

    admitted = [(await domain.admit(slots=slots))[0].job_id for slots in range(1, 6)]

    assert admitted == [jobs[1], jobs[3], jobs[0], jobs[2], jobs[4]]


async def test_a_job_keeps_to_its_own_max_parallel(domain: Domain) -> None:
    job_id = await domain.submit(*(f"https://a/{n}" for n in range(5)), maxParallel=2)

    first = await domain.admit()
    assert len(first) == 2
    assert await domain.admit() == []
    await domain.finish(await domain.claimed(first[0]))
    assert len(await domain.admit()) == 1
    assert (await domain.row("jobs", job_id))["runs_active"] == 2


async def test_a_job_at_its_limit_does_not_hold_up_those_behind_it(domain: Domain) -> None:
    await domain.submit(*(f"https://a/{n}" for n in range(600)), maxParallel=1)
    await domain.submit(*(f"https://b/{n}" for n in range(600)), maxParallel=1)
    behind = await domain.submit()

    assert behind in {order.job_id for order in await domain.admit(slots=10)}


async def test_the_longest_repository_is_admitted_like_any_other(domain: Domain) -> None:
    """Of 2,000 characters of 3 bytes, as random as may be: no index compresses them."""
    letters = random.Random(1)
    url = "https://a/" + "".join(chr(letters.randrange(0x4E00, 0x9FFF)) for _ in range(1_990))
    job_id = await domain.submit(url)
    behind = await domain.submit()

    assert [order.job_id for order in await domain.admit()] == [job_id, behind]
    found = await domain.reading.jobs(domain.client, JobFilter(repository=url), limit=5, cursor=None)
    assert [job.id for job in found.items] == [job_id]


async def test_a_run_waits_for_its_time(domain: Domain) -> None:
    job_id = await domain.submit(notBefore="2099-01-31T12:30:00Z")
    assert await domain.admit() == []

    await domain.execute("UPDATE runs SET not_before = now() - interval '1 second' WHERE job_id = $1", job_id)
    await domain.execute("UPDATE jobs SET ready_from = now() - interval '1 second' WHERE id = $1", job_id)
    assert await domain.admitting.ripen() == 1
    assert len(await domain.admit()) == 1


@pytest.mark.parametrize("publishing", [False, True])
async def test_a_busy_branch_holds_the_next_run_back(domain: Domain, publishing: bool) -> None:
    run = (await domain.hand_over())[0] if publishing else await domain.start()
    waiting = await domain.submit()
    await domain.execute("UPDATE runs SET branch = $1", run.branch)

    assert await domain.admit() == []
    assert await domain.admitting.release_held() == 0
    await domain.execute("UPDATE runs SET branch = 'another' WHERE job_id = $1", waiting)
    assert await domain.admitting.release_held() == 1
    assert [order.job_id for order in await domain.admit()] == [waiting]


async def test_a_run_that_is_held_does_not_hide_the_others_of_its_job(domain: Domain) -> None:
    busy = await domain.start("https://a/0")
    job_id = await domain.submit(*(f"https://a/{n}" for n in range(4)))
    await domain.execute("UPDATE runs SET branch = $1 WHERE job_id = $2 AND position = 0", busy.branch, job_id)
    assert len(await domain.admit(3)) == 2, "the first is held, and the one behind it has its place"
    assert len(await domain.admit(10)) == 1


async def test_a_job_that_stays_in_sight_is_within_its_max_parallel(domain: Domain) -> None:
    """As code of before has left it, which had that in the options alone."""
    job_id = await domain.submit(*(f"https://a/{n}" for n in range(4)), maxParallel=2)
    await domain.execute("UPDATE jobs SET max_parallel = NULL WHERE id = $1", job_id)
    assert len(await domain.admit()) == 2
    assert await domain.admit() == []


async def test_the_database_itself_refuses_two_active_runs_on_a_branch(domain: Domain) -> None:
    await domain.submit(REPOSITORY, REPOSITORY)
    await domain.execute("UPDATE runs SET branch = 'the same'")

    with pytest.raises(asyncpg.UniqueViolationError):
        await domain.execute("UPDATE runs SET state = 'waiting'")


async def test_queues_have_slots_of_their_own(domain: Domain) -> None:
    await domain.set_limits(queues={"code": 1})
    for _ in range(2):
        await domain.submit()
        await domain.submit(kind="task")

    rows = [await domain.row("runs", order.run_id) for order in await domain.admit()]
    assert sorted(row["queue"] for row in rows) == [Queue.CODE, Queue.TASK, Queue.TASK]


async def test_a_client_keeps_to_its_limit_and_the_others_to_the_default(domain: Domain) -> None:
    busy, other = await domain.new_client("busy"), await domain.new_client("other")
    for client in (busy, other):
        await domain.submit(*(f"https://a/{n}" for n in range(5)), client=client)
    await domain.set_limits(client={"default": 2, "byName": {"busy": 3}})

    orders = await domain.admit()

    clients = [(await domain.row("jobs", order.job_id))["client_id"] for order in orders]
    assert (clients.count(busy.id), clients.count(other.id)) == (3, 2)


async def test_a_repository_keeps_to_its_limit_and_goes_on_when_one_has_ended(domain: Domain) -> None:
    await domain.set_limits(repository={"byName": {REPOSITORY: 1}})
    jobs = [await domain.submit() for _ in range(3)]
    elsewhere = await domain.submit("https://b/another.git")

    first, *_ = orders = await domain.admit()
    assert {order.job_id for order in orders} == {jobs[0], elsewhere}
    assert await domain.admitting.release_held() == 0
    await domain.finish(await domain.claimed(first))
    assert await domain.admitting.release_held() == 1
    assert [order.job_id for order in await domain.admit()] == [jobs[1]]


async def test_the_fleets_limit_can_be_changed_while_it_runs(domain: Domain) -> None:
    await domain.submit(*(f"https://a/{n}" for n in range(9)))
    await domain.set_limits(fleet=2)
    assert len(await domain.admit()) == 2
    await domain.set_limits(fleet=1)
    assert await domain.admit() == []
    await domain.set_limits(fleet=5)
    assert len(await domain.admit()) == 3


async def test_jobs_of_a_client_take_turns(domain: Domain) -> None:
    big = await domain.submit(*(f"https://a/{n}" for n in range(50)))
    assert len(await domain.admit(slots=10)) == 10
    small = [await domain.submit() for _ in range(3)]

    orders = await domain.admit(slots=15)

    assert [order.job_id for order in orders].count(big) == 2
    assert set(small) < {order.job_id for order in orders}


async def test_clients_share_whatever_they_have_queued(domain: Domain) -> None:
    await domain.submit(*(f"https://a/{n}" for n in range(50)))
    other = await domain.new_client("other")
    theirs = [await domain.submit(f"https://b/{n}", client=other) for n in range(4)]

    orders = await domain.admit(slots=8)

    assert set(theirs) < {order.job_id for order in orders}


async def test_schedulers_at_once_never_admit_too_many_or_one_twice(domain: Domain) -> None:
    await domain.submit(*(f"https://a/{n}" for n in range(40)), maxParallel=15)
    await domain.submit(*(f"https://b/{n}" for n in range(40)))

    rounds = [await asyncio.gather(*(domain.admit(slots=25) for _ in range(6))) for _ in range(4)]

    orders = [order.run_id for answers in rounds for answer in answers for order in answer]
    active = await domain.rows("SELECT id FROM runs WHERE state = 'running'")
    assert len(orders) == 25
    assert sorted(orders) == sorted(row["id"] for row in active)


async def test_while_one_scheduler_admits_no_other_does(domain: Domain) -> None:
    await domain.submit()
    async with domain.database.transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", admitting._ADMISSION_LOCK)
        assert await domain.admit() == []

    assert len(await domain.admit()) == 1


async def test_what_was_admitted_since_the_look_makes_it_look_again(
    domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await domain.submit(), await domain.submit()
    await tell_capacity(domain.database, 1)
    look, others = domain.admitting._look, list[Dispatched]()

    async def looked() -> Seen:
        seen = await look()
        if not others:
            monkeypatch.undo()
            others.extend((await domain.admitting.admit()).orders)
        return seen

    monkeypatch.setattr(domain.admitting, "_look", looked)
    late = await domain.admitting.admit()
    assert [order.job_id for order in others] == [first]
    assert not late.orders
    assert late.look_again
    assert await domain.admit(1) == [], "the one place is taken"
    assert [order.job_id for order in await domain.admit(2)] == [second]


RUNS = 600


@pytest.mark.parametrize(
    ("fleet", "places"), [(10, {"agent-1": 1_000}), (None, {"agent-1": 6, "agent-2": 4})], ids=["limit", "places"]
)
async def test_what_has_its_turn_sees_all_that_was_admitted_before(
    domain: Domain, domain_database_url: str, fleet: int | None, places: dict[str, int]
) -> None:
    """Many schedulers look as fast as they can while runs come and go: neither the fleet's limit nor what an agent can
    hold is ever exceeded.
    """
    await domain.set_limits(fleet=fleet)
    await domain.submit(*(f"https://a/{n}" for n in range(RUNS)))
    databases = [Database(domain_database_url, size=1, name=f"scheduler {n}") for n in range(4)]
    schedulers = [Admitting(Units(database, ring=_nobody), most_runs=10_000) for database in databases]
    ended = 0
    dispatched: asyncio.Queue[Dispatched] = asyncio.Queue()

    async def admit(scheduler: Admitting) -> None:
        while ended < RUNS:
            for order in (await scheduler.admit()).orders:
                dispatched.put_nowait(order)
            await asyncio.sleep(0)

    async def work() -> None:
        nonlocal ended
        while ended < RUNS:
            run = await domain.claimed(await dispatched.get())
            await domain.running.complete(run.hold, Outcome.NO_CHANGES, summary="")
            ended += 1

    async def most_at_once() -> Counter[str]:
        """How many runs each agent, and all of them, ever had."""
        seen: Counter[str] = Counter()
        while ended < RUNS:
            await tell_capacity(domain.database, **{name.replace("-", "_"): slots for name, slots in places.items()})
            now = Counter(row["agent"] for row in await domain.rows("SELECT agent FROM runs WHERE state = 'running'"))
            seen |= now + Counter({"all": now.total()})
        return seen

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        watching = group.create_task(most_at_once())
        working = [group.create_task(work()) for _ in range(3)]
        await asyncio.gather(*(admit(scheduler) for scheduler in schedulers))
        for task in working:
            task.cancel()
    for database in databases:
        await database.close()
    assert watching.result() == Counter({"all": 10, **{name: min(10, slots) for name, slots in places.items()}})


async def _nobody(_: Rung) -> None:
    """Hears a ring."""


async def test_a_run_to_be_cancelled_is_not_admitted(domain: Domain) -> None:
    job_id = await domain.submit()
    await domain.cancelling.request(domain.client, job_id)

    assert await domain.admit() == []


@pytest.mark.parametrize("idle", ["agent-1", "agent-2"])
async def test_a_run_is_given_to_the_agent_with_the_largest_free_share(domain: Domain, idle: str) -> None:
    await domain.submit(*(f"https://a/{n}" for n in range(20)), maxParallel=6)

    first = await domain.admit(4, agent_2=8)
    assert Counter(order.agent for order in first) == {"agent-1": 2, "agent-2": 4}
    for order in [order for order in first if order.agent == idle][:2]:
        await domain.finish(await domain.claimed(order))

    assert [order.agent for order in await domain.admit(4, agent_2=8)] == [idle, idle]


async def test_what_an_agent_holds_counts_against_its_own_places_alone(domain: Domain) -> None:
    await domain.submit(*(f"https://a/{n}" for n in range(20)))

    assert {order.agent for order in await domain.admit(3)} == {"agent-1"}
    # It can hold less by now than it does: that takes nothing from the others.
    assert Counter(order.agent for order in await domain.admit(1, agent_2=4)) == {"agent-2": 4}
    assert await domain.admit(3, agent_2=4) == []
    assert [order.agent for order in await domain.admit(4, agent_2=4)] == ["agent-1"]


async def test_it_is_told_whose_the_run_is(domain: Domain) -> None:
    job_id = await domain.submit(*(f"https://a/{n}" for n in range(4)))

    orders = await domain.admit(2, agent_2=2)

    events = {event.run_id: event for event in await domain.events(job_id) if event.kind == "run.started"}
    for order in orders:
        row, lease = await domain.row("runs", order.run_id), await domain.row("leases", order.run_id)
        assert (row["agent"], row["lease_token"], row["state"]) == (order.agent, order.token, "running")
        assert (lease["holder"], lease["token"], lease["taken"]) == (order.agent, order.token, False)
        assert (events[order.run_id].data, events[order.run_id].attempt) == ({"agent": order.agent}, 1)
    assert await domain.kinds(job_id) == ["job.submitted", *["run.started"] * 4, "job.started"]
    assert len({order.token for order in orders}) == 4


async def test_who_is_gone_or_takes_nothing_gets_nothing(domain: Domain) -> None:
    await domain.submit(*(f"https://a/{n}" for n in range(4)))
    await tell_capacity(domain.database, 0, agent_2=9, agent_3=9, agent_4=9)
    await domain.execute("UPDATE nodes SET seen_at = now() - interval '9 seconds' WHERE name = 'agent-2'")
    await domain.execute("UPDATE nodes SET hears_orders = false WHERE name = 'agent-4'")  # of the version before
    async with domain.database.connection() as connection:
        await tell_seen(connection, Node("vcs-1", "vcs", capacity=9))

    orders = (await domain.admitting.admit()).orders

    assert [order.agent for order in orders] == ["agent-3"] * 4


async def test_admissions_at_once_give_nobody_more_than_its_places(domain: Domain) -> None:
    await domain.submit(*(f"https://a/{n}" for n in range(40)))
    await tell_capacity(domain.database, 7, agent_2=3)

    rounds = [await asyncio.gather(*(domain.admitting.admit() for _ in range(6))) for _ in range(4)]

    given = [order for answers in rounds for admitted in answers for order in admitted.orders]
    assert Counter(order.agent for order in given) == {"agent-1": 7, "agent-2": 3}
    held = await domain.rows("SELECT id, agent FROM runs WHERE state = 'running'")
    assert {row["id"]: row["agent"] for row in held} == {order.run_id: order.agent for order in given}


async def test_what_a_scheduler_of_before_left_holds_its_slots(domain: Domain) -> None:
    await domain.set_limits(fleet=3)
    await domain.dispatch_as_before("https://b/1", "https://b/2")
    await domain.submit(*(f"https://a/{n}" for n in range(4)))

    assert len(await domain.admit()) == 1


IS_WAITING = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


async def test_an_admission_that_waited_for_a_job_goes_by_what_it_is_then(domain: Domain) -> None:
    """While something else holds it, and has one of its runs cancelled."""
    job_id = await domain.submit(*(f"{REPOSITORY}/{number}" for number in range(3)))
    (cancelled, *_) = await domain.rows("SELECT id FROM runs WHERE job_id = $1 ORDER BY position", job_id)
    async with domain.database.transaction() as other:
        await other.execute("SELECT FROM jobs WHERE id = $1 FOR NO KEY UPDATE", job_id)
        await other.execute("UPDATE runs SET cancel_requested_at = now() WHERE id = $1", cancelled["id"])
        await other.execute("UPDATE jobs SET last_event_number = last_event_number + 5 WHERE id = $1", job_id)
        before = await other.fetchval("SELECT last_event_number FROM jobs WHERE id = $1", job_id)
        admitting = asyncio.create_task(domain.admit(6))
        await until_async(lambda: is_blocked(domain))
    orders = await admitting

    job = await domain.row("jobs", job_id)
    told = [(event.number, event.kind) for event in await domain.events(job_id) if event.number > before]
    assert len(orders) == 2
    assert cancelled["id"] not in {order.run_id for order in orders}
    assert (job["state"], job["runs_started"], job["runs_active"]) == ("running", 2, 2)
    assert told == [(before + 1, "run.started"), (before + 2, "run.started"), (before + 3, "job.started")]
    assert job["last_event_number"] == before + 3


async def test_a_job_that_is_cancelled_while_admission_waits_for_it_begins_with_nothing(domain: Domain) -> None:
    job_id = await domain.submit()
    async with domain.database.transaction() as other:
        await other.execute("UPDATE jobs SET cancel_requested_at = now() WHERE id = $1", job_id)
        admitting = asyncio.create_task(domain.admit())
        await until_async(lambda: is_blocked(domain))

    assert await admitting == []
    assert [row["state"] for row in await domain.rows("SELECT state FROM runs")] == ["queued"]


async def is_blocked(domain: Domain) -> bool:
    """Whether somebody waits for a lock of somebody else's."""
    return bool(await domain.rows(IS_WAITING))

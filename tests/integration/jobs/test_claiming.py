"""Only the newest order takes up a run, however often it comes; what is stale takes nothing and changes nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from services.contracts.words import ExitReason
from services.jobs.models import Checkpoint, StoredMessage
from services.jobs.orders import Order
from services.jobs.scheduling import LEASE, Dispatched
from services.jobs.unit import SQL
from services.runtime.postgres import Connection, Statements
from tests.integration.jobs.domain import REPOSITORY, Domain
from tests.integration.waiting import until_async

LONG = timedelta(seconds=10)
RUNNING = Statements(SQL / "running.sql")
IS_WAITING = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


async def test_a_claim_gives_all_that_an_agent_needs(domain: Domain) -> None:
    order = await domain.dispatch_one(name="A name", maxAttempts=2)

    run = await domain.claimed(order)

    row = await domain.row("runs", order.run_id)
    lease = await domain.row("leases", order.run_id)
    assert (row["state"], row["agent"], row["attempt"], row["lease_token"]) == ("running", "agent-1", 1, run.hold.token)
    assert (lease["token"], lease["holder"], lease["kind"]) == (run.hold.token, "agent-1", "run")
    assert (run.repository, run.branch, run.name, run.prompt) == (
        REPOSITORY,
        row["branch"],
        "A name",
        "Change one thing",
    )
    assert (run.turns, run.attempts_spent, list(run.messages), run.tree) == (0, 0, [], None)
    assert run.options.max_attempts == 2


async def test_a_lease_is_granted_with_the_order_and_taken_up_by_the_claim(domain: Domain) -> None:
    order = await domain.dispatch_one()
    run, granted = await domain.row("runs", order.run_id), await domain.row("leases", order.run_id)
    await domain.claimed(order)
    taken = await domain.row("leases", order.run_id)

    assert (granted["token"], granted["holder"], granted["taken"]) == (order.token, order.agent, False)
    assert LEASE <= granted["expires_at"] - run["dispatched_at"] < LEASE + timedelta(seconds=2)
    assert (taken["token"], taken["holder"], taken["taken"]) == (order.token, order.agent, True)
    assert taken["expires_at"] - run["dispatched_at"] >= LEASE


async def test_an_order_that_comes_often_is_one_claim(domain: Domain) -> None:
    """As one whose claim's answer got lost on the way, and is asked for again."""
    order = await domain.dispatch_one()
    events = await domain.events(order.job_id)

    claims = await asyncio.gather(*(domain.claim(order) for _ in range(8)))

    assert {claim.hold.token for claim in claims if claim is not None} == {order.token}
    assert len([claim for claim in claims if claim is not None]) == 8
    row, job = await domain.row("runs", order.run_id), await domain.row("jobs", order.job_id)
    assert (row["lease_token"], row["attempt"], job["runs_started"], job["runs_active"]) == (order.token, 1, 1, 1)
    assert await domain.events(order.job_id) == events
    assert [event.kind.value for event in events] == ["job.submitted", "run.started", "job.started"]


async def test_orders_that_come_together_are_each_taken_up_once(domain: Domain) -> None:
    await domain.submit(*(f"https://a/{n}" for n in range(3)))
    orders = [Order(order.run_id, order.token) for order in await domain.admit()]

    claims = await domain.running.claim([*orders, *orders[::-1], Order(uuid4(), uuid4())])

    assert sorted(claim.hold.run_id for claim in claims) == sorted(order.run_id for order in orders)


async def test_what_resumed_runs_take_over_is_taken_up_by_each_for_itself(domain: Domain) -> None:
    """A statement has two seconds; here each run's transcript takes more than one to be copied, by a trigger."""
    run = await domain.start()
    said = [StoredMessage(1, "user", b"one"), StoredMessage(2, "assistant", b"two")]
    await domain.running.checkpoint(run.hold, Checkpoint(messages=said))
    await domain.running.fail(run.hold, ExitReason.STUCK, error="for ever")
    for _ in range(2):
        await domain.retry(run.hold.job_id, resume=True)
    orders = [Order(each.run_id, each.token) for each in await domain.admit()]
    await domain.execute(
        """CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN IF NEW.attempt = 0 THEN PERFORM pg_sleep(0.6); END IF; RETURN NEW; END $$"""
    )
    await domain.execute("CREATE TRIGGER slow BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION slow()")

    claims = await domain.running.claim(orders)
    taken = await asyncio.gather(*(domain.running.take_up(claim) for claim in claims))

    assert len(claims) == 2
    assert [[message.body for message in each.messages] for each in taken] == [[b"one", b"two"]] * 2


async def test_a_claim_waits_for_nobody_who_is_at_its_job(domain: Domain) -> None:
    order = await domain.dispatch_one()

    async with domain.database.transaction() as other, asyncio.timeout(LONG.total_seconds()):
        await other.execute("SELECT FROM jobs WHERE id = $1 FOR UPDATE", order.job_id)
        await other.execute("SELECT FROM runs WHERE id = $1 FOR UPDATE", order.run_id)
        assert await domain.claim(order) is not None


async def sweep(domain: Domain, order: Dispatched) -> None:
    """Take the run away, whoever has it."""
    await domain.expire(order.run_id)
    assert await domain.lose() == 1


async def recall(domain: Domain, order: Dispatched) -> None:
    await domain.scheduling.recall_orders([order])
    assert await domain.lose() == 1


async def replace(domain: Domain, order: Dispatched) -> None:
    await sweep(domain, order)
    (newer,) = await domain.admit()
    assert newer.run_id == order.run_id


async def replace_and_take(domain: Domain, order: Dispatched) -> None:
    await sweep(domain, order)
    await domain.resume(order.run_id)


async def take_and_lose(domain: Domain, order: Dispatched) -> None:
    await domain.claimed(order)
    await sweep(domain, order)


async def take_and_finish(domain: Domain, order: Dispatched) -> None:
    await domain.finish(await domain.claimed(order))


async def cancel(domain: Domain, order: Dispatched) -> None:
    await domain.cancelling.request(domain.client, order.job_id)
    await sweep(domain, order)


@pytest.mark.usefixtures("postgres_is_up_long")
@pytest.mark.parametrize("fate", [sweep, recall, replace, replace_and_take, take_and_lose, take_and_finish, cancel])
async def test_a_stale_order_takes_nothing(
    domain: Domain, fate: Callable[[Domain, Dispatched], Awaitable[None]]
) -> None:
    order = await domain.dispatch_one()
    await fate(domain, order)
    before = await domain.fingerprint()

    assert await domain.claim(order) is None
    assert await domain.fingerprint() == before


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_of_two_orders_of_a_run_the_newer_takes_it(domain: Domain) -> None:
    order = await domain.dispatch_one()
    await sweep(domain, order)
    (newer,) = await domain.admit()

    both = [Order(order.run_id, order.token), Order(newer.run_id, newer.token)]
    (claim,) = await domain.running.claim(both)

    assert newer.token != order.token
    assert (claim.hold.token, claim.hold.attempt) == (newer.token, 2)


async def test_a_token_of_another_run_takes_nothing(domain: Domain) -> None:
    await domain.submit("https://a/1", "https://a/2")
    one, other = await domain.admit()
    before = await domain.fingerprint()

    assert await domain.running.claim([Order(one.run_id, other.token), Order(other.run_id, uuid4())]) == []
    assert await domain.fingerprint() == before


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_a_late_order_takes_its_run_where_no_sweep_was_there_before(domain: Domain) -> None:
    order = await domain.dispatch_one()
    await domain.expire(order.run_id)

    run = await domain.claimed(order)

    assert await domain.lose() == 0
    assert await domain.running.holds(order.run_id, attempt=1, token=run.hold.token)


async def test_a_run_to_be_cancelled_says_so_to_its_agent(domain: Domain) -> None:
    await domain.submit("https://a/1", "https://a/2")
    cancelled, other = await domain.admit()
    await domain.cancelling.request_run(domain.client, cancelled.run_id)

    claims = await domain.running.claim([Order(order.run_id, order.token) for order in (cancelled, other)])
    requested = {claim.hold.run_id: claim for claim in claims if claim.cancel_requested}
    assert (len(claims), list(requested)) == (2, [cancelled.run_id])
    await domain.running.cancelled(requested[cancelled.run_id].hold)

    job = await domain.row("jobs", cancelled.job_id)
    assert (await domain.row("runs", cancelled.run_id))["state"] == "cancelled"
    assert (job["state"], job["runs_active"], job["runs_cancelled"]) == ("running", 1, 1)
    assert [row["id"] for row in await domain.rows("SELECT id FROM leases")] == [other.run_id]


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_a_run_that_is_being_taken_up_is_not_taken_away(domain: Domain) -> None:
    order = await domain.dispatch_one()
    await domain.expire(order.run_id)

    async with domain.database.transaction() as connection:
        assert await claim_on(connection, order) == [order.run_id]
        assert await domain.lose() == 0

    assert await domain.lose() == 0
    assert await domain.running.holds(order.run_id, attempt=1, token=order.token)
    assert (await domain.row("leases", order.run_id))["taken"] is True


async def test_a_claim_that_waited_for_a_sweep_takes_nothing(domain: Domain) -> None:
    order = await domain.dispatch_one()

    async def is_waiting() -> bool:
        return bool(await domain.rows(IS_WAITING))

    async with domain.database.transaction() as other:
        await other.execute("UPDATE runs SET state = 'queued', lease_token = NULL WHERE id = $1", order.run_id)
        await other.execute("DELETE FROM leases WHERE id = $1", order.run_id)
        claiming = asyncio.create_task(domain.claim(order))
        await until_async(is_waiting)

    assert await claiming is None
    assert await domain.rows("SELECT FROM leases") == []


async def claim_on(connection: Connection, order: Dispatched) -> list[UUID]:
    rows = await RUNNING.rows(connection, "claim_runs", run_ids=[order.run_id], tokens=[order.token], lease=LEASE)
    return [row["id"] for row in rows]


@pytest.mark.usefixtures("postgres_is_up_long")
@pytest.mark.parametrize("is_recalled", [False, True])
async def test_claim_and_sweep_at_once_agree(domain: Domain, is_recalled: bool) -> None:
    """Whichever comes first, the run is one of queued and taken up, and the job counts it right."""
    for n in range(12):
        order = await domain.dispatch_one(f"https://a/{n}")
        await domain.expire(order.run_id)
        recalled = [order] if is_recalled else []
        run, lost, _ = await asyncio.gather(
            domain.claim(order), domain.lose(), domain.scheduling.recall_orders(recalled)
        )

        row = await domain.row("runs", order.run_id)
        assert (lost == 1) is (run is None)
        assert (row["state"], row["lease_token"]) == (("queued", None) if run is None else ("running", order.token))
        assert (await domain.row("jobs", order.job_id))["runs_active"] == (0 if run is None else 1)
        assert bool(await domain.rows("SELECT FROM leases WHERE taken")) is (run is not None)
        await domain.cancelling.request(domain.client, order.job_id)
        if run is not None:
            await domain.running.cancelled(run.hold)


async def test_what_a_scheduler_of_before_left_is_recalled_in_time_and_counted(domain: Domain) -> None:
    job_id = await domain.dispatch_as_before()
    assert await domain.scheduling.recall(overdue=LONG) == 0

    await domain.execute("UPDATE runs SET dispatched_at = now() - interval '11 seconds'")
    assert await domain.scheduling.recall(overdue=LONG) == 1

    assert await domain.run_states(job_id) == ["queued"]
    assert (await domain.row("jobs", job_id))["runs_active"] == 0
    assert (await domain.events(job_id))[-1].data == {"reason": "unclaimed"}
    assert await domain.scheduling.recall(overdue=LONG) == 0
    (order,) = await domain.admit()
    run = await domain.claimed(order)
    assert (run.hold.job_id, run.hold.attempt) == (job_id, 1)


async def test_what_was_given_to_an_agent_is_not_recalled_as_before(domain: Domain) -> None:
    taken, untaken = await domain.start("https://a/1"), await domain.dispatch_one("https://a/2")
    before = await domain.fingerprint()

    assert await domain.scheduling.recall(overdue=timedelta()) == 0

    assert await domain.fingerprint() == before
    assert await domain.run_states(taken.hold.job_id) + await domain.run_states(untaken.job_id) == ["running"] * 2

"""A claim is one agent's, for the newest work order alone; what nobody claims is queued again."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from services.contracts.words import ExitReason
from services.jobs.models import Checkpoint, StoredMessage
from services.jobs.running import Order
from tests.integration.jobs.domain import REPOSITORY, Domain
from tests.integration.waiting import until_async

LONG = timedelta(seconds=10)


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


async def test_claimers_at_once_get_one_claim(domain: Domain) -> None:
    order = await domain.dispatch_one()

    claims = await asyncio.gather(*(domain.claim(order, agent=f"agent-{n}") for n in range(8)))

    (run,) = [claim for claim in claims if claim is not None]
    assert (await domain.row("runs", order.run_id))["lease_token"] == run.hold.token
    assert (await domain.row("jobs", order.job_id))["runs_started"] == 1
    assert (await domain.kinds(order.job_id)).count("run.started") == 1


async def test_what_resumed_runs_take_over_is_taken_up_by_each_for_itself(domain: Domain) -> None:
    """A statement has two seconds; here each run's transcript takes more than one to be copied, by a trigger."""
    run = await domain.start()
    said = [StoredMessage(1, "user", b"one"), StoredMessage(2, "assistant", b"two")]
    await domain.running.checkpoint(run.hold, Checkpoint(messages=said))
    await domain.running.fail(run.hold, ExitReason.STUCK, error="for ever")
    for _ in range(2):
        await domain.retry(run.hold.job_id, resume=True)
    orders = [Order(each.run_id, each.job_id, each.dispatch) for each in await domain.admit()]
    await domain.execute(
        """CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN IF NEW.attempt = 0 THEN PERFORM pg_sleep(0.6); END IF; RETURN NEW; END $$"""
    )
    await domain.execute("CREATE TRIGGER slow BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION slow()")

    claims = await domain.running.claim(orders, agent="a")
    taken = await asyncio.gather(*(domain.running.take_up(claim) for claim in claims))

    assert len(claims) == 2
    assert [[message.body for message in each.messages] for each in taken] == [[b"one", b"two"]] * 2


async def test_claims_that_waited_for_their_job_go_by_what_it_is_then(domain: Domain) -> None:
    """Three claims of one job begin while something else holds it, and has one of their runs cancelled."""
    job_id = await domain.submit(*(f"{REPOSITORY}/{number}" for number in range(3)))
    cancelled, *others = await domain.admit()
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"

    async def are_waiting() -> bool:
        return len(await domain.rows(waiting)) == 3

    async with domain.database.transaction() as other:
        await other.execute("SELECT FROM jobs WHERE id = $1 FOR NO KEY UPDATE", job_id)
        await other.execute("UPDATE runs SET cancel_requested_at = now() WHERE id = $1", cancelled.run_id)
        await other.execute(
            "UPDATE jobs SET fair_tag = 77, last_event_number = last_event_number + 5 WHERE id = $1", job_id
        )
        before = await other.fetchval("SELECT last_event_number FROM jobs WHERE id = $1", job_id)
        claiming = [asyncio.create_task(domain.claim(order, agent="a")) for order in (cancelled, *others)]
        await until_async(are_waiting)
    runs = await asyncio.gather(*claiming)

    job = await domain.row("jobs", job_id)
    told = [(event.number, event.kind) for event in await domain.events(job_id) if event.number > before]
    assert [run is None for run in runs] == [True, False, False]
    assert (job["state"], job["runs_started"], job["fair_tag"]) == ("running", 2, 77)
    assert told == [(before + 1, "run.started"), (before + 2, "job.started"), (before + 3, "run.started")]
    assert job["last_event_number"] == before + 3


async def test_a_stale_work_order_claims_nothing(domain: Domain) -> None:
    order = await domain.dispatch_one()
    assert await domain.scheduling.recall(overdue=timedelta()) == 1
    (newer,) = await domain.admit()

    assert newer.dispatch == order.dispatch + 1
    assert await domain.claim(order) is None
    assert await domain.claim(replace(newer, dispatch=newer.dispatch + 1)) is None
    assert await domain.claim(newer) is not None


async def test_a_run_to_be_cancelled_is_not_claimed(domain: Domain) -> None:
    order = await domain.dispatch_one()
    await domain.cancelling.request(domain.client, order.job_id)

    assert await domain.claim(order) is None


async def test_a_recalled_run_is_queued_again_and_its_job_counts_it(domain: Domain) -> None:
    order = await domain.dispatch_one()
    assert await domain.scheduling.recall(overdue=LONG) == 0

    await domain.execute("UPDATE runs SET dispatched_at = now() - interval '11 seconds'")
    assert await domain.scheduling.recall(overdue=LONG) == 1

    assert await domain.run_states(order.job_id) == ["queued"]
    assert (await domain.row("jobs", order.job_id))["runs_active"] == 0
    assert (await domain.events(order.job_id))[-1].data == {"reason": "unclaimed"}
    assert await domain.scheduling.recall(overdue=LONG) == 0


async def test_a_claimed_run_is_not_recalled(domain: Domain) -> None:
    order = await domain.dispatch_one()
    await domain.claimed(order)

    assert await domain.scheduling.recall(overdue=timedelta()) == 0
    assert await domain.run_states(order.job_id) == ["running"]


async def test_recall_and_claim_at_once_agree(domain: Domain) -> None:
    """Whichever comes first, the run is one of queued and claimed, and the job counts it right."""
    for n in range(6):
        order = await domain.dispatch_one(f"https://a/{n}")
        recalled, run = await asyncio.gather(domain.scheduling.recall(overdue=timedelta()), domain.claim(order))

        assert (recalled == 1) is (run is None)
        job = await domain.row("jobs", order.job_id)
        assert (job["runs_active"], job["runs_started"]) == ((0, 0) if run is None else (1, 1))
        await domain.cancelling.request(domain.client, order.job_id)

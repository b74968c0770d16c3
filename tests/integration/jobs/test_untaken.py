"""A run that its agent never takes up is queued again as it was, as if it had never left the queue."""

import asyncio
from datetime import timedelta

import pytest

from services.contracts.words import ExitReason, Outcome
from services.jobs.models import Checkpoint, SavedTree, StoredMessage
from services.jobs.orders import Order
from services.jobs.scheduling import MAX_TIMES_LOST, Dispatched
from tests.integration.jobs.domain import Domain

pytestmark = pytest.mark.usefixtures("postgres_is_up_long")


async def sweep(domain: Domain, *orders: Dispatched) -> None:
    for order in orders:
        await domain.expire(order.run_id)
    assert await domain.lose() == len(orders)


async def test_it_comes_back_as_it_was(domain: Domain) -> None:
    order = await domain.dispatch_one(deadlineSeconds=100, queueDeadlineSeconds=60)
    before = await domain.row("runs", order.run_id)
    three_seconds_pass = (
        "SET run_deadline = run_deadline - interval '3 s', dispatched_at = dispatched_at - interval '3 s'"
    )
    await domain.execute(f"UPDATE runs {three_seconds_pass}")
    await sweep(domain, order)

    row, job = await domain.row("runs", order.run_id), await domain.row("jobs", order.job_id)
    assert (row["state"], row["lease_token"], row["agent"], row["run_deadline"]) == ("queued", None, None, None)
    assert (row["times_lost"], row["attempts_spent"], row["turns"]) == (0, 0, 0)
    assert (row["time_left"], row["queue_deadline"]) == (timedelta(seconds=100), before["queue_deadline"])
    assert (job["state"], job["runs_active"], job["runs_started"]) == ("running", 0, 1)
    assert (await domain.events(order.job_id))[-1].data == {"reason": "unclaimed"}
    assert await domain.rows("SELECT FROM leases") == []


async def test_another_gets_it_at_once_with_all_of_its_time(domain: Domain) -> None:
    order = await domain.dispatch_one(deadlineSeconds=100)
    await sweep(domain, order)

    run = await domain.resume(order.run_id)

    assert (run.hold.attempt, run.attempts_spent, list(run.messages), run.tree) == (2, 0, [], None)
    assert 99 < run.seconds_left <= 100
    kinds = await domain.kinds(order.job_id)
    assert kinds == ["job.submitted", "run.started", "job.started", "run.requeued", "run.started"]
    assert (await domain.row("jobs", order.job_id))["runs_started"] == 1


async def test_what_an_attempt_before_has_left_of_its_time_stays(domain: Domain) -> None:
    run = await domain.start(deadlineSeconds=100)
    await domain.execute("UPDATE runs SET run_deadline = now() + interval '30 seconds'")
    await domain.running.interrupted(run.hold)
    before = await domain.row("runs", run.hold.run_id)
    left = before["time_left"]
    for _ in range(3):
        (order,) = await domain.admit()
        await sweep(domain, order)

    after = await domain.row("runs", run.hold.run_id)
    assert (after["time_left"], after["started_at"]) == (left, before["started_at"])
    assert timedelta(seconds=25) < left <= timedelta(seconds=30)


async def test_however_often_it_never_fails_for_that(domain: Domain) -> None:
    job_id = await domain.submit()
    for _ in range(MAX_TIMES_LOST + 2):
        await sweep(domain, *await domain.admit())

    (row,) = await domain.rows("SELECT * FROM runs")
    assert (row["state"], row["times_lost"], row["attempts_spent"]) == ("queued", 0, 0)
    assert await domain.kinds(job_id) == [
        *("job.submitted", "run.started", "job.started"),
        *["run.requeued", "run.started"] * (MAX_TIMES_LOST + 1),
        "run.requeued",
    ]


async def test_beside_it_one_that_was_taken_up_counts_as_lost(domain: Domain) -> None:
    job_id = await domain.submit("https://a/1", "https://a/2", queueDeadlineSeconds=60)
    taken, untaken = orders = await domain.admit()
    await domain.claimed(taken)
    await domain.execute("UPDATE runs SET queue_deadline = queue_deadline - interval '1 hour'")

    await sweep(domain, *orders)

    rows = {order: await domain.row("runs", order.run_id) for order in orders}
    assert [rows[taken]["state"], rows[untaken]["state"]] == [
        "queued",
        "failed",
    ]  # a stay that is new, and one that is over
    assert [rows[taken]["times_lost"], rows[untaken]["times_lost"]] == [1, 0]
    assert rows[untaken]["exit_reason"] == "queue_timed_out"
    told = {event.run_id: event.data for event in await domain.events(job_id) if event.kind == "run.requeued"}
    assert told == {taken.run_id: {"reason": "lost"}, untaken.run_id: {"reason": "unclaimed"}}


async def test_one_whose_agent_died_counts_as_lost_until_it_fails(domain: Domain) -> None:
    """It may have begun with it, and died of it."""
    job_id = await domain.submit()
    for _ in range(MAX_TIMES_LOST):
        orders = await domain.admit()
        await domain.execute("UPDATE nodes SET seen_at = seen_at - interval '7 seconds'")
        await sweep(domain, *orders)

    (row,) = await domain.rows("SELECT * FROM runs")
    assert (row["state"], row["exit_reason"], row["times_lost"]) == ("failed", ExitReason.LOST, MAX_TIMES_LOST)
    reasons = [event.data for event in await domain.events(job_id) if event.kind == "run.requeued"]
    assert reasons == [{"reason": "lost"}] * (MAX_TIMES_LOST - 1)


async def test_one_that_was_recalled_does_not_although_its_agent_died(domain: Domain) -> None:
    order = await domain.dispatch_one()
    await domain.execute("DELETE FROM nodes")
    await domain.scheduling.recall_orders([order])

    assert await domain.lose() == 1

    row = await domain.row("runs", order.run_id)
    assert (row["state"], row["times_lost"]) == ("queued", 0)


async def test_one_that_is_to_be_cancelled_is(domain: Domain) -> None:
    order = await domain.dispatch_one(queueDeadlineSeconds=60)
    await domain.cancelling.request(domain.client, order.job_id)
    await domain.execute("UPDATE runs SET queue_deadline = queue_deadline - interval '1 hour'")
    (accepted,) = await domain.cancelling.waiting()
    assert (accepted.held, await domain.cancelling.cancel_idle([accepted])) == (
        True,
        0,
    )  # its agent may be taking it up

    await sweep(domain, order)

    row, job = await domain.row("runs", order.run_id), await domain.row("jobs", order.job_id)
    assert (row["state"], row["times_lost"], row["lease_token"]) == ("cancelled", 0, None)
    assert (job["state"], job["runs_active"], job["runs_cancelled"]) == ("cancelled", 0, 1)
    assert (await domain.kinds(order.job_id))[-3:] == ["job.cancel_requested", "run.finished", "job.finished"]


async def test_sweeps_at_once_take_it_back_once(domain: Domain) -> None:
    job_id = await domain.submit(*(f"https://a/{n}" for n in range(5)))
    for order in await domain.admit():
        await domain.expire(order.run_id)

    lost = await asyncio.gather(*(domain.lose() for _ in range(5)))

    assert sum(lost) == 5
    assert (await domain.kinds(job_id)).count("run.requeued") == 5
    assert (await domain.row("jobs", job_id))["runs_active"] == 0


async def test_while_its_lease_lasts_nobody_takes_it_back(domain: Domain) -> None:
    order = await domain.dispatch_one()

    assert await domain.lose() == 0
    assert (await domain.row("runs", order.run_id))["lease_token"] == order.token


async def test_recalled_orders_are_taken_back_by_the_next_sweep_and_what_was_taken_up_is_not(domain: Domain) -> None:
    job_id = await domain.submit(*(f"https://a/{n}" for n in range(4)))
    taken, *untaken = orders = await domain.admit()
    await domain.claimed(taken)
    before = await domain.row("leases", taken.run_id)

    await domain.scheduling.recall_orders(orders)

    assert await domain.row("leases", taken.run_id) == before
    assert await domain.lose() == 3
    left = await domain.rows("SELECT id FROM runs WHERE state = 'queued'")
    assert sorted(row["id"] for row in left) == sorted(order.run_id for order in untaken)
    assert await domain.run_states(job_id) == ["running", "queued", "queued", "queued"]


async def test_only_what_is_recalled_is_taken_back(domain: Domain) -> None:
    """Of an agent's orders, those of which one message told."""
    await domain.submit("https://a/1", "https://a/2")
    recalled, other = await domain.admit()

    await domain.scheduling.recall_orders([recalled])

    assert await domain.lose() == 1
    assert (await domain.row("runs", other.run_id))["lease_token"] == other.token


async def test_an_order_that_is_recalled_late_leaves_the_one_after_it(domain: Domain) -> None:
    order = await domain.dispatch_one()
    await sweep(domain, order)
    (newer,) = await domain.admit()

    await domain.scheduling.recall_orders([order])

    assert await domain.lose() == 0
    assert await domain.claim(newer) is not None


async def test_who_did_not_hear_is_given_nothing_before_it_says_that_it_lives(domain: Domain) -> None:
    await domain.submit(*(f"https://a/{n}" for n in range(4)))
    orders = await domain.admit(1, agent_2=1)
    (deaf,) = [order for order in orders if order.agent == "agent-1"]

    await domain.scheduling.avoid(deaf.agent)
    await domain.scheduling.recall_orders([deaf])
    await domain.lose()

    assert [row["name"] for row in await domain.rows("SELECT name FROM nodes WHERE capacity > 0")] == ["agent-2"]
    assert (await domain.admitting.admit()).orders == ()
    (order,) = await domain.admit(1, agent_2=1)
    assert order.agent == "agent-1"


async def test_recalls_and_claims_of_many_at_once_agree(domain: Domain) -> None:
    """They go through their leases in different orders: neither is given up because it waits for the other."""
    for n in range(8):
        await domain.submit(*(f"https://a/{n}/{run}" for run in range(50)))
        orders = await domain.admit()

        claims, *_ = await asyncio.gather(
            domain.running.claim([Order(order.run_id, order.token) for order in orders[::-1]]),
            domain.scheduling.recall_orders(orders),
            domain.lose(),
        )
        await domain.lose()

        held = await domain.rows("SELECT id FROM runs WHERE state = 'running'")
        assert sorted(row["id"] for row in held) == sorted(claim.hold.run_id for claim in claims)
        for claim in claims:
            await domain.running.complete(claim.hold, Outcome.NO_CHANGES, summary="done")
        await domain.execute("UPDATE runs SET held_since = now() WHERE state = 'queued'")  # out of the next round's way


async def test_what_it_goes_on_from_is_still_there_for_who_takes_it_up(domain: Domain) -> None:
    run = await domain.start()
    said = [StoredMessage(1, "user", b"one"), StoredMessage(2, "assistant", b"two")]
    await domain.running.checkpoint(run.hold, Checkpoint(messages=said, tree=SavedTree(b"a patch", {})))
    await domain.running.fail(run.hold, ExitReason.STUCK, error="for ever")
    await domain.retry(run.hold.job_id, resume=True)
    (order,) = await domain.admit()
    await sweep(domain, order)

    again = await domain.resume(order.run_id)

    assert ([message.body for message in again.messages], again.copied) == ([b"one", b"two"], 2)
    assert again.tree is not None
    assert again.tree.patch == b"a patch"


async def test_one_that_nobody_ever_took_up_is_done_again_from_the_beginning(domain: Domain) -> None:
    order = await domain.dispatch_one()
    await domain.cancelling.request(domain.client, order.job_id)
    await sweep(domain, order)
    job_id = await domain.retry(order.job_id, resume=True)

    (newer,) = await domain.admit()
    run = await domain.claimed(newer)

    assert (run.hold.job_id, list(run.messages), run.tree, run.copied) == (job_id, [], None, 0)

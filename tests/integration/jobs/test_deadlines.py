"""A run ends when it was queued, or worked on, for longer than its job allows; other time does not count."""

from datetime import timedelta

import pytest

from tests.integration.jobs.domain import Domain


async def test_a_queue_stay_has_a_deadline_of_its_own(domain: Domain) -> None:
    job_id = await domain.submit(queueDeadlineSeconds=60)
    patient = await domain.submit()
    assert await domain.scheduling.end_overdue() == 0
    await domain.execute("UPDATE runs SET queue_deadline = queue_deadline - interval '61 seconds'")

    assert await domain.scheduling.end_overdue() == 1

    (row,) = await domain.rows("SELECT * FROM runs WHERE job_id = $1", job_id)
    assert (row["state"], row["exit_reason"], row["error"]) == (
        "failed",
        "queue_timed_out",
        "not started within 60 s",
    )
    assert (await domain.row("jobs", job_id))["state"] == "failed"
    assert await domain.run_states(patient) == ["queued"]


async def test_the_stay_begins_anew_when_a_run_comes_back(domain: Domain) -> None:
    run = await domain.start(queueDeadlineSeconds=60)
    await domain.execute("UPDATE runs SET queue_deadline = now() - interval '1 second'")
    assert await domain.scheduling.end_overdue() == 0  # it is not in the queue
    await domain.running.interrupted(run.hold)

    (row,) = await domain.rows("SELECT queue_deadline > now() + interval '50 seconds' AS is_new FROM runs")
    assert row["is_new"]


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_an_order_that_nobody_takes_is_a_part_of_the_stay(domain: Domain) -> None:
    job_id = await domain.submit(queueDeadlineSeconds=60)
    (before,) = await domain.rows("SELECT queue_deadline FROM runs")
    (order,) = await domain.admit()
    await domain.expire(order.run_id)
    assert await domain.lose() == 1
    assert await domain.rows("SELECT queue_deadline FROM runs") == [before]
    await domain.admit()
    await domain.execute("UPDATE runs SET queue_deadline = queue_deadline - interval '61 seconds'")
    assert await domain.scheduling.end_overdue() == 0  # its agent may still take it up

    await domain.expire(order.run_id)
    assert await domain.lose() == 1

    (row,) = await domain.rows("SELECT * FROM runs")
    assert (row["state"], row["exit_reason"], row["error"]) == (
        "failed",
        "queue_timed_out",
        "not started within 60 s",
    )
    job = await domain.row("jobs", job_id)
    assert (job["state"], job["runs_active"], job["runs_failed"]) == ("failed", 0, 1)
    assert (await domain.kinds(job_id))[-3:] == ["run.requeued", "run.finished", "job.finished"]
    assert await domain.rows("SELECT FROM leases") == []


@pytest.mark.parametrize("is_over", [False, True])
async def test_what_code_before_this_dispatched_stays_no_longer_for_it(domain: Domain, is_over: bool) -> None:
    job_id = await domain.dispatch_as_before(queueDeadlineSeconds=60)
    if is_over:
        await domain.execute("UPDATE runs SET queue_deadline = queue_deadline - interval '61 seconds'")
    (before,) = await domain.rows("SELECT queue_deadline FROM runs")

    assert await domain.scheduling.recall(overdue=timedelta()) == 1

    (row,) = await domain.rows("SELECT * FROM runs")
    expected = ("failed", "queue_timed_out") if is_over else ("queued", None)
    assert (row["state"], row["exit_reason"], row["queue_deadline"]) == (*expected, before["queue_deadline"])
    job = await domain.row("jobs", job_id)
    assert (job["runs_active"], job["runs_failed"]) == (0, int(is_over))


async def test_what_code_before_this_dispatched_has_its_deadline_anew(domain: Domain) -> None:
    await domain.dispatch_as_before(queueDeadlineSeconds=60)
    await domain.execute("UPDATE runs SET queue_deadline = NULL")

    assert await domain.scheduling.recall(overdue=timedelta()) == 1

    (row,) = await domain.rows("SELECT state, queue_deadline > now() + interval '50 seconds' AS is_new FROM runs")
    assert (row["state"], row["is_new"]) == ("queued", True)


async def test_a_job_for_later_stays_queued_from_then_on(domain: Domain) -> None:
    await domain.submit(queueDeadlineSeconds=60, notBefore="2099-01-31T12:30:00Z")

    (row,) = await domain.rows("SELECT queue_deadline = not_before + interval '60 seconds' AS is_later FROM runs")
    assert row["is_later"]


async def test_a_run_that_its_agent_does_not_end_is_ended(domain: Domain) -> None:
    run = await domain.start(deadlineSeconds=100)
    await domain.execute("UPDATE runs SET run_deadline = now() - interval '9 seconds'")
    assert await domain.scheduling.end_overdue() == 0
    await domain.execute("UPDATE runs SET run_deadline = now() - interval '11 seconds'")

    assert await domain.scheduling.end_overdue() == 1

    row = await domain.row("runs", run.hold.run_id)
    assert (row["state"], row["exit_reason"], row["lease_token"]) == ("failed", "timed_out", None)
    assert await domain.rows("SELECT FROM leases") == []
    assert not await domain.running.holds(run.hold.run_id, attempt=1, token=run.hold.token)


async def test_its_time_is_counted_over_all_attempts_and_not_in_between(domain: Domain) -> None:
    run = await domain.start(deadlineSeconds=100)
    assert 99 < run.seconds_left <= 100
    await domain.execute("UPDATE runs SET run_deadline = run_deadline - interval '70 seconds'")
    await domain.running.retry(run.hold, error="again", delay=timedelta())

    (row,) = await domain.rows("SELECT run_deadline FROM runs")
    assert row["run_deadline"] is None
    again = await domain.resume(run.hold.run_id)
    assert 25 < again.seconds_left <= 30

"""A task waits for its user without a slot, hears every message, and ends when it is told to or left alone."""

import asyncio

import pytest

from services.contracts.rest import CompleteRequest
from services.contracts.words import ExitReason, Outcome
from services.jobs.errors import LeaseLostError, NotFoundError, NotWaitingError
from services.jobs.models import Checkpoint, ClaimedRun, StoredMessage
from tests.integration.jobs.domain import Domain

# As if it had been said while nobody could wake the run.
UNHEARD = "INSERT INTO inbox (run_id, number, kind, body) VALUES ($1, 1, 'message', 'hello')"
COMPLETE = CompleteRequest.model_validate({})


async def parked(domain: Domain, **fields: object) -> ClaimedRun:
    run = await domain.talk(**fields)
    assert await domain.messaging.park(run.hold, summary="what was said")
    return run


async def test_a_run_that_waits_holds_no_slot_and_no_lease(domain: Domain) -> None:
    run = await parked(domain)

    row = await domain.row("runs", run.hold.run_id)
    assert (row["state"], row["lease_token"], row["run_deadline"]) == ("waiting", None, None)
    assert await domain.rows("SELECT FROM leases") == []
    await domain.submit()
    assert len(await domain.admit(slots=1)) == 1
    with pytest.raises(LeaseLostError):
        await domain.running.complete(run.hold, Outcome.ANSWERED, summary="")


async def test_a_message_wakes_it_with_what_it_had(domain: Domain) -> None:
    run = await domain.talk()
    await domain.running.checkpoint(run.hold, Checkpoint([StoredMessage(1, "user", b"{}")]))
    assert await domain.messaging.park(run.hold, summary="what was said")

    said = await domain.say(run.hold.job_id, "go on")
    again = await domain.resume(run.hold.run_id)

    assert (said.number, said.run_id) == (1, run.hold.run_id)
    assert [message.number for message in again.messages] == [1]
    (heard,) = await domain.messaging.unread(again.hold)
    assert (heard.text, heard.interrupt, heard.completes) == ("go on", False, False)
    await domain.running.checkpoint(again.hold, Checkpoint([StoredMessage(2, "user", b"{}")], read_through=1))
    assert await domain.messaging.unread(again.hold) == []
    assert await domain.messaging.park(again.hold, summary="what was said")


async def test_it_does_not_wait_while_something_is_unread(domain: Domain) -> None:
    run = await domain.talk()
    await domain.say(run.hold.job_id, "wait", interrupt=True)

    assert not await domain.messaging.park(run.hold, summary="what was said")
    assert await domain.run_states(run.hold.job_id) == ["running"]


async def test_a_message_and_the_wait_at_once_never_miss_each_other(domain: Domain) -> None:
    for _ in range(6):
        run = await domain.talk()
        did_park, _ = await asyncio.gather(
            domain.messaging.park(run.hold, summary="what was said"), domain.say(run.hold.job_id, "hello")
        )
        assert await domain.run_states(run.hold.job_id) == ["queued" if did_park else "running"]


async def test_the_sweep_wakes_a_run_that_sleeps_over_a_message(domain: Domain) -> None:
    run = await parked(domain)
    await domain.execute(
        "INSERT INTO inbox (run_id, number, kind, body) VALUES ($1, 1, 'message', 'x')", run.hold.run_id
    )

    assert await domain.messaging.wake() == 1
    assert await domain.messaging.wake() == 0
    assert await domain.run_states(run.hold.job_id) == ["queued"]
    assert [order.run_id for order in await domain.admit()] == [run.hold.run_id]


async def test_silence_past_the_limit_ends_it(domain: Domain) -> None:
    run = await parked(domain, idleLimitSeconds=60)
    assert await domain.messaging.end_idle() == 0
    await domain.execute("UPDATE runs SET idle_deadline = idle_deadline - interval '61 seconds'")

    assert await domain.messaging.end_idle() == 1

    row = await domain.row("runs", run.hold.run_id)
    assert (row["state"], row["outcome"]) == ("completed", "answered")
    assert (await domain.row("jobs", run.hold.job_id))["state"] == "completed"
    assert (await domain.kinds(run.hold.job_id))[-2:] == ["run.finished", "job.finished"]


async def test_a_message_beats_the_idle_limit(domain: Domain) -> None:
    run = await parked(domain)
    await domain.execute("UPDATE runs SET idle_deadline = now() - interval '1 second'")
    await domain.execute(
        "INSERT INTO inbox (run_id, number, kind, body) VALUES ($1, 1, 'message', 'x')", run.hold.run_id
    )

    assert await domain.messaging.end_idle() == 0
    assert await domain.messaging.wake() == 1


async def test_its_user_ends_it(domain: Domain) -> None:
    waiting, held = await parked(domain), await domain.talk()
    for run in (waiting, held):
        assert await domain.messaging.complete(domain.client, run.hold.job_id, COMPLETE) == [run.hold.run_id]

    assert await domain.run_states(waiting.hold.job_id) == ["completed"]
    assert await domain.run_states(held.hold.job_id) == ["running"]
    assert [message.completes for message in await domain.messaging.unread(held.hold)] == [True]


async def test_a_waiting_run_can_be_cancelled(domain: Domain) -> None:
    run = await parked(domain)
    await domain.cancelling.request(domain.client, run.hold.job_id)
    await domain.cancelling.cancel_idle(await domain.cancelling.waiting())

    assert await domain.run_states(run.hold.job_id) == ["cancelled"]
    with pytest.raises(NotWaitingError):
        await domain.say(run.hold.job_id, "too late")


async def test_who_waits_counts_among_its_job_s_parallel_runs(domain: Domain) -> None:
    """Whoever allows one run at once wants one conversation at a time."""
    job_id = await domain.submit("https://a/1", "https://a/2", kind="task", maxParallel=1)
    (order,) = await domain.admit()
    run = await domain.claimed(order)
    assert await domain.messaging.park(run.hold, summary="your turn")
    assert await domain.admit() == []

    first = CompleteRequest.model_validate({"runId": str(run.hold.run_id)})
    await domain.messaging.complete(domain.client, job_id, first)

    assert await domain.run_states(job_id) == ["completed", "queued"]
    assert len(await domain.admit()) == 1


async def test_who_cannot_hear_is_not_spoken_to(domain: Domain) -> None:
    code = await domain.start()
    with pytest.raises(NotWaitingError, match="code job"):
        await domain.say(code.hold.job_id, "hello")
    with pytest.raises(NotFoundError):
        await domain.messaging.complete(await domain.new_client("other"), code.hold.job_id, COMPLETE)
    several = await domain.submit("https://a/1", "https://a/2", kind="task")
    with pytest.raises(NotWaitingError, match="runId"):
        await domain.say(several, "which?")


async def test_what_ended_runs_never_heard_hides_nobody_s_message(domain: Domain) -> None:
    deaf = await domain.talk()
    await domain.execute(
        "INSERT INTO inbox (run_id, number, kind, body, created_at)"
        " SELECT $1, n, 'message', 'never heard', now() - interval '1 day' FROM generate_series(1, 1500) n",
        deaf.hold.run_id,
    )
    await domain.running.fail(deaf.hold, ExitReason.STUCK, error="stuck")
    run = await parked(domain)
    await domain.execute(UNHEARD, run.hold.run_id)

    assert await domain.messaging.wake() == 1
    await domain.scheduling.forget_old()
    left = await domain.rows("SELECT run_id FROM inbox WHERE read_at IS NULL")
    assert [row["run_id"] for row in left] == [run.hold.run_id]

"""The event log: numbered without holes however many write at once, and every line of it decodes."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from google.protobuf import json_format

from services.contracts.v1.events_pb2 import Event
from services.contracts.words import ChangesetState, Checks, EventKind, ExitReason, Outcome, Publish
from services.jobs.tracking import Observed
from services.jobs.unit import Draft, Unit
from tests.integration.jobs.domain import COMMIT, Domain, shown


async def tell(domain: Domain, job_id: UUID, message: str, *, fail: bool = False) -> None:
    async def work(unit: Unit) -> None:
        unit.tell(job_id, Draft(EventKind.LOG, {"message": message}))
        unit.tell(job_id, Draft(EventKind.LOG, {"message": message}))
        if fail:
            raise ZeroDivisionError

    await domain.units.run([job_id], work)


async def test_numbers_have_no_holes_under_many_units_at_once(domain: Domain) -> None:
    job_id = await domain.submit()

    ends = await asyncio.gather(
        *(tell(domain, job_id, str(n), fail=n % 5 == 0) for n in range(30)), return_exceptions=True
    )

    assert sum(isinstance(end, ZeroDivisionError) for end in ends) == 6
    events = await domain.events(job_id)
    assert [event.number for event in events] == list(range(1, 1 + 1 + 24 * 2))
    messages = [event.data["message"] for event in events[1:]]
    assert messages[::2] == messages[1::2], "a unit's events stand together"
    assert (await domain.row("jobs", job_id))["last_event_number"] == len(events)


async def test_the_bell_is_rung_after_events_and_not_without(domain: Domain) -> None:
    job_id = await domain.submit()
    rings = domain.rings
    await tell(domain, job_id, "hello")
    assert domain.rings == rings + 1

    async def nothing(_: Unit) -> None:
        return

    await domain.units.run([job_id], nothing)
    assert domain.rings == rings + 1


@pytest.mark.parametrize("parked", [False, True], ids=["run.finished", "run.waiting"])
async def test_of_a_long_answer_events_have_the_beginning_and_the_run_all(domain: Domain, parked: bool) -> None:
    run = await domain.talk()
    answer = "ü" * 60_000

    if parked:
        assert await domain.messaging.park(run.hold, summary=answer)
    else:
        assert await domain.running.complete(run.hold, Outcome.ANSWERED, summary=answer)

    kind = EventKind.RUN_WAITING if parked else EventKind.RUN_FINISHED
    (event,) = [event for event in await domain.events(run.hold.job_id) if event.kind is kind]
    assert event.data["summary"].endswith("ü… [cut: 60,000 characters in all, the run's summary has them]")
    assert len(event.data["summary"]) == 50_000
    assert (await domain.reading.run(domain.client, run.hold.run_id)).summary == answer


async def test_a_stored_change_with_a_long_summary_is_told_in_short(domain: Domain) -> None:
    run = await domain.start()
    await domain.running.deliver(run.hold, COMMIT, publish=Publish.NONE, summary="x" * 60_000)

    (event,) = [event for event in await domain.events(run.hold.job_id) if event.kind is EventKind.RUN_FINISHED]
    assert len(event.data["summary"]) == 50_000
    assert (await domain.reading.run(domain.client, run.hold.run_id)).summary == "x" * 60_000


async def test_an_error_of_a_publication_is_told_in_short(domain: Domain) -> None:
    hold = (await domain.push()).hold
    await domain.publishing.failed(hold, reason=ExitReason.PUSH_REJECTED, error="x" * 60_000)

    events = [event for event in await domain.events(hold.job_id) if "error" in event.data]
    assert [event.kind for event in events] == [EventKind.CHANGESET_FAILED, EventKind.RUN_FINISHED]
    assert {len(event.data["error"]) for event in events} == {4_000}


async def test_reading_goes_on_behind_a_number(domain: Domain) -> None:
    job_id = await domain.submit()
    await tell(domain, job_id, "hello")

    assert [event.number for event in await domain.log.after(job_id, 1)] == [2, 3]
    assert [event.number for event in await domain.log.after(job_id, 0, most=2)] == [1, 2]
    assert await domain.log.after(job_id, 3) == []


async def whole_life(domain: Domain) -> UUID:
    """Three runs, first recalled: one retried, delivered and looked at, one failed to push, one failed."""
    job_id = await domain.submit("https://a/1", "https://a/2", "https://a/3")
    await domain.scheduling.recall_orders(await domain.admit())
    assert await domain.lose() == 3
    runs = [await domain.claimed(order) for order in await domain.admit()]
    await domain.running.retry(runs[0].hold, error="again", delay=timedelta())
    runs[0] = await domain.resume(runs[0].hold.run_id)
    await domain.running.fail(runs[2].hold, ExitReason.MAX_TURNS, error="too many")
    for run in runs[:2]:
        await domain.running.prepared(run.hold, base_sha="b" * 40, base_branch="main", events=[])
        changeset_id = await domain.running.deliver(run.hold, COMMIT, publish=Publish.PULL_REQUEST, summary="done")
        publication = await domain.claim_changeset(run, changeset_id)
        assert publication is not None
        if run is runs[0]:
            await domain.publishing.delivered(publication.hold, shown("/c"), branch="b", commit_sha=COMMIT.sha)
            change = await domain.tracking.published(changeset_id)
        else:
            await domain.publishing.failed(publication.hold, reason=ExitReason.PUSH_REJECTED, error="no")
    await domain.tracking.record(change, Observed(ChangesetState.OPEN, checks=Checks.PASSING), again=timedelta(hours=1))
    return job_id


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_a_whole_life_is_told_once_and_in_order(domain: Domain) -> None:
    job_id = await whole_life(domain)

    kinds = await domain.kinds(job_id)
    assert kinds[0] == "job.submitted"
    assert kinds.count("job.started") == 1
    assert kinds.count("job.finished") == 1
    assert kinds[-2:] == ["job.finished", "changeset.updated"]
    assert kinds.count("run.finished") == 3
    assert kinds.index("job.started") < kinds.index("run.finished")
    assert (await domain.events(job_id))[-2].data == {"state": "completed", "outcome": "partial"}


async def test_runs_that_end_at_once_finish_their_job_once(domain: Domain) -> None:
    job_id = await domain.submit(*(f"https://a/{n}" for n in range(8)))
    runs = await asyncio.gather(*(domain.claimed(order) for order in await domain.admit()))
    await asyncio.gather(*(domain.finish(run) for run in runs))

    kinds = await domain.kinds(job_id)
    assert (kinds.count("job.started"), kinds.count("run.finished"), kinds.count("job.finished")) == (1, 8, 1)
    job = await domain.row("jobs", job_id)
    assert (job["state"], job["runs_started"], job["runs_active"], job["runs_completed"]) == ("completed", 8, 0, 8)


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_every_event_decodes_as_its_payload(domain: Domain) -> None:
    jobs = [await whole_life(domain)]
    run = await domain.start()
    await domain.expire(run.hold.run_id)
    await domain.lose()
    await domain.cancelling.request(domain.client, run.hold.job_id)
    await domain.cancelling.cancel_idle(await domain.cancelling.waiting())
    jobs.append(run.hold.job_id)
    talk = await domain.talk()
    assert await domain.messaging.park(talk.hold, summary="what was said")
    await domain.say(talk.hold.job_id, "go on")
    jobs.append(talk.hold.job_id)

    async def tell_as_before(unit: Unit) -> None:
        unit.tell(talk.hold.job_id, Draft(EventKind.RUN_DISPATCHED, {}), run_id=talk.hold.run_id)

    await domain.units.run([talk.hold.job_id], tell_as_before)

    events = [event for job_id in jobs for event in await domain.events(job_id)]
    seen = set()
    for event in events:
        decoded = json_format.Parse(event.encoded(), Event())
        assert decoded.WhichOneof("payload") == event.kind.replace(".", "_")
        assert (decoded.job_id, decoded.number) == (str(event.job_id), event.number)
        seen.add(event.kind)
    assert seen == {kind for kind in EventKind if kind.split(".")[0] in {"job", "run", "changeset"}} - {
        EventKind.RUN_PREPARED  # the agent's own
    }

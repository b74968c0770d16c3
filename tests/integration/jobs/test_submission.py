"""A job comes in whole, once for an Idempotency-Key, however many send it at once."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid5

import pytest
from uuid_utils.compat import uuid7

from services.jobs.errors import IdempotencyMismatchError
from services.jobs.submission import OWN_KEYS, NewJob, Submitted, branch_name
from tests.integration.jobs.domain import REPOSITORY, Domain, job_request


async def test_a_job_is_stored_with_a_run_a_repository(domain: Domain) -> None:
    job_id = await domain.submit("https://a/1", "https://a/2", name="Two of them", priority=7, maxParallel=1)

    job = await domain.row("jobs", job_id)
    runs = await domain.rows("SELECT * FROM runs WHERE job_id = $1 ORDER BY position", job_id)
    assert (job["state"], job["runs_total"], job["runs_started"], job["name"]) == ("queued", 2, 0, "Two of them")
    assert job["options"]["maxParallel"] == 1
    assert [run["repository"] for run in runs] == ["https://a/1", "https://a/2"]
    assert [run["position"] for run in runs] == [0, 1]
    assert {(run["state"], run["queue"], run["priority"], run["max_parallel"]) for run in runs} == {
        ("queued", "code", 7, 1)
    }
    assert {run["branch"] for run in runs} == {branch_name("Two of them", uuid5(domain.client.id, "Two of them\x000"))}


async def test_submitting_is_the_first_event(domain: Domain) -> None:
    job_id = await domain.submit("https://a/1", "https://a/2")

    (event,) = await domain.events(job_id)
    assert (event.number, event.kind, event.data) == (1, "job.submitted", {"kind": "code", "runs": 2})
    assert domain.rings == 1


async def test_a_task_without_repository_has_one_run(domain: Domain) -> None:
    request = job_request(kind="task")
    submitted = await domain.submissions.submit(domain.client, request, key=None, body=b"")

    (run,) = await domain.rows("SELECT * FROM runs WHERE job_id = $1", submitted.job_id)
    assert (run["repository"], run["queue"]) == (None, "task")


async def test_a_key_makes_one_job_however_many_send_it_at_once(domain: Domain) -> None:
    async def send() -> Submitted:
        return await domain.submissions.submit(domain.client, job_request(REPOSITORY), key="k", body=b"the body")

    answers = await asyncio.gather(*(send() for _ in range(12)))

    assert len({answer.job_id for answer in answers}) == 1
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 11
    assert len(await domain.rows("SELECT FROM jobs")) == len(await domain.rows("SELECT FROM runs")) == 1


async def test_a_key_with_another_body_is_refused_and_stores_nothing(domain: Domain) -> None:
    await domain.submissions.submit(domain.client, job_request(REPOSITORY), key="k", body=b"one")

    with pytest.raises(IdempotencyMismatchError):
        await domain.submissions.submit(domain.client, job_request(REPOSITORY), key="k", body=b"two")
    assert len(await domain.rows("SELECT FROM jobs")) == 1


async def test_a_key_is_its_clients_alone(domain: Domain) -> None:
    other = await domain.new_client("other")
    first = await domain.submissions.submit(domain.client, job_request(REPOSITORY), key="k", body=b"one")
    second = await domain.submissions.submit(other, job_request(REPOSITORY), key="k", body=b"two")

    assert not second.replayed
    assert second.job_id != first.job_id


async def test_a_key_is_free_again_after_a_day(domain: Domain) -> None:
    first = await domain.submissions.submit(domain.client, job_request(REPOSITORY), key="k", body=b"one")
    await domain.execute("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    second = await domain.submissions.submit(domain.client, job_request(REPOSITORY), key="k", body=b"two")

    assert not second.replayed
    assert second.job_id != first.job_id


async def test_a_key_of_our_own_stands_for_its_job_for_a_month(domain: Domain) -> None:
    asked = NewJob.of(domain.client, job_request(REPOSITORY), key=f"{OWN_KEYS}k", body=b"")
    first = await domain.submissions.accept(asked)
    for days, is_kept in ((29, True), (31, False)):
        await domain.execute("UPDATE idempotency_keys SET created_at = now() - $1::int * interval '1 day'", days)
        await domain.scheduling.forget_old()
        again = await domain.submissions.accept(replace(asked, id=uuid7()))
        assert (again.replayed, again.job_id == first.job_id) == (is_kept, is_kept)


async def test_spent_keys_are_forgotten(domain: Domain) -> None:
    for key in ("old", "new"):
        await domain.submissions.submit(domain.client, job_request(REPOSITORY), key=key, body=b"")
    await domain.execute("UPDATE idempotency_keys SET created_at = now() - interval '25 hours' WHERE key = 'old'")

    await domain.scheduling.forget_old()

    assert [row["key"] for row in await domain.rows("SELECT key FROM idempotency_keys")] == ["new"]


async def test_a_client_is_known_by_its_newest_key_alone(domain: Domain) -> None:
    await domain.submissions.ensure_client("tester", "a new key")
    await domain.submissions.ensure_client("tester", "a new key")

    assert await domain.submissions.client_of("a new key") == domain.client
    assert await domain.submissions.client_of("key of tester") is None


async def test_times_are_kept_to_the_second_given(domain: Domain) -> None:
    when = datetime(2099, 1, 31, 12, 30, tzinfo=UTC)
    job_id = await domain.submit(notBefore="2099-01-31T12:30:00Z")

    assert (await domain.row("jobs", job_id))["not_before"] == when
    assert (await domain.reading.job(domain.client, job_id)).not_before == when

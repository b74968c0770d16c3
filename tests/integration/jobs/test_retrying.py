"""Doing a job again makes a new job; what it begins from is as asked."""

import asyncio
from uuid import UUID

import pytest

from services.contracts.rest import RetryRequest
from services.contracts.words import ExitReason, Outcome
from services.jobs.errors import IdempotencyMismatchError, NotFoundError, NotRetryableError
from services.jobs.models import Checkpoint, SavedTree, StoredMessage
from services.jobs.retrying import Renaming
from services.jobs.submission import NewJob, NewRun, Submitted
from tests.integration.jobs.domain import Domain, job_request

WHOLE = RetryRequest.model_validate({})


async def failed_job(domain: Domain) -> tuple[UUID, list[UUID]]:
    """A job of three: one completed, one failed after a checkpoint, one failed at its publication."""
    job_id = await domain.submit(
        "https://a/0", "https://a/1", "https://a/2", name="a name", priority=7, maxAttempts=2, maxParallel=3
    )
    runs = [await domain.claimed(order) for order in await domain.admit()]
    for run in runs:
        await domain.running.prepared(run.hold, base_sha="b" * 40, base_branch="main", events=[])
    await domain.running.complete(runs[0].hold, Outcome.NO_CHANGES, summary="")
    tree = SavedTree(b"a patch", {"x": "1"})
    await domain.running.checkpoint(runs[1].hold, Checkpoint([StoredMessage(1, "user", b"exact")], tree))
    await domain.running.fail(runs[1].hold, ExitReason.MAX_TURNS, error="too many")
    await domain.running.fail(runs[2].hold, ExitReason.BLOCKED, error="no")
    return job_id, [run.hold.run_id for run in runs]


async def test_a_whole_job_is_done_again_as_it_was_asked_for(domain: Domain) -> None:
    old_id, _ = await failed_job(domain)
    old = await domain.row("jobs", old_id)

    new = await domain.row("jobs", await domain.retry(old["id"]))

    assert (new["retry_of"], new["state"], new["runs_total"]) == (old["id"], "queued", 3)
    for column in ("kind", "name", "prompt", "options", "priority", "max_parallel"):
        assert new[column] == old[column]
    assert (await domain.row("jobs", old["id"])) == old
    assert len(await domain.admit()) == 3


async def test_only_what_did_not_complete_is_done_again(domain: Domain) -> None:
    old_id, runs = await failed_job(domain)

    new_id = await domain.retry(old_id, only="failed")

    rows = await domain.rows("SELECT * FROM runs WHERE job_id = $1 ORDER BY position", new_id)
    assert [row["repository"] for row in rows] == ["https://a/1", "https://a/2"]
    old = [await domain.row("runs", run_id) for run_id in runs[1:]]
    assert [row["branch"] for row in rows] == [row["branch"] for row in old]
    assert [row["base_sha"] for row in rows] == [None, None]


async def test_it_goes_on_from_the_old_checkpoint(domain: Domain) -> None:
    old_id, runs = await failed_job(domain)

    await domain.retry(old_id, only="failed", resume=True)
    first, second = [await domain.claimed(order) for order in await domain.admit()]

    assert [(message.number, message.body) for message in first.messages] == [(1, b"exact")]
    assert first.tree == SavedTree(b"a patch", {"x": "1"})
    assert (first.base_sha, first.turns, first.attempts_spent) == ("b" * 40, 0, 0)
    assert (list(second.messages), second.tree) == ([], None)
    # Its own from then on: the old run's stays as it was.
    await domain.running.checkpoint(first.hold, Checkpoint([StoredMessage(2, "assistant", b"new")]))
    await domain.running.interrupted(first.hold)
    again = await domain.resume(first.hold.run_id)
    assert [message.body for message in again.messages] == [b"exact", b"new"]
    assert len(await domain.rows("SELECT FROM messages WHERE run_id = $1", runs[1])) == 1


async def test_a_branch_that_may_be_out_there_is_not_used_again(domain: Domain) -> None:
    publication = await domain.push()
    await domain.publishing.failed(publication.hold, reason=ExitReason.PUSH_REJECTED, error="no")

    new_id = await domain.retry(publication.hold.job_id)

    (row,) = await domain.rows("SELECT branch FROM runs WHERE job_id = $1", new_id)
    assert row["branch"] != publication.branch


async def test_two_that_do_the_same_again_have_branches_of_their_own(domain: Domain) -> None:
    """On one, the second's commit would take the place of the first's, and close its pull request."""
    run = await domain.start()
    await domain.running.fail(run.hold, ExitReason.STUCK, error="round and round")

    first, second = [await domain.retry(run.hold.job_id) for _ in range(2)]

    branches = {
        job_id: (await domain.rows("SELECT branch FROM runs WHERE job_id = $1", job_id))[0]["branch"]
        for job_id in (run.hold.job_id, first, second)
    }
    assert branches[first] == branches[run.hold.job_id] != branches[second]
    assert len(await domain.admit()) == 2


async def test_two_that_do_the_same_again_at_once_have_branches_of_their_own(
    domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have looked before either is stored."""
    run = await domain.start()
    await domain.running.fail(run.hold, ExitReason.STUCK, error="round and round")
    accept, both = domain.submissions.accept, asyncio.Barrier(2)

    async def together(new: NewJob) -> Submitted:
        await both.wait()
        return await accept(new)

    monkeypatch.setattr(domain.submissions, "accept", together)
    async with asyncio.timeout(30):
        await asyncio.gather(*(domain.retry(run.hold.job_id) for _ in range(2)))

    rows = await domain.rows("SELECT branch FROM runs WHERE job_id <> $1", run.hold.job_id)
    assert len({row["branch"] for row in rows}) == 2
    assert (await domain.row("runs", run.hold.run_id))["branch"] in {row["branch"] for row in rows}


async def test_one_that_never_began_to_go_on_is_gone_on_with(domain: Domain) -> None:
    """It has no checkpoint of its own: the one that it was to begin from counts."""
    old_id, _ = await failed_job(domain)
    never_began = await domain.retry(old_id, only="failed", resume=True)
    await domain.cancelling.request(domain.client, never_began)
    await domain.cancelling.cancel_idle(await domain.cancelling.waiting())

    await domain.retry(never_began, resume=True)
    first, second = [await domain.claimed(order) for order in await domain.admit()]

    assert [message.body for message in first.messages] == [b"exact"]
    assert (first.tree, first.base_sha) == (SavedTree(b"a patch", {"x": "1"}), "b" * 40)
    assert (list(second.messages), second.tree) == ([], None)


async def test_what_has_not_ended_is_not_done_again(domain: Domain) -> None:
    run = await domain.start()
    with pytest.raises(NotRetryableError, match="has not ended"):
        await domain.retry(run.hold.job_id)
    await domain.finish(run)
    with pytest.raises(NotRetryableError, match="nothing to do again"):
        await domain.retry(run.hold.job_id, only="failed")
    with pytest.raises(NotFoundError):
        await domain.retrying.retry(await domain.new_client("other"), run.hold.job_id, WHOLE, key=None, body=b"")


async def test_the_same_key_makes_one_job(domain: Domain) -> None:
    old_id, _ = await failed_job(domain)
    ask = (domain.client, old_id, WHOLE)

    first = await domain.retrying.retry(*ask, key="k", body=b"{}")
    second = await domain.retrying.retry(*ask, key="k", body=b"{}")

    assert (second.job_id, second.replayed) == (first.job_id, True)
    with pytest.raises(IdempotencyMismatchError):
        await domain.retrying.retry(*ask, key="k", body=b'{"only": "failed"}')


async def test_a_tree_that_is_behind_what_was_changed_is_gone_on_from_as_such(domain: Domain) -> None:
    run = await domain.start()
    tree = SavedTree(None, {"x": "1"}, is_behind=True)
    await domain.running.checkpoint(run.hold, Checkpoint([StoredMessage(1, "user", b"exact")], tree))
    await domain.running.fail(run.hold, ExitReason.MAX_TURNS, error="too many")

    await domain.retry(run.hold.job_id, resume=True)
    (again,) = [await domain.claimed(order) for order in await domain.admit()]

    assert again.tree == SavedTree(b"", {"x": "1"}, is_behind=True)


def a_review(domain: Domain) -> NewJob:
    run = NewRun("https://a/0", base_ref="theirs", branch="theirs", base_branch="main")
    return NewJob(domain.client, job_request("https://a/0"), runs=[run], is_review=True)


async def test_a_review_keeps_its_branch_whoever_names_branches_anew(domain: Domain) -> None:
    """Its commit goes on top of what the pull request's branch is at: on any other, nothing could be pushed."""
    job = a_review(domain)
    await domain.submissions.accept(job)
    claimed = await domain.claimed((await domain.admit())[0])
    await domain.running.fail(claimed.hold, ExitReason.MAX_TURNS, error="too many")

    renaming = Renaming(lambda branch: f"{branch}-retry", {"branch": "theirs-retry"})
    retried = await domain.retrying.retry(domain.client, job.id, WHOLE, key=None, body=b"{}", renaming=renaming)

    (row,) = await domain.rows("SELECT branch FROM runs WHERE job_id = $1", retried.job_id)
    assert row["branch"] == "theirs"


@pytest.mark.parametrize("resume", [False, True])
async def test_a_review_goes_on_with_its_pull_request_again(domain: Domain, resume: bool) -> None:
    job = a_review(domain)
    await domain.submissions.accept(job)
    claimed = await domain.claimed((await domain.admit())[0])
    await domain.running.prepared(claimed.hold, base_sha="b" * 40, base_branch="theirs", events=[])
    await domain.running.checkpoint(claimed.hold, Checkpoint([StoredMessage(1, "user", b"exact")], None))
    await domain.running.fail(claimed.hold, ExitReason.MAX_TURNS, error="too many")

    new_id = await domain.retry(job.id, resume=resume)

    assert (await domain.row("jobs", new_id))["queue"] == "review"
    (row,) = await domain.rows("SELECT * FROM runs WHERE job_id = $1", new_id)
    assert (row["queue"], row["branch"], row["base_branch"]) == ("review", "theirs", "main")
    assert (row["base_sha"] is not None) == resume

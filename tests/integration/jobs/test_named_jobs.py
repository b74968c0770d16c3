"""Jobs of one name: they share a branch, one at a time, and a pull request."""

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from services.contracts.words import ChangesetState, ExitReason
from services.jobs.tracking import Observed
from tests.integration.jobs.changes import (
    HOUR,
    claim,
    claimed,
    on_github,
    open_change,
    sha,
    show,
    store,
    tracked,
    updates,
)
from tests.integration.jobs.domain import REPOSITORY, Domain
from tests.integration.waiting import until_async

WAITING = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid)))"
OTHER = "https://forge.example/a/two.git"


def folder(path: str | None, **checkout: Any) -> dict[str, Any]:
    return {"url": REPOSITORY, "checkout": {"path": path, **checkout}}


async def branches(domain: Domain, job_id: UUID) -> list[str]:
    rows = await domain.rows("SELECT branch FROM runs WHERE job_id = $1 ORDER BY position", job_id)
    return [row["branch"] for row in rows]


async def fail_all(domain: Domain, job_id: UUID) -> None:
    for order in await domain.admit():
        assert order.job_id == job_id
        await domain.running.fail((await domain.claimed(order)).hold, ExitReason.STUCK, error="stuck")


# Branches


@pytest.mark.parametrize("on_existing", ["update", "skip"])
async def test_jobs_of_one_name_share_a_branch(domain: Domain, on_existing: str) -> None:
    jobs = [await domain.submit(REPOSITORY, OTHER, name="Bump", onExisting=on_existing) for _ in range(2)]

    first, second = [await branches(domain, job_id) for job_id in jobs]
    assert first == second
    assert first[0].startswith("quarterdeck/bump-")
    other_name = await domain.submit(name="Bump!", onExisting=on_existing)
    assert await branches(domain, other_name) != first[:1]


async def test_another_clients_jobs_of_the_name_have_another_branch(domain: Domain) -> None:
    other = await domain.new_client("other")
    mine, theirs = await domain.submit(name="Bump"), await domain.submit(name="Bump", client=other)

    assert await branches(domain, mine) != await branches(domain, theirs)


@pytest.mark.parametrize("fields", [{"onExisting": "separate"}, {"onExisting": "replace"}, {"publish": "none"}, {}])
async def test_what_shares_no_pull_request_has_branches_of_its_own(domain: Domain, fields: dict[str, Any]) -> None:
    name: dict[str, Any] = {"name": "Bump"} if fields else {}
    jobs = [await domain.submit(REPOSITORY, OTHER, **name, **fields) for _ in range(2)]

    found = [branch for job_id in jobs for branch in await branches(domain, job_id)]
    assert len(set(found)) == 4


async def test_a_repository_that_a_job_has_twice_has_two_branches(domain: Domain) -> None:
    jobs = [await domain.submit(REPOSITORY, REPOSITORY, OTHER, name="Bump") for _ in range(2)]

    first, second = [await branches(domain, job_id) for job_id in jobs]
    assert first == second
    assert first[0] != first[1]
    assert len(await domain.admit()) == 3


async def test_each_folder_of_a_repository_has_its_branch_whatever_else_a_job_has(domain: Domain) -> None:
    both = await domain.submit(name="Bump", repositories=[folder("a"), folder("b"), folder(None)])
    one = await domain.submit(name="Bump", repositories=[folder("b", lfs=True)])

    a, b, whole = await branches(domain, both)
    assert len({a, b, whole}) == 3
    assert await branches(domain, one) == [b]


@pytest.mark.parametrize("repositories", [[folder("a"), folder("b")], [folder(None), folder(None)]])
async def test_a_retry_of_some_runs_keeps_each_to_its_branch(
    domain: Domain, repositories: list[dict[str, Any]]
) -> None:
    """The second one has a changeset that failed: its branch may be out there, and it is still its name's."""
    job_id = await domain.submit(name="Bump", repositories=repositories)
    first, second = [await domain.claimed(order) for order in await domain.admit()]
    await domain.finish(first)
    await domain.running.prepared(second.hold, base_sha="b" * 40, base_branch="main", events=[])
    publication = await claimed(domain, await store(domain, second))
    await domain.publishing.failed(publication.hold, reason=ExitReason.PUSH_REJECTED, error="no")

    again = await domain.retry(job_id, only="failed")

    assert await branches(domain, again) == [second.branch]
    assert (await branches(domain, await domain.retry(job_id))) == [first.branch, second.branch]


async def test_a_retry_of_what_stored_nothing_keeps_the_branch(domain: Domain) -> None:
    job_id = await domain.submit(name="Bump", onExisting="replace")
    await fail_all(domain, job_id)

    assert await branches(domain, await domain.retry(job_id)) == await branches(domain, job_id)


async def test_one_job_of_a_name_is_on_the_branch_at_a_time(domain: Domain) -> None:
    first, second = await domain.submit(name="Bump"), await domain.submit(name="Bump")

    (order,) = await domain.admit()
    assert order.job_id == first
    run = await domain.claimed(order)
    await domain.running.prepared(run.hold, base_sha="b" * 40, base_branch="main", events=[])
    changeset_id = await store(domain, run)
    await domain.admitting.release_held()
    assert await domain.admit() == []

    await show(domain, await claimed(domain, changeset_id), on_github(1))
    await domain.admitting.release_held()
    (order,) = await domain.admit()
    assert order.job_id == second


# Updating


async def test_an_update_takes_the_place_of_what_is_open_on_its_branch(domain: Domain) -> None:
    old = await open_change(domain, 1, name="Bump", commit_sha=sha("1"))
    new = await open_change(domain, 1, name="Bump", commit_sha=sha("2"))

    was, now = await domain.row("changesets", old), await domain.row("changesets", new)
    assert (was["state"], was["superseded_by"], was["observe_at"]) == ("closed", new, None)
    assert was["closed_at"] is not None
    assert (now["state"], now["superseded_by"], now["branch"]) == ("open", None, was["branch"])
    (told,) = await updates(domain, old)
    assert (told["changesetId"], told["state"], told["supersededBy"]) == (str(old), "closed", str(new))
    (event,) = [e for e in await domain.events(was["job_id"]) if e.kind.value == "changeset.updated"]
    assert (event.run_id, event.attempt) == (was["run_id"], 1)
    assert await updates(domain, new) == []
    assert [run["state"] for run in await domain.rows("SELECT state FROM runs")] == ["completed"] * 2


async def test_an_update_takes_nobody_elses_place(domain: Domain) -> None:
    other = await domain.new_client("other")
    kept = [
        await open_change(domain, 1, name="Bump", client=other),
        await open_change(domain, 2, OTHER, name="Bump"),
        await open_change(domain, 3, name="Another"),
        await open_change(domain, 4),
        await open_change(domain, 5, name="Bump", onExisting="separate"),
        await open_change(domain, 6, name="Bump", repositories=[folder("a")]),
    ]
    run = await domain.start(name="Bump")
    changeset_id = await store(domain, run)
    # Even on a branch of the same name, another client's and another repository's are nobody else's business.
    await domain.execute("UPDATE changesets SET branch = $1 WHERE id = ANY($2)", run.branch, kept[:2])
    publication = await claimed(domain, changeset_id)
    assert (publication.expected_remote_sha, publication.also_ours) == ("", [])
    await show(domain, publication, on_github(7))

    assert {(await domain.row("changesets", each))["state"] for each in kept} == {"open"}
    assert [await updates(domain, each) for each in kept] == [[]] * len(kept)


async def test_what_was_closed_on_the_branch_does_not_come_back_beside_its_successor(domain: Domain) -> None:
    old = await open_change(domain, 1, name="Bump")
    change = await tracked(domain, old)
    await domain.tracking.record(change, Observed(ChangesetState.CLOSED), again=HOUR)
    new = await open_change(domain, 2, name="Bump")

    await domain.tracking.record(change, Observed(ChangesetState.OPEN), again=HOUR)

    was = await domain.row("changesets", old)
    assert (was["state"], was["superseded_by"]) == ("closed", new)
    assert (await domain.row("changesets", new))["state"] == "open"


async def test_what_was_merged_stays_merged_when_the_next_one_opens(domain: Domain) -> None:
    old = await open_change(domain, 1, name="Bump")
    await domain.tracking.record(await tracked(domain, old), Observed(ChangesetState.MERGED), again=HOUR)
    await open_change(domain, 2, name="Bump")

    was = await domain.row("changesets", old)
    assert (was["state"], was["superseded_by"]) == ("merged", None)
    assert [told["state"] for told in await updates(domain, old)] == ["merged"]


async def test_what_is_merged_at_that_moment_is_not_told_to_be_closed(domain: Domain, domain_database_url: str) -> None:
    old = await open_change(domain, 1, name="Bump")
    publication = await claimed(domain, await store(domain, await domain.start(name="Bump")))
    merging = await asyncpg.connect(domain_database_url)
    try:
        async with merging.transaction():
            await merging.execute("UPDATE changesets SET state = 'merged', closed_at = now() WHERE id = $1", old)
            showing = asyncio.create_task(show(domain, publication, on_github(2)))
            await until_async(lambda: merging.fetchval(WAITING))
        await showing
    finally:
        await merging.close()

    was = await domain.row("changesets", old)
    assert (was["state"], was["superseded_by"]) == ("merged", None)
    assert await updates(domain, old) == []


# What is on the branch already


async def test_a_claim_knows_what_we_may_have_pushed_to_the_branch(domain: Domain) -> None:
    first = await claimed(domain, await store(domain, await domain.start(name="Bump"), commit_sha=sha("1")))
    assert (first.expected_remote_sha, first.also_ours) == ("", [])
    await domain.publishing.failed(first.hold, reason=ExitReason.FORGE_REJECTED, error="no")
    await open_change(domain, 2, name="Bump", client=await domain.new_client("other"), commit_sha=sha("9"))
    await open_change(domain, 3, OTHER, name="Bump", commit_sha=sha("8"))

    second = await claimed(domain, await store(domain, await domain.start(name="Bump"), commit_sha=sha("2")))
    assert (second.expected_remote_sha, second.also_ours) == (sha("1"), [sha("1")])
    await show(domain, second, on_github(4))

    third = await claimed(domain, await store(domain, await domain.start(name="Bump"), commit_sha=sha("3")))
    assert (third.expected_remote_sha, third.also_ours) == (sha("2"), [sha("2"), sha("1")])


async def test_a_claim_knows_what_was_pushed_before_the_forge_wanted_a_wait(domain: Domain) -> None:
    """Pushed, then postponed, which counts as no try, then cancelled."""
    run = await domain.start(name="Bump")
    publication = await claimed(domain, await store(domain, run, commit_sha=sha("1")))
    await domain.publishing.postpone(publication.hold, error="rate limit", delay=HOUR)
    await domain.cancelling.request_run(domain.client, run.hold.run_id)
    assert await domain.cancelling.cancel_idle(await domain.cancelling.waiting()) == 1

    again = await claimed(domain, await store(domain, await domain.start(name="Bump"), commit_sha=sha("2")))
    assert again.also_ours == [sha("1")]


async def test_one_changeset_at_a_time_is_pushed_to_a_branch(domain: Domain) -> None:
    """Two that failed are asked for again, and both are due at once: whoever comes second supersedes the first."""
    ids = []
    for digit in "12":
        publication = await claimed(domain, await store(domain, await domain.start(name="Bump"), commit_sha=sha(digit)))
        await domain.publishing.failed(publication.hold, reason=ExitReason.PUSH_REJECTED, error="no")
        ids.append(publication.hold.changeset_id)
    for changeset_id in ids:
        await domain.publishing.request(domain.client, changeset_id, None)

    first = await claimed(domain, ids[0])
    assert await claim(domain, ids[1]) is None
    await show(domain, first, on_github(1))
    second = await claimed(domain, ids[1])
    await show(domain, second, on_github(1))

    rows = [await domain.row("changesets", each) for each in ids]
    assert [row["state"] for row in rows] == ["closed", "open"]
    assert rows[0]["superseded_by"] == ids[1]

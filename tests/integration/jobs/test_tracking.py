"""Which changesets a forge is asked about, what it said, and what a webhook wakes."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.contracts.words import ChangesetState, Checks, Mergeable, Publish, Review
from services.jobs.errors import NotFoundError
from services.jobs.tracking import Observed, TrackedChange
from tests.integration.jobs.changes import HOUR, claimed, open_change, sha, store, tracked, updates
from tests.integration.jobs.domain import Domain

OPEN = Observed(ChangesetState.OPEN, head_sha=sha("c"))
CLOSED, MERGED = Observed(ChangesetState.CLOSED), Observed(ChangesetState.MERGED, merge_sha=sha("d"))


async def many_open(domain: Domain, count: int) -> list[UUID]:
    """So many changesets, due to be asked about one after the other, the last one first."""
    ids = [await open_change(domain, number) for number in range(1, count + 1)]
    for number, changeset_id in enumerate(ids):
        statement = "UPDATE changesets SET observe_at = now() - $1 * interval '1 minute' WHERE id = $2"
        await domain.execute(statement, number, changeset_id)
    return ids


async def record(domain: Domain, changeset_id: UUID, observed: Observed) -> None:
    await domain.tracking.record(await tracked(domain, changeset_id), observed, again=HOUR)


async def seconds_until_look(domain: Domain, changeset_id: UUID) -> float | None:
    statement = "SELECT extract(epoch FROM observe_at - now())::float8 AS left FROM changesets WHERE id = $1"
    (row,) = await domain.rows(statement, changeset_id)
    left: float | None = row["left"]
    return left


async def due(domain: Domain) -> list[UUID]:
    return [change.id for change in await domain.tracking.take_due(most=100, again=HOUR)]


# Who is asked about what


async def test_a_look_has_all_that_a_forge_is_asked_with(domain: Domain) -> None:
    (changeset_id,) = await many_open(domain, 1)
    row = await domain.row("changesets", changeset_id)

    (change,) = await domain.tracking.take_due(most=1, again=HOUR)

    assert change == TrackedChange(
        id=changeset_id,
        job_id=row["job_id"],
        repository=row["repository"],
        branch=row["branch"],
        base_branch="main",
        commit_sha=row["commit_sha"],
        forge="github",
        number=1,
        url=row["url"],
        state=ChangesetState.OPEN,
        close_comment=None,
        deletes_branch=False,
        published_at=row["published_at"],
    )
    assert await tracked(domain, changeset_id) == change


async def test_the_oldest_are_taken_first_and_no_more_than_asked_for(domain: Domain) -> None:
    ids = await many_open(domain, 5)

    taken = [{change.id for change in await domain.tracking.take_due(most=2, again=HOUR)} for _ in range(4)]

    assert taken == [{ids[4], ids[3]}, {ids[2], ids[1]}, {ids[0]}, set()]


async def test_each_is_taken_by_one_of_many(domain: Domain) -> None:
    ids = await many_open(domain, 12)

    looks = await asyncio.gather(*(domain.tracking.take_due(most=3, again=HOUR) for _ in range(10)))
    # Who looks while others are at it may find less than there is; nothing is left for ever.
    rest = await domain.tracking.take_due(most=100, again=HOUR)

    taken = [change.id for look in [*looks, rest] for change in look]
    assert sorted(taken) == sorted(ids)
    assert all(len(look) <= 3 for look in looks)


async def test_what_nobody_recorded_is_due_again(domain: Domain) -> None:
    (changeset_id,) = await many_open(domain, 1)
    assert len(await domain.tracking.take_due(most=1, again=timedelta())) == 1
    assert await due(domain) == [changeset_id]
    assert await due(domain) == []


async def test_it_is_not_asked_about_before_its_delay_is_over(domain: Domain) -> None:
    (changeset_id,) = await many_open(domain, 1)

    await domain.tracking.defer(changeset_id, HOUR)
    assert await due(domain) == []
    await domain.tracking.defer(changeset_id, timedelta())
    assert await due(domain) == [changeset_id]

    await record(domain, changeset_id, MERGED)
    await domain.tracking.defer(changeset_id, timedelta())
    assert await due(domain) == []


async def test_what_no_forge_shows_is_not_found(domain: Domain) -> None:
    stored = await store(domain, await domain.start(), publish=Publish.NONE)
    pushing = (await domain.push()).hold.changeset_id

    for changeset_id in (uuid4(), stored, pushing):
        with pytest.raises(NotFoundError, match=str(changeset_id)):
            await tracked(domain, changeset_id)


# What is said


async def test_it_is_told_only_where_something_differs(domain: Domain) -> None:
    (changeset_id,) = await many_open(domain, 1)
    assert await due(domain) == [changeset_id]
    said = OPEN
    for news in (
        {},
        {"checks": Checks.PENDING},
        {"head_sha": sha("e")},
        {"checks": Checks.FAILING},
        {"review": Review.CHANGES_REQUESTED},
        {"mergeable": Mergeable.NO},
        {"is_draft": True},
    ):
        said = replace(said, **news)
        for _ in range(2):
            await record(domain, changeset_id, said)

    told = await updates(domain, changeset_id)
    assert [(each["checks"], each["review"], each["mergeable"]) for each in told] == [
        ("pending", "none", "unknown"),
        ("failing", "none", "unknown"),
        ("failing", "changes_requested", "unknown"),
        ("failing", "changes_requested", "no"),
        ("failing", "changes_requested", "no"),
    ]
    read = await domain.reading.changeset(domain.client, changeset_id)
    assert (read.checks, read.review, read.mergeable, read.is_draft) == ("failing", "changes_requested", "no", True)
    assert (read.head_sha, read.state, read.closed_at) == (sha("e"), "open", None)
    assert read.observed_at is not None
    assert await seconds_until_look(domain, changeset_id) == pytest.approx(HOUR.total_seconds(), abs=60)


@pytest.mark.parametrize("observed", [MERGED, CLOSED])
async def test_it_closes_and_is_asked_about_no_more(domain: Domain, observed: Observed) -> None:
    (changeset_id,) = await many_open(domain, 1)
    assert await due(domain) == [changeset_id]
    before = await domain.row("jobs", (await domain.row("changesets", changeset_id))["job_id"])

    await record(domain, changeset_id, observed)

    row = await domain.row("changesets", changeset_id)
    assert (row["state"], row["observe_at"], row["merge_sha"]) == (observed.state, None, observed.merge_sha or None)
    assert row["closed_at"] is not None
    assert row["url"] == "https://forge.example/a/one/pull/1"
    assert [told["state"] for told in await updates(domain, changeset_id)] == [observed.state]
    job = await domain.row("jobs", before["id"])
    assert (job["state"], job["finished_at"]) == ("completed", before["finished_at"])
    await record(domain, changeset_id, observed)
    assert (await domain.row("changesets", changeset_id))["closed_at"] == row["closed_at"]
    assert len(await updates(domain, changeset_id)) == 1


async def test_what_was_closed_may_be_opened_again(domain: Domain) -> None:
    (changeset_id,) = await many_open(domain, 1)
    await domain.execute("UPDATE changesets SET close_comment = 'stale', deletes_branch = true")
    assert await due(domain) == [changeset_id]
    await record(domain, changeset_id, CLOSED)
    await record(domain, changeset_id, OPEN)

    row = await domain.row("changesets", changeset_id)
    assert (row["state"], row["closed_at"], row["close_comment"]) == ("open", None, None)
    assert await seconds_until_look(domain, changeset_id) == pytest.approx(HOUR.total_seconds(), abs=60)
    assert [told["state"] for told in await updates(domain, changeset_id)] == ["closed", "open"]


async def test_what_was_merged_stays_so_whatever_a_late_answer_says(domain: Domain) -> None:
    (changeset_id,) = await many_open(domain, 1)
    await record(domain, changeset_id, MERGED)
    before = await domain.row("changesets", changeset_id)

    for late in (OPEN, CLOSED):
        await domain.tracking.record(await tracked(domain, changeset_id), late, again=HOUR)

    assert await domain.row("changesets", changeset_id) == before
    assert len(await updates(domain, changeset_id)) == 1


async def test_one_that_another_took_the_place_of_is_left_alone(domain: Domain) -> None:
    old = await open_change(domain, 1, name="Bump")
    change = await tracked(domain, old)
    await open_change(domain, 1, name="Bump")
    before = await domain.row("changesets", old)

    for observed in (OPEN, MERGED, CLOSED):
        await domain.tracking.record(change, observed, again=HOUR)

    assert await domain.row("changesets", old) == before
    assert len(await updates(domain, old)) == 1


async def test_what_is_to_be_closed_keeps_its_comment_until_it_is(domain: Domain) -> None:
    (changeset_id,) = await many_open(domain, 1)
    await domain.execute("UPDATE changesets SET close_comment = 'stale', deletes_branch = true")
    await record(domain, changeset_id, OPEN)
    assert (await tracked(domain, changeset_id)).close_comment == "stale"
    await record(domain, changeset_id, CLOSED)
    assert (await tracked(domain, changeset_id)).close_comment is None


async def test_what_another_is_to_be_shown_on_is_not_closed_under_it(domain: Domain) -> None:
    stale = await open_change(domain, 1, name="Bump")
    await domain.running.retire_earlier((await domain.start(name="Bump")).hold, comment="stale")
    await domain.execute(
        "UPDATE runs SET state = 'completed', outcome = 'no_changes', finished_at = now(),"
        " lease_token = NULL WHERE state = 'running'"
    )
    changeset_id = await store(domain, await domain.start(name="Bump"), commit_sha=sha("e"))

    comments = []
    for _ in range(2):
        await domain.execute("UPDATE changesets SET observe_at = now() WHERE id = $1", stale)
        comments += [change.close_comment for change in await domain.tracking.take_due(most=9, again=HOUR)]
        await domain.execute("UPDATE changesets SET state = 'failed' WHERE id = $1", changeset_id)
    assert comments == [None, "stale"], "where that one fails after all, the stale one goes"


async def test_what_is_not_published_records_nothing(domain: Domain) -> None:
    change = await tracked(domain, await open_change(domain, 1))
    pushing = (await claimed(domain, await store(domain, await domain.start()))).hold.changeset_id
    before = await domain.fingerprint()

    for identifier in (pushing, uuid4()):
        await domain.tracking.record(replace(change, id=identifier), MERGED, again=HOUR)

    assert await domain.fingerprint() == before


# What wakes it

# Spelt in two ways, for one repository each.
REPOSITORIES = {
    "owner/name": ["https://forge.example/Owner/name.git", "git@forge.example:owner/Name"],
    "owner2/name": ["https://forge.example/owner2/name"],
    "2owner/name": ["https://forge.example/2owner/name/"],
    "owner/name2": ["ssh://git@forge.example/owner/name2.git"],
    "owner/na_me": ["git@forge.example:owner/na_me.git"],
    "owner/naxme": ["https://forge.example/owner/naxme.git"],
    "owner/%": ["https://forge.example/owner/%.git"],
}


async def every_repository(domain: Domain) -> dict[UUID, str]:
    """An open pull request 7 in each, asked about already: changeset → its repository's name."""
    found = {}
    for name, spellings in REPOSITORIES.items():
        for address in spellings:
            changeset_id = await open_change(domain, 7, address, commit_sha=sha("7"))
            await domain.execute("UPDATE changesets SET branch = 'b' WHERE id = $1", changeset_id)
            found[changeset_id] = name
    return found


async def wake(domain: Domain, repository: str, *, forge: str = "github", **by: Any) -> int:
    return await domain.tracking.wake(
        forge, repository, numbers=by.get("numbers", []), branches=by.get("branches", []), shas=by.get("shas", [])
    )


@pytest.mark.parametrize("by", [{"numbers": [3, 7]}, {"branches": ["b"]}, {"shas": [sha("7")]}])
async def test_only_the_very_repository_is_woken(domain: Domain, by: dict[str, Any]) -> None:
    found = await every_repository(domain)
    for name, spellings in REPOSITORIES.items():
        assert await wake(domain, name.upper(), **by) == len(spellings), name
        assert [found[changeset_id] for changeset_id in await due(domain)] == [name] * len(spellings)


async def test_other_numbers_branches_commits_and_forges_are_not_woken(domain: Domain) -> None:
    await open_change(domain, 7, "https://forge.example/owner/name.git", commit_sha=sha("7"))
    others: list[dict[str, Any]] = [{"numbers": [8, 77]}, {"branches": ["c"]}, {"shas": [sha("8")]}, {}]
    for by in others:
        assert await wake(domain, "owner/name", **by) == 0
    assert await wake(domain, "owner/name", forge="local", numbers=[7]) == 0
    assert await due(domain) == []


async def test_what_is_closed_wakes_and_what_is_over_does_not(domain: Domain) -> None:
    ids = [await open_change(domain, number, name=f"Job {number}") for number in (1, 2, 3)]
    await record(domain, ids[0], CLOSED)
    await record(domain, ids[1], MERGED)
    await open_change(domain, 4, name="Job 3")
    await seen(domain, ids[0], timedelta(minutes=1))

    assert await wake(domain, "a/one", numbers=[1, 2, 3]) == 1
    assert await due(domain) == ids[:1]
    await record(domain, ids[0], OPEN)
    assert (await domain.row("changesets", ids[0]))["state"] == "open"


async def test_what_is_due_already_is_not_put_off_by_waking(domain: Domain) -> None:
    ids = await many_open(domain, 2)
    before = await domain.row("changesets", ids[1])

    await wake(domain, "a/one", numbers=[2])

    assert await domain.row("changesets", ids[1]) == before


@pytest.mark.parametrize("observed", [OPEN, CLOSED])
async def test_a_webhook_that_comes_while_the_forge_is_asked_is_not_lost(domain: Domain, observed: Observed) -> None:
    (changeset_id,) = await many_open(domain, 1)
    (change,) = await domain.tracking.take_due(most=1, again=HOUR)

    assert await wake(domain, "a/one", numbers=[1]) == 1
    await domain.tracking.record(change, observed, again=HOUR)

    assert await due(domain) == [changeset_id]


async def seen(domain: Domain, changeset_id: UUID, ago: timedelta) -> None:
    await domain.execute("UPDATE changesets SET observed_at = now() - $1::interval WHERE id = $2", ago, changeset_id)


async def test_many_webhooks_in_a_row_are_few_looks(domain: Domain) -> None:
    (changeset_id,) = await many_open(domain, 1)
    (change,) = await domain.tracking.take_due(most=1, again=HOUR)
    await domain.tracking.record(change, OPEN, again=HOUR)

    assert await wake(domain, "a/one", numbers=[1]) == 1
    woken = await domain.row("changesets", changeset_id)
    assert woken["observe_at"] == woken["observed_at"] + timedelta(seconds=5)
    assert await wake(domain, "a/one", numbers=[1]) == 0

    # Whoever records meanwhile does not put it off.
    await domain.tracking.record(change, OPEN, again=HOUR)
    assert (await domain.row("changesets", changeset_id))["observe_at"] == woken["observe_at"]
    await seen(domain, changeset_id, timedelta(minutes=1))
    assert await wake(domain, "a/one", numbers=[1]) == 1
    assert await due(domain) == [changeset_id]


@pytest.mark.parametrize(
    ("age", "until"),
    [
        (timedelta(), timedelta(minutes=1)),
        (timedelta(hours=2), timedelta(minutes=6)),
        (timedelta(days=30), timedelta(minutes=15)),
    ],
)
async def test_the_older_it_is_the_less_often_it_is_asked_about(
    domain: Domain, age: timedelta, until: timedelta
) -> None:
    (changeset_id,) = await many_open(domain, 1)
    await domain.execute("UPDATE changesets SET published_at = now() - $1::interval", age)
    (change,) = await domain.tracking.take_due(most=1, again=HOUR)

    await domain.tracking.record(change, OPEN, again=timedelta(minutes=1))

    row = await domain.row("changesets", changeset_id)
    assert row["observe_at"] - row["observed_at"] == pytest.approx(until, abs=timedelta(seconds=10))


async def test_the_more_are_open_the_less_often_each_is_asked_about(domain: Domain) -> None:
    ids = await many_open(domain, 12)
    change = next(change for change in await domain.tracking.take_due(most=99, again=HOUR) if change.id == ids[0])

    await domain.tracking.record(change, OPEN, again=timedelta(seconds=1))

    row = await domain.row("changesets", ids[0])
    assert row["observe_at"] - row["observed_at"] == timedelta(seconds=6)

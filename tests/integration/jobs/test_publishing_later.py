"""What was only stored, or failed to be published, is published later: the changeset moves, its run never does."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.contracts.words import ChangesetState, ExitReason, Publish
from services.jobs.errors import NotFoundError, NotPublishableError
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

LONG = timedelta(seconds=10)


async def stored(domain: Domain, **fields: Any) -> UUID:
    return await store(domain, await domain.start(**({"publish": "none"} | fields)), publish=Publish.NONE)


async def failed(domain: Domain, **fields: Any) -> UUID:
    publication = await claimed(domain, await store(domain, await domain.start(**fields)))
    await domain.publishing.failed(publication.hold, reason=ExitReason.PUSH_REJECTED, error="no")
    return publication.hold.changeset_id


async def request(domain: Domain, changeset_id: UUID, publish: Publish | None = None) -> None:
    await domain.publishing.request(domain.client, changeset_id, publish)


async def run_of(domain: Domain, changeset_id: UUID) -> tuple[dict[str, Any], dict[str, Any]]:
    """All of the changeset's run, and what its job says, but for the number of its last event."""
    changeset = await domain.row("changesets", changeset_id)
    run, job = await domain.row("runs", changeset["run_id"]), await domain.row("jobs", changeset["job_id"])
    return dict(run), {key: value for key, value in dict(job).items() if key != "last_event_number"}


@pytest.mark.parametrize("make", [stored, failed])
async def test_it_is_queued_claimed_and_opened_and_its_run_stays_as_it_was(domain: Domain, make: Any) -> None:
    changeset_id = await make(domain)
    before = await run_of(domain, changeset_id)
    told = len(await domain.events(before[1]["id"]))

    await request(domain, changeset_id)
    row = await domain.row("changesets", changeset_id)
    assert (row["state"], row["error"], row["attempts"], row["published_at"]) == ("queued", None, 0, None)

    (due,) = await domain.publishing.due(overdue=LONG)
    publication = await domain.publishing.claim(due.changeset_id, due.run_id, dispatch=due.dispatch, holder="vcs-1")
    assert publication is not None
    assert (publication.tries, publication.publish) == (1, Publish.PULL_REQUEST)
    assert await domain.publishing.due(overdue=timedelta()) == []

    await show(domain, publication, on_github(1))
    row = await domain.row("changesets", changeset_id)
    assert (row["state"], row["url"], row["number"], row["forge"]) == ("open", on_github(1).url, 1, "github")
    assert await run_of(domain, changeset_id) == before
    events = (await domain.events(before[1]["id"]))[told:]
    assert [event.kind.value for event in events] == ["changeset.updated", "changeset.pushed"]
    assert {(event.run_id, event.attempt) for event in events} == {(before[0]["id"], 1)}
    assert await domain.rows("SELECT FROM leases") == []


async def test_a_later_publication_that_fails_leaves_the_run_as_it_was(domain: Domain) -> None:
    changeset_id = await stored(domain)
    before = await run_of(domain, changeset_id)
    await request(domain, changeset_id)

    publication = await claimed(domain, changeset_id)
    await domain.publishing.failed(publication.hold, reason=ExitReason.FORGE_REJECTED, error="no")

    row = await domain.row("changesets", changeset_id)
    assert (row["state"], row["error"]) == ("failed", "no")
    assert await run_of(domain, changeset_id) == before
    await request(domain, changeset_id)
    await show(domain, await claimed(domain, changeset_id), on_github(1))
    assert (await domain.row("changesets", changeset_id))["state"] == "open"


@pytest.mark.usefixtures("postgres_is_up_long")
async def test_a_later_publication_that_is_lost_is_claimed_again(domain: Domain) -> None:
    changeset_id = await stored(domain)
    before = await run_of(domain, changeset_id)
    await request(domain, changeset_id)
    await claimed(domain, changeset_id)
    await domain.expire(changeset_id)

    assert await domain.publishing.lose_expired() == 1
    again = await claimed(domain, changeset_id)
    assert again.tries == 2
    await show(domain, again, on_github(1))
    assert await run_of(domain, changeset_id) == before


async def test_twice_is_once(domain: Domain) -> None:
    changeset_id = await stored(domain)

    await asyncio.gather(*(request(domain, changeset_id) for _ in range(5)))
    assert len(await updates(domain, changeset_id)) == 1
    (due,) = await domain.publishing.due(overdue=LONG)
    await request(domain, changeset_id, Publish.BRANCH)

    assert (await domain.row("changesets", changeset_id))["publish"] == "pull_request"
    publication = await domain.publishing.claim(due.changeset_id, due.run_id, dispatch=due.dispatch, holder="vcs-1")
    assert publication is not None
    await request(domain, changeset_id)
    assert (await domain.row("changesets", changeset_id))["state"] == "pushing"
    assert len(await updates(domain, changeset_id)) == 1


@pytest.mark.parametrize(
    ("asked", "wanted", "published", "is_draft"),
    [
        ("none", None, "pull_request", False),
        ("none", Publish.DRAFT, "draft", True),
        ("none", Publish.BRANCH, "branch", False),
        ("draft", None, "draft", True),
        ("branch", None, "branch", False),
        ("draft", Publish.PULL_REQUEST, "pull_request", False),
    ],
)
async def test_it_is_published_as_is_asked_now_or_was_by_its_job(
    domain: Domain, asked: str, wanted: Publish | None, published: str, is_draft: bool
) -> None:
    changeset_id = await stored(domain, publish=asked)

    await request(domain, changeset_id, wanted)

    publication = await claimed(domain, changeset_id)
    read = await domain.reading.changeset(domain.client, changeset_id)
    assert (publication.publish, read.publish.value, read.is_draft) == (published, published, is_draft)


async def test_what_is_open_is_refused_with_its_address(domain: Domain) -> None:
    changeset_id = await open_change(domain, 1)
    with pytest.raises(NotPublishableError, match=on_github(1).url):
        await request(domain, changeset_id)

    for state in (ChangesetState.CLOSED, ChangesetState.MERGED):
        await domain.tracking.record(await tracked(domain, changeset_id), Observed(state), again=HOUR)
        with pytest.raises(NotPublishableError, match=f"{state} already"):
            await request(domain, changeset_id)


async def test_what_was_cancelled_is_refused_from_the_moment_it_is_asked_for(domain: Domain) -> None:
    run, changeset_id = await domain.hand_over()
    await domain.cancelling.request_run(domain.client, run.hold.run_id)

    with pytest.raises(NotPublishableError, match="was cancelled"):
        await request(domain, changeset_id)
    await domain.cancelling.cancel_idle(await domain.cancelling.waiting())
    assert (await domain.row("changesets", changeset_id))["state"] == "stored"
    with pytest.raises(NotPublishableError, match="was cancelled"):
        await request(domain, changeset_id)
    assert await domain.publishing.due(overdue=timedelta()) == []


async def test_a_run_that_has_not_ended_is_refused(domain: Domain) -> None:
    _, changeset_id = await domain.hand_over()
    await domain.execute("UPDATE changesets SET state = 'stored'")

    with pytest.raises(NotPublishableError, match="publishing"):
        await request(domain, changeset_id)


async def test_what_is_unknown_or_anothers_is_not_found(domain: Domain) -> None:
    changeset_id = await stored(domain)
    other = await domain.new_client("other")

    for client, identifier in ((domain.client, uuid4()), (other, changeset_id)):
        with pytest.raises(NotFoundError, match=f"no changeset {identifier}"):
            await domain.publishing.request(client, identifier, None)
    assert (await domain.row("changesets", changeset_id))["state"] == "stored"


async def test_it_updates_what_a_job_of_its_name_has_open(domain: Domain) -> None:
    old = await open_change(domain, 1, name="Bump", commit_sha=sha("1"))
    changeset_id = await stored(domain, name="Bump")
    was = await domain.row("changesets", old)
    assert (await domain.row("changesets", changeset_id))["branch"] != was["branch"]

    await request(domain, changeset_id)

    publication = await claimed(domain, changeset_id)
    assert (publication.branch, publication.also_ours) == (was["branch"], [sha("1")])
    await show(domain, publication, on_github(1))
    assert (await domain.row("changesets", old))["superseded_by"] == changeset_id


@pytest.mark.parametrize(
    "fields",
    [{"name": "Another"}, {"name": None}, {"onExisting": "separate"}, {"onExisting": "replace"}, {"other": True}],
)
async def test_it_borrows_nobody_elses_branch(domain: Domain, fields: dict[str, Any]) -> None:
    other = await domain.new_client("other")
    await open_change(domain, 1, name="Bump", client=other if fields.pop("other", False) else domain.client)
    changeset_id = await stored(domain, **({"name": "Bump"} | fields))
    branch = (await domain.row("changesets", changeset_id))["branch"]

    await request(domain, changeset_id)

    assert (await domain.row("changesets", changeset_id))["branch"] == branch


@pytest.mark.parametrize("differs", ["path", "base"])
async def test_it_borrows_no_branch_of_another_folder_or_base(domain: Domain, differs: str) -> None:
    checkout = {"path": "a"} if differs == "path" else {}
    await open_change(domain, 1, name="Bump", repositories=[{"url": REPOSITORY, "checkout": checkout}])
    if differs == "base":
        await domain.execute("UPDATE changesets SET base_branch = 'v1'")
    changeset_id = await stored(domain, name="Bump")
    branch = (await domain.row("changesets", changeset_id))["branch"]

    await request(domain, changeset_id)

    assert (await domain.row("changesets", changeset_id))["branch"] == branch


async def test_what_replaces_has_the_older_one_closed_and_no_newer_one(domain: Domain) -> None:
    older = await open_change(domain, 1, name="Bump", onExisting="replace")
    changeset_id = await stored(domain, name="Bump", onExisting="replace")
    newer = await open_change(domain, 2, name="Bump", onExisting="separate")

    await request(domain, changeset_id)
    await show(domain, await claimed(domain, changeset_id), on_github(3))

    rows = [await domain.row("changesets", each) for each in (older, newer)]
    assert [row["superseded_by"] for row in rows] == [changeset_id, None]


async def test_what_the_forge_makes_wait_counts_as_no_try(domain: Domain) -> None:
    publication = await domain.push()
    changeset_id = publication.hold.changeset_id
    for write, tries in (
        (domain.publishing.postpone, 1),
        (domain.publishing.retry, 2),
        (domain.publishing.postpone, 2),
    ):
        await write(publication.hold, error="not now", delay=HOUR)
        row = await domain.row("changesets", changeset_id)
        assert (row["state"], row["error"]) == ("queued", "not now")
        assert await claim(domain, changeset_id) is None, "an order that came twice did not wait"
        await domain.execute("UPDATE changesets SET not_before = now()")
        publication = await claimed(domain, changeset_id)
        assert publication.tries == tries

"""What a named job replaces, leaves alone, or closes as stale, of what is open; and what it must not touch."""

from typing import Any

import pytest

from services.contracts.words import ChangesetState, Outcome
from services.jobs.errors import LeaseLostError
from services.jobs.tracking import Observed
from tests.integration.jobs.changes import (
    HOUR,
    on_github,
    open_change,
    publish,
    tracked,
    updates,
)
from tests.integration.jobs.domain import REPOSITORY, Domain

OTHER = "https://forge.example/a/two.git"
COMMENT = "Nothing is left to change."


def folder(path: str | None, **checkout: Any) -> dict[str, Any]:
    return {"url": REPOSITORY, "checkout": {"path": path, **checkout}}


# Replacing


async def test_a_replacement_has_the_older_one_closed(domain: Domain) -> None:
    old = await open_change(domain, 1, name="Bump", onExisting="replace")
    new = await open_change(domain, 2, name="Bump", onExisting="replace")

    was, now = await domain.row("changesets", old), await domain.row("changesets", new)
    assert was["branch"] != now["branch"]
    assert (was["state"], was["superseded_by"], was["deletes_branch"]) == ("open", new, True)
    assert was["close_comment"] == f"Replaced by {now['url']}."
    due = await domain.tracking.take_due(most=9, again=HOUR)
    assert [(change.id, change.close_comment, change.deletes_branch) for change in due] == [
        (old, was["close_comment"], True)
    ]
    await domain.tracking.record(due[0], Observed(ChangesetState.CLOSED), again=HOUR)
    (told,) = await updates(domain, old)
    assert (told["state"], told["supersededBy"]) == ("closed", str(new))
    assert await domain.tracking.take_due(most=9, again=HOUR) == []


async def test_a_replacement_closes_nobody_elses(domain: Domain) -> None:
    other = await domain.new_client("other")
    kept = [
        await open_change(domain, 1, name="Bump", client=other),
        await open_change(domain, 2, OTHER, name="Bump"),
        await open_change(domain, 3, name="Another"),
        await open_change(domain, 4),
        await open_change(domain, 5, name="Bump", repositories=[folder("a")]),
    ]
    older = [await open_change(domain, 6 + n, name="Bump", onExisting="separate") for n in range(2)]

    new = await open_change(domain, 8, name="Bump", onExisting="replace", repositories=[folder(None, lfs=True)])

    rows = {row["id"]: row for row in await domain.rows("SELECT * FROM changesets")}
    assert [rows[each]["close_comment"] for each in kept] == [None] * len(kept)
    assert [rows[each]["superseded_by"] for each in older] == [new] * 2


async def test_a_replacement_of_one_base_leaves_anothers_alone(domain: Domain) -> None:
    repositories = [{"url": REPOSITORY, "baseRef": "main"}, {"url": REPOSITORY, "baseRef": "v1"}]
    olds = []
    job_id = await domain.submit(name="Bump", onExisting="replace", repositories=repositories)
    for number, order in enumerate(await domain.admit(), 1):
        run = await domain.claimed(order)
        await domain.running.prepared(run.hold, base_sha="b" * 40, base_branch=run.base_ref, events=[])
        olds.append(await publish(domain, run, number))
    assert (await domain.row("jobs", job_id))["state"] == "completed"

    new = await open_change(domain, 3, name="Bump", onExisting="replace", repositories=repositories[:1])

    rows = [await domain.row("changesets", old) for old in olds]
    assert [row["superseded_by"] for row in rows] == [new, None]


# Leaving alone


async def skipped_for(domain: Domain, **fields: Any) -> str | None:
    run = await domain.start(**({"name": "Bump", "onExisting": "skip"} | fields))
    await domain.running.complete(run.hold, Outcome.SKIPPED if run.skipped_for else Outcome.NO_CHANGES, summary="")
    return run.skipped_for


async def test_a_run_is_skipped_while_another_jobs_change_is_open(domain: Domain) -> None:
    assert await skipped_for(domain) is None
    changeset_id = await open_change(domain, 1, name="Bump", onExisting="skip")

    assert await skipped_for(domain) == on_github(1).url
    assert (await domain.rows("SELECT outcome FROM runs ORDER BY id DESC LIMIT 1"))[0]["outcome"] == "skipped"
    for fields in (
        {"name": "Another"},
        {"name": None},
        {"client": await domain.new_client("other")},
        {"repositories": [{"url": OTHER}]},
        {"repositories": [folder("a")]},
        {"onExisting": "update"},
        {"onExisting": "separate"},
    ):
        assert await skipped_for(domain, **fields) is None, fields
    assert await skipped_for(domain, repositories=[folder(None, lfs=True)]) is not None

    await domain.tracking.record(await tracked(domain, changeset_id), Observed(ChangesetState.CLOSED), again=HOUR)
    assert await skipped_for(domain) is None


async def test_a_jobs_own_change_skips_none_of_its_runs(domain: Domain) -> None:
    await domain.submit(name="Bump", onExisting="skip", repositories=[folder(None)] * 2)
    first, second = [await domain.claimed(order) for order in await domain.admit()]
    await domain.running.prepared(first.hold, base_sha="b" * 40, base_branch="main", events=[])
    await publish(domain, first, 1)

    await domain.running.interrupted(second.hold)
    assert (await domain.resume(second.hold.run_id)).skipped_for is None


async def test_only_the_run_on_the_branch_of_what_is_open_is_skipped(domain: Domain) -> None:
    twice: dict[str, Any] = {"name": "Bump", "onExisting": "skip", "repositories": [folder(None)] * 2}
    await domain.submit(**twice)
    first, second = [await domain.claimed(order) for order in await domain.admit()]
    await domain.finish(first)
    await domain.running.prepared(second.hold, base_sha="b" * 40, base_branch="main", events=[])
    await publish(domain, second, 2)

    await domain.submit(**twice)
    first, second = [await domain.claimed(order) for order in await domain.admit()]
    assert (first.skipped_for, second.skipped_for) == (None, on_github(2).url)


# Nothing to change


@pytest.mark.parametrize("on_existing", ["update", "replace"])
async def test_what_is_stale_is_closed_once(domain: Domain, on_existing: str) -> None:
    fields = {"name": "Bump", "onExisting": on_existing}
    old = await open_change(domain, 1, **fields)
    other = await open_change(domain, 2, client=await domain.new_client("other"), **fields)
    run = await domain.start(**fields)

    assert await domain.running.retire_earlier(run.hold, comment=COMMENT) == [on_github(1).url]
    assert await domain.running.retire_earlier(run.hold, comment="again") == []

    was = await domain.row("changesets", old)
    assert (was["state"], was["close_comment"], was["deletes_branch"]) == ("open", COMMENT, True)
    assert [change.id for change in await domain.tracking.take_due(most=9, again=HOUR)] == [old]
    assert (await domain.row("changesets", other))["close_comment"] is None


@pytest.mark.parametrize(
    "fields",
    [{"onExisting": "separate"}, {"onExisting": "skip"}, {"name": "Another"}, {"repositories": [folder("b")]}],
)
async def test_what_is_not_the_jobs_to_close_stays_open(domain: Domain, fields: dict[str, Any]) -> None:
    await open_change(domain, 1, name="Bump", onExisting="separate")
    await open_change(domain, 2, name="Bump", onExisting="separate", repositories=[folder("a")])
    run = await domain.start(**({"name": "Bump"} | fields))

    assert await domain.running.retire_earlier(run.hold, comment=COMMENT) == []


async def test_a_base_without_changes_closes_nothing_of_another(domain: Domain) -> None:
    repositories = [{"url": REPOSITORY, "baseRef": "v1"}]
    old = await domain.start(name="Bump", onExisting="replace", repositories=repositories)
    await domain.execute("UPDATE runs SET base_branch = 'v1'")
    await publish(domain, old, 1)
    run = await domain.start(name="Bump", onExisting="replace")

    assert await domain.running.retire_earlier(run.hold, comment=COMMENT) == []


async def test_a_lost_run_closes_nothing(domain: Domain) -> None:
    old = await open_change(domain, 1, name="Bump")
    run = await domain.start(name="Bump")
    await domain.running.interrupted(run.hold)
    before = await domain.row("changesets", old)

    with pytest.raises(LeaseLostError):
        await domain.running.retire_earlier(run.hold, comment=COMMENT)
    assert await domain.row("changesets", old) == before


async def test_a_stale_change_that_is_updated_after_all_stays_open(domain: Domain) -> None:
    await open_change(domain, 1, name="Bump")
    idle = await domain.start(name="Bump")
    await domain.running.retire_earlier(idle.hold, comment=COMMENT)
    await domain.finish(idle)
    new = await open_change(domain, 1, name="Bump")

    assert await domain.tracking.take_due(most=9, again=HOUR) == []
    row = await domain.row("changesets", new)
    assert (row["state"], row["close_comment"], row["deletes_branch"]) == ("open", None, False)

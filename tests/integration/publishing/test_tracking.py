"""What becomes of a pull request on GitHub is seen in the changeset's row and told once: woken, and by looking."""

from __future__ import annotations

import asyncio
from typing import Any

from services.runtime.postgres import Record
from tests.integration.publishing.site import PATIENCE_SECONDS, POLL_SECONDS, Change, Site


async def until_seen(site: Site, change: Change, **wanted: Any) -> Record:
    """Wait until the row says so."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                row = await site.row(change.id)
                if all(row[name] == value for name, value in wanted.items()):
                    return row
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise AssertionError({name: row[name] for name in wanted}) from None


async def seen(site: Site, change: Change, **wanted: Any) -> Record:
    """``until_seen``, once a webhook has told that there is something to see."""
    await wake(site, change, (await site.row(change.id))["number"])
    return await until_seen(site, change, **wanted)


async def wake(site: Site, change: Change, number: int) -> None:
    """Some seconds after the look before this one: none is taken sooner, whatever is told."""
    statement = "UPDATE changesets SET observed_at = observed_at - interval '1 minute' WHERE id = $1"
    await site.domain.execute(statement, change.id)
    await site.domain.tracking.wake("github", change.name, numbers=[number], branches=[], shas=[])


async def opened(site: Site) -> tuple[Change, str]:
    """A change with an open pull request, and the pull request's path."""
    change = await site.store(await site.repository())
    (row,) = await site.settle(change, states={"open"})
    return change, f"/repos/{change.name}/pulls/{row['number']}"


async def told(site: Site, change: Change) -> list[tuple[str, str, str]]:
    events = await site.domain.events(change.job_id)
    kept = [event.data for event in events if event.kind.value == "changeset.updated"]
    return [(data["state"], data["checks"], data["review"]) for data in kept]


async def test_checks_reviews_and_states_are_seen_and_told_once(shared_site: Site) -> None:
    site, ada = shared_site, shared_site.emulate.ada
    change, pull = await opened(site)
    await seen(site, change, mergeable="yes", checks="none", review="none")
    await ada.check(change.name, change.made.sha, "build", None)
    await seen(site, change, checks="pending")
    await ada.check(change.name, change.made.sha, "lint", "failure")
    await seen(site, change, checks="failing")
    await site.emulate.grace.ask("POST", f"{pull}/reviews", {"event": "REQUEST_CHANGES", "body": "No."})
    await seen(site, change, review="changes_requested")
    await site.emulate.grace.ask("POST", f"{pull}/reviews", {"event": "APPROVE", "body": "Yes."})
    await seen(site, change, review="approved")
    await ada.ask("PATCH", pull, {"state": "closed"})
    row = await seen(site, change, state="closed")
    assert row["closed_at"] is not None
    await ada.ask("PATCH", pull, {"state": "open"})
    row = await seen(site, change, state="open")
    assert (row["closed_at"], row["head_sha"]) == (None, change.made.sha)
    assert await told(site, change) == [
        ("open", "none", "none"),  # that it can be merged
        ("open", "pending", "none"),
        ("open", "failing", "none"),
        ("open", "failing", "changes_requested"),
        ("open", "failing", "approved"),
        ("closed", "failing", "approved"),
        ("open", "failing", "approved"),
    ]


async def test_merged_stays_merged(shared_site: Site) -> None:
    site = shared_site
    change, pull = await opened(site)
    merge = await site.emulate.ada.ask("PUT", f"{pull}/merge", {"sha": change.made.sha})
    row = await seen(site, change, state="merged")
    assert (row["merge_sha"], row["observe_at"]) == (merge["sha"], None)
    shown = await site.domain.reading.changeset(site.domain.client, change.id)
    assert (shown.state, shown.merge_sha, shown.number) == ("merged", merge["sha"], row["number"])
    await wake(site, change, row["number"])
    assert [state for state, _, _ in await told(site, change)] == ["merged"]


async def test_without_a_webhook_it_is_seen_by_looking(site: Site) -> None:
    await site.start_scheduler()
    await site.start_vcs(QUARTERDECK_FORGE_POLL_SECONDS="1")
    changes = [await opened(site) for _ in range(3)]
    for (change, pull), body in zip(changes, ({"state": "closed"}, None, {"state": "closed"}), strict=True):
        if body is not None:
            await site.emulate.ada.ask("PATCH", pull, body)
        else:
            await site.emulate.ada.check(change.name, change.made.sha, "build", "success")
    await until_seen(site, changes[0][0], state="closed")
    await until_seen(site, changes[1][0], checks="passing")
    await until_seen(site, changes[2][0], state="closed")


async def test_a_forge_that_fails_is_asked_again_and_nothing_is_told(shared_site: Site) -> None:
    site = shared_site
    change, pull = await opened(site)
    await seen(site, change, mergeable="yes")
    before = await told(site, change)
    site.proxy.answer("GET", f"{pull}$", 502)
    await wake(site, change, (await site.row(change.id))["number"])
    async with asyncio.timeout(PATIENCE_SECONDS):
        while any(pull in fault.path for fault in site.proxy.unused):  # noqa: ASYNC110  the proxy sets no event
            await asyncio.sleep(POLL_SECONDS)
    await site.emulate.ada.ask("PATCH", pull, {"state": "closed"})
    await seen(site, change, state="closed")
    assert [state for state, _, _ in (await told(site, change))[len(before) :]] == ["closed"]

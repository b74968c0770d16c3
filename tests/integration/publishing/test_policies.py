"""What a job may ask of its publication, from the stored change to the page on GitHub."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.contracts.words import Publish
from services.jobs.errors import LeaseLostError, NotPublishableError
from tests.integration.publishing.site import Change, Site

OPENED = ["from-quarterdeck"]


async def shown(site: Site, *changes: Change) -> list[Any]:
    await site.settle(*changes, states={"open"})
    return await site.pulls(changes[-1].name)


async def test_a_draft_and_a_branch_are_what_was_asked_for(shared_site: Site) -> None:
    site = shared_site
    wishes = {"title": "{name}: {repository}", "body": "{summary} From {branch}.", "labels": OPENED}
    draft = await site.store(await site.repository(), job="tidy", publish="draft", pullRequest=wishes)
    branch = await site.store(await site.repository(), publish="branch")
    (pull,) = await shown(site, draft)
    assert (pull["draft"], pull["title"]) == (True, f"tidy: {site.git.address(draft.name)}")
    assert pull["body"].startswith(f"Because. From {draft.branch}.")
    assert [label["name"] for label in pull["labels"]] == OPENED
    assert await shown(site, branch) == []
    await site.assert_delivered_once(branch, pulls=0)
    assert (await site.row(branch.id))["url"] == f"{site.git.url}/{branch.name}/tree/{branch.branch}"


async def test_what_was_only_stored_is_published_later_once(shared_site: Site) -> None:
    site = shared_site
    change = await site.store(await site.repository(), publish="none")
    assert (await site.row(change.id))["state"] == "stored"
    assert change.branch not in site.git.branches(change.name)
    request = site.domain.publishing.request
    await asyncio.gather(*(request(site.domain.client, change.id, Publish.PULL_REQUEST) for _ in range(3)))
    (pull,) = await shown(site, change)
    assert pull["head"]["sha"] == change.made.sha
    run = await site.domain.row("runs", change.run_id)
    assert (run["state"], run["outcome"]) == ("completed", "stored")
    with pytest.raises(NotPublishableError, match=f"open already: see {pull['html_url']}"):
        await request(site.domain.client, change.id, None)


async def test_an_update_keeps_the_pull_request_and_brings_it_up_to_date(shared_site: Site) -> None:
    site = shared_site
    name = await site.repository()
    first = await site.store(name, "first", "Say first\n", job="same")
    (pull,) = await shown(site, first)
    second = await site.store(name, "second", "Say second\n", job="same")
    (updated,) = await shown(site, second)
    assert (updated["number"], updated["title"], updated["state"]) == (pull["number"], "Say second", "open")
    assert str(second.id) in updated["body"]
    assert str(first.id) not in updated["body"]
    assert site.git.branches(name) == {"main": site.git.workshop.base.sha, first.branch: second.made.sha}
    assert await site.emulate.ada.sha_of(name, first.branch) == second.made.sha
    old = await site.row(first.id)
    assert (old["state"], old["superseded_by"]) == ("closed", second.id)
    await site.assert_told_once(second)


async def test_a_replacement_closes_the_older_one_with_a_link_and_deletes_its_branch(shared_site: Site) -> None:
    site = shared_site
    name = await site.repository()
    first = await site.store(name, "first", job="same", onExisting="replace")
    (pull,) = await shown(site, first)
    second = await site.store(name, "second", job="same", onExisting="replace")
    await site.settle(second, states={"open"})
    await site.settle(first, states={"closed"})
    old, new = await site.pulls(name)
    assert (old["number"], old["state"], new["state"]) == (pull["number"], "closed", "open")
    (comment,) = await site.emulate.ada.comments(name, old["number"])
    assert comment["body"].startswith(f"Replaced by {new['html_url']}.")
    assert await site.emulate.ada.sha_of(name, first.branch) == ""
    assert await site.emulate.ada.sha_of(name, second.branch) == second.made.sha


async def test_a_run_that_is_to_be_skipped_is_told_of_what_is_open(shared_site: Site) -> None:
    site = shared_site
    name = await site.repository()
    first = await site.store(name, job="same", onExisting="skip")
    (pull,) = await shown(site, first)
    again = await site.begin(name, job="same", onExisting="skip")
    assert again.skipped_for == pull["html_url"]


async def test_a_run_without_changes_closes_what_is_stale_with_a_comment(shared_site: Site) -> None:
    site = shared_site
    name = await site.repository()
    first = await site.store(name, job="same")
    (pull,) = await shown(site, first)
    await site.find_nothing(name, job="same")
    await site.settle(first, states={"closed"})
    (closed,) = await site.pulls(name)
    assert (closed["number"], closed["state"]) == (pull["number"], "closed")
    (comment,) = await site.emulate.ada.comments(name, pull["number"])
    assert comment["body"].startswith("Closed: a new run of the same job found nothing to change.")
    # The next run that finds something opens a new one: what is closed stays so.
    second = await site.store(name, "second", job="same")
    pulls = await shown(site, second)
    assert [one["state"] for one in pulls] == ["closed", "open"]


async def test_a_new_one_is_opened_where_a_user_closed_the_old_one(shared_site: Site) -> None:
    site = shared_site
    name = await site.repository()
    first = await site.store(name, "first", job="same")
    (pull,) = await shown(site, first)
    await site.emulate.ada.ask("PATCH", f"/repos/{name}/pulls/{pull['number']}", {"state": "closed"})
    second = await site.store(name, "second", job="same")
    assert [one["state"] for one in await shown(site, second)] == ["closed", "open"]
    await site.assert_told_once(second)


async def test_nothing_of_a_cancelled_run_is_published(shared_site: Site) -> None:
    site = shared_site
    name = await site.repository()
    run = await site.begin(name)
    await site.domain.cancelling.request(site.domain.client, run.hold.job_id)
    barrier = await site.store(await site.repository())
    with pytest.raises(LeaseLostError):
        await site.hand_over(run)
    await site.settle(barrier, states={"open"})
    assert list(site.git.branches(name)) == ["main"]
    assert await site.pulls(name) == []

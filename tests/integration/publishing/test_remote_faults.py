"""What a Git server does to a publication: the right words, a try more only where that helps, one pull request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.integration.git_server import Fault
from tests.integration.publishing.forge_git import ASK_TO_PUSH, FETCH, LIST, PUSH
from tests.integration.publishing.made import Made
from tests.integration.publishing.site import Change, Site
from tests.integration.vcs.conftest import git

MOST_TRIES = 10
HUNDRED_BYTES = 100


async def passing(site: Site, what: str, fault: Fault, *, times: int = 1) -> Change:
    """A change whose repository has the fault so many times."""
    name = await site.repository()
    site.git.plan(name, what, fault, times=times)
    return await site.store(name)


async def test_what_passes_is_tried_again_until_it_is_published_once(shared_site: Site) -> None:
    site = shared_site
    expected = {
        await passing(site, FETCH, Fault(drop_after=HUNDRED_BYTES)): 2,
        await passing(site, FETCH, Fault(status=500)): 2,
        await passing(site, FETCH, Fault(hang=True)): 2,
        await passing(site, LIST, Fault(hang=True)): 2,
        await passing(site, PUSH, Fault(status=502)): 2,
        await passing(site, ASK_TO_PUSH, Fault(status=503), times=2): 3,
        await passing(site, PUSH, Fault(hang=True)): 2,
        # It has arrived, which is looked up at once.
        await passing(site, PUSH, Fault(drop_after=0)): 1,
        await passing(site, PUSH, Fault(drop_after=HUNDRED_BYTES // 10)): 1,
    }
    rows = await site.settle(*expected)
    assert [(row["state"], row["attempts"]) for row in rows] == [("open", tries) for tries in expected.values()]
    for change in expected:
        await site.assert_delivered_once(change)


@dataclass(frozen=True)
class Refused:
    """``words``: all of them are told."""

    change: Change
    words: tuple[str, ...]
    tries: int = 1


async def refusing(site: Site, what: str, status: int, *words: str, tries: int = 1) -> Refused:
    return Refused(await passing(site, what, Fault(status=status), times=100), words, tries)


async def unknown(site: Site) -> Refused:
    change = await site.store(await site.repository(token="another"))
    return Refused(change, ("refused the credentials that are set up for", "renew them"))


async def prepared(site: Site, prepare: Callable[[str, str], Awaitable[None]], *words: str) -> Refused:
    """``prepare``: what is done to repository and branch before the change is handed over."""
    name = await site.repository()
    run = await site.begin(name)
    assert run.branch is not None
    await prepare(name, run.branch)
    return Refused(await site.hand_over(run), words)


async def test_what_lasts_is_told_with_what_to_do(shared_site: Site) -> None:
    site = shared_site
    theirs = await asyncio.to_thread(site.git.workshop.change, "theirs", "A user's\n")

    async def protect(name: str, branch: str) -> None:
        site.git.protect(name, branch)

    async def commit(name: str, branch: str) -> None:
        await asyncio.to_thread(site.git.put, name, branch, theirs)

    refused = [
        await unknown(site),
        await refusing(site, PUSH, 403, "403", "give them"),
        await refusing(site, ASK_TO_PUSH, 404, "there is no such repository", "check both"),
        await refusing(site, PUSH, 500, "will be tried again", "500", tries=MOST_TRIES),
        await prepared(site, protect, "its rules protect the branch", "protected branch hook declined"),
        await prepared(site, commit, f"it is at {theirs.sha}, which is not ours", "nothing was overwritten"),
    ]
    rows = await site.settle(*(one.change for one in refused))
    for one, row in zip(refused, rows, strict=True):
        await assert_refused(site, one, row["error"])
        assert (row["state"], row["attempts"]) == ("failed", one.tries), row["error"]
    assert site.git.branches(refused[-1].change.name)[refused[-1].change.branch] == theirs.sha


async def assert_refused(site: Site, refused: Refused, error: str) -> None:
    change = refused.change
    assert all(words in error for words in refused.words), error
    run = await site.domain.row("runs", change.run_id)
    assert (run["state"], run["exit_reason"], run["error"]) == ("failed", "push_rejected", error)
    kinds = await site.domain.kinds(change.job_id)
    assert (kinds.count("changeset.failed"), kinds.count("run.finished")) == (1, 1)
    assert await site.pulls(change.name) == []


async def test_a_remote_that_takes_no_new_history_keeps_what_is_there(shared_site: Site) -> None:
    site = shared_site
    name = await site.repository()
    first = await site.store(name, "first", job="same")
    await site.settle(first)
    git(site.git.root / f"{name}.git", "config", "receive.denyNonFastForwards", "true")
    second = await site.store(name, "second", job="same")
    (row,) = await site.settle(second)
    assert (row["state"], row["attempts"]) == ("failed", 1)
    assert site.git.branches(name)[first.branch] == first.made.sha
    assert "non-fast-forward" in row["error"]
    assert "which is not ours" not in row["error"]
    assert (await site.row(first.id))["state"] == "open"
    assert len(await site.pulls(name)) == 1


async def test_a_users_commit_on_top_of_ours_is_not_overwritten_by_an_update(shared_site: Site) -> None:
    site = shared_site
    name = await site.repository()
    first = await site.store(name, "first", job="same")
    await site.settle(first)
    theirs: Made = await asyncio.to_thread(site.git.workshop.change, "theirs", "A user's\n")
    await asyncio.to_thread(site.git.put, name, first.branch, theirs)
    second = await site.store(name, "second", job="same")
    (row,) = await site.settle(second)
    await assert_refused_by(theirs, row["error"])
    assert (row["state"], row["attempts"], site.git.branches(name)[first.branch]) == ("failed", 1, theirs.sha)
    # Published once more after they have moved it away.
    await asyncio.to_thread(site.git.put, name, first.branch, first.made)
    await site.domain.publishing.request(site.domain.client, second.id, None)
    (row,) = await site.settle(second, states={"open"})
    assert site.git.branches(name)[first.branch] == second.made.sha
    assert len(await site.pulls(name)) == 1


async def assert_refused_by(theirs: Made, error: str) -> None:
    assert f"it is at {theirs.sha}, which is not ours" in error
    assert "take that commit over, or move it off the branch" in error

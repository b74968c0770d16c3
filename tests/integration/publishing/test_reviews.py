"""A review's run goes on with a pull request: one commit on top of its branch, and nothing else of it is changed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.contracts.words import ExitReason
from tests.integration.publishing.made import Made
from tests.integration.publishing.site import Change, Site
from tests.integration.publishing.test_kills import dying, points
from tests.integration.publishing.test_tracking import seen

WORDS = ("number", "html_url", "title", "body", "draft", "state")


async def opened(site: Site, **described: Any) -> tuple[Change, Any]:
    """A change with an open pull request, and the pull request."""
    change = await site.store(await site.repository(), "first", **described)
    await site.settle(change, states={"open"})
    (pull,) = await site.pulls(change.name)
    return change, pull


async def pushed_by_somebody(site: Site, change: Change, text: str) -> Made:
    """Somebody's commit on top of the change, on its branch."""
    made = await asyncio.to_thread(site.git.workshop.change, text, "By hand\n", on=change.made)
    await asyncio.to_thread(site.git.put, change.name, change.branch, made)
    await site.git.show(change.name)
    return made


async def assert_rejected(site: Site, change: Change, *, at: str) -> None:
    (row,) = await site.settle(change, states={"failed"})
    run = await site.domain.row("runs", change.run_id)
    assert (run["state"], run["exit_reason"], run["error"]) == ("failed", ExitReason.PUSH_REJECTED, row["error"])
    assert f"did not take branch {change.branch}" in row["error"]
    assert site.git.branches(change.name).get(change.branch, "") == at


async def test_it_adds_a_commit_and_leaves_the_words_as_they_are(shared_site: Site) -> None:
    site = shared_site
    first, pull = await opened(site, publish="draft", pullRequest={"labels": ["ours"]})
    path = f"/repos/{first.name}/pulls/{pull['number']}"
    before = await site.emulate.ada.ask("PATCH", path, {"title": "In my words", "body": "And mine alone."})
    asked = {"labels": ["another"], "title": "{name}"}
    second = await site.review(first, on=first.made, pullRequest=asked)
    (row,) = await site.settle(second, states={"open"})
    (after,) = await site.pulls(first.name)
    assert {word: after[word] for word in WORDS} == {word: before[word] for word in WORDS}
    assert [label["name"] for label in after["labels"]] == ["ours"]
    assert (after["head"]["ref"], after["base"]["ref"]) == (first.branch, "main")
    assert await site.emulate.ada.sha_of(first.name, first.branch) == second.made.sha
    assert site.git.commits_above_base(first.name, first.branch) == [second.made.sha, first.made.sha]
    assert (row["number"], row["url"], row["base_branch"]) == (pull["number"], pull["html_url"], "main")
    await site.assert_told_once(second)
    old = await site.row(first.id)
    assert (old["state"], old["superseded_by"]) == ("closed", second.id)


async def test_what_becomes_of_the_pull_request_is_seen_in_the_newest(shared_site: Site) -> None:
    site = shared_site
    first, pull = await opened(site)
    second = await site.review(first, on=first.made)
    await site.settle(second, states={"open"})
    third = await site.review(second, on=second.made, text="reviewed again")
    await site.settle(third, states={"open"})
    path = f"/repos/{first.name}/pulls/{pull['number']}/merge"
    merge = await site.emulate.ada.ask("PUT", path, {})
    row = await seen(site, third, state="merged")
    assert row["merge_sha"] == merge["sha"]
    for older, newer in ((first, second), (second, third)):
        old = await site.row(older.id)
        assert (old["state"], old["superseded_by"], old["observe_at"]) == ("closed", newer.id, None)


async def test_it_goes_on_top_of_what_somebody_pushed_before(shared_site: Site) -> None:
    site = shared_site
    first, _ = await opened(site)
    theirs = await pushed_by_somebody(site, first, "theirs")
    second = await site.review(first, on=theirs)
    await site.settle(second, states={"open"})
    above = site.git.commits_above_base(first.name, first.branch)
    assert above == [second.made.sha, theirs.sha, first.made.sha]


async def test_somebody_s_newer_commit_is_never_overwritten(shared_site: Site) -> None:
    site = shared_site
    first, _ = await opened(site)
    run = await site.begin_review(first, on=first.made)
    theirs = await pushed_by_somebody(site, first, "theirs")
    second = await site.hand_over(run, "reviewed", on=first.made)
    await assert_rejected(site, second, at=theirs.sha)
    assert theirs.sha in (await site.row(second.id))["error"]
    assert (await site.row(first.id))["state"] == "open"


async def test_a_branch_that_is_gone_is_not_made_again(shared_site: Site) -> None:
    site = shared_site
    first, _ = await opened(site)
    run = await site.begin_review(first, on=first.made)
    site.git.delete(first.name, first.branch)
    await assert_rejected(site, await site.hand_over(run, "reviewed", on=first.made), at="")


async def test_a_pull_request_that_was_closed_meanwhile_is_not_made_anew(shared_site: Site) -> None:
    site = shared_site
    first, pull = await opened(site)
    run = await site.begin_review(first, on=first.made)
    await site.emulate.ada.ask("PATCH", f"/repos/{first.name}/pulls/{pull['number']}", {"state": "closed"})
    second = await site.hand_over(run, "reviewed", on=first.made)
    await site.settle(second, states={"open"})
    assert [one["state"] for one in await site.pulls(first.name)] == ["closed"]
    logged = [event.data for event in await site.domain.events(second.job_id) if event.kind.value == "log"]
    assert [line["message"] for line in logged if "is open any more" in line["message"]]


async def test_without_a_change_all_stays_as_it_is(shared_site: Site) -> None:
    site = shared_site
    first, pull = await opened(site, job="same")
    job_id = await site.end_without_change(await site.begin_review(first, on=first.made, job="same"))
    row = await site.row(first.id)
    assert (row["state"], row["close_comment"], row["superseded_by"]) == ("open", None, None)
    assert "job.finished" in await site.domain.kinds(job_id)
    (after,) = await site.pulls(first.name)
    assert {word: after[word] for word in WORDS} == {word: pull[word] for word in WORDS}


async def test_a_first_publication_still_needs_its_branch_not_to_be(shared_site: Site) -> None:
    site = shared_site
    run = await site.begin(await site.repository())
    assert run.branch is not None
    name = (run.repository or "").removeprefix(f"{site.git.url}/").removesuffix(".git")
    await asyncio.to_thread(site.git.put, name, run.branch, site.git.workshop.base)
    await assert_rejected(site, await site.hand_over(run), at=site.git.workshop.base.sha)


async def test_a_re_run_takes_the_place_of_a_review_unless_somebody_s_commit_is_beneath_it(shared_site: Site) -> None:
    site = shared_site
    ours, theirs = [(await opened(site, job="same"))[0] for _ in range(2)]
    by_hand = await pushed_by_somebody(site, theirs, "theirs")
    reviewed = [
        await site.review(ours, on=ours.made, job="same"),
        await site.review(theirs, on=by_hand, job="same"),
    ]
    await site.settle(*reviewed, states={"open"})
    again = [await site.store(change.name, "again", job="same") for change in (ours, theirs)]
    assert [change.branch for change in again] == [ours.branch, theirs.branch]
    await site.settle(again[0], states={"open"})
    assert site.git.commits_above_base(ours.name, ours.branch) == [again[0].made.sha]
    await assert_rejected(site, again[1], at=reviewed[1].made.sha)


@pytest.mark.slow
async def test_killed_over_its_push_and_its_record_it_is_there_once(site: Site) -> None:
    wanted = points("push", "look_up", "record")
    await site.start_scheduler()
    vcs = await site.start_vcs()
    firsts = [(await opened(site))[0] for _ in wanted]
    await vcs.stop()
    seconds = [await site.review(first, on=first.made) for first in firsts]
    await dying(site, wanted)
    await site.settle(*seconds, states={"open"})
    for first, second in zip(firsts, seconds, strict=True):
        assert site.git.commits_above_base(first.name, first.branch) == [second.made.sha, first.made.sha]
        (pull,) = await site.pulls(first.name)
        assert (pull["state"], await site.emulate.ada.sha_of(first.name, first.branch)) == ("open", second.made.sha)
        await site.assert_told_once(second)

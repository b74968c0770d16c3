"""A vcs killed at each step of a publication: one branch, one commit, one pull request, and the end told once."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.faults.failpoints import DIED
from tests.integration.faults.processes import Service
from tests.integration.publishing.dying_vcs import STEPS
from tests.integration.publishing.site import DYING_VCS, PATIENCE_SECONDS, POLL_SECONDS, Site

LABELS = {"labels": ["from-quarterdeck"]}
FIRST = ("claim", "lease", "fetch", "commit", "push", "look_up", "create", "wishes", "label", "record", "complete")
AGAIN = ("commit", "push", "look_up", "change", "record", "complete")


def points(*steps: str) -> list[str]:
    assert set(steps) <= set(STEPS)
    return [f"{moment}:{step}:1" for step in steps for moment in ("before", "after")]


async def dying(site: Site, wanted: list[str]) -> Service:
    """A vcs that takes one publication at a time, so that each of its lives dies over another one; its last life."""
    vcs = await site.start_vcs(DYING_VCS, STEPS=" ".join(wanted), QUARTERDECK_PUBLICATIONS="1")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await vcs.in_last_life():  # noqa: ASYNC110  another process sets no event here
            await asyncio.sleep(POLL_SECONDS)
    died = [line.removeprefix(DIED).strip() for line in await vcs.lines() if line.startswith(DIED)]
    assert died == wanted
    return vcs


async def test_killed_at_each_step_it_is_published_once(site: Site) -> None:
    wanted = points(*FIRST)
    names = [await site.repository() for _ in wanted]
    await site.start_scheduler()
    changes = [await site.store(name, pullRequest=LABELS) for name in names]
    await dying(site, wanted)
    rows = await site.settle(*changes, states={"open"})
    assert sum(row["attempts"] for row in rows) > len(rows)
    for change in changes:
        await site.assert_delivered_once(change)
        (pull,) = await site.pulls(change.name)
        assert [label["name"] for label in pull["labels"]] == ["from-quarterdeck"]


@pytest.mark.slow
async def test_killed_at_each_step_of_an_update_it_keeps_its_pull_request(site: Site) -> None:
    wanted = points(*AGAIN)
    names = [await site.repository() for _ in wanted]
    await site.start_scheduler()
    vcs = await site.start_vcs()
    firsts = [await site.store(name, "first", "Say first\n", job="same") for name in names]
    await site.settle(*firsts, states={"open"})
    await vcs.stop()
    seconds = [await site.store(name, "second", "Say second\n", job="same") for name in names]
    await dying(site, wanted)
    await site.settle(*seconds, states={"open"})
    for first, second in zip(firsts, seconds, strict=True):
        assert second.branch == first.branch
        assert site.git.branches(second.name) == {"main": site.git.workshop.base.sha, second.branch: second.made.sha}
        (pull,) = await site.pulls(second.name)
        assert (pull["state"], pull["title"]) == ("open", "Say second")
        await site.assert_told_once(second)
        assert (await site.row(first.id))["superseded_by"] == second.id

"""What GitHub answers to a publication, or does not: the right words, the right number of tries, one pull request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from services.contracts.words import Publish
from tests.integration.publishing.site import PATIENCE_SECONDS, POLL_SECONDS, Change, Site
from tests.integration.vcs.github.faults import FaultProxy, When

ALREADY = {"message": "Validation Failed", "errors": [{"message": "A pull request already exists for acme:branch."}]}
INVALID = {"message": "Validation Failed", "errors": [{"message": "base is invalid"}]}
SECONDARY = {"message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}
TURN = "as many pull requests were opened"
PULLS = "pulls$"
A_PAUSE: Mapping[str, str] = {"retry-after": "3000"}


async def answered(
    site: Site, method: str, status: int, body: object = None, *, when: When = "instead", times: int = 1
) -> Change:
    """A change whose repository's pull requests are answered for so many times."""
    name = await site.repository()
    site.proxy.answer(method, f"{name}/{PULLS}", status, body, when=when, times=times)
    return await site.store(name)


async def dropped(site: Site, method: str, when: When) -> Change:
    name = await site.repository()
    site.proxy.drop(method, f"{name}/{PULLS}", when=when)
    return await site.store(name)


async def hanging(site: Site, method: str, when: When) -> Change:
    name = await site.repository()
    site.proxy.hang(method, f"{name}/{PULLS}", when=when)
    return await site.store(name)


async def test_what_passes_ends_in_one_pull_request(shared_site: Site) -> None:
    site = shared_site
    expected = {
        # It was made: that is looked up at once, and not tried again.
        await dropped(site, "POST", "after"): 1,
        await hanging(site, "POST", "after"): 1,
        await answered(site, "POST", 502, when="after"): 1,
        await answered(site, "POST", 422, ALREADY, when="after"): 1,
        # It was not.
        await answered(site, "POST", 502): 2,
        await answered(site, "POST", 422, ALREADY): 2,
        await answered(site, "GET", 500, times=2): 3,
        await dropped(site, "POST", "instead"): 2,
        await dropped(site, "GET", "instead"): 2,
    }
    rows = await site.settle(*expected)
    assert [(row["state"], row["attempts"]) for row in rows] == [("open", tries) for tries in expected.values()]
    for change, tries in expected.items():
        await site.assert_delivered_once(change)
        assert site.proxy.count("POST", f"{change.name}/{PULLS}") <= tries


async def test_what_lasts_is_told_with_what_to_do(shared_site: Site) -> None:
    site = shared_site
    hidden = await site.repository(is_shown=False)
    expected = {
        await answered(site, "GET", 401, {"message": "Bad credentials"}, times=100): (1, ("GITHUB_TOKEN", "Bad")),
        await answered(site, "POST", 403, {"message": "Resource not accessible"}): (1, ("permission", "GITHUB_TOKEN")),
        await answered(site, "POST", 422, INVALID): (1, ("base is invalid",)),
        await answered(site, "POST", 502, times=100): (10, ("failed itself", "(502)")),
        # The emulator's own answer: Git is served, and GitHub does not know it.
        await site.store(hidden): (1, ("GitHub has nothing at", "may see the repository")),
    }
    rows = await site.settle(*expected)
    for (change, (tries, words)), row in zip(expected.items(), rows, strict=True):
        assert (row["state"], row["attempts"]) == ("failed", tries), row["error"]
        assert all(word in row["error"] for word in words), row["error"]
        run = await site.domain.row("runs", change.run_id)
        assert (run["state"], run["exit_reason"], run["error"]) == ("failed", "forge_rejected", row["error"])
        # The branch is there all the same, and what was refused can be published later.
        assert site.git.branches(change.name)[change.branch] == change.made.sha
        if change.name != hidden:
            assert await site.pulls(change.name) == []


async def test_what_failed_for_good_is_published_later_on_the_same_branch(shared_site: Site) -> None:
    site = shared_site
    change = await answered(site, "POST", 422, INVALID)
    (row,) = await site.settle(change)
    assert row["state"] == "failed"
    await site.domain.publishing.request(site.domain.client, change.id, Publish.DRAFT)
    await site.settle(change, states={"open"})
    (pull,) = await site.pulls(change.name)
    assert (pull["draft"], pull["head"]["sha"]) == (True, change.made.sha)
    # The run is over: what is published later changes nothing of it.
    assert (await site.domain.row("runs", change.run_id))["state"] == "failed"


async def test_a_secondary_limit_stops_the_whole_fleet(site: Site) -> None:
    await site.start_scheduler()
    for _ in range(2):
        await site.start_vcs(QUARTERDECK_PUBLICATIONS="2")
    site.proxy.answer("POST", PULLS, 403, SECONDARY, headers=A_PAUSE)
    first = await site.store(await site.repository())
    await until_error(site, first)
    asked = len(site.proxy.requests)

    others = [await site.store(await site.repository()) for _ in range(6)]
    for change in others:
        assert "the forge is not asked for" in await until_error(site, change)
    assert "wants to be asked less" in (await site.row(first.id))["error"]
    rows = await site.settle(first, *others, states={"queued"}, hurry=False)
    assert [row["attempts"] for row in rows] == [0] * len(rows)
    assert len(site.proxy.requests) == asked

    await site.domain.execute("UPDATE forge_pace SET paused_until = now()")
    rows = await site.settle(first, *others)
    assert [(row["state"], row["attempts"]) for row in rows] == [("open", 1)] * len(rows)
    for change in (first, *others):
        await site.assert_delivered_once(change)


async def until_error(site: Site, change: Change) -> str:
    """What is told of a publication that has been put off."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (error := (await site.row(change.id))["error"]):  # noqa: ASYNC110  another process sets no event
            await asyncio.sleep(POLL_SECONDS)
    return str(error)


def posted(proxy: FaultProxy) -> int:
    return proxy.count("POST", PULLS)


async def test_pull_requests_are_opened_at_the_rate_that_is_set(site: Site) -> None:
    """Four a minute: one at once, and then none before a quarter of a minute; what makes none does not wait."""
    await site.start_scheduler()
    for _ in range(2):
        await site.start_vcs(QUARTERDECK_PULL_REQUESTS_PER_MINUTE="4")
    wanted = [await site.store(await site.repository()) for _ in range(4)]
    branches = [await site.store(await site.repository(), publish="branch") for _ in range(4)]
    await site.settle(*branches, states={"open"}, hurry=False)
    for change in wanted:
        await until_told(site, change)
    opened = posted(site.proxy)
    bucket = (await site.domain.rows("SELECT creations FROM forge_pace"))[0]["creations"]
    assert bucket < 1
    # However often it is tried, none is opened that the bucket does not hold; it is filled as time would fill it.
    rows = await site.settle(*wanted, states={"open", "queued"}, hurry=False)
    assert sum(row["state"] == "open" for row in rows) == opened
    waiting = [row for row in rows if row["state"] == "queued"]
    assert [row["error"] for row in waiting if TURN not in row["error"]] == []
    for _ in waiting:
        await site.domain.execute("UPDATE forge_pace SET refilled_at = now() - interval '15 seconds'")
        await until_posted(site, wanted)
    await site.settle(*wanted, states={"open"})
    for change in wanted:
        await site.assert_delivered_once(change)


async def until_told(site: Site, change: Change) -> None:
    """Wait until it is open or waits for its turn; what fails meanwhile, as a busy machine may, is tried again."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (row := await site.row(change.id))["state"] != "open" and TURN not in (row["error"] or ""):
            if row["error"]:
                await site.pass_delays(change)
            await asyncio.sleep(POLL_SECONDS)


async def until_posted(site: Site, changes: list[Change]) -> None:
    """Wait for one more pull request."""
    before = posted(site.proxy)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while posted(site.proxy) == before and len(await open_ones(site, changes)) < len(changes):
            await site.pass_delays(*changes)
            await asyncio.sleep(POLL_SECONDS)


async def open_ones(site: Site, changes: list[Change]) -> list[Change]:
    return [change for change in changes if (await site.row(change.id))["state"] == "open"]

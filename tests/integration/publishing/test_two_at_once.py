"""Two vcs processes and one publication: whoever is late, frozen or dead, nothing is done twice."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tests.integration.faults.processes import Service
from tests.integration.publishing.site import PATIENCE_SECONDS, POLL_SECONDS, Change, Site

PULLS = "pulls$"
TIMES = 5


async def test_orders_that_come_again_and_again_are_carried_out_once(site: Site) -> None:
    await site.start_scheduler()
    names = [await site.repository() for _ in range(6)]
    changes = [await site.store(name) for name in names]
    for change in changes:
        await site.order(change, times=TIMES)
    for _ in range(2):
        await site.start_vcs()
    rows = await site.settle(*changes)
    assert [(row["state"], row["attempts"]) for row in rows] == [("open", 1)] * len(rows)
    for change in changes:
        await site.assert_delivered_once(change)


async def until_asked(site: Site, method: str, name: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not site.proxy.count(method, f"{name}/{PULLS}"):  # noqa: ASYNC110  the proxy sets no event
            await asyncio.sleep(POLL_SECONDS)


def send(service: Service, number: signal.Signals) -> None:
    os.kill(service.process.pid, number)


async def test_frozen_or_killed_between_push_and_record_it_does_nothing_twice(site: Site) -> None:
    """Frozen before its pull request is made, and after; killed while its answer is on the way."""
    await site.start_scheduler()
    before, after = [await site.repository() for _ in range(2)]
    site.proxy.hang("GET", f"{before}/{PULLS}", when="instead")
    site.proxy.hang("POST", f"{after}/{PULLS}", when="after")
    changes = [await site.store(name) for name in (before, after)]
    frozen = await site.start_vcs()
    await until_asked(site, "GET", before)
    await until_asked(site, "POST", after)
    send(frozen, signal.SIGSTOP)

    other = await site.start_vcs()
    rows = await site.settle(*changes, states={"open"})
    assert [row["attempts"] for row in rows] == [2, 2]
    send(frozen, signal.SIGCONT)
    await other.stop()
    # It lives, has nothing left of what it held, and takes what is new.
    changes.append(await site.store(await site.repository()))
    await site.settle(changes[-1], states={"open"})

    killed = await site.repository()
    site.proxy.hang("POST", f"{killed}/{PULLS}", when="after")
    changes.append(await site.store(killed))
    await until_asked(site, "POST", killed)
    frozen.process.kill()
    await site.start_vcs()
    await site.settle(changes[-1], states={"open"})
    for change in changes:
        await site.assert_delivered_once(change)
        assert site.proxy.count("POST", f"{change.name}/{PULLS}") == 1


@pytest.mark.slow
async def test_two_runs_of_one_job_at_once_end_in_one_pull_request(site: Site) -> None:
    """Asked to be published later, both at once, on one branch: the later one takes the place of the earlier one."""
    await site.start_scheduler()
    for _ in range(2):
        await site.start_vcs()
    name = await site.repository()
    first = await site.store(name, "first", job="same")
    await site.settle(first)
    both: list[Change] = [
        await site.store(name, text, f"Say {text}\n", job="same", publish="none") for text in ("second", "third")
    ]
    await asyncio.gather(*(site.domain.publishing.request(site.domain.client, change.id, None) for change in both))
    rows = await site.settle(first, *both, states={"open", "closed"})
    assert [row["state"] for row in rows].count("open") == 1
    (shown,) = (change for change, row in zip(both, rows[1:], strict=True) if row["state"] == "open")
    assert {row["branch"] for row in rows} == {first.branch}
    assert await asyncio.to_thread(site.git.branches, name) == {
        "main": site.git.workshop.base.sha,
        first.branch: shown.made.sha,
    }
    (pull,) = await site.pulls(name)
    assert (pull["state"], f"{pull['title']}\n") == ("open", shown.made.message)

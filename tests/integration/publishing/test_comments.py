"""What is to be said on GitHub, by vcs processes that are killed between saying it and recording that: once each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from services.jobs.forge_comments import queue
from services.runtime.postgres import Connection, Record
from tests.integration.faults.failpoints import DIED
from tests.integration.publishing.site import DYING_VCS, PATIENCE_SECONDS, POLL_SECONDS, Site

LOCKED = {"message": "Unable to create comment because issue is locked."}


async def issue(site: Site, name: str) -> int:
    described = {"title": "It breaks", "body": "Every time."}
    number: int = (await site.emulate.grace.ask("POST", f"/repos/{name}/issues", described))["number"]
    return number


async def queued(site: Site, name: str, number: int) -> UUID:
    """Something that is to be said about a job on the issue."""
    item, job_id = uuid7(), await site.domain.submit(site.git.address(name))
    statement = """INSERT INTO work_items (id, client_id, kind, repository, number, job_id)
                   VALUES ($1, $2, 'issue', $3, $4, $5)"""
    values: tuple[Any, ...] = (item, site.domain.client.id, site.git.address(name), number, job_id)
    await site.domain.execute(statement, *values)

    async def work(connection: Connection) -> UUID:
        address = site.git.address(name)
        return await queue(
            connection, work_item_id=item, repository=address, number=number, in_reply_to=None, body="Done."
        )

    return await site.domain.database.in_transaction(work)


async def reached(site: Site, identifier: UUID, is_there: Callable[[Record], bool]) -> Record:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if is_there(row := await site.domain.row("forge_comments", identifier)):
                return row
            await asyncio.sleep(POLL_SECONDS)


async def ended(site: Site, identifier: UUID) -> Record:
    """Once it is posted or given up."""
    return await reached(site, identifier, lambda row: row["due_at"] is None)


async def pass_time(site: Site) -> None:
    """Let the time be over after which what failed, or what a vcs died over, is taken again."""
    await site.domain.execute("UPDATE forge_comments SET due_at = now() WHERE due_at IS NOT NULL")


async def test_killed_between_saying_it_and_recording_that_it_is_said_once(site: Site) -> None:
    wanted = ["before:say:1", "after:say:1", "before:said:1", "after:said:1"]
    name = await site.repository()
    number = await issue(site, name)
    identifier = await queued(site, name, number)
    vcs = await site.start_vcs(DYING_VCS, STEPS=" ".join(wanted))
    for deaths in range(1, len(wanted) + 1):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while sum(line.startswith(DIED) for line in await vcs.lines()) < deaths:  # noqa: ASYNC110  it sets no event here
                await asyncio.sleep(POLL_SECONDS)
        await pass_time(site)
    row = await ended(site, identifier)
    (shown,) = await site.emulate.ada.comments(name, number)
    assert shown["body"] == f"Done.\n\n<!-- quarterdeck:comment={identifier} -->"
    assert (row["url"], row["attempts"]) == (shown["html_url"], len(wanted))


async def test_what_passes_is_tried_again_and_what_is_refused_given_up(shared_site: Site) -> None:
    site = shared_site
    name, locked = await site.repository(), await site.repository()
    number, refusing = await issue(site, name), await issue(site, locked)
    site.proxy.answer("POST", f"{name}/issues/.*/comments$", 502)
    site.proxy.answer("POST", f"{locked}/issues/.*/comments$", 403, LOCKED)
    said, refused = await queued(site, name, number), await queued(site, locked, refusing)
    row = await ended(site, refused)
    assert "issue is locked" in row["error"]
    assert (row["url"], row["posted_at"], row["attempts"]) == (None, None, 1)
    await reached(site, said, lambda row: row["error"] is not None)
    await pass_time(site)
    row = await ended(site, said)
    (shown,) = await site.emulate.ada.comments(name, number)
    assert (row["url"], row["error"], row["attempts"]) == (shown["html_url"], None, 2)

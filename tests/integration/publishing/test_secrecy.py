"""The token is nowhere but in the memory of the vcs; what every other test here left behind is looked at too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psutil

from services.contracts import subjects
from tests.integration.git_server import Fault
from tests.integration.publishing.forge_git import FETCH, PUSH
from tests.integration.publishing.secrecy import assert_no_token, found_in
from tests.integration.publishing.site import PATIENCE_SECONDS, POLL_SECONDS, Site
from tests.integration.vcs.github.emulated import TOKEN


async def test_no_process_that_git_starts_shows_the_token(site: Site) -> None:
    await site.start_scheduler()
    vcs = await site.start_vcs(QUARTERDECK_LOG_LEVEL="debug", QUARTERDECK_DRAIN_SECONDS="0")
    fetching, pushing = [await site.repository() for _ in range(2)]
    site.git.plan(fetching, FETCH, Fault(hang=True))
    site.git.plan(pushing, PUSH, Fault(hang=True))
    for name in (fetching, pushing):
        await site.store(name)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (site.git.count(fetching, FETCH) and site.git.count(pushing, PUSH)):  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)

    children = [child async for child in shown_by_children(vcs.process.pid)]
    words = b" ".join(cmdline for cmdline, _ in children)
    assert b"fetch" in words
    assert b"push" in words
    assert b"git-remote-http" in words
    assert not any(found_in(shown) for child in children for shown in child)
    assert found_in(repr(psutil.Process(vcs.process.pid).environ()).encode()), "what is looked for can be found"
    # Both had shown it to the server, which takes nothing else.
    assert TOKEN in {login.partition(":")[2] for login in site.git.logins}
    await assert_no_token(site)


async def shown_by_children(pid: int) -> AsyncIterator[tuple[bytes, bytes]]:
    """Command line and environment of every process beneath it."""
    for child in psutil.Process(pid).children(recursive=True):
        yield " ".join(child.cmdline()).encode(), repr(child.environ()).encode()


async def test_what_is_refused_is_told_without_the_token(site: Site) -> None:
    """Also where the remote and GitHub repeat what they were shown."""
    await site.start_scheduler()
    await site.start_vcs(QUARTERDECK_LOG_LEVEL="debug")
    parrot, refused = [await site.repository() for _ in range(2)]
    site.git.hook(parrot, "update", f'echo "you are {TOKEN}" >&2; exit 1')
    body = {"message": f"Bad credentials {TOKEN}", "errors": [{"message": f"token {TOKEN}"}]}
    site.proxy.answer("POST", f"{refused}/pulls$", 422, body)
    changes = [await site.store(name) for name in (parrot, refused)]
    rows = await site.settle(*changes, states={"failed"})
    assert ["you are ***" in rows[0]["error"], "Bad credentials ***" in rows[1]["error"]] == [True, True]
    position = await site.bus.stream_position(subjects.EVENTS_STREAM)
    events = site.bus.read(
        subjects.EVENTS_STREAM, subjects.ALL_EVENTS, after=position.first_sequence - 1, until=position.last_sequence
    )
    told = [event.data async for event in events]
    assert told
    assert not any(found_in(data) for data in told)
    await assert_no_token(site)

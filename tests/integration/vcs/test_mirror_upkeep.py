"""Mirrors asked for by name: brought up to date, made, measured, and removed where nobody needs them."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from services.vcs.errors import CloneFailedError, VcsError
from services.vcs.git.repositories import parse_repository
from services.vcs.mirrors.mirrors import UnknownMirrorError
from tests.integration.vcs.conftest import Node, Remote, git

LONG_AGO = time.time() - 86_400


def age(mirror: Path) -> None:
    """As if nobody had used it for a day."""
    for name in ("quarterdeck.used", "quarterdeck.fetched"):
        os.utime(mirror / name, (LONG_AGO, LONG_AGO))


async def test_a_mirror_is_made_once_and_then_brought_up_to_date(node: Node, remote: Remote) -> None:
    with pytest.raises(UnknownMirrorError, match="clone it first"):
        await node.mirrors.sync(remote.repository)
    head = remote.at("main")
    told: list[str] = []
    made = await node.mirrors.clone(remote.repository, lambda phase, _: told.append(phase))
    assert (made.default_branch, made.head_sha) == ("main", head)
    assert made.bytes > 0
    assert "Receiving objects" in told
    moved = remote.commit({"more": os.urandom(100_000)})
    synced = await node.mirrors.sync(remote.repository)
    assert synced.head_sha == moved
    assert synced.bytes > made.bytes + 100_000
    assert (await node.mirrors.clone(remote.repository)).head_sha == moved


async def test_an_empty_repository_has_no_branch(node: Node, make_remote) -> None:
    made = await node.mirrors.clone(make_remote("empty").repository)
    assert (made.default_branch, made.head_sha) == ("", "")


async def test_a_sync_goes_on_without_its_caller_and_is_joined(node: Node, remote: Remote) -> None:
    begun = asyncio.Event()
    caller = asyncio.create_task(node.mirrors.clone(remote.repository, lambda *_: begun.set()))
    await asyncio.wait_for(begun.wait(), 60)
    caller.cancel()
    await asyncio.wait([caller])
    assert (await node.mirrors.sync(remote.repository)).head_sha == remote.at("main")
    assert node.git.count("fetch") == 1
    await node.mirrors.close()


async def test_close_ends_what_goes_on_without_callers(node: Node, remote: Remote) -> None:
    begun = asyncio.Event()
    caller = asyncio.create_task(node.mirrors.clone(remote.repository, lambda *_: begun.set()))
    await asyncio.wait_for(begun.wait(), 60)
    caller.cancel()
    await asyncio.wait([caller])
    await node.mirrors.close()
    assert node.leftovers() == []


async def test_a_sync_that_fails_says_why(node: Node, remote: Remote) -> None:
    gone = parse_repository(f"{remote.bare}-gone", allow_local=True)
    with pytest.raises(CloneFailedError, match="does not appear to be a git repository"):
        await node.mirrors.clone(gone)
    with pytest.raises(UnknownMirrorError):
        await node.mirrors.sync(gone)


async def test_mirrors_say_whose_they_are_what_they_take_and_when_they_were_used(node: Node, make_remote) -> None:
    repositories = [make_remote(name) for name in ("one", "two")]
    for remote in repositories:
        remote.commit({"file": os.urandom(50_000)})
        await node.mirrors.fetch(remote.repository)
    began = time.time()
    age(node.mirrors.place(repositories[0].repository).git_dir)
    usages = {usage.key: usage for usage in await node.mirrors.usages()}
    assert set(usages) == {remote.repository.key for remote in repositories}
    one, two = (usages[remote.repository.key] for remote in repositories)
    assert (one.url, one.folder) == (repositories[0].repository.url, repositories[0].repository.folder)
    assert 50_000 < one.bytes < 2_000_000
    assert (one.used_at, one.fetched_at) == (LONG_AGO, LONG_AGO)
    assert began - 60 < two.used_at < time.time() + 60
    await node.mirrors.fetch(repositories[0].repository, pin="run")
    again = {usage.key: usage for usage in await node.mirrors.usages()}[one.key]
    assert again.used_at > LONG_AGO
    assert again.fetched_at == LONG_AGO, "nothing was new"


async def test_a_mirror_goes_that_nobody_needs(node: Node, remote: Remote) -> None:
    await node.mirrors.fetch(remote.repository, pin="run")
    folder, mirror = remote.repository.folder, node.mirrors.place(remote.repository).git_dir
    age(mirror)
    assert not await node.mirrors.remove(folder), "pinned"
    await node.mirrors.unpin(folder, "run")
    git(mirror, "update-ref", "refs/quarterdeck/rescue/run/1", remote.at("main"))
    assert not await node.mirrors.remove(folder), "rescued work"
    git(mirror, "pack-refs", "--all")
    assert not await node.mirrors.remove(folder), "rescued work, packed"
    git(mirror, "update-ref", "-d", "refs/quarterdeck/rescue/run/1")
    assert not await node.mirrors.remove(folder, unused_since=LONG_AGO - 1), "used since"
    async with node.mirrors.using(remote.repository):
        assert not await node.mirrors.remove(folder), "in use"
    async with node.mirrors.lock(folder):
        assert not await node.mirrors.remove(folder), "being fetched"
    assert await node.mirrors.remove(folder, unused_since=LONG_AGO)
    assert not mirror.exists()
    assert node.leftovers() == []
    assert await node.mirrors.remove(folder), "gone already"
    assert (await node.worktrees.prepare("run", 1, remote.repository)).path.exists()


async def test_a_mirror_that_was_fetched_just_now_stays_for_its_pin(node: Node, remote: Remote) -> None:
    """However short a time ago the janitor thinks is long enough."""
    base = await node.mirrors.fetch(remote.repository)
    assert not await node.mirrors.remove(remote.repository.folder, unused_since=time.time() + 60)
    await node.mirrors.pin(remote.repository, "run", base.sha)


async def test_fetches_and_removals_at_once_leave_every_pin_intact(node: Node, remote: Remote) -> None:
    mirror, folder = node.mirrors.place(remote.repository).git_dir, remote.repository.folder
    await node.mirrors.fetch(remote.repository)
    removed = []
    for number in range(6):
        age(mirror)
        both = [node.mirrors.fetch(remote.repository, pin=f"run{number}"), node.mirrors.remove(folder)]
        results = await asyncio.gather(*(both if number % 2 else reversed(both)))
        removed.append(True in results)
        assert git(mirror, "rev-parse", f"refs/quarterdeck/base/run{number}") == remote.at("main")
        await node.mirrors.unpin(folder, f"run{number}")
    assert removed == [True, False] * 3, "who comes first wins"


@pytest.mark.parametrize("folder", ["../outside", "", ".hidden", "a/b"])
async def test_only_folders_of_mirrors_can_be_named(node: Node, folder: str) -> None:
    with pytest.raises(VcsError, match="names no mirror"):
        await node.mirrors.remove(folder)

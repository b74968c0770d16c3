"""Spare worktrees: who gets one, who never gives one, how many stay, and what a killed vcs leaves of one."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import pytest

from services.contracts.v1 import vcs_pb2 as pb
from services.vcs.disk.usage import DiskLimits, folder_bytes
from services.vcs.errors import PatchRefusedError
from services.vcs.worktrees import spares
from services.vcs.worktrees.checkouts import CheckoutOptions
from tests.integration.vcs.conftest import Node, Remote, git
from tests.integration.vcs.rpc_serving import RUN, parts_of, ref, stub_of
from tests.integration.vcs.spare_nodes import given_back, identity, listing, spare_keeping
from tests.integration.vcs.test_janitor import NO_LIMITS, Store, Swept

HOUR = 3600.0

Give = Callable[[Node, Remote], Awaitable[None]]


@pytest.fixture(autouse=True)
def few_files_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares, "LEAST_FILES", 1)


@pytest.fixture
def mine(node: Node) -> Node:
    return spare_keeping(node)


def make_older(node: Node, hours: float) -> None:
    for spare in node.worktrees.spares.present():
        owner, nanoseconds, number = spare.path.name.rsplit(".", 2)
        older = int(nanoseconds) - int(hours * HOUR * 10**9)
        spare.path.rename(spare.path.with_name(f"{owner}.{older:020}.{number}"))


async def spare_files(node: Node, remote: Remote) -> set[tuple[int, int]]:
    """What the next run's files would be, if they came from a spare."""
    path = await given_back(node, remote)
    assert not path.exists()
    (spare,) = node.worktrees.spares.present()
    return {identity(file) for file in (spare.path / "tree").rglob("*") if file.is_file()}


async def test_only_a_run_of_the_same_owner_gets_it(mine: Node, node: Node, remote: Remote) -> None:
    was = await spare_files(mine, remote)
    for number, owner in enumerate(("another", "")):
        path = (await spare_keeping(node, owner).worktrees.prepare(f"other{number}", 1, remote.repository)).path
        assert identity(path / "README.md") not in was
    path = (await mine.worktrees.prepare("next", 1, remote.repository)).path
    assert identity(path / "README.md") in was
    assert mine.worktrees.spares.present() == []


async def test_one_of_another_repository_is_not_taken(
    mine: Node, remote: Remote, make_remote: Callable[[str], Remote]
) -> None:
    await given_back(mine, remote)
    other = make_remote("other")
    other.commit({"x": "y\n"})
    path = (await mine.worktrees.prepare("next", 1, other.repository)).path
    assert sorted(file.name for file in path.iterdir()) == [".git", "x"]
    assert len(mine.worktrees.spares.present()) == 1


@pytest.mark.parametrize(
    "asked", [CheckoutOptions("src"), CheckoutOptions(submodules=True)], ids=["path", "submodules"]
)
async def test_a_partial_or_fuller_checkout_neither_takes_nor_gives(
    mine: Node, remote: Remote, asked: CheckoutOptions
) -> None:
    was = await spare_files(mine, remote)
    path = (await mine.worktrees.prepare("next", 1, remote.repository, checkout=asked)).path
    assert identity(path / "README.md") not in was
    await mine.worktrees.release("next", 1, reusable=True)
    assert len(mine.worktrees.spares.present()) == 1


async def released_as_usual(node: Node, remote: Remote) -> None:
    await node.worktrees.prepare("first", 1, remote.repository)
    await node.worktrees.release("first", 1)


async def of_nobody(node: Node, remote: Remote) -> None:
    await given_back(spare_keeping(node, ""), remote)


async def none_wanted(node: Node, remote: Remote) -> None:
    await given_back(spare_keeping(node, most=0), remote)


async def displaced(node: Node, remote: Remote) -> None:
    for attempt in (1, 2):
        await node.worktrees.prepare("first", attempt, remote.repository)
    await node.worktrees.release("first", 1, reusable=True)
    await node.worktrees.release("first", 2)


async def half_restored(node: Node, remote: Remote) -> None:
    await node.worktrees.prepare("first", 1, remote.repository)
    with pytest.raises(PatchRefusedError):
        await node.worktrees.restore("first", 1, b"no patch")
    await node.worktrees.release("first", 1, reusable=True)


async def with_submodules(node: Node, remote: Remote) -> None:
    sha = git(remote.work, "rev-parse", "HEAD")
    git(remote.work, "update-index", "--add", "--cacheinfo", f"160000,{sha},inner")
    (remote.work / "inner").mkdir()
    remote.commit({".gitmodules": f'[submodule "inner"]\n\tpath = inner\n\turl = {remote.bare}\n'})
    await given_back(node, remote)


async def with_few_files(node: Node, remote: Remote) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(spares, "LEAST_FILES", 3)
        await given_back(node, remote)


@pytest.mark.parametrize(
    "give",
    [released_as_usual, of_nobody, none_wanted, displaced, half_restored, with_submodules, with_few_files],
    ids=lambda give: give.__name__,
)
async def test_what_never_becomes_a_spare_is_removed(mine: Node, remote: Remote, give: Give) -> None:
    await give(mine, remote)
    assert mine.worktrees.spares.present() == []
    assert mine.worktrees.present() == []
    assert mine.leftovers() == []


async def test_a_restored_worktree_is_one_all_the_same(mine: Node, remote: Remote) -> None:
    path = (await mine.worktrees.prepare("first", 1, remote.repository)).path
    (path / "README.md").write_text("tests\n")
    await mine.worktrees.restore("first", 1, b"")
    await mine.worktrees.release("first", 1, reusable=True)
    assert len(mine.worktrees.spares.present()) == 1


async def test_the_base_has_moved_on_meanwhile(mine: Node, node: Node, remote: Remote) -> None:
    (remote.work / "script").write_text("#!/bin/sh\n")
    (remote.work / "script").chmod(0o644)
    remote.commit({"gone": "x\n", "old/only/file": "x\n", "file-then-folder": "x\n", "folder-then-file/in": "x\n"})
    await given_back(mine, remote, lambda path: (path / "README.md").write_text("work\n"))
    git(remote.work, "rm", "-q", "-r", "gone", "old", "file-then-folder", "folder-then-file")
    (remote.work / "script").chmod(0o755)
    remote.commit({"new": "y\n", "file-then-folder/in": "y\n", "folder-then-file": "y\n", "src/main.py": "moved on\n"})
    fresh = (await node.worktrees.prepare("fresh", 1, remote.repository)).path
    path = (await mine.worktrees.prepare("next", 1, remote.repository)).path
    assert mine.worktrees.spares.present() == []
    assert listing(path) == listing(fresh)
    assert (await mine.worktrees.checkpoint("next", 1)).patch == b""


async def test_a_checkpoint_is_restored_over_it(mine: Node, node: Node, remote: Remote) -> None:
    def work(path: Path) -> None:
        (path / "README.md").write_text("work\n")
        (path / "src/main.py").unlink()
        (path / "src/main.py").mkdir()
        (path / "src/main.py/new").write_bytes(b"\0\1")

    work((await node.worktrees.prepare("saved", 1, remote.repository)).path)
    patch = (await node.worktrees.checkpoint("saved", 1)).patch
    fresh = (await node.worktrees.prepare("fresh", 1, remote.repository, patch=patch)).path
    await given_back(mine, remote)
    for attempt in (1, 2):  # the second time the spare itself held a restored patch
        path = (await mine.worktrees.prepare("next", attempt, remote.repository, patch=patch)).path
        assert mine.worktrees.spares.present() == []
        assert listing(path) == listing(fresh)
        assert (await mine.worktrees.checkpoint("next", attempt)).patch == patch
        await mine.worktrees.release("next", attempt, reusable=True)


async def test_two_never_get_the_same_one(mine: Node, node: Node, remote: Remote) -> None:
    was = await spare_files(mine, remote)
    nodes = [mine, spare_keeping(node)]  # as two processes on one folder
    ready = await asyncio.gather(
        *(each.worktrees.prepare(f"run{number}", 1, remote.repository) for number, each in enumerate(nodes * 2))
    )
    assert sum(identity(one.path / "README.md") in was for one in ready) == 1
    assert len({str(listing(one.path)) for one in ready}) == 1


async def test_the_newest_is_taken_and_the_oldest_goes_first(mine: Node, remote: Remote) -> None:
    for number in range(3):
        await mine.worktrees.prepare(f"run{number}", 1, remote.repository)
    for number in range(3):
        await mine.worktrees.release(f"run{number}", 1, reusable=True)
        if number == 0:
            (oldest,) = mine.worktrees.spares.present()
    await mine.worktrees.spares.settled()
    older, newest = mine.worktrees.spares.present()
    assert not oldest.path.exists()
    assert mine.leftovers() == []
    await mine.worktrees.prepare("next", 1, remote.repository)
    assert (older.path.exists(), newest.path.exists()) == (True, False)


def cut_index(spare: Path) -> None:
    os.truncate(spare / "index", 10)


def no_index(spare: Path) -> None:
    (spare / "index").unlink()


def no_record(spare: Path) -> None:
    (spare / "spare.json").unlink()


def of_another_boot(spare: Path) -> None:
    record = (spare / "spare.json").read_text()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (spare / "spare.json").write_text(record.replace(boot_id, str(uuid4())))


def too_many_strays(spare: Path) -> None:
    for number in range(20):
        (spare / "tree/src" / f"left{number}").touch()


@pytest.mark.parametrize(
    "damage", [cut_index, no_index, no_record, of_another_boot, too_many_strays], ids=lambda damage: damage.__name__
)
async def test_one_that_cannot_be_used_costs_no_more_than_a_fresh_checkout(
    mine: Node, node: Node, remote: Remote, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    monkeypatch.setattr("services.vcs.worktrees.tidying.MOST_STRAYS", 10)
    was = await spare_files(mine, remote)
    damage(mine.worktrees.spares.present()[0].path)
    fresh = (await node.worktrees.prepare("fresh", 1, remote.repository)).path
    path = (await mine.worktrees.prepare("next", 1, remote.repository)).path
    assert identity(path / "README.md") not in was
    assert listing(path) == listing(fresh)
    assert mine.worktrees.spares.present() == []


async def test_one_with_a_submodule_that_nothing_names_is_given_up(mine: Node, remote: Remote) -> None:
    sha = git(remote.work, "rev-parse", "HEAD")
    git(remote.work, "update-index", "--add", "--cacheinfo", f"160000,{sha},inner")
    (remote.work / "inner").mkdir()
    remote.commit({"new": "y\n"})
    was = await spare_files(mine, remote)
    path = (await mine.worktrees.prepare("next", 1, remote.repository)).path
    assert identity(path / "README.md") not in was
    assert list((path / "inner").iterdir()) == []


class KilledError(BaseException):
    """Instead of a kill: nothing handles it, and nothing is cleaned up."""


@pytest.mark.parametrize("step", range(3), ids=["before the files", "before the index", "before it is a spare"])
async def test_killed_while_it_becomes_a_spare(
    mine: Node, node: Node, remote: Remote, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    renamed = 0

    def rename(self: Path, target: Path) -> Path:
        nonlocal renamed
        if renamed == step:
            raise KilledError
        renamed += 1
        os.rename(self, target)  # noqa: PTH104  Path's own is replaced
        return target

    await mine.worktrees.prepare("first", 1, remote.repository)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        with pytest.raises(KilledError):
            await mine.worktrees.release("first", 1, reusable=True)
    again = spare_keeping(node)
    assert again.worktrees.spares.present() == []
    assert again.worktrees.present() == [("first", 1)], "half made: the janitor removes it in the end"
    await again.worktrees.prepare("first", 2, remote.repository)
    await again.worktrees.release("first", 2)
    assert again.leftovers() == []


async def test_killed_while_it_is_taken(mine: Node, node: Node, remote: Remote) -> None:
    await given_back(mine, remote)
    (spare,) = mine.worktrees.spares.present()
    for folder in (mine.root / "state/next/1", mine.root / "worktrees/next/1"):
        folder.mkdir(parents=True)
    spare.path.rename(mine.root / "state/next/1/spare")
    again = spare_keeping(node)
    assert again.worktrees.present() == [("next", 1)]
    path = (await again.worktrees.prepare("next", 2, remote.repository)).path
    assert (path / "README.md").read_text() == "# Demo\n"
    assert again.worktrees.present() == [("next", 2)]
    await again.worktrees.release("next", 2)
    assert again.leftovers() == []


async def test_the_agent_says_whether_it_may_be_taken_over(mine: Node, remote: Remote) -> None:
    async with stub_of(parts_of(mine)) as stub:
        for reusable in (False, True):
            await mine.worktrees.prepare(RUN, 1, remote.repository)
            await stub.Release(pb.ReleaseRequest(worktree=ref(), reusable=reusable))
            assert bool(mine.worktrees.spares.present()) is reusable


async def test_the_janitor_removes_what_is_too_old_or_not_wanted_any_more(
    mine: Node, node: Node, remote: Remote
) -> None:
    await given_back(mine, remote)
    swept = Swept(mine, Store())
    assert (await swept.janitor.run_once()).failures == []
    assert len(mine.worktrees.spares.present()) == 1
    make_older(mine, hours=7)
    was = identity(mine.worktrees.spares.present()[0].path / "tree/README.md")
    path = (await mine.worktrees.prepare("next", 1, remote.repository)).path
    assert identity(path / "README.md") != was, "too old to be taken, too"
    await swept.janitor.run_once()
    assert mine.worktrees.spares.present() == []

    await mine.worktrees.release("next", 1, reusable=True)
    assert len(mine.worktrees.spares.present()) == 1
    await Swept(spare_keeping(node, most=0), Store()).janitor.run_once()
    assert mine.worktrees.spares.present() == []
    assert mine.leftovers() == []


async def test_spares_are_the_first_to_go_where_the_disk_is_full(mine: Node, remote: Remote) -> None:
    for run_id in ("one", "two"):
        await mine.worktrees.prepare(run_id, 1, remote.repository)
    for run_id in ("one", "two"):
        await mine.worktrees.release(run_id, 1, reusable=True)
    older, newer = mine.worktrees.spares.present()
    swept = Swept(mine, Store(), NO_LIMITS)
    swept.age(remote, hours=1)
    status = await swept.janitor.status()
    sizes = await folder_bytes([older.path, newer.path])
    assert status.mirrors[0].worktree_bytes == sum(sizes.values()) > 0
    one_must_go = DiskLimits(budget_bytes=status.used_bytes - 1, least_free_share=0)
    done = await swept.anew(one_must_go).run_once()
    assert (done.freed_bytes, done.evicted) == (sizes[older.path], [])
    assert mine.worktrees.spares.present() == [newer]
    all_must_go = DiskLimits(budget_bytes=1, least_free_share=0)
    done = await swept.anew(all_must_go).run_once()
    assert len(done.evicted) == 1
    assert mine.worktrees.spares.present() == []

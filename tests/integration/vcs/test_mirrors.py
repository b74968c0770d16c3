"""Mirrors: what a ref resolves to, one fetch for many, damage, and Git's own words where a remote has nothing."""

import asyncio
import os
import shutil
import time
from collections.abc import Callable

import pytest

from services.vcs.errors import CloneFailedError, RefRefusedError
from services.vcs.repositories import parse_repository
from tests.integration.vcs.conftest import Node, Remote, git


async def test_refs_resolve_to_what_the_remote_has(node: Node, remote: Remote) -> None:
    first = git(remote.work, "rev-parse", "HEAD")
    git(remote.work, "tag", "-a", "v1", "-m", "one")
    git(remote.work, "push", "-q", str(remote.bare), "v1")
    second = remote.commit({"b": "b"}, branch="feature/b")
    fetch = node.mirrors.fetch
    resolved = {
        ref: await fetch(remote.repository, ref=ref) for ref in ("", "main", "feature/b", "v1", first, first[:9])
    }
    assert {ref: (base.sha, base.branch) for ref, base in resolved.items()} == {
        "": (first, "main"),
        "main": (first, "main"),
        "feature/b": (second, "feature/b"),
        "v1": (first, ""),
        first: (first, ""),
        first[:9]: (first, ""),
    }


async def test_a_branch_that_moved_is_fetched_and_one_that_did_not_is_not(node: Node, remote: Remote) -> None:
    await node.mirrors.fetch(remote.repository)
    moved = remote.commit({"new": "1"})
    assert (await node.mirrors.fetch(remote.repository)).sha == moved
    assert (await node.mirrors.fetch(remote.repository)).sha == moved
    assert node.git.count("fetch") == 2


async def test_a_known_commit_needs_no_remote(node: Node, remote: Remote) -> None:
    base = await node.mirrors.fetch(remote.repository)
    shutil.rmtree(remote.bare)
    again = await node.mirrors.fetch(remote.repository, sha=base.sha)
    assert again == base
    with pytest.raises(CloneFailedError):
        await node.mirrors.fetch(remote.repository, ref=base.sha)  # a user's words do not prove access to the remote


async def test_a_commit_that_no_branch_holds_is_fetched_by_its_sha(
    make_node: Callable[[str], Node], remote: Remote
) -> None:
    base = await make_node("one").mirrors.fetch(remote.repository)
    git(remote.work, "commit", "-q", "--amend", "-m", "Rewritten")
    git(remote.work, "push", "-qf", str(remote.bare), "HEAD:main")
    other = make_node("two")
    assert (await other.mirrors.fetch(remote.repository, sha=base.sha)).sha == base.sha


async def test_twelve_callers_share_one_fetch(node: Node, remote: Remote) -> None:
    ready = await asyncio.gather(*(node.worktrees.prepare(f"run{n}", 1, remote.repository) for n in range(12)))
    assert len({item.path for item in ready}) == 12
    assert node.git.count("fetch") == 1
    await asyncio.gather(*(node.worktrees.release(f"run{n}", 1) for n in range(12)))
    assert node.leftovers() == []


async def test_two_processes_do_not_fetch_the_same_twice(make_node: Callable[[str], Node], remote: Remote) -> None:
    one, two = make_node("shared"), make_node("shared")
    await asyncio.gather(one.mirrors.fetch(remote.repository), two.mirrors.fetch(remote.repository))
    assert one.git.count("fetch") + two.git.count("fetch") == 1


async def test_failures_say_what_git_said(node: Node, remote: Remote, make_remote: Callable[[str], Remote]) -> None:
    cases = {
        (str(make_remote("empty").bare), ""): ("is empty", False),
        (str(remote.bare), "nowhere"): ("no branch, tag or commit nowhere", False),
        (str(remote.bare), "abcdef0"): ("no branch, tag or commit abcdef0", False),
        (str(remote.bare), "f" * 40): ("could not be fetched", False),
        (str(remote.bare) + "-gone", ""): ("does not appear to be a git repository", False),
        ("git://127.0.0.1:1/x", ""): ("Connection refused", True),
    }
    for (address, ref), (words, retryable) in cases.items():
        with pytest.raises(CloneFailedError) as caught:
            await node.mirrors.fetch(parse_repository(address, allow_local=True), ref=ref)
        assert words in str(caught.value)
        assert caught.value.retryable is retryable
    assert node.leftovers() == []


@pytest.mark.parametrize("ref", ["--upload-pack=touch pwned", "$(x)", "a;b", "a..b"])
async def test_hostile_refs_reach_no_command(node: Node, remote: Remote, ref: str) -> None:
    with pytest.raises(RefRefusedError):
        await node.mirrors.fetch(remote.repository, ref=ref)
    with pytest.raises(RefRefusedError):
        await node.mirrors.fetch(remote.repository, sha=ref)
    assert node.git.commands == []


async def test_a_branch_gone_and_another_in_its_way(node: Node, remote: Remote) -> None:
    remote.commit({"a": "a"}, branch="topic")
    await node.mirrors.fetch(remote.repository, ref="topic")
    git(remote.bare, "branch", "-D", "topic")
    sha = remote.commit({"a": "b"}, branch="topic/deeper")
    assert (await node.mirrors.fetch(remote.repository, ref="topic/deeper")).sha == sha


async def test_what_a_killed_fetch_left_is_cleared_but_not_a_pin_under_way(node: Node, remote: Remote) -> None:
    await node.mirrors.fetch(remote.repository)
    mirror = node.mirrors.place(remote.repository).git_dir
    stale = [mirror / name for name in ("refs/remotes/origin/main.lock", "refs/quarterdeck/base/old.lock", "HEAD.lock")]
    fresh = mirror / "refs/quarterdeck/base/now.lock"
    for path in (*stale, fresh, mirror / "objects/pack/tmp_pack_x"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    os.utime(stale[1], (time.time() - 120,) * 2)
    moved = remote.commit({"a": "a"})
    assert (await node.mirrors.fetch(remote.repository)).sha == moved
    assert fresh.exists()
    assert not any(path.exists() for path in stale)
    assert not (mirror / "objects/pack/tmp_pack_x").exists()


@pytest.mark.parametrize("damage", ["no HEAD", "no objects", "cut pack", "config"])
async def test_a_damaged_mirror_is_made_anew(node: Node, remote: Remote, damage: str) -> None:
    base = await node.mirrors.fetch(remote.repository)
    mirror = node.mirrors.place(remote.repository).git_dir
    if damage == "no HEAD":
        (mirror / "HEAD").unlink()
    elif damage == "no objects":
        shutil.rmtree(mirror / "objects")
        (mirror / "objects").mkdir()
    elif damage == "config":
        (mirror / "config").write_text("[core\n")
    else:
        for pack in (mirror / "objects/pack").glob("*.pack"):
            pack.chmod(0o600)
            pack.write_bytes(pack.read_bytes()[:40])
    ready = await node.worktrees.prepare("run", 1, remote.repository)
    assert ready.base_sha == base.sha
    assert (ready.path / "README.md").read_text() == "# Demo\n"
    assert (await node.worktrees.checkpoint("run", 1)).patch == b""


async def test_many_packs_are_consolidated(node: Node, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.vcs.mirrors.MAX_PACKS", 3)
    await node.worktrees.prepare("run", 1, remote.repository)
    for number in range(5):
        sha = remote.commit({"n": str(number)})
        assert (await node.mirrors.fetch(remote.repository)).sha == sha
    packs = node.mirrors.place(remote.repository).git_dir / "objects" / "pack"
    assert len(list(packs.glob("*.pack"))) <= 3
    assert (await node.worktrees.checkpoint("run", 1)).patch == b""

"""Mirrors: what a ref resolves to, one fetch for many, damage, and Git's own words where a remote has nothing."""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from services.vcs.errors import CloneFailedError, RefRefusedError
from services.vcs.git.repositories import parse_repository
from services.vcs.mirrors.files import replace_mirror, temporary_mirror
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
        ("https://nowhere.invalid/x", ""): ("Could not resolve host", True),
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


def cut(*files: Path, to: int | None = None) -> None:
    """Leave the first ``to`` bytes, or two thirds, of each of them."""
    assert files
    for file in files:
        file.chmod(0o600)
        content = file.read_bytes()
        file.write_bytes(content[: len(content) * 2 // 3 if to is None else to])


def drop(*files: Path) -> None:
    assert files
    for file in files:
        file.unlink()


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no folder": shutil.rmtree,
    "no HEAD": lambda mirror: drop(mirror / "HEAD"),
    "no refs": lambda mirror: shutil.rmtree(mirror / "refs"),
    "no objects": lambda mirror: empty(mirror / "objects"),
    "no config": lambda mirror: drop(mirror / "config"),
    "empty HEAD": lambda mirror: cut(mirror / "HEAD", to=0),
    "garbage in HEAD": lambda mirror: (mirror / "HEAD").write_bytes(b"\0\xff garbage"),
    "garbage in config": lambda mirror: (mirror / "config").write_text("[core\n"),
    "garbage in packed-refs": lambda mirror: (mirror / "packed-refs").write_bytes(b"\0\xff garbage\n"),
    "garbage in a branch": lambda mirror: (mirror / "refs/remotes/origin/main").write_bytes(b"\0\0\0"),
    "garbage in our record": lambda mirror: (mirror / "quarterdeck.json").write_bytes(b"\0\xff garbage"),
    "pack cut early": lambda mirror: cut(*mirror.glob("objects/pack/*.pack"), to=40),
    "pack cut late": lambda mirror: cut(*mirror.glob("objects/pack/*.pack")),
    "pack empty": lambda mirror: cut(*mirror.glob("objects/pack/*.pack"), to=0),
    "index cut": lambda mirror: cut(*mirror.glob("objects/pack/*.idx")),
    "index empty": lambda mirror: cut(*mirror.glob("objects/pack/*.idx"), to=0),
    "pack gone": lambda mirror: drop(*mirror.glob("objects/pack/*.pack")),
    "index gone": lambda mirror: drop(*mirror.glob("objects/pack/*.idx")),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("moved", [False, True], ids=["same", "moved"])
async def test_a_damaged_mirror_is_made_anew(node: Node, remote: Remote, damage: str, moved: bool) -> None:
    remote.commit({f"file{n}": f"{n}\n" * 99 for n in range(20)})
    sha = (await node.mirrors.fetch(remote.repository)).sha
    DAMAGES[damage](node.mirrors.place(remote.repository).git_dir)
    if moved:
        sha = remote.commit({"README.md": "# Moved\n"})
    ready = await node.worktrees.prepare("run", 1, remote.repository)
    assert ready.base_sha == sha
    assert (ready.path / "README.md").read_text() == ("# Moved\n" if moved else "# Demo\n")
    assert (await node.worktrees.checkpoint("run", 1)).patch == b""
    assert (await node.mirrors.sync(remote.repository)).head_sha == sha
    git(node.mirrors.place(remote.repository).git_dir, "fsck", "--strict")


def forget_at_the_remote(remote: Remote) -> None:
    """Move the branch back by a commit, which is then nowhere at the remote."""
    git(remote.work, "reset", "-q", "--hard", "HEAD~1")
    git(remote.work, "push", "-qf", str(remote.bare), "HEAD:main")
    git(remote.bare, "reflog", "expire", "--expire=now", "--all")
    git(remote.bare, "gc", "-q", "--prune=now")


@pytest.mark.parametrize("damage", ["no HEAD", "garbage in config", "garbage in packed-refs", "newest pack"])
async def test_what_was_pinned_or_rescued_survives_a_rebuild(node: Node, remote: Remote, damage: str) -> None:
    lost = remote.commit({"only": "here\n" * 99})
    await node.mirrors.fetch(remote.repository, pin="run")
    mirror = node.mirrors.place(remote.repository).git_dir
    tree = git(mirror, "rev-parse", f"{lost}^{{tree}}")
    rescued = git(mirror, "commit-tree", tree, "-p", lost, "-m", "Rescued")
    git(mirror, "update-ref", "refs/quarterdeck/rescue/old/1", rescued)
    forget_at_the_remote(remote)
    if damage == "newest pack":
        packs = set(mirror.glob("objects/pack/*.pack"))
        sha = remote.commit({"newer": "newer\n"})
        await node.mirrors.fetch(remote.repository)
        cut(*set(mirror.glob("objects/pack/*.pack")) - packs)
    else:
        DAMAGES[damage](mirror)
    sha = remote.commit({"newest": "newest\n"})
    assert (await node.mirrors.fetch(remote.repository)).sha == sha
    kept = git(
        mirror, "for-each-ref", "--format=%(refname) %(objectname)", "refs/quarterdeck/base", "refs/quarterdeck/rescue"
    )
    assert kept.splitlines() == [f"refs/quarterdeck/base/run {lost}", f"refs/quarterdeck/rescue/old/1 {rescued}"]
    assert git(mirror, "show", f"{rescued}:only") == "here\n" * 98 + "here"
    git(mirror, "fsck", "--strict")
    assert node.leftovers() == []


async def test_a_pin_that_cannot_be_read_is_fetched_by_its_sha(node: Node, remote: Remote) -> None:
    pinned = (await node.mirrors.fetch(remote.repository, pin="run")).sha
    git(remote.work, "commit", "-q", "--amend", "-m", "Rewritten")
    git(remote.work, "push", "-qf", str(remote.bare), "HEAD:main")
    mirror = node.mirrors.place(remote.repository).git_dir
    git(
        mirror,
        "update-ref",
        "refs/quarterdeck/base/hopeless",
        git(mirror, "commit-tree", f"{pinned}^{{tree}}", "-m", "x"),
    )
    shutil.rmtree(mirror / "objects")
    (mirror / "objects").mkdir()
    await node.mirrors.fetch(remote.repository)
    pins = git(mirror, "for-each-ref", "--format=%(refname) %(objectname)", "refs/quarterdeck/base")
    assert pins == f"refs/quarterdeck/base/run {pinned}"


async def test_a_pin_made_while_the_mirror_is_replaced_is_kept(
    node: Node, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = await node.mirrors.fetch(remote.repository)
    mirror = node.mirrors.place(remote.repository).git_dir

    def replace_after_a_pin(fresh: Path, git_dir: Path) -> Path:
        git(mirror, "update-ref", "refs/quarterdeck/base/late", base.sha)
        return replace_mirror(fresh, git_dir)

    monkeypatch.setattr("services.vcs.mirrors.downloads.replace_mirror", replace_after_a_pin)
    await node.mirrors.rebuild(remote.repository)
    assert git(mirror, "rev-parse", "refs/quarterdeck/base/late") == base.sha


STUCK_UPLOAD_PACK = """\
#!{python}
import os, subprocess, sys, time
server = subprocess.Popen(["git", "upload-pack", *sys.argv[1:]], stdout=subprocess.PIPE)
left = 300_000
while left > 0:
    left -= os.write(1, os.read(server.stdout.fileno(), min(left, 65536)))
time.sleep(600)
"""


async def test_pins_are_in_the_new_mirror_before_it_is_in_place(
    node: Node, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process killed right then leaves the old one beside it, and nobody will look into that."""
    base = await node.mirrors.fetch(remote.repository, pin="run")

    def replace_and_end(fresh: Path, git_dir: Path) -> Path:
        replace_mirror(fresh, git_dir)
        raise OSError("killed")

    monkeypatch.setattr("services.vcs.mirrors.downloads.replace_mirror", replace_and_end)
    with pytest.raises(OSError, match="killed"):
        await node.mirrors.rebuild(remote.repository)
    assert node.leftovers() != []
    await node.mirrors.sync(remote.repository)
    assert node.leftovers() == []
    assert git(node.mirrors.place(remote.repository).git_dir, "rev-parse", "refs/quarterdeck/base/run") == base.sha


async def test_a_fetch_killed_in_the_middle_leaves_a_mirror_that_works(
    node: Node, remote: Remote, tmp_path: Path
) -> None:
    await node.mirrors.fetch(remote.repository)
    mirror = node.mirrors.place(remote.repository).git_dir
    sha = remote.commit({"big": os.urandom(1_000_000)})
    slow = tmp_path / "slow-upload-pack"
    slow.write_text(STUCK_UPLOAD_PACK.format(python=sys.executable))
    slow.chmod(0o755)
    options = ("-c", "fetch.unpackLimit=1", "fetch", f"--upload-pack={slow}")
    command = ("git", *options, str(remote.bare), "+refs/heads/*:refs/remotes/origin/*")
    process = await asyncio.create_subprocess_exec(*command, cwd=mirror, start_new_session=True)
    try:
        await until(lambda: any(path.stat().st_size for path in mirror.glob("objects/pack/tmp_*")))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    assert (await node.worktrees.prepare("run", 1, remote.repository)).base_sha == sha
    assert not list(mirror.glob("objects/pack/tmp_*"))
    assert git(mirror, "fsck", "--strict") == ""


async def test_a_process_killed_while_it_replaced_the_mirror_loses_nothing(node: Node, remote: Remote) -> None:
    base = await node.mirrors.fetch(remote.repository, pin="run")
    mirror = node.mirrors.place(remote.repository).git_dir
    fresh = temporary_mirror(mirror)
    mirror.rename(fresh.with_suffix(".old"))
    fresh.mkdir()
    await node.mirrors.sweep()
    assert node.leftovers() == []
    assert git(mirror, "rev-parse", "refs/quarterdeck/base/run") == base.sha


async def test_an_empty_object_is_not_taken_for_one_that_is_there(node: Node, remote: Remote) -> None:
    base = await node.mirrors.fetch(remote.repository)
    mirror = node.mirrors.place(remote.repository).git_dir
    # Two with `commit-tree` would differ where a second passes between them.
    commit = git(mirror, "cat-file", "commit", base.sha).encode() + b"\n\nMade here\n"
    made = git(mirror, "hash-object", "-t", "commit", "-w", "--stdin", stdin=commit)
    cut(mirror / "objects" / made[:2] / made[2:], to=0)
    await node.mirrors.sync(remote.repository)
    assert git(mirror, "hash-object", "-t", "commit", "-w", "--stdin", stdin=commit) == made
    assert git(mirror, "cat-file", "-t", made) == "commit"


async def test_a_warm_mirror_costs_two_commands_and_for_a_known_commit_one(node: Node, remote: Remote) -> None:
    base = await node.mirrors.fetch(remote.repository)
    node.git.commands.clear()
    assert await node.mirrors.fetch(remote.repository, pin="one") == base
    assert [command[0] for command in node.git.commands] == ["ls-remote", "update-ref"]
    node.git.commands.clear()
    assert await node.mirrors.fetch(remote.repository, sha=base.sha, pin="two") == base
    assert [command[0] for command in node.git.commands] == ["update-ref"]


async def test_a_lock_that_a_killed_pin_left_is_passed_once_it_is_old(node: Node, remote: Remote) -> None:
    base = await node.mirrors.fetch(remote.repository, pin="run")
    lock = node.mirrors.place(remote.repository).git_dir / "refs/quarterdeck/base/run.lock"
    lock.touch()
    with pytest.raises(CloneFailedError, match="could not be pinned") as caught:
        await node.mirrors.fetch(remote.repository, pin="run")
    assert caught.value.retryable
    os.utime(lock, (time.time() - 120,) * 2)
    assert await node.mirrors.fetch(remote.repository, pin="run") == base


async def test_fifty_at_once_make_one_fetch(node: Node, remote: Remote) -> None:
    bases = await asyncio.gather(*(node.mirrors.fetch(remote.repository, pin=f"run{n}") for n in range(50)))
    assert len(set(bases)) == 1
    assert node.git.count("fetch") == 1
    assert node.git.count("ls-remote") == 1
    mirror = node.mirrors.place(remote.repository).git_dir
    assert len(git(mirror, "for-each-ref", "refs/quarterdeck/base").splitlines()) == 50
    moved = remote.commit({"new": "1"})
    bases = await asyncio.gather(*(node.mirrors.fetch(remote.repository, pin=f"run{n}") for n in range(50)))
    assert {base.sha for base in bases} == {moved}
    assert node.git.count("fetch") == 2
    await asyncio.gather(*(node.mirrors.unpin(remote.repository.folder, f"run{n}") for n in range(50)))
    assert git(mirror, "for-each-ref", "refs/quarterdeck/base") == ""


async def test_branches_that_go_come_and_stand_in_each_others_way(node: Node, remote: Remote) -> None:
    mirror = node.mirrors.place(remote.repository).git_dir
    remote.commit({"a": "a"}, branch="topic")
    remote.commit({"a": "b"}, branch="gone")
    for added, removed in (("topic/deeper", "topic"), ("topic", "topic/deeper")):
        await node.mirrors.sync(remote.repository) if mirror.exists() else await node.mirrors.clone(remote.repository)
        git(remote.bare, "branch", "-D", removed)
        sha = remote.commit({"a": added}, branch=added)
        assert (await node.mirrors.fetch(remote.repository, ref=added)).sha == sha
    git(remote.bare, "branch", "-D", "gone")
    await node.mirrors.sync(remote.repository)
    branches = git(mirror, "for-each-ref", "--format=%(refname)", "refs/remotes/origin").splitlines()
    assert branches == [f"refs/remotes/origin/{name}" for name in ("HEAD", "main", "topic")]


async def test_another_default_branch_is_noticed_without_a_fetch(node: Node, remote: Remote) -> None:
    base = await node.mirrors.fetch(remote.repository)
    git(remote.bare, "branch", "trunk", "main")
    git(remote.bare, "symbolic-ref", "HEAD", "refs/heads/trunk")
    assert (await node.mirrors.fetch(remote.repository)).branch == "trunk"
    assert node.git.count("fetch") == 1
    assert (await node.mirrors.fetch(remote.repository, sha=base.sha)).branch == "trunk"


async def test_a_repository_of_longer_shas(node: Node, tmp_path: Path) -> None:
    bare, work = tmp_path / "long.git", tmp_path / "long"
    for arguments in (("--bare", str(bare)), (str(work),)):
        git(tmp_path, "init", "-q", "--object-format=sha256", "--initial-branch=main", *arguments)
    remote = Remote(bare, work)
    sha = remote.commit({"README.md": "# Long\n"})
    assert len(sha) == 64
    ready = await node.worktrees.prepare("run", 1, remote.repository)
    assert ready.base_sha == sha
    assert (ready.path / "README.md").read_text() == "# Long\n"


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not met():  # noqa: ASYNC110  it watches files
            await asyncio.sleep(0.01)


async def test_many_packs_are_consolidated(node: Node, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.vcs.mirrors.downloads.MAX_PACKS", 3)
    await node.worktrees.prepare("run", 1, remote.repository)
    for number in range(5):
        sha = remote.commit({"n": str(number)})
        assert (await node.mirrors.fetch(remote.repository)).sha == sha
    packs = node.mirrors.place(remote.repository).git_dir / "objects" / "pack"
    assert len(list(packs.glob("*.pack"))) <= 3
    assert (await node.worktrees.checkpoint("run", 1)).patch == b""

"""Worktrees: prepared exactly, checkpointed without a trace, restored elsewhere, displaced by newer attempts."""

import asyncio
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from services.vcs.errors import (
    CloneFailedError,
    LeaseLostError,
    PatchRefusedError,
    PatchTooLargeError,
    UnknownWorktreeError,
    WorktreeRefusedError,
)
from services.vcs.git.runner import Git
from services.vcs.worktrees.checkouts import CheckoutSlots
from services.vcs.worktrees.snapshots import STAGED
from services.vcs.worktrees.worktrees import _next_tick
from tests.integration.vcs.conftest import Node, Remote, content, git
from tests.integration.waiting import until


async def test_a_worktree_holds_the_base_and_nothing_changed(node: Node, remote: Remote) -> None:
    sha = git(remote.work, "rev-parse", "HEAD")
    ready = await node.worktrees.prepare("run", 1, remote.repository)
    assert (ready.base_sha, ready.base_branch) == (sha, "main")
    assert ready.path == node.root / "worktrees" / "run" / "1"
    assert (ready.path / "src/main.py").read_text() == "print('hello')\n"
    snapshot = await node.worktrees.checkpoint("run", 1)
    assert (snapshot.patch, snapshot.files) == (b"", ())


async def test_untouched_links_modes_and_line_ends_are_no_change(node: Node, remote: Remote) -> None:
    (remote.work / "link").symlink_to("README.md")
    (remote.work / "script").write_text("#!/bin/sh\n")
    (remote.work / "script").chmod(0o755)
    remote.commit({"crlf.txt": "a\r\nb\r\n", "lf.bat": "x\ny\n"})
    # Attributes that contradict what is stored, as many real repositories have them.
    remote.commit({".gitattributes": "*.txt text\n*.bat text eol=crlf\n"})
    ready = await node.worktrees.prepare("run", 1, remote.repository)
    assert (ready.path / "lf.bat").read_bytes() == b"x\ny\n", "files lie as they are stored"
    assert not (ready.path / "link").is_symlink()
    assert (await node.worktrees.checkpoint("run", 1)).patch == b""
    (ready.path / "other").write_text("x")
    committed = await node.worktrees.checkpoint("run", 1)
    assert [file.path for file in committed.files] == [b"other"]


async def test_a_change_of_the_same_size_right_after_prepare_is_seen(node: Node, remote: Remote) -> None:
    for attempt in range(1, 6):
        ready = await node.worktrees.prepare("run", attempt, remote.repository)
        (ready.path / "README.md").write_text("# Dem0\n")
        assert len((await node.worktrees.checkpoint("run", attempt)).files) == 1


async def test_a_change_in_the_second_of_the_checkout_is_seen_in_later_ones_too(node: Node, remote: Remote) -> None:
    ready = await node.worktrees.prepare("run", 1, remote.repository)
    (ready.path / "README.md").write_text("# Dem0\n")
    index = node.root / "state/run/1/git/index"
    written = index.stat().st_mtime_ns
    await until(lambda: time.time_ns() // 10**9 > written // 10**9)
    for _ in range(2):
        assert len((await node.worktrees.checkpoint("run", 1)).files) == 1
    assert index.stat().st_mtime_ns > written, "looked at once, and then no more"


async def test_prepare_ends_after_the_tick_that_the_checkout_ended_in(tmp_path: Path) -> None:
    index = tmp_path / "index"
    index.touch()
    ahead = index.stat().st_mtime_ns + 8_000_000
    os.utime(index, ns=(ahead, ahead))
    await _next_tick(tmp_path)
    later = tmp_path / "later"
    later.touch()
    assert later.stat().st_mtime_ns > ahead


async def test_a_checkpoint_restores_everything_on_another_node(
    make_node: Callable[[str], Node], remote: Remote
) -> None:
    (remote.work / "script").write_text("#!/bin/sh\n")
    (remote.work / "script").chmod(0o755)
    for name in ("link-gone", "link-moved"):
        (remote.work / name).symlink_to("README.md")
    files = {".gitignore": "ignored/\n", "gone": "x\n", "dir": "file\n", "old/name": "same\n" * 50}
    remote.commit({**files, "large.bin": bytes(range(256)) * 6_000, "large.txt": "a line of text\n" * 100_000})
    one, two = make_node("one"), make_node("two")
    path = (await one.worktrees.prepare("run", 1, remote.repository)).path
    change_much(path)
    saved = await one.worktrees.checkpoint("run", 1)
    base = git(remote.work, "rev-parse", "HEAD")
    restored = await two.worktrees.prepare("run", 2, remote.repository, base_sha=base, patch=saved.patch)
    expected = content(path)
    del expected["ignored/x"]
    # A link comes back as a file that holds its target, and is a link still to Git.
    expected["new-link"] = (0, b"../../etc/passwd")
    assert content(restored.path) == expected
    again = await two.worktrees.checkpoint("run", 2)
    assert again.patch == saved.patch, "with the ids of all content: the same tree"
    assert {file.change for file in again.files} == {"added", "modified", "deleted", "renamed"}


def change_much(path: Path) -> None:
    """Text, binary, large, empty, modes, deleted, renamed, a file that becomes a folder, odd names, links, ignored."""
    (path / "README.md").write_text("# Changed, no line end")
    (path / "binary").write_bytes(bytes(range(256)) * 40)
    (path / "empty").touch()
    (path / "large.bin").write_bytes(bytes(range(255, -1, -1)) * 8_000)
    (path / "large.txt").write_text("a line of text\n" * 50_000 + "another\n" + "a line of text\n" * 50_000)
    (path / "large-new.bin").write_bytes(random.Random(1).randbytes(3_000_000))
    (path / "src/main.py").chmod(0o755)
    (path / "script").chmod(0o644)
    (path / "link-gone").unlink()
    (path / "link-moved").rename(path / "link-here")
    (path / "gone").unlink()
    (path / "dir").unlink()
    (path / "dir").mkdir()
    (path / "dir" / "inside").write_text("x\n")
    (path / "old/name").rename(path / "renamed")
    (path / 'new\nline "quoted" größe\t').write_text("odd\n")
    Path(os.fsdecode(os.fsencode(path) + b"/not-\xff-utf8")).write_text("odd\n")
    (path / "crlf").write_bytes(b"a\r\nb\rc\n")
    (path / "new-link").symlink_to("../../etc/passwd")
    (path / "ignored").mkdir()
    (path / "ignored" / "x").write_text("x")


async def test_a_checkpoint_leaves_no_trace_but_what_it_has_staged(node: Node, remote: Remote) -> None:
    path = (await node.worktrees.prepare("run", 1, remote.repository)).path
    (path / "new").write_text("x\n")
    state, mirror = node.root / "state/run/1/git", node.mirrors.place(remote.repository).git_dir

    def lies_there() -> tuple[object, ...]:
        ours = sorted(entry for entry in state.iterdir() if entry.name != STAGED)
        return content(path), (state / "index").read_bytes(), ours, sorted(mirror.rglob("*"))

    before = lies_there()
    first = await node.worktrees.checkpoint("run", 1)
    assert (await node.worktrees.checkpoint("run", 1)).patch == first.patch
    assert lies_there() == before


async def test_a_link_that_is_overwritten_becomes_a_file_and_one_that_is_retargeted_stays(
    node: Node, remote: Remote
) -> None:
    for name in ("to-file", "retargeted", "emptied"):
        (remote.work / name).symlink_to("README.md")
    remote.commit({})
    path = (await node.worktrees.prepare("run", 1, remote.repository)).path
    (path / "to-file").write_text("real\ncontent\n")
    (path / "retargeted").write_text("src/main.py")
    (path / "emptied").write_text("")
    files = {file.path: file for file in (await node.worktrees.checkpoint("run", 1)).files}
    assert {name: file.new_mode for name, file in files.items()} == {
        b"to-file": "100644",
        b"retargeted": "120000",
        b"emptied": "100644",
    }
    assert files[b"to-file"].change == "type_changed"


@pytest.mark.parametrize("commits", [False, True])
async def test_a_repository_made_inside_the_worktree_keeps_its_files(node: Node, remote: Remote, commits: bool) -> None:
    path = (await node.worktrees.prepare("run", 1, remote.repository)).path
    nested = path / "pkg" / "nested"
    nested.mkdir(parents=True)
    git(nested, "init", "--quiet")
    (nested / ".gitignore").write_text("*.log\n")
    (nested / ":(top)a.txt").write_text("a\n")
    (nested / "x.log").write_text("no\n")
    (nested / "loop").symlink_to("..")
    if commits:
        git(nested, "add", "--all")
        git(nested, "commit", "--quiet", "--message", "inner")
    (path / "bare-of-files").mkdir()
    git(path / "bare-of-files", "init", "--quiet")
    (path / "src/main.py").unlink()
    (path / "src").rmdir()
    (path / "src").write_text("a file now\n")
    (path / "untracked").write_text("x\n")
    files = (await node.worktrees.checkpoint("run", 1)).files
    assert {file.path for file in files if not file.path.startswith(b"pkg")} == {b"src", b"src/main.py", b"untracked"}
    assert {file.path for file in files if file.path.startswith(b"pkg")} == {
        b"pkg/nested/" + name for name in (b".gitignore", b":(top)a.txt", b"loop")
    }


async def test_a_patch_that_is_too_large_says_so(node: Node, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.vcs.worktrees.snapshots.MAX_PATCH_BYTES", 1000)
    path = (await node.worktrees.prepare("run", 1, remote.repository)).path
    (path / "big").write_bytes(os.urandom(100_000))
    with pytest.raises(PatchTooLargeError, match=r"the largest of them: big \(100,000 bytes\)"):
        await node.worktrees.checkpoint("run", 1)


async def test_what_is_largest_is_found_beside_everything_else(
    node: Node, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of packages has a hundred thousand files, and every run of the node waits for its vcs."""
    threads: list[int] = []

    def heaviest(_sizes: Mapping[str, int]) -> str:
        threads.append(threading.get_ident())
        return "much"

    monkeypatch.setattr("services.vcs.worktrees.snapshots.heaviest", heaviest)
    monkeypatch.setattr("services.vcs.worktrees.snapshots.MAX_PATCH_BYTES", 1000)
    path = (await node.worktrees.prepare("run", 1, remote.repository)).path
    (path / "big").write_bytes(os.urandom(100_000))
    with pytest.raises(PatchTooLargeError, match="much"):
        await node.worktrees.checkpoint("run", 1)
    assert threads
    assert threading.get_ident() not in threads


async def test_no_more_are_checked_out_at_once_than_there_are_cores() -> None:
    slots, workers, at_once = CheckoutSlots(cores=4), [], []
    release = asyncio.Event()

    async def check_out() -> None:
        async with slots.slot() as each:
            workers.append(each)
            await release.wait()
            at_once.append(slots._taken)

    tasks = [asyncio.create_task(check_out()) for _ in range(10)]
    await until(lambda: len(workers) == 4)
    tasks[0].cancel()
    tasks[9].cancel()
    await until(lambda: len(workers) == 5)
    assert workers == [4, 2, 1, 1, 1], "the cores that no other one uses"
    release.set()
    await asyncio.wait_for(asyncio.wait(tasks), 10)
    assert (max(at_once), len(workers)) == (4, 9)
    async with slots.slot() as alone:
        assert alone == 4


async def test_a_newer_attempt_displaces_older_ones(node: Node, remote: Remote) -> None:
    old = await node.worktrees.prepare("run", 1, remote.repository)
    new = await node.worktrees.prepare("run", 3, remote.repository)
    assert new.path.exists()
    assert not old.path.exists()
    with pytest.raises(LeaseLostError, match="attempt 3 of run run is here"):
        await node.worktrees.prepare("run", 2, remote.repository)
    with pytest.raises(LeaseLostError):
        await node.worktrees.checkpoint("run", 1)
    assert node.worktrees.present() == [("run", 3)]


async def test_the_same_attempt_again_begins_anew(node: Node, remote: Remote) -> None:
    first = await node.worktrees.prepare("run", 1, remote.repository)
    (first.path / "left").write_text("x")
    again = await node.worktrees.prepare("run", 1, remote.repository)
    assert not (again.path / "left").exists()


async def test_release_is_idempotent_and_forgets_the_pin(node: Node, remote: Remote) -> None:
    ready = await node.worktrees.prepare("run", 1, remote.repository)
    mirror = node.mirrors.place(remote.repository).git_dir
    pin = "refs/quarterdeck/base/run"
    assert git(mirror, "rev-parse", pin) == ready.base_sha
    hostile = ready.path / "locked"
    hostile.mkdir()
    (hostile / "file").touch()
    hostile.chmod(0)
    for _ in range(2):
        await node.worktrees.release("run", 1)
    assert node.leftovers() == []
    assert git(mirror, "for-each-ref", pin) == ""
    with pytest.raises(UnknownWorktreeError, match="prepare it first"):
        await node.worktrees.checkpoint("run", 1)


async def test_folders_nested_too_deep_for_recursion_are_removed(node: Node, remote: Remote) -> None:
    path = (await node.worktrees.prepare("run", 1, remote.repository)).path
    folder = os.open(path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=folder)
        deeper = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = deeper
    os.close(folder)
    await node.worktrees.release("run", 1)
    assert node.leftovers() == []


@pytest.mark.parametrize(("run_id", "attempt"), [("../x", 1), ("", 1), ("a/b", 1), ("-x", 1), ("run", 0), ("run", -1)])
async def test_names_that_are_no_folders_are_refused(node: Node, remote: Remote, run_id: str, attempt: int) -> None:
    with pytest.raises(WorktreeRefusedError):
        await node.worktrees.prepare(run_id, attempt, remote.repository)
    with pytest.raises(WorktreeRefusedError):
        await node.worktrees.release(run_id, attempt)


async def test_a_patch_for_another_base_leaves_nothing(node: Node, remote: Remote) -> None:
    with pytest.raises(PatchRefusedError, match="another base"):
        await node.worktrees.prepare(
            "run", 1, remote.repository, patch=b"diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n"
        )
    assert node.leftovers() == []


class StoppingGit(Git):
    """Git that waits for ever before one command, once, and says that it has come so far."""

    stop_at: str = ""
    reached: asyncio.Event

    async def run(self, *arguments: str, **options: Any) -> bytes:
        if arguments[0] == self.stop_at:
            self.stop_at = ""
            self.reached.set()
            await asyncio.Event().wait()
        return await super().run(*arguments, **options)


def stop_at(node: Node, command: str) -> StoppingGit:
    git = StoppingGit(node.root / "home", allow_local=True)
    git.stop_at, git.reached = command, asyncio.Event()
    node.mirrors._git = node.worktrees._git = git
    return git


@pytest.mark.parametrize("command", ["ls-remote", "fetch", "pack-refs", "update-ref", "apply", "read-tree"])
async def test_a_cancelled_prepare_leaves_nothing_half_made(node: Node, remote: Remote, command: str) -> None:
    ready = await node.worktrees.prepare("saved", 1, remote.repository)
    (ready.path / "x").write_text("x\n")
    patch = (await node.worktrees.checkpoint("saved", 1)).patch
    await node.worktrees.release("saved", 1)
    await asyncio.to_thread(shutil.rmtree, node.mirrors.place(remote.repository).git_dir)
    stopped = stop_at(node, command)
    preparing = asyncio.create_task(node.worktrees.prepare("run", 1, remote.repository, patch=patch))
    await asyncio.wait_for(stopped.reached.wait(), 10)
    preparing.cancel()
    await asyncio.wait([preparing])
    assert preparing.cancelled()
    assert node.leftovers() == []
    assert (await node.worktrees.prepare("run", 1, remote.repository)).path.exists()


async def test_a_newer_attempt_stops_one_that_is_still_preparing(node: Node, remote: Remote) -> None:
    stopped = stop_at(node, "read-tree")
    older = asyncio.create_task(node.worktrees.prepare("run", 1, remote.repository))
    await asyncio.wait_for(stopped.reached.wait(), 10)
    newer = await node.worktrees.prepare("run", 2, remote.repository)
    with pytest.raises(LeaseLostError):
        await older
    assert newer.path.exists()
    assert node.worktrees.present() == [("run", 2)]
    assert (await node.worktrees.checkpoint("run", 2)).patch == b""


async def test_a_remote_path_that_git_refuses_is_a_failed_clone(node: Node, remote: Remote) -> None:
    blob = git(remote.work, "hash-object", "-w", "--stdin", stdin=b"[core]\n")
    inner = git(remote.work, "mktree", stdin=f"100644 blob {blob}\tconfig\n".encode())
    tree = git(remote.work, "mktree", stdin=f"040000 tree {inner}\t.git\n".encode())
    commit = git(remote.work, "commit-tree", tree, "-m", "hostile")
    git(remote.work, "push", "-q", str(remote.bare), f"{commit}:refs/heads/hostile")
    with pytest.raises(CloneFailedError, match=r"hasDotgit"):
        await node.worktrees.prepare("run", 1, remote.repository, base_ref="hostile")
    assert node.leftovers() == []

"""A snapshot that is told what was written looks at nothing else, and comes to what a look at everything comes to."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from services.vcs.git.runner import Git, Place
from services.vcs.worktrees import worktrees
from services.vcs.worktrees.checkouts import CheckoutOptions
from services.vcs.worktrees.known_changes import Written
from services.vcs.worktrees.snapshots import Snapshot, take_snapshot
from tests.integration.vcs.conftest import Node, Remote
from tests.integration.vcs.told_worktree import ToldWorktree

LARGE = bytes(range(256)) * 600
FILES: dict[str, str | bytes | None] = {
    "a/text": "one\ntwo\nthree\n" * 40,
    "a/no end": "one\ntwo",
    "empty": "",
    "bytes": LARGE,
    "new\nline": "odd\n",
    "*": "a star\n",
    "crlf": "one\r\ntwo\r\n",
    ".gitignore": "*.log\n",
    "kept.log": "tracked all the same\n",
}
CONTENTS = (
    b"",
    b"x",
    b"one\ntwo\nthree\n",
    b"diff --git a/x b/x\nindex 1..2\n",
    LARGE[::-1],
    b"\r\n\r\n",
    b"\xff\xfe\n",
    b"# y\n",
)


@pytest.fixture
async def worked(node: Node, remote: Remote) -> ToldWorktree:
    return await ToldWorktree.prepare(node, remote, FILES)


async def test_whatever_is_written_one_command_comes_to_the_same(worked: ToldWorktree):
    """Files of the base and new ones, changed, emptied, deleted and put back, in any order."""
    chance = random.Random(7)
    (worked.path / "new").write_bytes(b"new\n")
    await worked.snapshot()
    names = [*(name for name in FILES if name != ".gitignore"), "script", "new"]
    for _ in range(12):
        written = chance.sample(names, chance.randint(1, 3))
        was_deleted = not all((worked.path / name).exists() for name in written)
        for name in written:
            if chance.random() < 0.25:
                (worked.path / name).unlink(missing_ok=True)
            else:
                (worked.path / name).write_bytes(chance.choice(CONTENTS))
        snapshot, took = await worked.snapshot(*written)
        assert took == ["diff-index"] or was_deleted or _is_touched_only(worked, written), "it has looked at everything"
        whole, _ = await ToldWorktree.snapshot(worked)
        assert _told(snapshot) == _told(whole)


def _is_touched_only(worked: ToldWorktree, written: list[str]) -> bool:
    """Whether one of them is as it was: written, and not changed. Git tells of it, and then has no patch for it."""
    return any(_content(worked.path / name) == _original(name) for name in written)


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _original(name: str) -> bytes | None:
    content = FILES.get(name)
    return content.encode() if isinstance(content, str) else content


def _told(snapshot: Snapshot) -> dict[bytes, tuple[str, str, str]]:
    return {file.path: (file.change, file.new_mode, file.new_blob) for file in snapshot.files}


async def test_the_first_after_a_checkout_takes_one_command_too(worked: ToldWorktree):
    (worked.path / "a/text").write_bytes(b"other\n")
    snapshot, took = await worked.snapshot("a/text")
    assert took == ["diff-index"]
    assert [(file.path, file.insertions, file.deletions) for file in snapshot.files] == [(b"a/text", 1, 120)]


async def test_what_was_not_told_is_found_by_the_next_look_at_everything(worked: ToldWorktree):
    (worked.path / "a/text").write_bytes(b"other\n")
    (worked.path / "left").write_bytes(b"by nobody\n")
    await worked.node.worktrees.checkpoint("run", 1, written=[Written(b"a/text")])
    snapshot, _ = await worked.snapshot()
    assert {file.path for file in snapshot.files} == {b"a/text", b"left"}


@pytest.mark.parametrize("name", [".gitignore", "link"])
async def test_files_that_need_a_second_look_get_it(worked: ToldWorktree, name: str):
    (worked.path / "debug.log").write_bytes(b"ignored until now\n")
    (worked.path / name).write_bytes(b"nothing\nis ignored\n")
    _, took = await worked.snapshot(name)
    assert "add" in took


async def test_nothing_is_known_after_a_restore(worked: ToldWorktree):
    (worked.path / "a/text").write_bytes(b"other\n")
    snapshot, _ = await worked.snapshot("a/text")
    await worked.node.worktrees.restore("run", 1, b"")
    (worked.path / "empty").write_bytes(b"not any more\n")
    after, took = await worked.snapshot("empty")
    assert "add" in took
    assert {file.path for file in after.files} == {b"empty"}
    await worked.node.worktrees.restore("run", 1, snapshot.patch)


async def test_nothing_is_known_of_an_attempt_that_began_with_a_patch(worked: ToldWorktree, remote: Remote):
    (worked.path / "a/text").write_bytes(b"other\n")
    (worked.path / "new").write_bytes(b"new\n")
    first, _ = await worked.snapshot()
    node = worked.node
    path = (await node.worktrees.prepare("run", 2, remote.repository, base_sha=worked.base_sha, patch=first.patch)).path
    (path / "empty").write_bytes(b"not any more\n")
    begun = len(node.git.commands)
    second = await node.worktrees.checkpoint("run", 2, written=[Written(b"empty")])
    assert "add" in [command[0] for command in node.git.commands[begun:]]
    assert {file.path for file in second.files} == {b"a/text", b"empty", b"new"}
    (path / "new").unlink()
    begun = len(node.git.commands)
    third = await node.worktrees.checkpoint("run", 2, written=[Written(b"new")])
    assert [command[0] for command in node.git.commands[begun:]] == ["diff-index"]
    assert {file.path for file in third.files} == {b"a/text", b"empty"}


async def test_a_sparse_worktree_is_always_looked_at_as_a_whole(node: Node, remote: Remote):
    remote.commit(FILES)
    options = CheckoutOptions(path="a")
    path = (await node.worktrees.prepare("run", 1, remote.repository, checkout=options)).path
    (path / "a/text").write_bytes(b"other\n")
    begun = len(node.git.commands)
    snapshot = await node.worktrees.checkpoint("run", 1, written=[Written(b"a/text")])
    assert "add" in [command[0] for command in node.git.commands[begun:]]
    assert [file.path for file in snapshot.files] == [b"a/text"]


async def test_a_look_that_began_before_another_is_not_what_is_known(
    worked: ToldWorktree, monkeypatch: pytest.MonkeyPatch
):
    """Somebody looks at what differs while the agent works, and takes longer than it."""
    looked, go_on = asyncio.Event(), asyncio.Event()

    async def slow(git: Git, place: Place, base_sha: str) -> Snapshot:
        snapshot = await take_snapshot(git, place, base_sha)
        looked.set()
        await go_on.wait()
        return snapshot

    with monkeypatch.context() as patched:
        patched.setattr(worktrees, "take_snapshot", slow)
        looking = asyncio.create_task(worked.node.worktrees.checkpoint("run", 1))
        async with asyncio.timeout(60):
            await looked.wait()
    (worked.path / "a/text").write_bytes(b"other\n")
    await worked.snapshot("a/text")
    go_on.set()
    assert (await looking).files == ()
    (worked.path / "empty").write_bytes(b"not any more\n")
    snapshot, _ = await worked.snapshot("empty")
    assert {file.path for file in snapshot.files} == {b"a/text", b"empty"}

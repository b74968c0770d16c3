"""What one commit changes against another: the patch of a checkpoint, from commits alone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from services.vcs.errors import CloneFailedError, PatchTooLargeError, RefRefusedError
from services.vcs.worktrees import diffs
from tests.integration.vcs.conftest import METADATA, Node, Remote, git
from tests.integration.vcs.test_worktrees import change_much


async def test_it_is_the_patch_that_made_the_commit(node: Node, remote: Remote) -> None:
    remote.commit({"old/name": "same\n" * 50, "gone": "x\n", "dir": "file\n", "script": "#!/bin/sh\n"})
    for name in ("link-gone", "link-moved"):
        (remote.work / name).symlink_to("README.md")
    base = remote.commit({"large.bin": b"\0\1" * 9_000, "large.txt": "a line of text\n" * 1_000})
    path = (await node.worktrees.prepare("run", 1, remote.repository, base_sha=base)).path
    change_much(path)
    committed = await node.commits.commit_worktree("run", 1, METADATA)
    sha = await node.commits.commit_patch(remote.repository, base, committed.patch, METADATA)
    found = await diffs.between(node.git, node.mirrors, remote.repository, base, sha)
    assert found.patch == committed.patch
    assert found.files == committed.files


async def test_commits_that_are_not_here_are_fetched(make_node: Callable[[str], Node], remote: Remote) -> None:
    base = git(remote.work, "rev-parse", "HEAD")
    node = make_node("node")
    await node.mirrors.fetch(remote.repository)
    head = remote.commit({"README.md": "# Other\n"})
    found = await diffs.between(node.git, node.mirrors, remote.repository, base, head)
    assert [(file.path, file.insertions, file.deletions) for file in found.files] == [(b"README.md", 1, 1)]
    back = await diffs.between(node.git, node.mirrors, remote.repository, head, base)
    assert b"+# Demo" in back.patch
    same = await diffs.between(node.git, node.mirrors, remote.repository, head, head)
    assert (same.patch, same.files) == (b"", ())


async def test_a_difference_that_is_too_large_says_so(
    node: Node, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = git(remote.work, "rev-parse", "HEAD")
    head = remote.commit({"big": "line\n" * 10_000})
    monkeypatch.setattr(diffs, "MAX_PATCH_BYTES", 1_000)
    with pytest.raises(PatchTooLargeError, match="compare them in a clone"):
        await diffs.between(node.git, node.mirrors, remote.repository, base, head)


async def test_what_is_no_commit_of_the_repository_is_refused(node: Node, remote: Remote, tmp_path: Path) -> None:
    base = git(remote.work, "rev-parse", "HEAD")
    with pytest.raises(CloneFailedError, match=r"is not in|not our ref"):
        await diffs.between(node.git, node.mirrors, remote.repository, base, "1" * 40)
    with pytest.raises(RefRefusedError):
        await diffs.between(node.git, node.mirrors, remote.repository, base, f"--output={tmp_path}/x")

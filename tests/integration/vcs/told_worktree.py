"""One attempt's worktree, of which vcs is told what was written, and what its snapshots cost."""

from __future__ import annotations

from pathlib import Path

from services.vcs.git.trees import tree_of_commit, tree_of_patch
from services.vcs.worktrees.known_changes import Written
from services.vcs.worktrees.snapshots import Snapshot, staged_tree
from tests.integration.vcs.conftest import Node, Remote


class ToldWorktree:
    def __init__(self, node: Node, path: Path, base_sha: str) -> None:
        self.node = node
        self.path = path
        self.base_sha = base_sha

    @classmethod
    async def prepare(cls, node: Node, remote: Remote, files: dict[str, str | bytes | None]) -> ToldWorktree:
        """Of run `run`, attempt 1: with ``files``, a program `script` and a link `link` to `empty`."""
        (remote.work / "script").write_text("#!/bin/sh\n")
        (remote.work / "script").chmod(0o755)
        (remote.work / "link").symlink_to("empty")
        base_sha = remote.commit(files)
        return cls(node, (await node.worktrees.prepare("run", 1, remote.repository)).path, base_sha)

    def write(self, name: str, content: bytes) -> Written:
        """Write a file that is there; what vcs is to be told of it."""
        before = (self.path / name).read_bytes()
        (self.path / name).write_bytes(content)
        return Written(name.encode(), before)

    async def snapshot(self, *written: str | Written) -> tuple[Snapshot, list[str]]:
        """With the names of the Git commands that it took; it holds what lies there."""
        begun = len(self.node.git.commands)
        told = [each if isinstance(each, Written) else Written(each.encode()) for each in written]
        snapshot = await self.node.worktrees.checkpoint("run", 1, written=told)
        took = [command[0] for command in self.node.git.commands[begun:]]
        _, place = self.node.worktrees.located("run", 1)
        there = await staged_tree(self.node.git, place, self.base_sha)
        if snapshot.patch:
            assert await tree_of_patch(self.node.git, place, self.base_sha, snapshot.patch) == there
        else:
            assert await tree_of_commit(self.node.git, place, self.base_sha) == there
        return snapshot, took

"""Nodes whose released worktrees are kept for next runs, and what a worktree is compared by."""

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from services.vcs.mirrors.reach import Reach
from services.vcs.worktrees.worktrees import Worktrees
from tests.integration.vcs.conftest import Node, Remote


def spare_keeping(node: Node, owner: str = "client", *, most: int = 2) -> Node:
    """The node as it is for runs of an owner; without a name: of nobody."""

    async def reach_of(_run_id: str) -> Reach:
        return Reach(node.git, node.mirrors, owner)

    return replace(node, worktrees=Worktrees(node.root, node.mirrors, node.git, reach_of=reach_of, most_spares=most))


def listing(folder: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything beneath a worktree, by its name: type and whole mode, owner, links, attributes, bytes.

    Of `.git` that it is a file, as its text is the attempt's own.
    """
    found = {b"": _facts(os.fsencode(folder))}
    for parent, folders, files in os.walk(os.fsencode(folder)):
        for path in (parent + b"/" + name for name in (*folders, *files)):
            found[os.path.relpath(path, os.fsencode(folder))] = _facts(path)
    assert stat.S_ISREG((folder / ".git").lstat().st_mode)
    del found[b".git"]
    return found


def _facts(path: bytes) -> tuple[object, ...]:
    status = os.lstat(path)
    is_file = stat.S_ISREG(status.st_mode)
    attributes = sorted(os.listxattr(path, follow_symlinks=False))
    data = Path(os.fsdecode(path)).read_bytes() if is_file else b""
    return status.st_mode, status.st_uid, status.st_gid, status.st_nlink if is_file else 0, attributes, data


def identity(path: Path) -> tuple[int, int]:
    """Another one wherever the file was made or changed in between."""
    status = path.lstat()
    return status.st_ino, status.st_ctime_ns


async def given_back(node: Node, remote: Remote, change: Callable[[Path], object] = lambda _: None) -> Path:
    """Where the worktree of a first run lay, which changed it and was released."""
    path = (await node.worktrees.prepare("first", 1, remote.repository)).path
    change(path)
    await node.worktrees.release("first", 1, reusable=True)
    return path

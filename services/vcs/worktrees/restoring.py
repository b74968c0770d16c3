"""Puts a worktree back to a tree, whatever programs did to it. Follows no link out of it, runs nothing of it."""

import asyncio
import os
import shutil
import stat
from datetime import timedelta
from pathlib import Path
from typing import Final

from services.vcs.errors import GitError
from services.vcs.git.runner import Git, Place
from services.vcs.git.trees import scratch_index
from services.vcs.worktrees import lfs, sparse, submodules
from services.vcs.worktrees.snapshots import stage, staged_tree

RESTORE_TIMEOUT: Final = timedelta(minutes=5)
_IGNORE_FILE: Final = b".gitignore"


async def put_back(git: Git, place: Place, base_sha: str, tree: str) -> bool:
    """Make the worktree hold exactly ``tree``, and beside it only what ``tree`` itself says to ignore.

    Returns whether that was reached; where it was not, the worktree must be made anew. The index that the checkout
    wrote is only read, so that nothing changes for checkpoints. Raises ``GitTimeoutError``.
    """
    try:
        with scratch_index(place) as scratch:
            # Staged first: what is as it should be is left alone, and what is new becomes known and so goes.
            await stage(git, place, scratch, base_sha)
            await git.run("read-tree", "--reset", "-u", tree, place=scratch, timeout=RESTORE_TIMEOUT)
            await sparse.show_changes(git, scratch, base_sha, tree)
            await _drop_new_ignore_files(git, scratch)
            await git.run("clean", "-ffdq", place=scratch, timeout=RESTORE_TIMEOUT)
            await put_extras_again(git, place, scratch)
        return await staged_tree(git, place, base_sha) == tree
    except (GitError, OSError):
        return False


async def put_extras_again(git: Git, place: Place, index: Place) -> None:
    """What lies in a worktree beside its tree: the pointer, submodules, contents of Git LFS.

    ``index``: what the tree was just checked out with. Raises ``GitError``, ``OSError``.
    """
    await asyncio.to_thread(write_pointer, place)
    await submodules.put_back(git, place, index)
    await lfs.put_again(git, place, index)


def write_pointer(place: Place) -> None:
    """The worktree's `.git`, for programs that look for one, as ripgrep does before it obeys .gitignore.

    We never read it, and whatever was put there instead goes.
    """
    assert place.work_tree is not None
    pointer, text = place.work_tree / ".git", f"gitdir: {place.git_dir}\n"
    status = _lstat(pointer)
    if status is not None and stat.S_ISDIR(status.st_mode):
        shutil.rmtree(pointer)
    elif status is not None:
        pointer.unlink()
    pointer.write_text(text)


async def _drop_new_ignore_files(git: Git, scratch: Place) -> None:
    """Remove ignore files that the tree does not have from folders that it has.

    One that also ignores itself would hide what was left behind, and what is written after it.
    """
    assert scratch.work_tree is not None
    listed = await git.run("ls-files", "-z", "--cached", place=scratch, timeout=RESTORE_TIMEOUT)
    kept = set(listed.split(b"\0")) - {b""}
    folders = {b""} | {folder for path in kept for folder in _folders_of(path)}
    root = os.fsencode(scratch.work_tree)
    for folder in folders:
        path = folder + _IGNORE_FILE
        status = _lstat(Path(os.fsdecode(root + b"/" + path))) if path not in kept else None
        if status is not None and not stat.S_ISDIR(status.st_mode):
            os.unlink(root + b"/" + path)  # noqa: PTH108  names are bytes here


def _folders_of(path: bytes) -> list[bytes]:
    """Of ``a/b/c``: ``a/`` and ``a/b/``."""
    pieces = path.split(b"/")[:-1]
    return [b"/".join(pieces[: depth + 1]) + b"/" for depth in range(len(pieces))]


def _lstat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None

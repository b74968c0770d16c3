"""What a run delivers: a commit made from base, patch and metadata alone, so that its SHA is the same everywhere."""

import asyncio
from dataclasses import dataclass, replace

from services.vcs.errors import PatchInexactError
from services.vcs.git.diffstat import FileChange
from services.vcs.git.repositories import Repository, checked_sha
from services.vcs.git.runner import Git, Place
from services.vcs.git.trees import (
    CommitMetadata,
    commit_tree,
    patched_tree,
    read_base,
    scratch_index,
    tree_of_patch,
)
from services.vcs.mirrors.mirrors import Mirrors
from services.vcs.mirrors.reach import Reach
from services.vcs.worktrees import lfs, submodules
from services.vcs.worktrees.attempts import Checkout
from services.vcs.worktrees.snapshots import Snapshot, take_snapshot_and_tree
from services.vcs.worktrees.worktrees import Worktrees


@dataclass(frozen=True, slots=True)
class Committed:
    """``sha`` and ``patch`` are empty where nothing changed. ``notes``: sentences on what is no part of the patch."""

    sha: str
    patch: bytes
    files: tuple[FileChange, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Made:
    """``staged``: the worktree's tree. ``tree``: the one that the patch makes of the base."""

    snapshot: Snapshot
    staged: str
    tree: str


class Commits:
    def __init__(self, git: Git, mirrors: Mirrors, worktrees: Worktrees) -> None:
        self._git = git
        self._mirrors = mirrors
        self._worktrees = worktrees

    def through(self, reach: Reach) -> "Commits":
        """The same, where what is missing of a mirror is fetched by other credentials."""
        return Commits(reach.git, reach.mirrors, self._worktrees)

    async def commit_worktree(self, run_id: str, attempt: int, metadata: CommitMetadata) -> Committed:
        """The commit that the worktree's changes make, without moving anything in the worktree.

        It is made from the patch, as every later one will be, and compared with what was staged. Raises
        ``UnknownWorktreeError``, ``LeaseLostError``, ``PatchTooLargeError``, ``PatchInexactError``,
        ``LfsRefusedError``, ``GitError``.
        """
        checkout, place = self._worktrees.located(run_id, attempt)
        notes = await submodules.notes(self._git, place)
        made = await self._worktrees.compared(checkout, lambda: self._made(checkout, place))
        if not made.snapshot.patch:
            return Committed("", b"", (), notes)
        if made.tree != made.staged:
            words = f"the patch of run {run_id} makes tree {made.tree}, not the worktree's {made.staged}"
            raise PatchInexactError(f"{words}; please report it")
        await lfs.refuse_changed(self._git, place, made.tree, made.snapshot.files)
        sha = await commit_tree(self._git, place, made.tree, checkout.base_sha, metadata)
        return Committed(sha, made.snapshot.patch, made.snapshot.files, notes)

    async def _made(self, checkout: Checkout, place: Place) -> _Made:
        """The base is read while the worktree is staged: what the patch is applied to is then there."""
        with scratch_index(replace(place, work_tree=None)) as scratch:
            (snapshot, staged), _ = await asyncio.gather(
                take_snapshot_and_tree(self._git, place, checkout.base_sha),
                read_base(self._git, scratch, checkout.base_sha),
            )
            if not snapshot.patch:
                return _Made(snapshot, staged, staged)
            return _Made(snapshot, staged, await patched_tree(self._git, scratch, checkout.base_sha, snapshot.patch))

    async def commit_patch(self, repository: Repository, base_sha: str, patch: bytes, metadata: CommitMetadata) -> str:
        """Make the same commit in the mirror of any node, ready to be pushed; its SHA.

        The base is fetched where it is not here. Raises ``CloneFailedError``, ``PatchRefusedError``, ``GitError``.
        """
        await self._mirrors.fetch(repository, sha=checked_sha(base_sha))
        await self._mirrors.complete(repository, base_sha, patch=patch)
        place = self._mirrors.place(repository)
        tree = await tree_of_patch(self._git, place, base_sha, patch)
        return await commit_tree(self._git, place, tree, base_sha, metadata)

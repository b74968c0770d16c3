"""Keeps what is in a worktree that nobody holds any more as a commit in its mirror. Removes no worktree."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol
from uuid import UUID

from services.vcs.errors import PatchRefusedError, PatchTooLargeError
from services.vcs.git.runner import Git, Place
from services.vcs.git.trees import CommitMetadata, commit_tree, tree_of_commit, tree_of_patch
from services.vcs.mirrors.files import as_alternate
from services.vcs.worktrees.attempts import Checkout
from services.vcs.worktrees.snapshots import staged_tree
from services.vcs.worktrees.worktrees import Worktrees

PACK_TIMEOUT: Final = timedelta(minutes=5)
QUICK: Final = timedelta(seconds=30)
_RESCUED: Final = "refs/quarterdeck/rescue/"
_PINS: Final = "refs/quarterdeck/base/"
_AUTHOR: Final = ("Quarterdeck", "quarterdeck@users.noreply.invalid")


class StoredPatches(Protocol):
    async def is_stored(self, run_id: UUID, patch: bytes) -> bool:
        """Whether the run's checkpoint or changeset is exactly ``patch``."""

    async def checkpointed(self, run_id: UUID) -> bytes:
        """The patch of the run's checkpoint; empty where it has none."""


@dataclass(frozen=True, slots=True)
class RescuedWork:
    """``time``: when it was rescued, seconds since the epoch."""

    ref: str
    run_id: str
    commit_sha: str
    time: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What a mirror keeps for us besides the remote's own branches. ``pinned``: the runs whose base is pinned."""

    pinned: tuple[str, ...]
    rescued: tuple[RescuedWork, ...]


class Rescue:
    def __init__(self, root: Path, git: Git, worktrees: Worktrees, stored: StoredPatches) -> None:
        """``root``: the data folder of this vcs, whose mirrors are in ``<root>/mirrors``."""
        self._mirrors = root / "mirrors"
        self._git = git
        self._worktrees = worktrees
        self._stored = stored

    async def rescue(self, run_id: str, attempt: int) -> str:
        """Keep the worktree's changes under a ref of its mirror; its name, empty where nothing is to be kept.

        Nothing is where nothing differs from the base or Postgres has the same. Safe to repeat. Raises
        ``UnknownWorktreeError``, ``LeaseLostError``, other ``VcsError``s, ``StoreUnavailableError``, ``OSError``: then
        nothing says that the work is safe, and the worktree must stay.
        """
        checkout, place = self._worktrees.located(run_id, attempt)
        tree = await self._worktrees.compared(checkout, lambda: staged_tree(self._git, place, checkout.base_sha))
        if tree == await tree_of_commit(self._git, place, checkout.base_sha):
            return ""
        if await self._is_stored(checkout, place, tree):
            return ""
        mirror, ref = self.place(checkout.mirror), f"{_RESCUED}{run_id}/{attempt}"
        if tree != await self._tree_at(mirror, ref):
            commit = await commit_tree(self._git, place, tree, checkout.base_sha, _metadata(checkout))
            await self._carry_over(place, mirror, commit, checkout.base_sha)
            await self._git.run("update-ref", ref, commit, place=mirror, timeout=QUICK)
        return ref

    async def kept(self, folder: str) -> Kept:
        """What the mirror in ``folder`` keeps. Raises ``GitError``, ``GitTimeoutError``."""
        arguments = ("for-each-ref", "--format=%(refname) %(objectname) %(committerdate:unix)", _PINS, _RESCUED)
        output = await self._git.run(*arguments, place=self.place(folder), timeout=QUICK)
        lines = output.decode("utf-8", "replace").splitlines()
        pinned = tuple(line.split()[0].removeprefix(_PINS) for line in lines if line.startswith(_PINS))
        return Kept(pinned, tuple(_rescued(lines)))

    async def forget(self, folder: str, work: RescuedWork) -> None:
        """Drop a rescue ref, unless it has moved meanwhile. Raises ``GitError``, ``GitTimeoutError``."""
        arguments = ("update-ref", "-d", work.ref, work.commit_sha)
        await self._git.run(*arguments, place=self.place(folder), timeout=QUICK)

    async def _is_stored(self, checkout: Checkout, place: Place, tree: str) -> bool:
        run_id = UUID(checkout.run_id)
        try:
            snapshot = await self._worktrees.checkpoint(checkout.run_id, checkout.attempt)
        except PatchTooLargeError:
            return False  # so it was never stored either
        if await self._stored.is_stored(run_id, snapshot.patch):
            return True
        # A checkpoint may say the same in other words: it has one hunk a file where Git has several.
        patch = await self._stored.checkpointed(run_id)
        try:
            return bool(patch) and await tree_of_patch(self._git, place, checkout.base_sha, patch) == tree
        except PatchRefusedError:
            return False

    async def _tree_at(self, mirror: Place, ref: str) -> str:
        arguments = ("rev-parse", "--verify", "--quiet", f"{ref}^{{tree}}")
        output = await self._git.run(*arguments, place=mirror, timeout=QUICK, accept=(0, 1, 128))
        return output.decode("ascii", "replace").strip()

    async def _carry_over(self, place: Place, mirror: Place, commit: str, base_sha: str) -> None:
        """Copy what ``commit`` has beyond the base from the attempt's own objects into a pack of the mirror.

        Whether all of it is there without the attempt's objects is asked of Git before anyone relies on it.
        """
        await self._git.run(
            *("pack-objects", "-q", "--revs", "--no-sparse", "--non-empty"),
            str(mirror.git_dir / "objects" / "pack" / "pack"),
            place=mirror,
            stdin=f"{commit}\n^{base_sha}\n".encode("ascii"),
            variables={"GIT_ALTERNATE_OBJECT_DIRECTORIES": as_alternate(place.git_dir / "objects")},
            timeout=PACK_TIMEOUT,
        )
        check = ("rev-list", "--objects", "--quiet", commit, f"^{base_sha}")
        await self._git.run(*check, place=mirror, timeout=PACK_TIMEOUT)

    def place(self, folder: str) -> Place:
        """The mirror of that name."""
        return Place(self._mirrors / f"{folder}.git")


def _metadata(checkout: Checkout) -> CommitMetadata:
    run_id, attempt = checkout.run_id, checkout.attempt
    message = (
        f"Rescue what attempt {attempt} of run {run_id} left\n\n"
        "Nobody released its worktree, and this was in no checkpoint or changeset of the run.\n"
    )
    return CommitMetadata(*_AUTHOR, int(time.time()), message)


def _rescued(lines: list[str]) -> Iterator[RescuedWork]:
    for line in lines:
        if line.startswith(_RESCUED):
            ref, sha, seconds = line.split()
            yield RescuedWork(ref, ref.removeprefix(_RESCUED).partition("/")[0], sha, int(seconds))

"""What a run's loop stores: its steps in Postgres, with what its worktree has come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from services.agent.tools import Workspace
from services.jobs.models import Checkpoint, Hold, SavedTree, Standing, StoredMessage
from services.jobs.running import Running


class Worktrees(Protocol):
    """Who knows what has changed in a worktree; the vcs."""

    async def checkpoint(self, hold: Hold) -> bytes:
        """The worktree as a patch against its base."""
        ...


class Saver:
    """Stores checkpoints; what a run begins with goes with the first of them."""

    def __init__(
        self,
        running: Running,
        hold: Hold,
        *,
        first: Sequence[StoredMessage],
        head: bytes | None,
        on_standing: Callable[[Standing], None],
    ) -> None:
        """``first``: messages that are not stored yet; ``head``: the beginning of all requests, if that is not."""
        self._running = running
        self._hold = hold
        self._first = first
        self._head = head
        self._on_standing = on_standing

    async def __call__(self, checkpoint: Checkpoint) -> Standing:
        whole = replace(checkpoint, messages=[*self._first, *checkpoint.messages], head=self._head)
        standing = await self._running.checkpoint(self._hold, whole)
        self._first, self._head = [], None
        self._on_standing(standing)
        return standing


class TreeReader:
    """What a checkpoint has to store of the worktree."""

    def __init__(self, worktrees: Worktrees | None, hold: Hold, workspace: Workspace) -> None:
        """``worktrees``: None where there is no repository: an empty folder has nothing to come back to."""
        self._worktrees = worktrees
        self._hold = hold
        self._workspace = workspace
        self._stored_versions: Mapping[str, str] = workspace.read_versions()

    async def __call__(self, wrote: bool) -> SavedTree | None:
        """``wrote``: whether a tool may have changed files."""
        versions = self._workspace.read_versions()
        wrote = wrote and self._worktrees is not None
        if not wrote and versions == self._stored_versions:
            return None
        patch = await self._worktrees.checkpoint(self._hold) if wrote and self._worktrees is not None else None
        self._stored_versions = versions
        return SavedTree(patch, versions)

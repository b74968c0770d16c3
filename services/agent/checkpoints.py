"""What a run's loop stores: its steps in Postgres, with what its worktree has come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from services.agent.tools import FileChange, Workspace
from services.jobs.models import Checkpoint, Hold, SavedTree, Standing, StoredMessage
from services.jobs.running import Running

_AS_TOLD: dict[str, Literal["added", "deleted"]] = {"added": "added", "deleted": "deleted"}


@dataclass(frozen=True)
class Snapshot:
    """A worktree against its base. ``files``: by path, how each differs and the id of its content."""

    patch: bytes
    files: Mapping[str, tuple[str, str]]


class TreeTooLargeError(Exception):
    """A worktree differs from its base by more than can be stored. The message says by how much, and which files."""


class Worktrees(Protocol):
    """Who knows what has changed in a worktree; the vcs."""

    async def snapshot(self, hold: Hold, *, written: Sequence[FileChange] = ()) -> Snapshot:
        """``written``: all that was written since the last one, of files that were there then, each once, with what it
        held then where that is known; empty: not known. Raises ``TreeTooLargeError``.
        """
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

    def __init__(self, worktrees: Worktrees | None, hold: Hold, workspace: Workspace, *, is_fresh: bool) -> None:
        """``worktrees``: None where the run has no worktree: a conversation's empty folder has nothing to come back to.

        ``is_fresh``: nothing differs from the base yet.
        """
        self._worktrees = worktrees
        self._hold = hold
        self._workspace = workspace
        self._stored_versions: Mapping[str, str] = workspace.read_versions()
        self._files: Mapping[str, tuple[str, str]] | None = {} if is_fresh else None
        self._changed: list[FileChange] = []
        self.problem = ""
        """Why the worktree cannot be stored as it is; what was stored of it before stands. Empty: it can."""

    async def __call__(self, written: Sequence[FileChange] | None) -> SavedTree | None:
        """``written``: what tools have changed since the last call; None: that is not known."""
        versions = self._workspace.read_versions()
        if written != [] and self._worktrees is not None:
            try:
                snapshot = await self._worktrees.snapshot(self._hold, written=_known_to_git(written or ()))
            except TreeTooLargeError as error:
                self.problem, self._changed, self._stored_versions = str(error), [], versions
                # Newer than the tree: what is changed in a file that was put back has to be read again first.
                return SavedTree(None, versions, is_behind=True)
            self.problem = ""
            # What earlier attempts changed is not known by file: their changes were told by them.
            self._changed = [] if self._files is None else changes(self._files, snapshot.files)
            self._files = snapshot.files
            self._stored_versions = versions
            return SavedTree(snapshot.patch, versions)
        if versions == self._stored_versions:
            return None
        self._stored_versions = versions
        return SavedTree(None, versions)

    def changed(self) -> Sequence[FileChange]:
        """What the last snapshot found to differ from the one before it."""
        return self._changed


def _known_to_git(written: Sequence[FileChange]) -> list[FileChange]:
    """Each file's first change; none where one of them is new, or has a name that a message cannot hold."""
    if any(each.change == "added" or not _is_text(each.path) for each in written):
        return []
    return list({each.path: each for each in reversed(written)}.values())


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def changes(before: Mapping[str, tuple[str, str]], after: Mapping[str, tuple[str, str]]) -> list[FileChange]:
    """What became of files between two snapshots, by path. One that is as in the base again was modified."""
    found = []
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            change, _ = after.get(path, ("modified", ""))
            found.append(FileChange(path, _AS_TOLD.get(change, "modified")))
    return found

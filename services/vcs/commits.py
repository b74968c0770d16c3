"""What a run delivers: a commit made from base, patch and metadata alone, so that its SHA is the same everywhere."""

from dataclasses import dataclass

from services.vcs.diffstat import FileChange
from services.vcs.errors import PatchInexactError
from services.vcs.git import Git
from services.vcs.mirrors import Mirrors
from services.vcs.repositories import Repository, checked_sha
from services.vcs.snapshots import take_snapshot_and_tree
from services.vcs.trees import CommitMetadata, commit_tree, tree_of_patch
from services.vcs.worktrees import Worktrees


@dataclass(frozen=True, slots=True)
class Committed:
    """``sha`` and ``patch`` are empty where nothing changed."""

    sha: str
    patch: bytes
    files: tuple[FileChange, ...]


class Commits:
    def __init__(self, git: Git, mirrors: Mirrors, worktrees: Worktrees) -> None:
        self._git = git
        self._mirrors = mirrors
        self._worktrees = worktrees

    async def commit_worktree(self, run_id: str, attempt: int, metadata: CommitMetadata) -> Committed:
        """The commit that the worktree's changes make, without moving anything in the worktree.

        It is made from the patch, as every later one will be, and compared with what was staged. Raises
        ``UnknownWorktreeError``, ``LeaseLostError``, ``PatchTooLargeError``, ``PatchInexactError``, ``GitError``.
        """
        checkout, place = self._worktrees.located(run_id, attempt)
        snapshot, staged = await take_snapshot_and_tree(self._git, place, checkout.base_sha)
        if not snapshot.patch:
            return Committed("", b"", ())
        tree = await tree_of_patch(self._git, place, checkout.base_sha, snapshot.patch)
        if tree != staged:
            words = f"the patch of run {run_id} makes tree {tree}, not the worktree's {staged}; please report it"
            raise PatchInexactError(words)
        sha = await commit_tree(self._git, place, tree, checkout.base_sha, metadata)
        return Committed(sha, snapshot.patch, snapshot.files)

    async def commit_patch(self, repository: Repository, base_sha: str, patch: bytes, metadata: CommitMetadata) -> str:
        """Make the same commit in the mirror of any node, ready to be pushed; its SHA.

        The base is fetched where it is not here. Raises ``CloneFailedError``, ``PatchRefusedError``, ``GitError``.
        """
        await self._mirrors.fetch(repository, sha=checked_sha(base_sha))
        place = self._mirrors.place(repository)
        tree = await tree_of_patch(self._git, place, base_sha, patch)
        return await commit_tree(self._git, place, tree, base_sha, metadata)

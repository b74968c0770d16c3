"""What the calls are answered from: the parts of a vcs, as far as its gRPC face knows them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from services.contracts.words import MergeMethod
from services.vcs.disk.usage import DiskStatus
from services.vcs.forges import ChangeStatus, Forge, PostedComment
from services.vcs.forges.github.manifests import MadeApp
from services.vcs.git.diffstat import FileChange
from services.vcs.git.repositories import Repository
from services.vcs.git.runner import Progress
from services.vcs.mirrors.mirrors import Synced
from services.vcs.worktrees.commits import Commits
from services.vcs.worktrees.worktrees import Worktrees

# run id, attempt, lease token → whether the caller still owns the run.
CheckLease = Callable[[str, int, str], Awaitable[bool]]

# run id, attempt → whether its worktree is to stay, now that its agent is done with it.
IsKept = Callable[[str, int], Awaitable[bool]]


class Difference(Protocol):
    """``patch``: `git diff --binary`."""

    @property
    def patch(self) -> bytes: ...
    @property
    def files(self) -> Sequence[FileChange]: ...


# repository, base SHA, head SHA → what differs; raises `VcsError`s.
DiffCommits = Callable[[Repository, str, str], Awaitable[Difference]]


class SyncedMirrors(Protocol):
    """Both go on where the caller goes away; who asks for the same meanwhile joins."""

    async def sync(self, repository: Repository, progress: Progress | None = None) -> Synced: ...

    async def clone(self, repository: Repository, progress: Progress | None = None) -> Synced: ...


class DiskReporter(Protocol):
    async def status(self, repository_key: str = "") -> DiskStatus: ...


class Forges(Protocol):
    """Both raise ``ForgeRefusedError`` where no forge is set up."""

    def of(self, repository: Repository) -> Forge:
        """The forge that has ``repository``."""

    def listing(self) -> Forge:
        """The forge whose repositories are listed."""


class SetsUpApps(Protocol):
    async def set_up(self, code: str) -> MadeApp:
        """Take over the App that GitHub made. Raises ``VcsError``s, ``StoreUnavailableError``."""


class Changesets(Protocol):
    """Published changesets; each call also records what it found. Raises ``ForgeError``s, ``StoreUnavailableError``."""

    async def look_up(self, changeset_id: UUID) -> ChangeStatus: ...

    async def close(self, changeset_id: UUID, comment: str, *, delete_branch: bool) -> ChangeStatus: ...

    async def reopen(self, changeset_id: UUID) -> ChangeStatus: ...

    async def merge(self, changeset_id: UUID, method: MergeMethod, *, delete_branch: bool) -> ChangeStatus: ...

    async def comment(self, changeset_id: UUID, body: str, *, in_reply_to: str) -> PostedComment: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """``node``: this process's name. ``allow_local``: whether a repository may be a path on this machine."""

    worktrees: Worktrees
    commits: Commits
    check_lease: CheckLease
    is_kept: IsKept
    diff_commits: DiffCommits
    mirrors: SyncedMirrors
    janitor: DiskReporter
    forges: Forges
    changesets: Changesets
    apps: SetsUpApps
    node: str
    allow_local: bool

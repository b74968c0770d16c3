"""Where a pushed branch becomes something to review. Each forge is a module of its own behind one protocol."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from services.contracts.words import Checks, Mergeable, MergeMethod, Publish, Review
from services.vcs.git.repositories import Repository

MOST_LISTED: Final = 1_000
MOST_COMMENTS: Final = 100
MOST_BODY: Final = 65_536
"""Characters of an issue's or a comment's text, as GitHub has it."""
MOST_CHECKS: Final = 100
MOST_SUMMARY: Final = 20_000
MARK: Final = "<!-- quarterdeck:"
"""What a hidden marker begins with: a text that holds it is ours."""


class ChangeState(StrEnum):
    OPEN = "open"
    MERGED = "merged"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class ChangeRef:
    """A change on the forge. ``number``: the pull request's; None: none was made, or it is not known yet.

    ``commit_sha``: what we pushed to ``branch`` last.
    """

    changeset_id: str
    repository: Repository
    branch: str
    base_branch: str
    commit_sha: str
    number: int | None = None
    url: str = ""


@dataclass(frozen=True, slots=True)
class PublishedChange:
    """A branch that has been pushed, and what to say about it. ``base_branch``: what it is to be merged into.

    ``publish``: pull_request, draft, or branch (no pull request is opened). ``body``: Markdown. ``keeps_words``: the
    pull request that is open is only found: nothing of it is changed, and none is made.
    """

    changeset_id: str
    repository: Repository
    branch: str
    base_branch: str
    commit_sha: str
    title: str
    body: str
    publish: Publish = Publish.PULL_REQUEST
    labels: Sequence[str] = ()
    reviewers: Sequence[str] = ()
    team_reviewers: Sequence[str] = ()
    assignees: Sequence[str] = ()
    keeps_words: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """``url``: the page. ``number``: the pull request's, None where there is none. ``notes``: what of the wishes could
    not be met (a label that may not be made, a reviewer who is no collaborator), in words for the user.
    """

    url: str
    number: int | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ChangeStatus:
    """What the forge says of a change now. ``head_sha``: what the branch is at; empty where it is gone.

    ``merge_sha``: empty unless merged.
    """

    state: ChangeState
    url: str = ""
    number: int | None = None
    is_draft: bool = False
    head_sha: str = ""
    checks: Checks = Checks.NONE
    review: Review = Review.NONE
    mergeable: Mergeable = Mergeable.UNKNOWN
    merge_sha: str = ""


@dataclass(frozen=True, slots=True)
class PostedComment:
    id: str
    url: str


@dataclass(frozen=True, slots=True)
class MarkedComment:
    """What is to be said once on an issue or pull request, however often it is tried: ``id`` marks it there.

    ``in_reply_to``: the id of a review comment, to answer in its thread; empty: none. ``tried_since``: since when an
    earlier try may have posted it; None: this is the first.
    """

    id: str
    repository: Repository
    number: int
    body: str
    in_reply_to: str = ""
    tried_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class IssueComment:
    """``author``: empty where the account was deleted."""

    id: str
    author: str
    body: str
    time: datetime


@dataclass(frozen=True, slots=True)
class Issue:
    """An issue or pull request now. ``state``: open or closed. ``comments``: the oldest first, without ours."""

    number: int
    title: str
    body: str
    state: str
    author: str
    url: str
    labels: Sequence[str] = ()
    is_pull_request: bool = False
    comments: Sequence[IssueComment] = ()


@dataclass(frozen=True, slots=True)
class FailedCheck:
    """``conclusion``: the forge's word. ``summary``: what the check says of itself."""

    name: str
    conclusion: str
    title: str = ""
    summary: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class RepositoryQuery:
    """``patterns``: shell patterns over owner/name. ``topics``: all of them. ``search``: in the forge's language."""

    owner: str = ""
    patterns: Sequence[str] = ()
    topics: Sequence[str] = ()
    search: str = ""
    include_archived: bool = False
    include_forks: bool = False
    limit: int = 100


@dataclass(frozen=True, slots=True)
class ForgeRepository:
    full_name: str
    clone_url: str
    default_branch: str
    description: str = ""
    is_private: bool = False
    is_archived: bool = False
    is_fork: bool = False
    topics: Sequence[str] = ()
    language: str = ""
    size_kb: int = 0


class Forge(Protocol):
    """Every method raises the ``ForgeError``s of ``services.vcs.errors``; all may be repeated after any failure."""

    name: str
    """`github` or `local`."""

    async def open(self, change: PublishedChange) -> Opened:
        """Show the change: its pull request is found by its head branch, and updated in place, before one is made."""

    async def look_up(self, change: ChangeRef) -> ChangeStatus: ...

    async def close(self, change: ChangeRef, *, comment: str, delete_branch: bool) -> ChangeStatus:
        """``comment``: posted once, also where the call is repeated; empty: none."""

    async def reopen(self, change: ChangeRef) -> ChangeStatus: ...

    async def merge(self, change: ChangeRef, method: MergeMethod, *, delete_branch: bool) -> ChangeStatus:
        """Merge what was pushed; raises ``ForgeRefusedError`` where the branch is at another commit, or cannot be."""

    async def comment(self, change: ChangeRef, body: str, *, in_reply_to: str) -> PostedComment:
        """``in_reply_to``: the id of a review comment; empty: a comment on the pull request itself."""

    def repositories(self, query: RepositoryQuery) -> AsyncIterator[ForgeRepository]: ...

    async def permission(self, repository: Repository, login: str) -> str:
        """`admin`, `write`, `read` or `none`."""

    async def issue(self, repository: Repository, number: int) -> Issue:
        """With its first ``MOST_COMMENTS`` comments, no text longer than ``MOST_BODY`` characters."""

    async def failed_checks(self, repository: Repository, sha: str) -> Sequence[FailedCheck]:
        """The first ``MOST_CHECKS``, no text longer than ``MOST_SUMMARY``; what may not be read counts as not there."""

    async def post(self, comment: MarkedComment) -> PostedComment:
        """Say it, unless an earlier try has: then that is what was posted."""

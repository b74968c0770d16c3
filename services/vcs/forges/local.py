"""The forge that needs no account: a pushed branch, and the changeset's own page on the gateway.

What Git itself tells, it says: that a change was closed is known to Postgres alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar
from urllib.parse import quote

from services.contracts.words import Mergeable, MergeMethod
from services.runtime.telemetry import logger
from services.vcs.errors import (
    CloneFailedError,
    ForgeError,
    ForgeNotFoundError,
    ForgeRefusedError,
    ForgeUnavailableError,
    GitError,
    VcsError,
)
from services.vcs.forges import (
    ChangeRef,
    ChangeState,
    ChangeStatus,
    FailedCheck,
    ForgeRepository,
    Issue,
    MarkedComment,
    Opened,
    PostedComment,
    PublishedChange,
    RepositoryQuery,
)
from services.vcs.forges.merges import Merges
from services.vcs.git.push import delete_branch as delete_pushed
from services.vcs.git.push import push
from services.vcs.git.remotes import list_remote
from services.vcs.git.repositories import Repository, checked_ref
from services.vcs.git.runner import Git
from services.vcs.mirrors.mirrors import Mirrors

log = logger("vcs.forges.local")

Result = TypeVar("Result")

# How often a merge is made anew because the base branch has moved meanwhile.
_MOST_TRIES: Final = 5
# Git's words where the branch is that of somebody's worktree.
_CHECKED_OUT: Final = "checked out"


@dataclass(frozen=True, slots=True)
class _Heads:
    """What the remote's branches are at; empty: it has none of that name."""

    branch: str
    base: str
    base_branch: str


class LocalForge:
    name = "local"

    def __init__(self, git: Git, mirrors: Mirrors, address: str) -> None:
        """``address``: where the gateway's pages are, such as http://127.0.0.1:8080."""
        self._git = git
        self._mirrors = mirrors
        self._address = address.rstrip("/")

    async def open(self, change: PublishedChange) -> Opened:
        """The page is there as soon as the changeset is, so there is nothing to make and nothing to make twice."""
        return Opened(self._page(change.changeset_id))

    async def look_up(self, change: ChangeRef) -> ChangeStatus:
        """Open or merged: whether the change was closed, its caller knows."""
        async with _forge_errors():
            return await self._status(change, await self._heads(change))

    async def close(
        self,
        change: ChangeRef,
        *,
        comment: str,  # noqa: ARG002  there is nowhere to post it
        delete_branch: bool,
    ) -> ChangeStatus:
        """There is nowhere to post ``comment``. What is merged stays merged.

        Raises ``ForgeRefusedError`` where the branch that is to be deleted holds more than we pushed.
        """
        async with _forge_errors():
            status = await self._status(change, await self._heads(change))
            if delete_branch and status.head_sha:
                await self._delete(change)
                status = replace(status, head_sha="")
            return status if status.state is ChangeState.MERGED else replace(status, state=ChangeState.CLOSED)

    async def reopen(self, change: ChangeRef) -> ChangeStatus:
        """The branch is pushed again where it is gone and this node still has the commit, or gets it."""
        async with _forge_errors():
            heads = await self._heads(change)
            status = await self._status(change, heads)
            if status.state is ChangeState.MERGED:
                raise ForgeRefusedError(f"{change.branch} is merged and cannot be opened again; submit a new job")
            if heads.branch:
                return status
            if not await self._obtained(change, heads):
                words = f"branch {change.branch} is gone, and so is its commit; publish the changeset again"
                raise ForgeRefusedError(words)
            await self._push(change.repository, change.branch, change.commit_sha, expected_sha="")
            return await self._status(change, replace(heads, branch=change.commit_sha))

    async def merge(self, change: ChangeRef, method: MergeMethod, *, delete_branch: bool) -> ChangeStatus:
        """Merge what was pushed, onto exactly the base that it was tried with; anew where that has moved."""
        async with _forge_errors():
            status = await self._merged(change, method)
            if delete_branch and status.head_sha == change.commit_sha:
                await self._delete(change)
                return replace(status, head_sha="")
            return status

    async def comment(self, change: ChangeRef, body: str, *, in_reply_to: str) -> PostedComment:  # noqa: ARG002  the protocol's
        raise _nowhere(change.repository)

    def repositories(self, query: RepositoryQuery) -> AsyncIterator[ForgeRepository]:  # noqa: ARG002  the protocol's
        raise ForgeRefusedError(
            "no forge is configured that could list repositories; give the vcs service a GitHub token or App,"
            " or name the repositories by their addresses"
        )

    async def permission(self, repository: Repository, login: str) -> str:
        """On this machine there are no accounts: whoever reaches the service may do as it can. Of another host's
        nothing is known here, and nobody is taken for more than they are there.
        """
        if repository.endpoint is not None:
            raise _unknown_here(repository, f"it cannot be told what {login} may do there")
        return "admin"

    async def issue(self, repository: Repository, number: int) -> Issue:
        raise ForgeNotFoundError(
            f"{repository.url} has no forge that could have an issue {number}; give the vcs service credentials for"
            " its forge, or put what it says into a job's prompt"
        )

    async def failed_checks(self, repository: Repository, sha: str) -> Sequence[FailedCheck]:  # noqa: ARG002  the protocol's
        """None: nobody checks anything here."""
        return ()

    async def post(self, comment: MarkedComment) -> PostedComment:
        if comment.repository.endpoint is not None:
            raise _unknown_here(comment.repository, "there is nowhere to comment")
        raise _nowhere(comment.repository)

    async def _merged(self, change: ChangeRef, method: MergeMethod) -> ChangeStatus:
        for _ in range(_MOST_TRIES):
            heads = await self._heads(change)
            status = await self._status(change, heads)
            if status.state is ChangeState.MERGED:
                return status
            _refuse_unmergeable(change, heads)
            sha = await self._with_content(change, heads.base, partial(_made, change, method, heads.base))
            try:
                await self._push(change.repository, heads.base_branch, sha, expected_sha=heads.base)
            except ForgeError:
                if (await self._heads(change)).base == heads.base:
                    raise
            else:
                return await self._status(change, replace(heads, base=sha))
        words = f"{change.base_branch} of {change.repository.url} moved at every try to merge; it will be tried again"
        raise ForgeUnavailableError(words)

    async def _status(self, change: ChangeRef, heads: _Heads) -> ChangeStatus:
        status = ChangeStatus(ChangeState.OPEN, url=self._page(change.changeset_id), head_sha=heads.branch)
        if not heads.base or not await self._obtained(change, heads):
            return status
        await self._mirrors.fetch(change.repository, sha=heads.base)

        async def compare(merges: Merges) -> ChangeStatus:
            if merge_sha := await merges.merged_as(heads.base, change.commit_sha):
                return replace(status, state=ChangeState.MERGED, merge_sha=merge_sha)
            is_ours = heads.branch == change.commit_sha
            fits = is_ours and not (await merges.tree(heads.base, change.commit_sha)).conflicts
            return replace(status, mergeable=Mergeable.YES if fits else Mergeable.NO)

        try:
            return await self._with_content(change, heads.base, compare)
        except GitError as error:  # the two have no history in common that is here
            log.warning("cannot tell whether a change is merged", changeset=change.changeset_id, error=str(error))
            return status

    async def _heads(self, change: ChangeRef) -> _Heads:
        branch = f"refs/heads/{checked_ref(change.branch)}"
        asked = f"refs/heads/{checked_ref(change.base_branch)}" if change.base_branch else ""
        listing, based = await asyncio.gather(
            list_remote(self._git, change.repository, branch), list_remote(self._git, change.repository, asked)
        )
        # A run that began at a tag or commit is meant for the default branch.
        base_branch = change.base_branch or based.default_branch
        base_sha = based.shas.get(asked or "HEAD", "")
        return _Heads(listing.shas.get(branch, ""), base_sha, base_branch)

    async def _obtained(self, change: ChangeRef, heads: _Heads) -> bool:
        """Have what we pushed in the mirror; False where no branch of the remote has it any more, and nor do we."""
        try:
            await self._mirrors.fetch(change.repository, sha=change.commit_sha)
        except CloneFailedError as error:
            if error.retryable or heads.branch == change.commit_sha:
                raise
            return False
        return True

    async def _push(self, repository: Repository, branch: str, sha: str, *, expected_sha: str) -> None:
        place = self._mirrors.place(repository)
        async with _forge_errors():
            await push(self._git, place, repository, branch=branch, commit_sha=sha, expected_remote_sha=expected_sha)

    async def _delete(self, change: ChangeRef) -> None:
        place = self._mirrors.place(change.repository)
        await delete_pushed(self._git, place, change.repository, branch=change.branch, expected_sha=change.commit_sha)

    async def _with_content(
        self, change: ChangeRef, base_sha: str, work: Callable[[Merges], Awaitable[Result]]
    ) -> Result:
        """Do ``work``, and again where a partial mirror lacked what it turned out to need."""
        merges = Merges(self._git, self._mirrors.place(change.repository))
        try:
            return await work(merges)
        except GitError:
            common = await merges.common(base_sha, change.commit_sha)
            for sha in (base_sha, change.commit_sha, *common):
                await self._mirrors.complete(change.repository, sha)
            return await work(merges)

    def _page(self, changeset_id: str) -> str:
        return f"{self._address}/changesets/{quote(changeset_id, safe='')}"


def _nowhere(repository: Repository) -> ForgeRefusedError:
    words = f"{repository.url} has no forge, so there is nowhere to comment; send the job a message instead"
    return ForgeRefusedError(words)


def _unknown_here(repository: Repository, consequence: str) -> ForgeUnavailableError:
    """Another vcs may know the forge, or this one soon: an App that was just set up, a key that is put right."""
    words = f"this vcs service has no credentials for the forge of {repository.url}, so {consequence}"
    return ForgeUnavailableError(f"{words}; give them to every vcs service")


async def _made(change: ChangeRef, method: MergeMethod, base_sha: str, merges: Merges) -> str:
    return await merges.make(method, base_sha, change.commit_sha, branch=change.branch)


def _refuse_unmergeable(change: ChangeRef, heads: _Heads) -> None:
    where = change.repository.url
    if not heads.base:
        raise ForgeRefusedError(f"{where} has no branch {heads.base_branch} to merge into; make it, then merge again")
    if not heads.branch:
        raise ForgeRefusedError(f"branch {change.branch} of {where} is gone; reopen the changeset, then merge it")
    if heads.branch != change.commit_sha:
        raise ForgeRefusedError(
            f"branch {change.branch} of {where} is at {heads.branch}, not at {change.commit_sha} that was pushed;"
            " merge it by hand, or put the branch back"
        )


@asynccontextmanager
async def _forge_errors() -> AsyncIterator[None]:
    """What goes wrong in Git is told as what it means to whoever asked the forge."""
    try:
        yield
    except ForgeError:
        raise
    except VcsError as error:
        raise (ForgeUnavailableError(str(error)) if error.retryable else ForgeRefusedError(_words(error))) from error


def _words(error: VcsError) -> str:
    if _CHECKED_OUT not in error.git_message:
        return str(error)
    advice = "check another branch out there, or set receive.denyCurrentBranch to updateInstead"
    return f"{error.message}: it is checked out there; {advice}"

"""GitHub as a forge: what each call means there, and in which order, so that it may be repeated after any failure."""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Final, assert_never
from urllib.parse import quote

from services.contracts.words import MergeMethod, Publish
from services.runtime.telemetry import logger
from services.vcs.errors import ForgeNotFoundError, ForgeRefusedError, ForgeUnavailableError
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
from services.vcs.forges.github.access import Accesses
from services.vcs.forges.github.answers import Permission, Pull
from services.vcs.forges.github.calls import RepositoryCalls
from services.vcs.forges.github.checks import failed_checks_at
from services.vcs.forges.github.comments import comment, comment_once, post_once, reply
from services.vcs.forges.github.config import GitHubConfig
from services.vcs.forges.github.credentials import GitHubCredentials
from services.vcs.forges.github.issues import issue_of
from services.vcs.forges.github.listing import Listing
from services.vcs.forges.github.opening import found_open, opened
from services.vcs.forges.github.pace import Pace
from services.vcs.forges.github.pulls import Pulls
from services.vcs.forges.github.status import branch_status, status_of
from services.vcs.forges.github.transport import TOTAL_TIMEOUT, Transport
from services.vcs.git.repositories import Repository

log = logger("vcs.github")

_PERMISSIONS: Final = {
    **dict.fromkeys(("admin",), "admin"),
    **dict.fromkeys(("write", "maintain", "push"), "write"),
    **dict.fromkeys(("read", "triage", "pull"), "read"),
}


class GitHubForge:
    """``credentials``: the same token, or installations' tokens, for Git."""

    name: str = "github"

    def __init__(self, config: GitHubConfig, pace: Pace, *, total_timeout: timedelta = TOTAL_TIMEOUT) -> None:
        self._config = config
        self._transport = Transport(config, pace, total_timeout=total_timeout)
        self._accesses = Accesses(config, self._transport)
        self._listing = Listing(self._transport, self._accesses)
        self.credentials = GitHubCredentials(config, self._accesses)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    def is_here(self, repository: Repository) -> bool:
        return self._config.is_here(repository)

    async def open(self, change: PublishedChange) -> Opened:
        if change.keeps_words:
            found = await found_open(await self._pulls(change.repository), change)
            return found or Opened(self._branch_page(change.repository, change.branch), notes=[_none_open(change)])
        match change.publish:
            case Publish.PULL_REQUEST | Publish.DRAFT:
                return await opened(await self._pulls(change.repository), change)
            case Publish.BRANCH:
                return Opened(self._branch_page(change.repository, change.branch))
            case Publish.NONE:
                raise ForgeRefusedError("a changeset that is only stored has nothing to show; publish it as a branch")
            case _:
                assert_never(change.publish)

    async def look_up(self, change: ChangeRef) -> ChangeStatus:
        pulls = await self._pulls(change.repository)
        pull = await pulls.of(change)
        if pull is None:
            return await branch_status(pulls, change.branch, self._branch_page(change.repository, change.branch))
        return await status_of(pulls, pull)

    async def close(self, change: ChangeRef, *, comment: str, delete_branch: bool) -> ChangeStatus:
        """One that is merged stays so, without the comment."""
        pulls = await self._pulls(change.repository)
        pull = await pulls.of(change)
        if pull is not None and not pull.is_merged:
            if comment:
                await comment_once(pulls.calls, pull.number, comment, about=change.changeset_id)
            if pull.is_open:
                pull = await pulls.change(pull.number, state="closed")
        if delete_branch:
            await self._delete_branch(pulls, change)
        if pull is None:
            page = self._branch_page(change.repository, change.branch)
            return ChangeStatus(ChangeState.CLOSED, page, head_sha=await pulls.branch_sha(change.branch))
        return await status_of(pulls, pull)

    async def reopen(self, change: ChangeRef) -> ChangeStatus:
        pulls = await self._pulls(change.repository)
        pull = await pulls.that_is(change)
        if pull.is_merged:
            raise ForgeRefusedError(f"pull request {pull.number} is merged and cannot be opened again; make a new one")
        if not pull.is_open:
            pull = await pulls.change(pull.number, state="open")
        return await status_of(pulls, pull)

    async def merge(self, change: ChangeRef, method: MergeMethod, *, delete_branch: bool) -> ChangeStatus:
        pulls = await self._pulls(change.repository)
        pull = await pulls.that_is(change)
        if not pull.is_merged:
            pull = await _merged(pulls, pull, change.commit_sha, method)
        if delete_branch:
            await self._delete_branch(pulls, change)
        return await status_of(pulls, pull)

    async def comment(self, change: ChangeRef, body: str, *, in_reply_to: str) -> PostedComment:
        pulls = await self._pulls(change.repository)
        number = change.number if change.number is not None else (await pulls.that_is(change)).number
        if in_reply_to:
            return await reply(pulls.calls, number, body, in_reply_to=in_reply_to)
        return await comment(pulls.calls, number, body)

    def repositories(self, query: RepositoryQuery) -> AsyncIterator[ForgeRepository]:
        return self._listing.of(query)

    async def permission(self, repository: Repository, login: str) -> str:
        """`none` also where there is no such user, or the credentials do not see the repository."""
        calls = (await self._pulls(repository)).calls
        try:
            answer = await calls.get(Permission, "collaborators", login, "permission")
        except ForgeNotFoundError:
            return "none"
        return _PERMISSIONS.get(answer.permission, "none")

    async def issue(self, repository: Repository, number: int) -> Issue:
        return await issue_of((await self._pulls(repository)).calls, number, app_id=self._config.app_id)

    async def failed_checks(self, repository: Repository, sha: str) -> Sequence[FailedCheck]:
        return await failed_checks_at((await self._pulls(repository)).calls, sha)

    async def post(self, comment: MarkedComment) -> PostedComment:
        return await post_once((await self._pulls(comment.repository)).calls, comment)

    async def _pulls(self, repository: Repository) -> Pulls:
        slug = self._config.slug_of(repository)
        access = await self._accesses.of(slug)
        return Pulls(RepositoryCalls(self._transport, access, slug, graphql_url=self._config.graphql_url))

    async def _delete_branch(self, pulls: Pulls, change: ChangeRef) -> None:
        """A branch that cannot be deleted is no failure: the status shows that it is there."""
        if change.branch == change.base_branch:
            return
        if why := await pulls.delete_branch(change.branch, at_sha=change.commit_sha):
            log.warning("a branch was left", repository=str(pulls.calls.slug), branch=change.branch, reason=why)

    def _branch_page(self, repository: Repository, branch: str) -> str:
        return f"{self._config.server_url}/{self._config.slug_of(repository)}/tree/{quote(branch)}"


def _none_open(change: PublishedChange) -> str:
    return (
        f"no pull request from {change.branch} is open any more, and none was made: the commit is on the branch;"
        " open it again where it is still wanted"
    )


async def _merged(pulls: Pulls, pull: Pull, sha: str, method: MergeMethod) -> Pull:
    """The answer may be lost, or another may have merged it first: it is looked at again before that is a failure.

    Where GitHub says that it is merged it is not asked again: a copy that lags behind might still deny it.
    """
    try:
        return pull.merged((await pulls.merge(pull.number, sha=sha, method=method)).sha)
    except (ForgeRefusedError, ForgeUnavailableError):
        pull = await pulls.get(pull.number)
        if not pull.is_merged:
            raise
        return pull

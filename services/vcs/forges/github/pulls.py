"""The pull requests and the branches of one repository: found, made, changed, merged. One method, one request."""

from collections.abc import AsyncIterator
from typing import Final

from services.contracts.words import MergeMethod
from services.vcs.errors import ForgeError, ForgeNotFoundError, ForgeRefusedError
from services.vcs.forges import ChangeRef
from services.vcs.forges.github.answers import ListedRepository, Merge, Pull, Ref
from services.vcs.forges.github.calls import RepositoryCalls

_MARKED: Final = "<!-- quarterdeck:changeset="

_DRAFT: Final = "mutation($id: ID!) { convertPullRequestToDraft(input: {pullRequestId: $id}) { clientMutationId } }"
_READY: Final = "mutation($id: ID!) { markPullRequestReadyForReview(input: {pullRequestId: $id}) { clientMutationId } }"


class Pulls:
    def __init__(self, calls: RepositoryCalls) -> None:
        self.calls = calls

    async def open_from(self, branch: str, base_branch: str) -> Pull | None:
        """The open pull request from ``branch``: into ``base_branch`` rather than another, ours rather than another's.

        One that was pointed at another base by hand is still the one: a second would be for the same work.
        """
        found = [pull async for pull in self._from(branch, state="open")]
        by_rank = sorted(found, key=lambda pull: (pull.base.ref != base_branch, _MARKED not in (pull.body or "")))
        return by_rank[0] if by_rank else None

    async def of(self, change: ChangeRef) -> Pull | None:
        """By its number, else the one of its head that is open, else the newest of them that shows its very commit:
        from the same branch earlier work may have been merged.
        """
        if change.number is not None:
            return await self.get(change.number)
        every = [pull async for pull in self._from(change.branch, state="all")]
        found = [pull for pull in every if pull.is_open or pull.head.sha == change.commit_sha]
        open_first = sorted(found, key=lambda pull: (not pull.is_open, -pull.number))
        return await self.get(open_first[0].number) if open_first else None

    async def that_is(self, change: ChangeRef) -> Pull:
        """``of``; raises ``ForgeNotFoundError`` where there is none."""
        pull = await self.of(change)
        if pull is None:
            raise ForgeNotFoundError(
                f"{self.calls.slug} has no pull request from {change.branch}; publish the changeset as one first"
            )
        return pull

    async def default_branch(self) -> str:
        return (await self.calls.get(ListedRepository)).default_branch or ""

    async def get(self, number: int) -> Pull:
        return await self.calls.get(Pull, "pulls", number)

    async def create(self, *, branch: str, base: str, title: str, body: str, draft: bool) -> Pull:
        described = {"head": branch, "base": base, "title": title, "body": body, "draft": draft}
        return await self.calls.send(Pull, "POST", "pulls", body=described, creates=True)

    async def change(self, number: int, **members: str) -> Pull:
        """``members``: of title, body, base, state (open or closed)."""
        return await self.calls.send(Pull, "PATCH", "pulls", number, body=members)

    async def set_draft(self, pull: Pull, *, draft: bool) -> None:
        """Over GraphQL, for the REST API cannot."""
        await self.calls.graphql(_DRAFT if draft else _READY, {"id": pull.node_id})

    async def merge(self, number: int, *, sha: str, method: MergeMethod) -> Merge:
        """Merge it if its head is ``sha``; raises ``ForgeRefusedError`` with GitHub's words where it cannot be."""
        body = {"sha": sha, "merge_method": method.value}
        return await self.calls.send(Merge, "PUT", "pulls", number, "merge", body=body)

    async def branch_sha(self, branch: str) -> str:
        """Empty where there is no such branch."""
        try:
            return (await self.calls.get(Ref, "git", "ref", "heads", *branch.split("/"))).object.sha
        except ForgeNotFoundError:
            return ""

    async def delete_branch(self, branch: str, *, at_sha: str) -> str:
        """Delete it if it is still at ``at_sha``; why it was left, or nothing where it is gone."""
        found = await self.branch_sha(branch)
        if not found:
            return ""
        if found != at_sha:
            return f"it is at {found}, not at {at_sha}"
        try:
            await self.calls.do("DELETE", "git", "refs", "heads", *branch.split("/"))
        except ForgeRefusedError as error:
            # It also refuses to delete what somebody else has deleted meanwhile.
            return str(error) if await self._is_there(branch) else ""
        return ""

    async def _is_there(self, branch: str) -> bool:
        try:
            return bool(await self.branch_sha(branch))
        except ForgeError:
            return True

    async def _from(self, branch: str, *, state: str) -> AsyncIterator[Pull]:
        """Those whose head is ``branch`` of this repository: a fork of the same owner may have one of that name."""
        slug = self.calls.slug
        pulls = self.calls.pages(Pull, "pulls", head=f"{slug.owner}:{branch}", state=state)
        async for pull in pulls:
            repository = pull.head.repo.full_name if pull.head.repo else ""
            if pull.head.ref == branch and repository.casefold() == str(slug).casefold():
                yield pull

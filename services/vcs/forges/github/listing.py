"""Finds repositories: an owner's, all that the credentials see, or those of a search in GitHub's own language."""

from collections.abc import AsyncIterator
from fnmatch import fnmatchcase
from typing import Final

from services.vcs.errors import ForgeNotFoundError, ForgeRefusedError
from services.vcs.forges import MOST_LISTED, ForgeRepository, RepositoryQuery
from services.vcs.forges.github.access import Accesses
from services.vcs.forges.github.answers import Account, ListedRepository
from services.vcs.forges.github.calls import Calls
from services.vcs.forges.github.transport import Access, Transport

_SEARCH_PAGES: Final = 10
"""GitHub shows 1,000 results of a search."""


class Listing:
    def __init__(self, transport: Transport, accesses: Accesses) -> None:
        self._transport = transport
        self._accesses = accesses

    async def of(self, query: RepositoryQuery) -> AsyncIterator[ForgeRepository]:
        """In GitHub's order, none twice, at most ``query.limit`` (and 1,000)."""
        left, seen = min(query.limit, MOST_LISTED), set[str]()
        for access in await self._accesses.everywhere(query.owner):
            async for listed in self._listed(access, query):
                if left <= 0:
                    return
                if listed.full_name not in seen and is_wanted(listed, query):
                    seen.add(listed.full_name)
                    left -= 1
                    yield _shown(listed)

    def _listed(self, access: Access, query: RepositoryQuery) -> AsyncIterator[ListedRepository]:
        calls = Calls(self._transport, access)
        if query.search:
            path = ("search", "repositories")
            return calls.pages(ListedRepository, *path, key="items", most_pages=_SEARCH_PAGES, q=search_words(query))
        if self._accesses.is_app:
            return calls.pages(ListedRepository, "installation", "repositories", key="repositories")
        if query.owner:
            return self._of_owner(calls, query.owner)
        return calls.pages(ListedRepository, "user", "repos")

    async def _of_owner(self, calls: Calls, owner: str) -> AsyncIterator[ListedRepository]:
        """An organization's, else a user's; of the token's own user the private ones too."""
        if await self._is_own(calls, owner):
            repositories = calls.pages(ListedRepository, "user", "repos")
        else:
            repositories = self._of_another(calls, owner)
        async for repository in repositories:
            yield repository

    async def _is_own(self, calls: Calls, owner: str) -> bool:
        try:
            return (await calls.get(Account, "user")).login.casefold() == owner.casefold()
        except ForgeRefusedError:
            return False  # a token of a workflow is no user's

    async def _of_another(self, calls: Calls, owner: str) -> AsyncIterator[ListedRepository]:
        try:
            async for repository in calls.pages(ListedRepository, "orgs", owner, "repos"):
                yield repository
        except ForgeNotFoundError:
            async for repository in calls.pages(ListedRepository, "users", owner, "repos"):
                yield repository


def search_words(query: RepositoryQuery) -> str:
    """The search with what else was asked as qualifiers, so that GitHub's 1,000 results are spent on what is wanted."""
    words = [query.search]
    words += [f"user:{query.owner}"] if query.owner else []
    words += [f"topic:{topic}" for topic in query.topics]
    words += [] if query.include_archived else ["archived:false"]
    words += ["fork:true"] if query.include_forks else []
    return " ".join(words)


def is_wanted(listed: ListedRepository, query: RepositoryQuery) -> bool:
    name = listed.full_name.casefold()
    return (
        (query.include_archived or not listed.archived)
        and (query.include_forks or not listed.fork)
        and (not query.owner or name.partition("/")[0] == query.owner.casefold())
        and (not query.patterns or any(fnmatchcase(name, pattern.casefold()) for pattern in query.patterns))
        and {topic.casefold() for topic in query.topics} <= {topic.casefold() for topic in listed.topics}
    )


def _shown(listed: ListedRepository) -> ForgeRepository:
    return ForgeRepository(
        full_name=listed.full_name,
        clone_url=listed.clone_url,
        default_branch=listed.default_branch or "",
        description=listed.description or "",
        is_private=listed.private,
        is_archived=listed.archived,
        is_fork=listed.fork,
        topics=listed.topics,
        language=listed.language or "",
        size_kb=listed.size,
    )

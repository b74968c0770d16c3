"""Which repositories there are to work on: those that the forge lists, and those that the client registered itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Final, TypeAlias

from services.contracts.repositories import ForgeRepository, Repository
from services.contracts.rest import MAX_PAGE
from services.contracts.v1.vcs_pb2 import ListRepositoriesRequest
from services.gateway.context import Gateway
from services.gateway.dialects.cody_batch.allowed import Allowed, is_full_name
from services.gateway.dialects.cody_batch.jobs import Source
from services.gateway.dialects.cody_batch.models import ListedRepository
from services.gateway.problems import FieldProblemError, ProblemError
from services.jobs.models import Client
from services.runtime.postgres import StoreUnavailableError

REMEMBERED_SECONDS: Final = 30.0
ERROR_REMEMBERED_SECONDS: Final = 5.0
MOST_REMEMBERED: Final = 64
MOST_LISTED: Final = 1_000
MOST_REGISTERED: Final = 1_000
_HEALTH_SECONDS: Final = 3.0
_NOT_THERE: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.BAD_REQUEST)
"""What a node answers where no forge is set up, or where it has no such owner."""

Found: TypeAlias = Sequence[ForgeRepository] | ProblemError
_Key: TypeAlias = tuple[str, tuple[str, ...], int]
Discover: TypeAlias = Callable[[ListRepositoriesRequest], Awaitable[list[ForgeRepository]]]


class Forge:
    """Asks the forge, and remembers what it said for a while: its limits are shared by everybody."""

    def __init__(self) -> None:
        self._asked: dict[_Key, _Asked] = {}

    async def listed(self, discover: Discover, owner: str, patterns: Sequence[str], *, limit: int) -> Found:
        """An error that a node answers is what was found, too. Raises ``StoreUnavailableError``."""
        key = (owner, tuple(patterns), limit)
        asked = self._asked.get(key)
        if asked is None or not asked.is_fresh:
            asked = _Asked(asyncio.create_task(_ask(discover, owner, patterns, limit), name="list repositories"))
            self._remember(key, asked)
        # Whoever asked first may go away: the others wait for the same answer.
        return await asyncio.shield(asked.task)

    def _remember(self, key: _Key, asked: _Asked) -> None:
        self._asked.pop(key, None)
        while len(self._asked) >= MOST_REMEMBERED:
            del self._asked[next(iter(self._asked))]
        self._asked[key] = asked


class _Asked:
    def __init__(self, task: asyncio.Task[Found]) -> None:
        self.task = task
        self._begun = time.monotonic()

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() - self._begun < self._kept_seconds

    @property
    def _kept_seconds(self) -> float:
        if not self.task.done():
            return REMEMBERED_SECONDS
        if self.task.cancelled() or self.task.exception() is not None:
            return 0.0
        return ERROR_REMEMBERED_SECONDS if isinstance(self.task.result(), ProblemError) else REMEMBERED_SECONDS


async def _ask(discover: Discover, owner: str, patterns: Sequence[str], limit: int) -> Found:
    # A fork may be worked on, where it is allowed; what is archived takes no pull request.
    request = ListRepositoriesRequest(owner=owner, patterns=patterns, include_forks=True, limit=limit)
    try:
        return await discover(request)
    except ProblemError as error:
        return error


class OwnRepositories:
    """What a client registered itself, for as long as one request takes."""

    def __init__(self, gateway: Gateway, client: Client) -> None:
        self._page = partial(gateway.repositories.page, client)
        self._all: list[Repository] | None = None

    async def all(self) -> list[Repository]:
        """By name; of very many the first."""
        if self._all is None:
            self._all = await self._read()
        return self._all

    async def called(self, name: str) -> Repository | None:
        """As on forges, case does not tell two names apart; the exact one goes before."""
        if "*" in name:  # which would stand for anything
            return None
        found = (await self._page(name=name, limit=1, cursor=None)).items
        return next((each for each in found or await self.all() if each.name.casefold() == name.casefold()), None)

    async def _read(self) -> list[Repository]:
        found: list[Repository] = []
        cursor: str | None = None
        while len(found) < MOST_REGISTERED:
            page = await self._page(name=None, limit=MAX_PAGE, cursor=cursor)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
        return found


class Repositories:
    """``allowed``: what may be worked on; None: what the client registered itself, and nothing else."""

    def __init__(self, allowed: Allowed | None, server_url: str, most: int) -> None:
        """``server_url``: where `owner/name` is cloned from. ``most``: repositories that a job may have."""
        self._allowed = allowed
        self._server_url = server_url
        self._most = most
        self._forge = Forge()

    async def all(self, gateway: Gateway, client: Client) -> list[ListedRepository]:
        """By name. Raises ``ProblemError`` where the forge cannot be asked at this moment."""
        found = {each.full_name.casefold(): _of_forge(each) for each in await self._of_forge(gateway)}
        found |= {each.name.casefold(): _registered(each) for each in await self._registered(gateway, client)}
        return sorted(found.values(), key=lambda each: (each.name.casefold(), each.name))

    async def sources(self, gateway: Gateway, client: Client, names: Sequence[str]) -> list[Source]:
        """Where the repositories called so are cloned from. Raises ``ProblemError`` for those that must not be."""
        if len(names) > self._most:
            raise FieldProblemError("repositories", f"must have at most {self._most} items")
        if len({name.casefold() for name in names}) < len(names):
            raise FieldProblemError("repositories", "must not name a repository twice")
        own = OwnRepositories(gateway, client)
        return [await self._source(own, name, at) for at, name in enumerate(names)]

    async def health(self, gateway: Gateway) -> str:
        """`healthy`, `unhealthy`, or `not configured` where the vcs nodes know no forge that lists repositories."""
        owner = next(iter(self._allowed.by_owner()), "") if self._allowed else ""
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                found = await self._forge.listed(gateway.vcs.discover, owner, (), limit=1)
        except (TimeoutError, StoreUnavailableError):
            return "unhealthy"
        if not isinstance(found, ProblemError) or found.status == HTTPStatus.NOT_FOUND:
            return "healthy"
        return "not configured" if found.status in _NOT_THERE else "unhealthy"

    async def _of_forge(self, gateway: Gateway) -> list[ForgeRepository]:
        asked = self._allowed.by_owner() if self._allowed else {}
        answers = await asyncio.gather(
            *(
                self._forge.listed(gateway.vcs.discover, owner, patterns, limit=MOST_LISTED)
                for owner, patterns in asked.items()
            )
        )
        for answer in answers:
            if isinstance(answer, ProblemError) and answer.status not in _NOT_THERE:
                raise answer
        found = [each for answer in answers if not isinstance(answer, ProblemError) for each in answer]
        return [each for each in found if self._admits(each.full_name)]

    async def _registered(self, gateway: Gateway, client: Client) -> list[Repository]:
        return [each for each in await OwnRepositories(gateway, client).all() if self._admits_registered(each.name)]

    async def _source(self, own: OwnRepositories, name: str, at: int) -> Source:
        """What is registered goes before what the forge calls so."""
        field = f"repositories[{at}]"
        if (repository := await own.called(name)) is not None:
            if not self._admits_registered(name):
                raise FieldProblemError(field, _refusal(name))
            return Source(name, repository.url, repository.base_ref)
        if not is_full_name(name):
            raise FieldProblemError(field, f"{name} is neither `owner/name` nor the name of a registered repository")
        if not self._admits(name):
            raise FieldProblemError(field, _refusal(name))
        return Source(name, f"{self._server_url}/{name.removesuffix('.git')}.git")

    def _admits(self, name: str) -> bool:
        return self._allowed is not None and self._allowed.admits(name)

    def _admits_registered(self, name: str) -> bool:
        return self._allowed is None or self._allowed.admits(name)


def _refusal(name: str) -> str:
    return f"{name} is not among the repositories that ALLOWED_REPOSITORIES admits; GET /repositories lists those"


def _of_forge(found: ForgeRepository) -> ListedRepository:
    url = found.clone_url.removesuffix(".git")
    return _listed(found.full_name, found.description, url)


def _registered(found: Repository) -> ListedRepository:
    url = found.url.removesuffix(".git") if found.url.startswith("http") else found.url
    return _listed(found.name, found.description, url)


def _listed(name: str, description: str | None, url: str) -> ListedRepository:
    return ListedRepository(id=name.rpartition("/")[2], name=name, description=description or "", url=url)

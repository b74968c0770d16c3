"""The part of the client that looks after the repositories one keeps, their mirrors, and what the forge has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from functools import partial
from typing import Any

from quarterdeck.connection import Connection, Id, filters_of, json_bytes, parsed, segment
from services.contracts.repositories import (
    DEFAULT_FOUND,
    Discovery,
    ForgeRepository,
    Imported,
    Repository,
    RepositoryChange,
    RepositoryPage,
    RepositoryStatus,
    Sync,
)

_ROOT = "/v1/repositories"


class Repositories(Connection):
    def repositories(self, *, name: str | None = None, limit: int | None = None) -> AsyncIterator[Repository]:
        """By name. ``name``: exactly, but for `*`, which stands for anything."""
        return self._items(partial(parsed, RepositoryPage), _ROOT, filters_of(name=name), limit)

    async def repository(self, repository_id: Id) -> RepositoryStatus:
        """With what each vcs node says of its mirror."""
        return parsed(RepositoryStatus, await self._transport.get(f"{_ROOT}/{segment(repository_id)}"))

    async def add_repository(
        self, name: str, url: str, *, base_ref: str | None = None, description: str | None = None
    ) -> Repository:
        """Raises ConflictError where the name is taken, InvalidRequestError for a URL with credentials."""
        body = {"name": name, "url": url, **_given(baseRef=base_ref, description=description)}
        return parsed(Repository, await self._transport.send_once("POST", _ROOT, json_bytes(body)))

    async def change_repository(self, repository_id: Id, change: RepositoryChange | Mapping[str, Any]) -> Repository:
        """``change``: as the model or by the JSON names; what is left out stays, null takes it away."""
        if isinstance(change, RepositoryChange):
            change = change.model_dump(mode="json", by_alias=True, exclude_unset=True)
        path = f"{_ROOT}/{segment(repository_id)}"
        return parsed(Repository, await self._transport.send_once("PATCH", path, json_bytes(change)))

    async def remove_repository(self, repository_id: Id) -> Repository:
        """Forget it; the answer is what it was."""
        path = f"{_ROOT}/{segment(repository_id)}"
        return parsed(Repository, await self._transport.send_once("DELETE", path, b""))

    async def sync_repository(self, repository_id: Id) -> Sync:
        """Bring its mirrors up to date; those that are `running` when the gateway answers go on."""
        return parsed(Sync, await self._transport.post_once(f"{_ROOT}/{segment(repository_id)}/sync"))

    async def clone_repository(self, repository_id: Id) -> Sync:
        """Mirror it on every vcs node; those that are `running` when the gateway answers go on."""
        return parsed(Sync, await self._transport.post_once(f"{_ROOT}/{segment(repository_id)}/clone"))

    async def discover_repositories(
        self,
        *,
        owner: str | None = None,
        match: Iterable[str] = (),
        topic: Iterable[str] = (),
        search: str | None = None,
        archived: bool = False,
        forks: bool = False,
        limit: int = DEFAULT_FOUND,
    ) -> list[ForgeRepository]:
        """What the forge has, in its order: at most ``limit``, 1 to 1,000.

        ``match``: any of these shell patterns over `owner/name`. ``topic``: all of these. ``search``: in the forge's
        own search language.
        """
        filters = filters_of(
            owner=owner,
            match=",".join(match) or None,
            topic=",".join(topic) or None,
            q=search,
            archived="true" if archived else None,
            forks="true" if forks else None,
            limit=str(limit),
        )
        return parsed(Discovery, await self._transport.get(f"{_ROOT}/discover", filters)).items

    async def import_repositories(
        self,
        names: Iterable[str] = (),
        *,
        owner: str | None = None,
        match: Iterable[str] = (),
        topic: Iterable[str] = (),
        search: str | None = None,
        archived: bool = False,
        forks: bool = False,
        limit: int = DEFAULT_FOUND,
    ) -> Imported:
        """Keep repositories of the forge under their own names, those that are kept already left as they are.

        Either ``names``, `owner/name` each, or what to look for, as ``discover_repositories`` takes it.
        """
        wanted = list(names)
        looked_for = _given(owner=owner, match=list(match) or None, topic=list(topic) or None, q=search)
        body = {"names": wanted} if wanted else {"archived": archived, "forks": forks, "limit": limit}
        content = json_bytes({**looked_for, **body})
        return parsed(Imported, await self._transport.send_once("POST", f"{_ROOT}/import", content))


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}

"""The repositories that a client keeps under names of its own. Where they are mirrored is for vcs nodes to say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from services.contracts import repositories as contract
from services.contracts.text import storable
from services.jobs.clients import NameTakenError
from services.jobs.errors import JobsError, NotFoundError
from services.jobs.models import Client
from services.jobs.paging import next_cursor, text_behind
from services.jobs.unit import SQL
from services.runtime.ids import uuid7
from services.runtime.postgres import ConflictError, Connection, Database, Record, Statements

_STATEMENTS = Statements(SQL / "repositories.sql")
_SCHEMES = ("https", "http", "ssh", "git", "file")
_SHORT_FORM = re.compile(r"(?:[\w.-]+@)?[A-Za-z0-9.-]+:[^:\s].*", re.ASCII)
_CREDENTIALS = "holds a user name or token; leave it out: the server has the credentials of its hosts"
_MAX_URL, _MAX_DESCRIPTION = 2_000, 2_000


class RefusedUrlError(JobsError):
    """The URL cannot be a repository's, or holds a credential. Nothing of it is told: it may be a secret."""

    def __init__(self, words: str) -> None:
        super().__init__(f"url: {words}")


class Repositories:
    """Every method raises ``StoreUnavailableError``; those that take an id, ``NotFoundError``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def one(self, client: Client, repository_id: UUID) -> contract.Repository:
        async with self._database.connection() as connection:
            row = await _STATEMENTS.row(connection, "repository", id=repository_id, client_id=client.id)
        return _shown(_found(row, repository_id))

    async def page(
        self, client: Client, *, name: str | None, limit: int, cursor: str | None
    ) -> contract.RepositoryPage:
        """By name; ``name``: exactly, but for `*`; ``limit``: 1 to 200. Raises ``BadCursorError``."""
        async with self._database.planned_anew() as connection:
            rows = await _STATEMENTS.rows(
                connection,
                "page",
                client_id=client.id,
                name=_like(name) if name is not None else None,
                after=text_behind(cursor),
                most=limit + 1,
            )
        items = [_shown(row) for row in rows[:limit]]
        return contract.RepositoryPage(items=items, next_cursor=next_cursor(rows, limit, "name"))

    async def add(self, client: Client, wanted: contract.RepositoryRegistration) -> contract.Repository:
        """Raises ``NameTakenError``, ``RefusedUrlError``."""
        check_url(wanted.url)
        repository_id = uuid7()

        async def work(connection: Connection) -> Record:
            made = await _STATEMENTS.row(
                connection, "insert", id=repository_id, client_id=client.id, **wanted.model_dump()
            )
            made = made or await _STATEMENTS.row(connection, "repository", id=repository_id, client_id=client.id)
            if made is None:
                raise NameTakenError("repository", wanted.name)
            return made

        return _shown(await self._database.in_transaction(work))

    async def change(
        self, client: Client, repository_id: UUID, wanted: contract.RepositoryChange
    ) -> contract.Repository:
        """Set what ``wanted`` names. Raises ``NameTakenError``, ``RefusedUrlError``."""
        if wanted.url is not None:
            check_url(wanted.url)
        changes = wanted.model_dump(exclude_unset=True)

        async def work(connection: Connection) -> Record:
            row = _found(
                await _STATEMENTS.row(connection, "locked", id=repository_id, client_id=client.id), repository_id
            )
            values = {name: changes.get(name, row[name]) for name in contract.RepositoryChange.model_fields}
            try:
                changed = await _STATEMENTS.row(connection, "change", id=repository_id, client_id=client.id, **values)
            except ConflictError as error:
                raise NameTakenError("repository", values["name"]) from error
            return _found(changed, repository_id)

        return _shown(await self._database.in_transaction(work))

    async def remove(self, client: Client, repository_id: UUID) -> contract.Repository:
        """Forget it; jobs, changesets and mirrors stay. The answer is what it was."""

        async def work(connection: Connection) -> Record:
            return _found(
                await _STATEMENTS.row(connection, "remove", id=repository_id, client_id=client.id), repository_id
            )

        return _shown(await self._database.in_transaction(work))

    async def take_over(
        self, client: Client, found: Sequence[contract.ForgeRepository]
    ) -> tuple[list[contract.Repository], list[str]]:
        """Keep those of ``found`` whose name and URL the client does not have; the others' names come second."""
        usable = [each for each in found if len(each.clone_url) <= _MAX_URL]
        ids = [uuid7() for _ in usable]

        async def work(connection: Connection) -> list[Record]:
            await _STATEMENTS.execute(
                connection,
                "import",
                client_id=client.id,
                ids=ids,
                names=[storable(each.full_name) for each in usable],
                urls=[storable(each.clone_url) for each in usable],
                descriptions=[storable(each.description or "")[:_MAX_DESCRIPTION] or None for each in usable],
            )
            return await _STATEMENTS.rows(connection, "imported", client_id=client.id, ids=ids)

        kept = [_shown(row) for row in await self._database.in_transaction(work)] if usable else []
        names = {repository.name for repository in kept}
        return kept, [each.full_name for each in found if storable(each.full_name) not in names]

    async def own_runs(self, client: Client, run_ids: Iterable[UUID]) -> set[UUID]:
        """Those of ``run_ids`` that are the client's: mirrors are shared, and hold other clients' work too."""
        async with self._database.connection() as connection:
            rows = await _STATEMENTS.rows(connection, "own_runs", ids=list(run_ids), client_id=client.id)
        return {row["id"] for row in rows}


def check_url(url: str) -> None:
    """Raises ``RefusedUrlError`` for what vcs nodes would refuse by its shape, credentials above all."""
    if words := _wrong_with(url):
        raise RefusedUrlError(words)


def _wrong_with(url: str) -> str | None:
    if url.startswith("-") or "\\" in url or not url.isprintable() or " " in url:
        return "must not begin with a dash nor hold spaces, control characters or backslashes"
    if url.startswith("/"):
        return None
    if "://" in url:
        return _wrong_with_parts(url)
    if "@" in url.partition(":")[2]:
        return _CREDENTIALS
    is_short_form = _SHORT_FORM.fullmatch(url) and "::" not in url
    return None if is_short_form else "is no repository's address; write https://host/owner/name"


def _wrong_with_parts(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return "is no URL; write https://host/owner/name"
    if "@" in parts.netloc and (parts.scheme != "ssh" or parts.password is not None):
        return _CREDENTIALS
    if parts.scheme not in _SCHEMES:
        return f"must begin with one of {', '.join(f'{scheme}://' for scheme in _SCHEMES)}"
    if parts.query or parts.fragment:
        return "must have neither a query nor a fragment; a branch is given as `baseRef`"
    is_whole = len(parts.path.strip("/")) > 0 and (has_host or parts.scheme == "file")
    return None if is_whole else "names no repository on a host; write https://host/owner/name"


def _like(name: str) -> str:
    escaped = re.sub(r"([\\%_])", r"\\\1", name)
    return escaped.replace("*", "%")


def _found(row: Record | None, repository_id: UUID) -> Record:
    if row is None:
        raise NotFoundError("repository", repository_id)
    return row


def _shown(row: Record) -> contract.Repository:
    columns: dict[str, Any] = {name: row[name] for name in contract.Repository.model_fields}
    return contract.Repository.model_validate(columns)

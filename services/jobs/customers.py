"""For whom a client works: its customers, and the repositories that it keeps for each of them.

Repositories are the rows that `/v1/repositories` shows; what is kept for a customer is one of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.jobs.clients import NameTakenError
from services.jobs.errors import JobsError, NotFoundError
from services.jobs.models import Client
from services.jobs.repositories import check_url
from services.jobs.unit import SQL
from services.runtime.ids import uuid7
from services.runtime.postgres import Connection, Database, Record, Statements

_STATEMENTS = Statements(SQL / "customers.sql")
_FULL_NAME = re.compile(r"(?P<owner>[^/\s]+)/(?P<name>[^/\s]+)(?: \([0-9a-f-]{36}\))?")


class IdTakenError(JobsError):
    """Another customer has the id already."""

    def __init__(self, customer_id: UUID) -> None:
        super().__init__(f"there is a client with the id {customer_id} already; leave it out to get a new one")


@dataclass(frozen=True)
class KeptRepository:
    """``customer_id``: None: the client keeps it for nobody. ``base_ref``: None: the remote's default branch."""

    id: UUID
    customer_id: UUID | None
    owner: str
    name: str
    url: str
    base_ref: str | None

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True)
class Customer:
    id: UUID
    name: str
    created_at: datetime
    repositories: Sequence[KeptRepository] = ()
    """The one that was added first comes first."""


class Customers:
    """Every method raises ``StoreUnavailableError``; those that take an id, ``NotFoundError``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, client: Client, name: str, *, customer_id: UUID | None = None) -> Customer:
        """``customer_id``: of one that comes with an id. Raises ``NameTakenError``, ``IdTakenError``."""
        new_id = customer_id or uuid7()

        async def work(connection: Connection) -> Record:
            made = await _STATEMENTS.row(connection, "insert", id=new_id, client_id=client.id, name=name)
            if made is not None:
                return made
            holder = await _STATEMENTS.value(connection, "named", client_id=client.id, name=name)
            if holder == new_id and customer_id is None:  # an earlier try of this call made it
                made = await _STATEMENTS.row(connection, "customer", id=new_id, client_id=client.id)
            if made is None:
                raise NameTakenError("client", name) if holder not in (None, new_id) else IdTakenError(new_id)
            return made

        return _customer(await self._database.in_transaction(work), ())

    async def all(self, client: Client) -> list[Customer]:
        """By name."""
        async with self._database.transaction() as connection:
            rows = await _STATEMENTS.rows(connection, "customers", client_id=client.id)
            repositories = await _repositories(connection, client)
        kept: dict[UUID | None, list[KeptRepository]] = {}
        for repository in repositories:
            kept.setdefault(repository.customer_id, []).append(repository)
        return [_customer(row, kept.get(row["id"], ())) for row in rows]

    async def one(self, client: Client, customer_id: UUID) -> Customer:
        async with self._database.connection() as connection:
            row = _found(
                await _STATEMENTS.row(connection, "customer", id=customer_id, client_id=client.id), customer_id
            )
            return _customer(row, await _of_customer(connection, client, customer_id))

    async def repositories(self, client: Client) -> list[KeptRepository]:
        """All that the client keeps, for whomever, the oldest first."""
        async with self._database.connection() as connection:
            return await _repositories(connection, client)

    async def repository(self, client: Client, repository_id: UUID) -> KeptRepository:
        async with self._database.connection() as connection:
            row = await _STATEMENTS.row(connection, "repository", id=repository_id, client_id=client.id)
        if row is None:
            raise NotFoundError("repository", repository_id)
        return _repository(row)

    async def named(self, client: Client, full_name: str) -> tuple[Customer, KeptRepository] | None:
        """Whose is `owner/name`, in whatever case; of several customers' the one that was added first."""
        for repository in await self.repositories(client):
            if repository.customer_id is not None and repository.full_name.casefold() == full_name.casefold():
                return await self.one(client, repository.customer_id), repository
        return None

    async def add_repository(
        self, client: Client, customer_id: UUID, full_name: str, url: str, *, base_ref: str | None
    ) -> KeptRepository:
        """Keep `owner/name` for a customer; each has it once, and several may have it.

        Names are unique to the client: of a second customer's repository the name ends in that customer's id.
        Raises ``NameTakenError``, ``RefusedUrlError``.
        """
        check_url(url)
        repository_id = uuid7()

        async def work(connection: Connection) -> Record:
            _found(await _STATEMENTS.row(connection, "locked", id=customer_id, client_id=client.id), customer_id)
            for kept in await _of_customer(connection, client, customer_id):
                if kept.id == repository_id:  # an earlier try of this call made it
                    return _made(await _STATEMENTS.row(connection, "repository", id=kept.id, client_id=client.id))
                if kept.full_name.casefold() == full_name.casefold():
                    raise NameTakenError("repository of this client", full_name)
            for name in (full_name, f"{full_name} ({customer_id})"):
                columns = {"id": repository_id, "customer_id": customer_id, "name": name, "url": url}
                made = await _STATEMENTS.row(
                    connection, "add_repository", client_id=client.id, base_ref=base_ref, **columns
                )
                if made is not None:
                    return made
            raise NameTakenError("repository", full_name)

        return _repository(await self._database.in_transaction(work))


async def _repositories(connection: Connection, client: Client) -> list[KeptRepository]:
    return [_repository(row) for row in await _STATEMENTS.rows(connection, "repositories", client_id=client.id)]


async def _of_customer(connection: Connection, client: Client, customer_id: UUID) -> list[KeptRepository]:
    rows = await _STATEMENTS.rows(connection, "of_customer", client_id=client.id, customer_id=customer_id)
    return [_repository(row) for row in rows]


def _found(row: Record | None, customer_id: UUID) -> Record:
    if row is None:
        raise NotFoundError("client", customer_id)
    return row


def _made(row: Record | None) -> Record:
    assert row is not None
    return row


def _customer(row: Record, repositories: Sequence[KeptRepository]) -> Customer:
    return Customer(row["id"], row["name"], row["created_at"], tuple(repositories))


def _repository(row: Record) -> KeptRepository:
    owner, name = _owner_and_name(row["name"], row["url"])
    return KeptRepository(row["id"], row["customer_id"], owner, name, row["url"], row["base_ref"])


def _owner_and_name(name: str, url: str) -> tuple[str, str]:
    """As the name says; where it is of another form, as one given by `/v1` may be, as the URL's end says."""
    if named := _FULL_NAME.fullmatch(name):
        return named["owner"], named["name"]
    parts = [part for part in re.split(r"[/:]", url.removesuffix("/").removesuffix(".git")) if part]
    return ("", parts[-1]) if len(parts) == 1 else (parts[-2], parts[-1])

"""Clients and their keys, as operators keep them. A key is stored as its hash alone and shown when it is made."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from services.contracts import clients as contract
from services.contracts.agents import Budget
from services.contracts.spending import microusd
from services.contracts.words import Queue
from services.jobs.errors import JobsError, NotAllowedError, NotFoundError
from services.jobs.models import Client
from services.jobs.paging import next_cursor, text_behind
from services.jobs.unit import SQL
from services.runtime.ids import uuid7
from services.runtime.postgres import Connection, Database, Record, Statements

_STATEMENTS = Statements(SQL / "clients.sql")
_KEY_BYTES = 32


class NameTakenError(JobsError):
    """Another one has the name already."""

    def __init__(self, what: str, name: str) -> None:
        super().__init__(f"there is a {what} named {name!r} already; choose another name")


class ClientStateError(JobsError):
    """The client is disabled, or is the last that can act as an operator."""


@dataclass(frozen=True)
class OwnLimit:
    """A limit of one client's own. ``is_told``: takes the place of one that is there, as nobody's default does."""

    most: int
    is_told: bool = False


@dataclass(frozen=True)
class OwnBudget:
    """What one client may use in a UTC day, its runs under way included. ``is_told``: as for a limit."""

    most: Budget
    is_told: bool = False


@dataclass(frozen=True)
class OwnLimits:
    """``slots``: runs that may hold a slot at once; ``queued``: jobs that may be queued at once."""

    slots: OwnLimit
    queued: OwnLimit
    daily: OwnBudget | None = None
    """None: what holds for every client."""


class Clients:
    """All raise ``StoreUnavailableError``; those with an ``operator``, ``NotAllowedError`` where it is none."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def me(self, client: Client) -> contract.Client:
        async with self._database.connection() as connection:
            return _shown(await _one(connection, client.id))

    async def ensure(self, name: str, limits: OwnLimits | None = None) -> Client:
        """Make the client ``name`` without a key where there is none, and set its ``limits``; return it, no operator.

        One that is there keeps its key. Raises ``ClientStateError`` where it is disabled; safe to run again.
        """

        async def work(connection: Connection) -> Record:
            await _STATEMENTS.execute(connection, "ensure", id=uuid7(), name=name)
            row = await _STATEMENTS.row(connection, "by_name", name=name)
            assert row is not None
            if limits is not None:
                for scope, limit in (("client", limits.slots), ("queued", limits.queued)):
                    values = {"scope": scope, "name": name, "slots": limit.most, "is_told": limit.is_told}
                    await _STATEMENTS.execute(connection, "set_limit", **values)
                if limits.daily is not None:
                    await _set_daily_budget(connection, name, limits.daily)
            return row

        row = await self._database.in_transaction(work)
        if row["disabled_at"] is not None:
            raise ClientStateError(f"the client {name!r} is disabled; an operator disabled it")
        return Client(row["id"], row["name"])

    async def queued(self, client: Client) -> Mapping[Queue, int]:
        """How many of the client's jobs wait, by queue; a queue where none does is missing."""
        async with self._database.connection() as connection:
            rows = await _STATEMENTS.rows(connection, "queued", client_id=client.id)
        return {Queue(row["queue"]): row["jobs"] for row in rows}

    async def one(self, operator: Client, client_id: UUID) -> contract.Client:
        """Raises ``NotFoundError``."""
        _refuse_others(operator)
        async with self._database.connection() as connection:
            return _shown(await _one(connection, client_id))

    async def page(self, operator: Client, *, name: str | None, limit: int, cursor: str | None) -> contract.ClientPage:
        """By name; ``name``: only the one called so; ``limit``: 1 to 200. Raises ``BadCursorError``."""
        _refuse_others(operator)
        async with self._database.planned_anew() as connection:
            rows = await _STATEMENTS.rows(connection, "page", name=name, after=text_behind(cursor), most=limit + 1)
        items = [_shown(row) for row in rows[:limit]]
        return contract.ClientPage(items=items, next_cursor=next_cursor(rows, limit, "name"))

    async def add(self, operator: Client, wanted: contract.ClientRequest) -> contract.ClientWithKey:
        """Raises ``NameTakenError``; the name of one that is disabled stays taken."""
        _refuse_others(operator)
        client_id, key = uuid7(), _new_key()

        async def work(connection: Connection) -> Record:
            made = await _STATEMENTS.row(
                connection,
                "insert",
                id=client_id,
                name=wanted.name,
                api_key_hash=_hash(key),
                is_operator=wanted.is_operator,
            )
            made = made or await _STATEMENTS.row(connection, "client", id=client_id)
            if made is None:
                raise NameTakenError("client", wanted.name)
            return made

        return _with_key(await self._database.in_transaction(work), key)

    async def replace_key(self, operator: Client, client_id: UUID) -> contract.ClientWithKey:
        """A new key in the place of the old one. Raises ``NotFoundError``, ``ClientStateError``."""
        _refuse_others(operator)
        key = _new_key()

        async def work(connection: Connection) -> Record:
            changed = await _STATEMENTS.row(connection, "replace_key", id=client_id, api_key_hash=_hash(key))
            if changed is None:
                found = await _one(connection, client_id)
                raise ClientStateError(f"the client {found['name']!r} is disabled, and takes no key any more")
            return changed

        return _with_key(await self._database.in_transaction(work), key)

    async def disable(self, operator: Client, client_id: UUID) -> contract.Client:
        """Its key opens nothing any more; its jobs stay, and those under way go on.

        Disabling one that is disabled succeeds. Raises ``NotFoundError``, ``ClientStateError`` for the last operator.
        """
        _refuse_others(operator)

        async def work(connection: Connection) -> Record:
            operators = await _STATEMENTS.rows(connection, "lock_operators")
            if [row["id"] for row in operators] == [client_id]:
                raise ClientStateError("this is the last operator: make another one before it is disabled")
            disabled = await _STATEMENTS.row(connection, "disable", id=client_id)
            if disabled is None:
                raise NotFoundError("client", client_id)
            return disabled

        return _shown(await self._database.in_transaction(work))


async def _set_daily_budget(connection: Connection, name: str, daily: OwnBudget) -> None:
    amount = None if daily.most.usd is None else microusd(daily.most.usd)
    values = {"name": name, "tokens": daily.most.tokens, "microusd": amount, "is_told": daily.is_told}
    await _STATEMENTS.execute(connection, "set_daily_budget", **values)


async def _one(connection: Connection, client_id: UUID) -> Record:
    row = await _STATEMENTS.row(connection, "client", id=client_id)
    if row is None:
        raise NotFoundError("client", client_id)
    return row


def _refuse_others(client: Client) -> None:
    if not client.is_operator:
        raise NotAllowedError("only an operator's key may see and change clients; /v1/clients/me is one's own")


def _new_key() -> str:
    return f"qd_{secrets.token_urlsafe(_KEY_BYTES)}"


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _shown(row: Record) -> contract.Client:
    return contract.Client.model_validate(dict(row))


def _with_key(row: Record, key: str) -> contract.ClientWithKey:
    return contract.ClientWithKey(**dict(row), api_key=key)

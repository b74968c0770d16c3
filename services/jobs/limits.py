"""How many runs may hold a slot at once: for the fleet, a queue, a client, a repository; changed while all runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.contracts import limits as contract
from services.contracts.words import Queue
from services.jobs.errors import NotAllowedError, UnknownClientError
from services.jobs.models import Client
from services.jobs.unit import SQL, Units
from services.runtime.postgres import Connection, Database, Record, Statements

_STATEMENTS = Statements(SQL / "limits.sql")
DEFAULT = ""
"""The name of what holds for everyone in a scope who is not named."""


@dataclass(frozen=True)
class Limits:
    """None, or a name that is missing: no limit of its own."""

    fleet: int | None = None
    queues: Mapping[Queue, int] = field(default_factory=dict)
    clients: Mapping[str, int] = field(default_factory=dict)
    repositories: Mapping[str, int] = field(default_factory=dict)
    queued: Mapping[str, int] = field(default_factory=dict)
    """By client: how many of its jobs may be queued at once."""

    def of_client(self, name: str) -> int | None:
        return self.clients.get(name, self.clients.get(DEFAULT))

    def of_repository(self, url: str) -> int | None:
        return self.repositories.get(url, self.repositories.get(DEFAULT))

    def queued_of(self, client: str) -> int | None:
        return self.queued.get(client, self.queued.get(DEFAULT))


def limits_of(rows: Sequence[Record | Mapping[str, Any]]) -> Limits:
    """From the table's rows: scope, name, slots."""
    scopes: dict[str, dict[str, int]] = {scope: {} for scope in ("fleet", "queue", "client", "repository", "queued")}
    for row in rows:
        scopes[row["scope"]][row["name"]] = row["slots"]
    return Limits(
        fleet=scopes["fleet"].get(DEFAULT),
        queues={Queue(name): slots for name, slots in scopes["queue"].items()},
        clients=scopes["client"],
        repositories=scopes["repository"],
        queued=scopes["queued"],
    )


class LimitSetting:
    """Reads and replaces the limits."""

    def __init__(self, units: Units) -> None:
        self._database: Database = units.database

    async def read(self, client: Client) -> contract.Limits:
        """All of them for an operator; for anybody else the fleet's, the queues', and the client's own."""
        async with self._database.connection() as connection:
            limits = limits_of(await _STATEMENTS.rows(connection, "limits"))
        return _shown(limits, only=None if client.is_operator else client.name)

    async def replace(self, client: Client, wanted: contract.Limits) -> contract.Limits:
        """Set all limits to ``wanted``; what it leaves out has none.

        Raises ``NotAllowedError``, ``UnknownClientError``.
        """
        if not client.is_operator:
            raise NotAllowedError("only an operator's key may change the limits")
        rows = _rows(wanted)

        async def work(connection: Connection) -> None:
            names = {name for scope, name, _ in rows if scope in ("client", "queued") and name != DEFAULT}
            known = await _STATEMENTS.rows(connection, "known_clients", names=sorted(names))
            if missing := names - {row["name"] for row in known}:
                raise UnknownClientError(sorted(missing))
            await _STATEMENTS.execute(connection, "lock")
            await _STATEMENTS.execute(connection, "clear")
            await _STATEMENTS.execute(
                connection,
                "insert",
                scopes=[scope for scope, _, _ in rows],
                names=[name for _, name, _ in rows],
                slots=[slots for _, _, slots in rows],
            )

        await self._database.in_transaction(work)
        return await self.read(client)


def _rows(wanted: contract.Limits) -> list[tuple[str, str, int]]:
    named: dict[str, Mapping[str, int | None]] = {
        "client": {DEFAULT: wanted.client.default, **wanted.client.by_name},
        "repository": {DEFAULT: wanted.repository.default, **wanted.repository.by_name},
        "queued": {DEFAULT: wanted.queued_jobs.default, **wanted.queued_jobs.by_name},
        "queue": dict(wanted.queues),
        "fleet": {DEFAULT: wanted.fleet},
    }
    return [
        (scope, name, slots) for scope, limits in named.items() for name, slots in limits.items() if slots is not None
    ]


def _shown(limits: Limits, *, only: str | None) -> contract.Limits:
    def named(scope: Mapping[str, int]) -> contract.NamedLimits:
        by_name = {name: slots for name, slots in scope.items() if name != DEFAULT and only in (None, name)}
        return contract.NamedLimits(default=scope.get(DEFAULT), by_name=by_name)

    repositories = contract.NamedLimits(default=limits.repositories.get(DEFAULT))
    return contract.Limits(
        fleet=limits.fleet,
        queues=contract.QueueLimits.model_validate({queue.value: slots for queue, slots in limits.queues.items()}),
        client=named(limits.clients),
        repository=named(limits.repositories) if only is None else repositories,
        queued_jobs=named(limits.queued),
    )

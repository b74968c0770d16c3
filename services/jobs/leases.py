"""Renewing leases: one statement for all that a process holds, beside the word that the process lives."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal
from uuid import UUID

from services.jobs.scheduling import LEASE
from services.jobs.unit import SQL
from services.runtime.postgres import Connection, Statements

_STATEMENTS = Statements(SQL / "running.sql")


@dataclass(frozen=True)
class Renewed:
    """One lease that is still the holder's."""

    id: UUID
    """The run's, or the changeset's."""
    token: UUID
    cancel_requested: bool
    is_called: bool
    """Its user has said something that is to be heard at once and is unread."""


@dataclass(frozen=True)
class Node:
    """One life of an agent or vcs process."""

    name: str
    """Unique to this life: a process that is started again is another node."""
    kind: Literal["agent", "vcs"]
    capacity: int = 0
    """Runs at once that it takes now."""
    address: str | None = None
    beat: int = 0
    """How many heartbeats it has sent, this one included."""


def new_node_name(label: str) -> str:
    """A name of this life of the process that its people know as ``label``."""
    return f"{label}-{secrets.token_hex(4)}"


async def tell_seen(connection: Connection, node: Node) -> None:
    await _STATEMENTS.execute(connection, "seen", **asdict(node))


async def tell_gone(connection: Connection, node: Node) -> None:
    await _STATEMENTS.execute(connection, "gone", name=node.name)


async def renew(connection: Connection, held: Mapping[UUID, UUID]) -> list[Renewed]:
    """Prolong the leases ``held`` (id to token) to 8 s from now; what is not in the answer is lost."""
    rows = await _STATEMENTS.rows(connection, "renew", ids=list(held), tokens=list(held.values()), lease=LEASE)
    return [Renewed(row["id"], row["token"], bool(row["cancel_requested"]), row["is_called"]) for row in rows]

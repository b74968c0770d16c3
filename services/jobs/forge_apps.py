"""GitHub Apps that were set up here, with their secrets sealed, and where they are installed. Asks no forge anything.

Deliveries of a webhook come twice, late and in any order: what is told of an installation may be told again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from services.contracts.text import storable
from services.jobs.errors import SecretsError
from services.jobs.sealed import app_owner, webhook_owner
from services.jobs.unit import SQL
from services.runtime.postgres import Connection, Database, Record, Statements
from services.runtime.sealing import Sealer, SealingError

_STATEMENTS = Statements(SQL / "forge_apps.sql")
_PRIVATE_KEY = "privateKey"
_CLIENT_SECRET = "clientSecret"  # noqa: S105  the name of it
_WEBHOOK_SECRET = "webhookSecret"  # noqa: S105


@dataclass(frozen=True)
class App:
    """``owner``: the account that it belongs to. ``url``: its page, from which it is installed."""

    app_id: int
    slug: str
    name: str
    owner: str
    url: str
    created_at: datetime
    """When it was stored last."""


@dataclass(frozen=True)
class NewApp:
    """An App as its forge handed it over. ``private_key``: PEM. ``webhook_secret``: None: it has no webhook."""

    app_id: int
    slug: str
    name: str
    owner: str
    url: str
    private_key: str = field(repr=False)
    client_secret: str = field(repr=False)
    webhook_secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class AppCredentials:
    """``private_key``: PEM."""

    app_id: int
    private_key: str = field(repr=False)


@dataclass(frozen=True)
class Installation:
    """Where an App is installed. ``repositories``: owner/name, in order. ``has_all``: all of the account's, also those
    to come.
    """

    installation_id: int
    app_id: int
    account: str
    repositories: tuple[str, ...]
    has_all: bool
    suspended_at: datetime | None
    updated_at: datetime


class ForgeApps:
    """Every method raises ``StoreUnavailableError``."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    def require_key(self) -> None:
        """Raises ``SecretsError`` where no secret can be stored here."""
        self._sealed({}, owner="nobody")

    async def store(self, app: NewApp) -> None:
        """Keep the App, which is the current one from now on. Raises ``SecretsError``."""
        secrets = {_PRIVATE_KEY: app.private_key, _CLIENT_SECRET: app.client_secret}
        hook = {_WEBHOOK_SECRET: app.webhook_secret}
        values = {
            "app_id": app.app_id,
            "slug": storable(app.slug),
            "name": storable(app.name),
            "owner": storable(app.owner),
            "url": storable(app.url),
            "sealed": self._sealed(secrets, owner=app_owner(app.app_id)),
            "webhook_sealed": self._sealed(hook, owner=webhook_owner(app.app_id)) if app.webhook_secret else None,
        }
        await self._execute("store", **values)

    async def current(self) -> App | None:
        """The App that was stored last."""
        row = await self._row()
        return _app(row) if row is not None else None

    async def credentials(self) -> AppCredentials | None:
        """With which the current App proves itself to its forge. Raises ``SecretsError``."""
        row = await self._row()
        if row is None:
            return None
        secrets = self._opened(row["sealed"], owner=app_owner(row["app_id"]))
        return AppCredentials(row["app_id"], secrets[_PRIVATE_KEY])

    async def webhook_secret(self) -> str | None:
        """What the current App's deliveries are signed with; None where it has no webhook. Raises ``SecretsError``."""
        row = await self._row()
        if row is None or row["webhook_sealed"] is None:
            return None
        secret: str = self._opened(row["webhook_sealed"], owner=webhook_owner(row["app_id"]))[_WEBHOOK_SECRET]
        return secret

    async def record_installation(
        self,
        installation_id: int,
        *,
        app_id: int,
        account: str,
        repositories: Collection[str] = (),
        has_all: bool = False,
        at: datetime | None = None,
    ) -> None:
        """The App is installed, for these ``repositories`` (owner/name). ``at``: when this was so; None: now."""
        await self._execute(
            "record_installation",
            installation_id=installation_id,
            app_id=app_id,
            account=storable(account),
            repositories=_in_order(repositories),
            has_all=has_all,
            at=at,
        )

    async def change_repositories(
        self,
        installation_id: int,
        added: Collection[str],
        removed: Collection[str],
        *,
        has_all: bool | None = None,
        at: datetime | None = None,
    ) -> None:
        """``has_all``: None: as it was."""
        await self._execute(
            "change_repositories",
            installation_id=installation_id,
            added=_in_order(added),
            removed=_in_order(removed),
            has_all=has_all,
            at=at,
        )

    async def suspend(self, installation_id: int, *, at: datetime | None = None) -> None:
        """Nothing may be done there until ``unsuspend``; what happened before what is known changes nothing."""
        await self._execute("suspend", installation_id=installation_id, at=at)

    async def unsuspend(self, installation_id: int, *, at: datetime | None = None) -> None:
        await self._execute("unsuspend", installation_id=installation_id, at=at)

    async def remove(self, installation_id: int, *, at: datetime | None = None) -> None:
        """For good, also where ``record_installation`` is told late."""
        await self._execute("remove", installation_id=installation_id, at=at)

    async def installations(self) -> list[Installation]:
        """Those that were not removed, by their accounts."""
        async with self._database.connection() as connection:
            rows = await _STATEMENTS.rows(connection, "installations")
        return [_installation(row) for row in rows]

    async def _row(self) -> Record | None:
        async with self._database.connection() as connection:
            return await _STATEMENTS.row(connection, "current")

    async def _execute(self, statement: str, **values: Any) -> None:
        async def work(connection: Connection) -> None:
            await _STATEMENTS.execute(connection, statement, **values)

        await self._database.in_transaction(work)

    def _sealed(self, secrets: dict[str, Any], *, owner: str) -> bytes:
        try:
            return self._sealer.seal(secrets, owner=owner)
        except SealingError as error:
            raise SecretsError(str(error)) from error

    def _opened(self, sealed: bytes, *, owner: str) -> dict[str, Any]:
        try:
            return dict(self._sealer.open(sealed, owners=[owner]).secrets)
        except SealingError as error:
            raise SecretsError(f"the secrets of the GitHub App that was set up here: {error}") from error


def _app(row: Record) -> App:
    return App(row["app_id"], row["slug"], row["name"], row["owner"], row["url"], row["created_at"])


def _installation(row: Record) -> Installation:
    return Installation(
        installation_id=row["installation_id"],
        app_id=row["app_id"],
        account=row["account"],
        repositories=tuple(row["repositories"]),
        has_all=row["has_all"],
        suspended_at=row["suspended_at"],
        updated_at=row["updated_at"],
    )


def _in_order(names: Collection[str]) -> list[str]:
    return sorted({storable(name) for name in names})

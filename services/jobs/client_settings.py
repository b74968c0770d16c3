"""What a client's runs take where their job says nothing, with the secrets in it, which never come out again here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.contracts.agents import SET, ClientSettings, HttpServer, McpServer, StdioServer
from services.jobs.errors import RefusedFieldError, SecretsError
from services.jobs.models import Client
from services.jobs.sealed import CLIENT_KEY, MCP_SERVERS, client_owner
from services.jobs.unit import SQL, Units
from services.runtime.base_urls import BaseUrlNotAllowedError, BaseUrls
from services.runtime.postgres import Connection, Record, Statements
from services.runtime.sealing import Sealer, SealingError

_STATEMENTS = Statements(SQL / "client_settings.sql")
_BEGIN_ANEW = "DELETE /v1/settings takes all settings and secrets away"


@dataclass(frozen=True)
class _Stored:
    settings: ClientSettings
    key: str | None = field(default=None, repr=False)
    servers: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    """Server → variable or header → value."""

    def secrets(self) -> dict[str, Any]:
        return {CLIENT_KEY: self.key, MCP_SERVERS: self.servers}


class ClientSetting:
    """Reads and changes a client's settings."""

    def __init__(self, units: Units, sealer: Sealer, base_urls: BaseUrls) -> None:
        self._database = units.database
        self._sealer = sealer
        self._base_urls = base_urls

    async def read(self, client: Client) -> ClientSettings:
        """Each secret as `(set)`."""
        async with self._database.connection() as connection:
            row = await _STATEMENTS.row(connection, "settings", client_id=client.id)
        return ClientSettings.model_validate(row["settings"] if row else {})

    async def replace(self, client: Client, wanted: ClientSettings) -> ClientSettings:
        """Set all but the key to ``wanted``; a secret that it gives as `(set)` stays as it is stored.

        Raises ``RefusedFieldError``, ``SecretsError``.
        """
        check_base_url(self._base_urls, wanted.base_url, "baseUrl")

        def change(stored: _Stored) -> _Stored:
            kept = {
                name: _server_secrets(name, server, stored)
                for name, server in wanted.mcp_servers.items()
                if _shown_secrets(server)
            }
            return _Stored(wanted, stored.key, kept)

        keeps = any(SET in _shown_secrets(server).values() for server in wanted.mcp_servers.values())
        return await self._change(client, change, keeps_servers=keeps, keeps_key=True)

    async def set_key(self, client: Client, key: str | None) -> ClientSettings:
        """Store the client's key for its model service; None: take it away. Raises ``SecretsError``."""

        def change(stored: _Stored) -> _Stored:
            return _Stored(stored.settings, key, stored.servers)

        return await self._change(client, change, keeps_servers=True, keeps_key=False)

    async def remove(self, client: Client) -> ClientSettings:
        """Take all settings away, and the secrets, also where nobody can open them."""

        async def work(connection: Connection) -> None:
            await _STATEMENTS.execute(connection, "remove", client_id=client.id)

        await self._database.in_transaction(work)
        return ClientSettings.model_validate({})

    async def _change(
        self, client: Client, change: Callable[[_Stored], _Stored], *, keeps_servers: bool, keeps_key: bool
    ) -> ClientSettings:
        async def work(connection: Connection) -> ClientSettings:
            await _STATEMENTS.execute(connection, "ensure", client_id=client.id)
            row = await _STATEMENTS.row(connection, "locked", client_id=client.id)
            assert row is not None
            before = ClientSettings.model_validate(row["settings"])
            has_servers = any(_shown_secrets(server) for server in before.mcp_servers.values())
            is_needed = (keeps_servers and has_servers) or (keeps_key and before.anthropic_api_key is not None)
            stored = self._opened(client, before, row) if is_needed else _Stored(before)
            after = change(stored)
            shown = _shown(after)
            await _STATEMENTS.execute(
                connection,
                "replace",
                client_id=client.id,
                settings=shown.model_dump(mode="json", by_alias=True, exclude_none=True),
                sealed=self._sealed(client, after),
            )
            return shown

        return await self._database.in_transaction(work)

    def _opened(self, client: Client, settings: ClientSettings, row: Record) -> _Stored:
        try:
            found = self._sealer.open(row["sealed"] or b"", owners=[client_owner(client.id)]).secrets
        except SealingError as error:
            raise SecretsError(f"{error}; {_BEGIN_ANEW}") from error
        return _Stored(settings, found.get(CLIENT_KEY), found.get(MCP_SERVERS, {}))

    def _sealed(self, client: Client, stored: _Stored) -> bytes | None:
        if stored.key is None and not stored.servers:
            return None
        try:
            return self._sealer.seal(stored.secrets(), owner=client_owner(client.id))
        except SealingError as error:
            raise SecretsError(str(error)) from error


def check_base_url(allowed: BaseUrls, base_url: str | None, name: str) -> None:
    """Raises ``RefusedFieldError`` for the field ``name``."""
    if base_url is None:
        return
    try:
        allowed.allowed(base_url)
    except BaseUrlNotAllowedError as error:
        raise RefusedFieldError(name, str(error)) from error


def _place(server: McpServer) -> str:
    return "env" if isinstance(server, StdioServer) else "headers"


def _shown_secrets(server: McpServer) -> Mapping[str, str]:
    return server.env if isinstance(server, StdioServer) else server.headers


def _server_secrets(name: str, wanted: McpServer, stored: _Stored) -> dict[str, str]:
    """The values that ``wanted`` gives, and those that it keeps. Raises ``RefusedFieldError``."""
    kept = stored.servers.get(name, {}) if _goes_to_the_same(wanted, stored.settings.mcp_servers.get(name)) else {}
    values = {key: kept.get(key) if value == SET else value for key, value in _shown_secrets(wanted).items()}
    for key, value in values.items():
        if value is None:
            raise RefusedFieldError(
                f"mcpServers.{name}.{_place(wanted)}.{key}",
                f"`{SET}` keeps a value that is stored for the same command or url, and none is; send the value",
            )
    return {key: value for key, value in values.items() if value is not None}


def _goes_to_the_same(wanted: McpServer, before: McpServer | None) -> bool:
    """Whether a secret stays with whom it was given to: who can only write secrets must not send them elsewhere."""
    if isinstance(wanted, HttpServer):
        return isinstance(before, HttpServer) and wanted.url == before.url
    return isinstance(before, StdioServer) and wanted.command == before.command


def _shown(stored: _Stored) -> ClientSettings:
    servers = {
        name: server.model_copy(update={_place(server): dict.fromkeys(_shown_secrets(server), SET)})
        for name, server in stored.settings.mcp_servers.items()
    }
    key = SET if stored.key is not None else None
    return stored.settings.model_copy(update={"mcp_servers": servers, "anthropic_api_key": key})

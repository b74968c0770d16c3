"""The part of the client that looks after clients (tenants) and their keys: for operators, but for ``me``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from quarterdeck.connection import Connection, Id, filters_of, json_bytes, parsed, segment
from services.contracts import clients as contract


class Clients(Connection):
    """Every method but ``me`` raises UnauthorizedError where the key is no operator's."""

    async def me(self) -> contract.Client:
        """The client that this key is of."""
        return parsed(contract.Client, await self._transport.get("/v1/clients/me"))

    def clients(self, *, name: str | None = None, limit: int | None = None) -> AsyncIterator[contract.Client]:
        """By name. ``name``: only the one called so."""
        return self._items(partial(parsed, contract.ClientPage), "/v1/clients", filters_of(name=name), limit)

    async def client(self, client_id: Id) -> contract.Client:
        return parsed(contract.Client, await self._transport.get(f"/v1/clients/{segment(client_id)}"))

    async def add_client(self, name: str, *, is_operator: bool = False) -> contract.ClientWithKey:
        """Make a client; its key is in this answer alone. Raises ConflictError where the name is taken."""
        body = json_bytes({"name": name, "isOperator": is_operator})
        return parsed(contract.ClientWithKey, await self._transport.send_once("POST", "/v1/clients", body))

    async def replace_client_key(self, client_id: Id) -> contract.ClientWithKey:
        """Give it a new key; the old one stops. Raises ConflictError where it is disabled."""
        path = f"/v1/clients/{segment(client_id)}/key"
        return parsed(contract.ClientWithKey, await self._transport.post_once(path))

    async def disable_client(self, client_id: Id) -> contract.Client:
        """Its key opens nothing any more; its jobs stay. Raises ConflictError for the last operator."""
        path = f"/v1/clients/{segment(client_id)}"
        return parsed(contract.Client, await self._transport.send_once("DELETE", path, b""))

"""The client that a dialect acts as: made at the start, with limits of its own, and without a key for `/v1`."""

from __future__ import annotations

import time

from services.gateway.commands import Commands
from services.gateway.problems import ProblemError
from services.jobs.clients import Clients, ClientStateError, OwnLimits
from services.jobs.models import Client
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger

log = logger("gateway.dialects")

KNOWN_SECONDS = 10.0
"""So long may a dialect whose client was disabled go on."""


class Tenant:
    def __init__(self, name: str, limits: OwnLimits, clients: Clients, commands: Commands) -> None:
        self._name = name
        self._limits = limits
        self._clients = clients
        self._commands = commands
        self._client: Client | None = None
        self._known_until = 0.0
        self._is_made = False

    async def make(self) -> None:
        """Make the client, and set its limits the first time. Raises ``StoreUnavailableError``; safe to run again."""
        try:
            self._client = await self._clients.ensure(self._name, None if self._is_made else self._limits)
        except ClientStateError as error:
            self._client = None
            log.warning("a dialect is not served", dialect=self._name, reason=str(error))
        if not self._is_made:
            self._is_made = True
            self._commands.limits_changed()
        self._known_until = time.monotonic() + KNOWN_SECONDS

    async def client(self) -> Client:
        """Raises ``ProblemError`` where it is disabled, ``StoreUnavailableError`` where it was never known."""
        if time.monotonic() >= self._known_until:
            try:
                await self.make()
            except StoreUnavailableError:
                # Who it is has not changed with that: a health check may still say what is wrong, in its own words.
                if self._client is None:
                    raise
        if self._client is None:
            raise ProblemError(401, f"the client {self._name} is disabled here; ask who runs this server")
        return self._client

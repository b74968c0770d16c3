"""What deliveries may be signed with: the secret of the settings, and that of the App that was set up here."""

from __future__ import annotations

import time
from typing import Final

from pydantic import SecretStr

from services.jobs.errors import SecretsError
from services.jobs.forge_apps import ForgeApps
from services.runtime.telemetry import logger

log = logger("gateway.webhooks")

KNOWN_SECONDS: Final = 5.0
"""So long may an App that was just set up not be known here yet."""


class WebhookSecrets:
    def __init__(self, told: SecretStr | None, apps: ForgeApps) -> None:
        self._told = [told.get_secret_value()] if told is not None and told.get_secret_value() else []
        self._apps = apps
        self._stored: list[str] = []
        self._known_until = 0.0

    async def known(self) -> list[str]:
        """None: no webhook is set up. Raises ``StoreUnavailableError``."""
        if time.monotonic() >= self._known_until:
            self._stored = await self._of_app()
            self._known_until = time.monotonic() + KNOWN_SECONDS
        return [*self._told, *self._stored]

    async def _of_app(self) -> list[str]:
        try:
            secret = await self._apps.webhook_secret()
        except SecretsError as error:
            log.warning("the webhook's secret of the GitHub App that was set up here cannot be read", error=str(error))
            return []
        return [secret] if secret else []

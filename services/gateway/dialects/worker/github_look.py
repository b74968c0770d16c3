"""Whether GitHub can be worked with, and as whom: by the App that was set up here, or by what vcs nodes say."""

from __future__ import annotations

from dataclasses import dataclass

from services.contracts.repositories import MAX_FOUND
from services.contracts.v1.vcs_pb2 import ListRepositoriesRequest
from services.gateway.context import Gateway
from services.gateway.dialects.forge_look import ForgeLook
from services.gateway.dialects.worker.service_settings import ServiceSettings
from services.jobs.forge_apps import App, Installation

ASK_SECONDS = 3.0
KNOWN_SECONDS = 300.0
UNKNOWN_SECONDS = 30.0
"""Short: a vcs that does not live at this moment may soon."""
_ALL = ListRepositoriesRequest(include_archived=True, include_forks=True, limit=MAX_FOUND)


@dataclass(frozen=True)
class GitHub:
    """``repositories``: how many there are, up to 1,000."""

    is_configured: bool
    repositories: int
    app_id: str | None = None
    installation_id: str | None = None
    owner: str | None = None


class GitHubLook:
    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._forge = ForgeLook(
            _ALL, deadline_seconds=ASK_SECONDS, known_seconds=KNOWN_SECONDS, unknown_seconds=UNKNOWN_SECONDS
        )

    async def find(self, gateway: Gateway) -> GitHub:
        """Raises ``StoreUnavailableError``."""
        app = await gateway.apps.current()
        if app is not None:
            return await self._of_app(gateway, app)
        listed = await self._forge.count(gateway.vcs)
        return GitHub(
            is_configured=listed is not None or self._settings.app_id is not None,
            repositories=listed or 0,
            app_id=self._settings.app_id,
            installation_id=self._settings.installation_id,
        )

    async def _of_app(self, gateway: Gateway, app: App) -> GitHub:
        places = [
            each
            for each in await gateway.apps.installations()
            if each.app_id == app.app_id and each.suspended_at is None
        ]
        return GitHub(
            is_configured=True,
            repositories=await self._count(gateway, places),
            app_id=str(app.app_id),
            installation_id=str(places[0].installation_id) if places else None,
            owner=app.owner,
        )

    async def _count(self, gateway: Gateway, places: list[Installation]) -> int:
        """Which repositories an installation for all of an account's has, its forge alone can say."""
        named = {name for each in places for name in each.repositories}
        if any(each.has_all for each in places):
            return max(len(named), await self._forge.count(gateway.vcs) or 0)
        return len(named)

"""As whom this server asks GitHub: as its settings say, else as the App that was set up here last, with no restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from services.jobs.errors import SecretsError
from services.jobs.forge_apps import App, ForgeApps
from services.runtime import jetstream, lifecycle, postgres
from services.runtime.telemetry import logger
from services.vcs.errors import ForgeUnavailableError
from services.vcs.forges.github import GitHubAddress, GitHubConfig, GitHubConfigError, GitHubForge
from services.vcs.git.credentials import Credential
from services.vcs.git.repositories import Repository

log = logger("vcs.github")

LOOK_EVERY: Final = timedelta(seconds=5)
_RETIRED_KEPT: Final = timedelta(minutes=10)
"""For calls that began with it: no publication asks a forge for so long."""

MakeGitHub = Callable[[GitHubConfig], GitHubForge]


class ServerGitHub:
    """For Git it shows what the credentials of ``current`` know of."""

    def __init__(
        self, configured: GitHubConfig | None, apps: ForgeApps, address: GitHubAddress, make: MakeGitHub
    ) -> None:
        """``configured``: by the settings; None: the App that is stored is looked for."""
        self.is_configured = configured is not None
        self._is_known = self.is_configured
        self._current = make(configured) if configured is not None else None
        self._apps = apps
        self._address = address
        self._make = make
        self._known: tuple[int, datetime] | None = None
        self._retired: list[tuple[float, GitHubForge]] = []
        self._looking = asyncio.Lock()

    @property
    def current(self) -> GitHubForge | None:
        """None: there are no credentials (yet). Raises ``ForgeUnavailableError`` before the first look has succeeded:
        whoever took it for "none" would give work up for good that GitHub would have taken a moment later.
        """
        if not self._is_known:
            raise ForgeUnavailableError("whether a GitHub App is set up is not known yet: Postgres is away; try again")
        return self._current

    async def of(self, repository: Repository) -> Credential | None:
        """Raises ``ForgeError``."""
        current = self.current
        return await current.credentials.of(repository) if current is not None else None

    async def refresh(self) -> None:
        """Look for the App now. Raises ``StoreUnavailableError``; what was in use is used on then."""
        if self.is_configured:
            return
        async with self._looking:
            await self._close_retired(_RETIRED_KEPT)
            app = await self._apps.current()
            found = (app.app_id, app.created_at) if app is not None else None
            if found != self._known:
                self._replace(await self._forge(app) if app is not None else None)
                self._known = found
            self._is_known = True

    async def begin(self) -> None:
        """``refresh`` before the first call is answered, where PostgreSQL is there already."""
        try:
            await self.refresh()
        except postgres.StoreUnavailableError as error:
            log.warning("whether a GitHub App is set up will be looked up again", error=str(error))

    async def run(self) -> None:
        """Look for another App, for ever."""

        async def wait() -> None:
            await asyncio.sleep(LOOK_EVERY.total_seconds())

        transient = (*postgres.TRANSIENT, *jetstream.TRANSIENT)
        await lifecycle.repeat("GitHub App", self.refresh, wait=wait, transient=transient)

    async def aclose(self) -> None:
        """Once nothing is under way any more."""
        self._replace(None)
        await self._close_retired(timedelta(0))

    async def _forge(self, app: App) -> GitHubForge | None:
        """None where its key cannot be used: until another is stored, nothing is asked in its name."""
        try:
            credentials = await self._apps.credentials()
            if credentials is None:
                return None
            source = f"the private key of the GitHub App {app.slug} that was set up here"
            forge = self._make(self._address.with_app(credentials.app_id, credentials.private_key, source=source))
        except (SecretsError, GitHubConfigError) as error:
            log.warning("the GitHub App cannot be used", app=app.slug, error=str(error))
            return None
        log.info("GitHub is asked as the App that was set up", app=app.slug, app_id=app.app_id)
        return forge

    def _replace(self, forge: GitHubForge | None) -> None:
        if self._current is not None:
            self._retired.append((time.monotonic(), self._current))
        self._current = forge

    async def _close_retired(self, older_than: timedelta) -> None:
        latest = time.monotonic() - older_than.total_seconds()
        over = [forge for since, forge in self._retired if since <= latest]
        self._retired = [entry for entry in self._retired if entry[0] > latest]
        for forge in over:
            await forge.aclose()

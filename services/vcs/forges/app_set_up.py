"""Sets up a GitHub App: its secrets are taken from GitHub, stored sealed, and used from then on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from services.jobs.errors import SecretsError
from services.jobs.forge_apps import ForgeApps, NewApp
from services.runtime.postgres import StoreUnavailableError
from services.runtime.telemetry import logger
from services.vcs.errors import AppLostError, AppSetUpUnclearError, CredentialsError
from services.vcs.forges.github import GitHubAddress, GitHubConfigError
from services.vcs.forges.github.manifests import UNCLEAR, MadeApp, converted
from services.vcs.forges.server_github import ServerGitHub

log = logger("vcs.github")

_KEEP_TRYING_SECONDS: Final = 60.0
"""To store what is handed out once, where Postgres goes away just then."""
_PAUSE_SECONDS: Final = 0.5


@dataclass(frozen=True)
class AppSetUp:
    address: GitHubAddress
    apps: ForgeApps
    github: ServerGitHub
    _under_way: set[asyncio.Task[MadeApp]] = field(default_factory=set, init=False)

    async def set_up(self, code: str) -> MadeApp:
        """Exchange the ``code`` of the manifest's redirect, once; it goes on where the caller goes away.

        Raises ``CredentialsError`` where no secret can be stored here, ``StoreUnavailableError`` (the code is good
        still), ``AppLostError``, and as ``converted`` does.
        """
        await self._require_room()
        task = asyncio.create_task(self._take_over(code), name="App set-up")
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def drain(self, timeout: timedelta) -> None:
        """Let what is under way be stored until ``timeout``; for the end of the service."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=timeout.total_seconds())

    async def _take_over(self, code: str) -> MadeApp:
        made = await converted(self.address, code)
        try:
            self.address.with_app(made.id, made.pem)
            await self._store(_new(made))
        except GitHubConfigError:
            raise AppSetUpUnclearError(f"GitHub's answer holds no private key (pem): {UNCLEAR}") from None
        except (SecretsError, StoreUnavailableError) as error:
            words = f"the GitHub App {made.slug} was made, and its secrets could not be stored: {error}"
            raise AppLostError(f"{words}; delete it on GitHub ({made.html_url}), and set it up again") from error
        log.info("a GitHub App was set up", app=made.slug, app_id=made.id, is_used=not self.github.is_configured)
        # Where PostgreSQL goes away just now, the next look finds it.
        await self.github.begin()
        return made

    async def _store(self, app: NewApp) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + _KEEP_TRYING_SECONDS
        while True:
            try:
                await self.apps.store(app)
            except StoreUnavailableError:
                if loop.time() >= end:
                    raise
            else:
                return
            await asyncio.sleep(_PAUSE_SECONDS)

    def _ended(self, task: asyncio.Task[MadeApp]) -> None:
        """What went wrong is told to the caller; where that has gone, here."""
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a GitHub App was not set up", error=str(error))

    async def _require_room(self) -> None:
        """The code is good once: what is wanting here must be known before."""
        try:
            self.apps.require_key()
        except SecretsError as error:
            raise CredentialsError(f"the GitHub App cannot be set up: {error}") from error
        await self.apps.current()


def _new(made: MadeApp) -> NewApp:
    return NewApp(
        app_id=made.id,
        slug=made.slug,
        name=made.name,
        owner=made.owner.login,
        url=made.html_url,
        private_key=made.pem,
        client_secret=made.client_secret,
        webhook_secret=made.webhook_secret,
    )

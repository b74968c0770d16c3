"""Who may start work: the forge is asked what somebody may do, whatever a delivery says of them."""

from __future__ import annotations

from typing import Final

from services.gateway.vcs_client import VcsClient
from services.gateway.webhooks.payloads import Actor
from services.gateway.webhooks.rules import ActorRule, Permission
from services.jobs.forge_apps import ForgeApps
from services.runtime.telemetry import logger

log = logger("gateway.webhooks")

_APP_LOGIN: Final = "{slug}[bot]"


class Actors:
    def __init__(self, rule: ActorRule, vcs: VcsClient, apps: ForgeApps) -> None:
        self._rule = rule
        self._vcs = vcs
        self._apps = apps

    async def may_start(self, actor: Actor, repository: str) -> bool:
        """``repository``: its URL. Raises ``ProblemError`` as ``VcsClient`` does, ``StoreUnavailableError``."""
        if self._rule.logins:
            is_admitted = actor.login.lower() in self._rule.logins and not await self._is_us(actor)
        elif self._rule.permission is Permission.ANYONE:
            is_admitted = True
        else:
            is_admitted = self._rule.admits(await self._vcs.permission(repository, actor.login))
        if not is_admitted:
            log.info("nothing is started for this actor", actor=actor.login, repository=repository)
        return is_admitted

    async def _is_us(self, actor: Actor) -> bool:
        """Our App speaks under its own name; a bot that somebody listed may be it."""
        app = await self._apps.current() if actor.is_bot else None
        return app is not None and actor.login.lower() == _APP_LOGIN.format(slug=app.slug).lower()

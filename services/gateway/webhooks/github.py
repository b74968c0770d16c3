"""GitHub's webhook, put together: one machinery behind `/webhooks/github` and the addresses of the published APIs."""

from __future__ import annotations

from typing import Final

from aiohttp import web
from pydantic import SecretStr

from services.gateway.problems import FieldProblemError
from services.gateway.vcs_client import VcsClient
from services.gateway.webhooks.actors import Actors
from services.gateway.webhooks.handling import Handling
from services.gateway.webhooks.inbox import Inbox
from services.gateway.webhooks.receiving import Receiving
from services.gateway.webhooks.rules import ActorRule, Rules
from services.gateway.webhooks.secrets import WebhookSecrets
from services.gateway.webhooks.starting import Started, Starting
from services.jobs.clients import Clients
from services.jobs.deliveries import Deliveries
from services.jobs.forge_apps import ForgeApps
from services.jobs.models import Client
from services.jobs.tracking import Tracking

PATH: Final = "/webhooks/github"
NO_RULES: Final = Rules((), ActorRule())
"""Nothing is started; only changesets are looked at anew."""


class GitHubWebhook:
    """``deliveries``: what came, for whoever counts it. ``inbox``: to be run in the background."""

    def __init__(
        self,
        rules: Rules,
        secret: SecretStr | None,
        apps: ForgeApps,
        deliveries: Deliveries,
        starting: Starting,
        *,
        vcs: VcsClient,
        tracking: Tracking,
        clients: Clients,
    ) -> None:
        """``secret``: what deliveries are signed with; None: those of an App that was set up here alone are taken."""
        self._rules = rules
        self._starting = starting
        self.deliveries = deliveries
        actors = Actors(rules.actors, vcs, apps)
        handling = Handling(rules, actors, starting, tracking=tracking, apps=apps, clients=clients)
        self.inbox = Inbox(deliveries, handling)
        self._receiving = Receiving(WebhookSecrets(secret, apps), deliveries, rules, self.inbox)

    async def receive(self, request: web.Request, surface: str) -> web.StreamResponse:
        """Take a delivery to the address of this surface; raises as ``Receiving.receive`` does."""
        return await self._receiving.receive(request, self._rules.surface(surface))

    async def start_issue(self, client: Client, url: str, full_name: str, number: int) -> Started:
        """Have an issue done by whom the caller vouches for. Raises as ``Starting.issue``; ``FieldProblemError``."""
        if not self._rules.allows(full_name):
            raise FieldProblemError("repository", f"{full_name} is none that this server works in")
        return await self._starting.issue(client, url, full_name, number)

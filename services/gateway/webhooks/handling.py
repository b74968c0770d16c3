"""Does what a delivery asks for. It may be done again, by another gateway too: each step makes nothing twice."""

from __future__ import annotations

import orjson

from services.gateway.problems import ProblemError
from services.gateway.webhooks.actors import Actors
from services.gateway.webhooks.happenings import FailedSuite, IssueEvent, Remark
from services.gateway.webhooks.rules import Rules, Surface
from services.gateway.webhooks.starting import FORGE, Starting
from services.jobs.clients import Clients, ClientStateError
from services.jobs.deliveries import Delivery
from services.jobs.forge_apps import ForgeApps
from services.jobs.tracking import Tracking


class Handling:
    def __init__(
        self,
        rules: Rules,
        actors: Actors,
        starting: Starting,
        *,
        tracking: Tracking,
        apps: ForgeApps,
        clients: Clients,
    ) -> None:
        self._rules = rules
        self._actors = actors
        self._starting = starting
        self._tracking = tracking
        self._apps = apps
        self._clients = clients

    async def handle(self, delivery: Delivery) -> None:
        """Raises ``ProblemError`` (from 500 on: it may be done later), ``JobsError``, ``StoreUnavailableError``."""
        surface = self._rules.surface(delivery.source)
        wanted = self._rules.wanted_by(surface, delivery.event, orjson.loads(delivery.payload))
        if not wanted.wake.is_nothing:
            concerned = wanted.wake
            numbers, branches, shas = concerned.numbers, concerned.branches, concerned.shas
            await self._tracking.wake(FORGE, concerned.repository, numbers=numbers, branches=branches, shas=shas)
        if wanted.installation is not None:
            await wanted.installation(self._apps)
        if wanted.issue is not None:
            await self._on_issue(surface, wanted.issue, may_start=wanted.issue_may_start)
        if wanted.remark is not None:
            await self._on_remark(wanted.remark)
        if wanted.suite is not None:
            await self._on_failed_suite(surface, wanted.suite)

    async def _on_issue(self, surface: Surface, event: IssueEvent, *, may_start: bool) -> None:
        if not await self._actors.may_start(event.actor, event.repository.url):
            return
        try:
            client = await self._clients.ensure(surface.client)
        except ClientStateError as error:
            raise ProblemError(401, str(error)) from error
        place = event.repository
        await self._starting.issue(client, place.url, place.full_name, event.number, may_start=may_start)

    async def _on_remark(self, remark: Remark) -> None:
        full_name = remark.repository.full_name
        change = await self._starting.items.open_changeset(FORGE, full_name, number=remark.number)
        if change is not None and await self._actors.may_start(remark.author, change.repository):
            await self._starting.review(remark, change)

    async def _on_failed_suite(self, surface: Surface, suite: FailedSuite) -> None:
        """Whoever pushed made it fail; the pull request is ours, and how often it is tried is bounded."""
        full_name = suite.repository.full_name
        change = await self._starting.items.open_changeset(FORGE, full_name, head_sha=suite.sha)
        if change is not None:
            await self._starting.checks(suite, change, most=surface.check_fixes)

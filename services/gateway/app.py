"""Puts the gateway together: its parts, its routes, and what happens around every request."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import cache, partial

from aiohttp import web
from pydantic import SecretStr

from services.contracts import subjects
from services.gateway.auth import Authenticator, by_basic
from services.gateway.commands import Commands
from services.gateway.context import GATEWAY, Gateway
from services.gateway.dialects.serving import Served
from services.gateway.events.hub import Hub
from services.gateway.openapi import document
from services.gateway.operations import register
from services.gateway.problems import problems
from services.gateway.routes import OPERATIONS
from services.gateway.routes.service import DOCUMENT
from services.gateway.tracing import add_headers, traced
from services.gateway.vcs_client import SYNC_WAIT, VcsClient
from services.gateway.web.changeset import PATH, changeset_page
from services.gateway.webhooks import github as webhooks
from services.gateway.webhooks.rules import Rules
from services.gateway.webhooks.settings import NATIVE
from services.gateway.webhooks.starting import Starting
from services.jobs.cancelling import Cancelling
from services.jobs.client_settings import ClientSetting
from services.jobs.clients import Clients
from services.jobs.customers import Customers
from services.jobs.deliveries import Deliveries
from services.jobs.eventlog import EventLog
from services.jobs.forge_apps import ForgeApps
from services.jobs.limits import LimitSetting
from services.jobs.measuring import Measuring
from services.jobs.messaging import Messaging
from services.jobs.newcomers import bell_for
from services.jobs.nodes import Nodes
from services.jobs.overviews import Overviews
from services.jobs.publishing import Publishing
from services.jobs.reading import Reading
from services.jobs.repositories import Repositories
from services.jobs.retrying import Retrying
from services.jobs.spending import BudgetSetting, UsageReading
from services.jobs.submission import NewJob, Submissions
from services.jobs.tracking import Tracking
from services.jobs.unit import Rung, Units
from services.jobs.work_items import WorkItems
from services.runtime.base_urls import BaseUrls
from services.runtime.grpc import NO_TLS, GrpcSecurity
from services.runtime.jetstream import Bus
from services.runtime.postgres import Database
from services.runtime.sealing import Sealer


def assemble(
    database: Database,
    bus: Bus,
    *,
    api_key: str | None,
    sealer: Sealer | None = None,
    base_urls: BaseUrls | None = None,
    vcs_token: str | None = None,
    vcs_security: GrpcSecurity = NO_TLS,
    sync_wait: timedelta = SYNC_WAIT,
    webhook_rules: Rules = webhooks.NO_RULES,
    webhook_secret: SecretStr | None = None,
) -> Gateway:
    """``api_key``: the client `default`'s, to be stored at the start. ``sealer``, ``base_urls``: as ``Submissions``
    takes them. ``vcs_token``, ``vcs_security``, ``sync_wait``: as ``VcsClient`` does. ``webhook_secret``: what
    deliveries are signed with; None: those of an App that was set up here alone are taken.
    """
    sealer, base_urls = sealer or Sealer(None), base_urls or BaseUrls()

    async def ring(rung: Rung) -> None:
        await bus.ring(subjects.EVENTS_DOORBELL, rung.encode())

    async def ring_for(job: NewJob) -> None:
        await bus.ring(subjects.EVENTS_DOORBELL, bell_for(job))

    units = Units(database, ring=ring)
    submissions = Submissions(units, sealer, base_urls, ring_for=ring_for)
    clients, tracking, apps = Clients(database), Tracking(units), ForgeApps(database, sealer)
    vcs = VcsClient(Nodes(database), vcs_token, vcs_security, sync_wait=sync_wait)
    commands = Commands(bus)
    webhook = webhooks.GitHubWebhook(
        webhook_rules,
        webhook_secret,
        apps,
        Deliveries(database),
        Starting(WorkItems(database), submissions, vcs, commands),
        vcs=vcs,
        tracking=tracking,
        clients=clients,
    )
    return Gateway(
        database=database,
        bus=bus,
        submissions=submissions,
        reading=Reading(database),
        cancelling=Cancelling(units),
        retrying=Retrying(units, submissions),
        messaging=Messaging(units),
        limits=LimitSetting(units),
        budgets=BudgetSetting(database),
        usage=UsageReading(database),
        client_settings=ClientSetting(units, sealer, base_urls),
        clients=clients,
        repositories=Repositories(database),
        customers=Customers(database),
        overviews=Overviews(database),
        measuring=Measuring(database),
        publishing=Publishing(units),
        tracking=tracking,
        apps=apps,
        vcs=vcs,
        log=EventLog(database),
        authenticator=Authenticator(submissions, api_key),
        commands=commands,
        hub=Hub(bus),
        webhook=webhook,
    )


def application(
    gateway: Gateway,
    *,
    max_body_bytes: int,
    dialects: Iterable[Served] = (),
) -> web.Application:
    """``dialects``: each is served in the folder of its name."""
    app = web.Application(middlewares=[traced, problems], client_max_size=max_body_bytes)
    app[GATEWAY] = gateway
    described: Callable[[], bytes] = cache(partial(document, OPERATIONS))
    app[DOCUMENT] = described
    register(app, OPERATIONS, gateway.authenticator)
    app.router.add_get(PATH, by_basic(gateway.authenticator, changeset_page))
    app.router.add_post(webhooks.PATH, partial(gateway.webhook.receive, surface=NATIVE))
    for dialect in dialects:
        dialect.mount(app)
    app.on_response_prepare.append(add_headers)
    app.on_shutdown.append(_end_streams)
    return app


async def _end_streams(app: web.Application) -> None:
    app[GATEWAY].hub.close()

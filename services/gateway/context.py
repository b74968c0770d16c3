"""What a request's handler has at hand: the use cases of this process, and whose request it is."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from services.gateway.auth import Authenticator
from services.gateway.commands import Commands
from services.gateway.events.hub import Hub
from services.gateway.vcs_client import VcsClient
from services.gateway.webhooks.github import GitHubWebhook
from services.jobs.cancelling import Cancelling
from services.jobs.client_settings import ClientSetting
from services.jobs.clients import Clients
from services.jobs.customers import Customers
from services.jobs.eventlog import EventLog
from services.jobs.forge_apps import ForgeApps
from services.jobs.limits import LimitSetting
from services.jobs.measuring import Measuring
from services.jobs.messaging import Messaging
from services.jobs.overviews import Overviews
from services.jobs.publishing import Publishing
from services.jobs.reading import Reading
from services.jobs.repositories import Repositories
from services.jobs.retrying import Retrying
from services.jobs.spending import BudgetSetting, UsageReading
from services.jobs.submission import Submissions
from services.jobs.tracking import Tracking
from services.runtime.jetstream import Bus
from services.runtime.postgres import Database


@dataclass(frozen=True)
class Gateway:
    database: Database
    bus: Bus
    submissions: Submissions
    reading: Reading
    cancelling: Cancelling
    retrying: Retrying
    messaging: Messaging
    limits: LimitSetting
    budgets: BudgetSetting
    usage: UsageReading
    client_settings: ClientSetting
    clients: Clients
    repositories: Repositories
    customers: Customers
    overviews: Overviews
    measuring: Measuring
    publishing: Publishing
    tracking: Tracking
    apps: ForgeApps
    vcs: VcsClient
    log: EventLog
    authenticator: Authenticator
    commands: Commands
    hub: Hub
    webhook: GitHubWebhook


GATEWAY = web.AppKey("gateway", Gateway)


def gateway_of(request: web.Request) -> Gateway:
    return request.app[GATEWAY]

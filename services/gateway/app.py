"""Puts the gateway together: its parts, its routes, and what happens around every request."""

from __future__ import annotations

from aiohttp import web

from services.contracts import subjects
from services.gateway.auth import Authenticator, by_basic
from services.gateway.commands import Commands
from services.gateway.context import GATEWAY, Gateway
from services.gateway.events.hub import Hub
from services.gateway.openapi import document
from services.gateway.operations import register
from services.gateway.problems import problems
from services.gateway.routes import OPERATIONS
from services.gateway.routes.service import DOCUMENT
from services.gateway.tracing import add_headers, traced
from services.gateway.web.changeset import PATH, changeset_page
from services.jobs.cancelling import Cancelling
from services.jobs.client_settings import ClientSetting
from services.jobs.eventlog import EventLog
from services.jobs.limits import LimitSetting
from services.jobs.messaging import Messaging
from services.jobs.reading import Reading
from services.jobs.retrying import Retrying
from services.jobs.spending import BudgetSetting, UsageReading
from services.jobs.submission import Submissions
from services.jobs.unit import Rung, Units
from services.runtime.base_urls import BaseUrls
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
) -> Gateway:
    """``api_key``: the client `default`'s, to be stored at the start. The others: as ``Submissions`` takes them."""
    sealer, base_urls = sealer or Sealer(None), base_urls or BaseUrls()

    async def ring(rung: Rung) -> None:
        await bus.ring(subjects.EVENTS_DOORBELL, rung.encode())

    units = Units(database, ring=ring)
    submissions = Submissions(units, sealer, base_urls)
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
        log=EventLog(database),
        authenticator=Authenticator(submissions, api_key),
        commands=Commands(bus),
        hub=Hub(bus),
    )


def application(gateway: Gateway, *, max_body_bytes: int) -> web.Application:
    app = web.Application(middlewares=[traced, problems], client_max_size=max_body_bytes)
    app[GATEWAY] = gateway
    app[DOCUMENT] = document(OPERATIONS)
    register(app, OPERATIONS, gateway.authenticator)
    app.router.add_get(PATH, by_basic(gateway.authenticator, changeset_page))
    app.on_response_prepare.append(add_headers)
    app.on_shutdown.append(_end_streams)
    return app


async def _end_streams(app: web.Application) -> None:
    app[GATEWAY].hub.close()

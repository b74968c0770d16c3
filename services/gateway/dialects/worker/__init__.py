"""The Worker API: interactive sessions over server-sent events, webhooks, health and metrics."""

from __future__ import annotations

from dataclasses import replace

from services.gateway.dialects.admission import admission, tell_not_served
from services.gateway.dialects.dialect import Dialect, OwnPort
from services.gateway.dialects.pages import changeset_pages
from services.gateway.dialects.worker import issues, routes, service, setup
from services.gateway.dialects.worker.measures import Measures
from services.gateway.dialects.worker.models import STATUSES, Error, render
from services.gateway.dialects.worker.quota import Quota
from services.gateway.dialects.worker.service import Service
from services.gateway.dialects.worker.service_settings import ServiceSettings
from services.gateway.dialects.worker.settings import KEY_VARIABLE, OPEN_VARIABLE, PORT_VARIABLE, WorkerSettings
from services.gateway.dialects.worker.setup import Setup
from services.gateway.dialects.worker.surroundings import middlewares
from services.runtime.settings import load
from services.runtime.telemetry import logger

log = logger("gateway.dialects")

NAME = "worker"
_DESCRIPTION = """Sessions with a coding agent, told as server-sent events; issues become pull requests.

Every error has one of the documented codes, a message and the time."""


def worker(settings: WorkerSettings, service_settings: ServiceSettings, host: str) -> Dialect | None:
    """The dialect; None where it would be open to others than this machine's, and nobody said that it may.

    ``host``: where the gateway listens.
    """
    admitted = admission(host, realm=NAME, key=settings.api_key, is_open=settings.no_auth)
    if admitted is None:
        return None
    measures, server = Measures(), settings.server_url
    quota = Quota(service_settings, most_sessions=settings.most_sessions)
    served = Service(service_settings, measures, quota)
    return Dialect(
        name=NAME,
        title="Claude Code Worker API",
        description=_DESCRIPTION,
        operations=(
            *routes.operations(settings, quota),
            *service.operations(served),
            *setup.operations(Setup(service_settings, server=server, key=settings.api_key, admit=admitted.admit)),
            *issues.operations(server),
        ),
        admit=admitted.admit,
        security=admitted.security,
        error=Error,
        render=render,
        statuses=STATUSES,
        limits=replace(settings.limits, daily=service_settings.own_budget),
        middlewares=middlewares(service_settings, measures, served.unhealthy),
        port=OwnPort.of(settings.port, PORT_VARIABLE),
        pages=changeset_pages(admitted.admit_browser),
    )


def from_environment(host: str) -> Dialect | None:
    """The dialect as the environment has it, and a line in the log; a wrong setting ends the process with 2."""
    settings = load(WorkerSettings)
    dialect = worker(settings, load(ServiceSettings), host)
    if dialect is not None:
        log.info("served", dialect=NAME, needs_key=bool(dialect.security), variable=PORT_VARIABLE, port=settings.port)
        return dialect
    tell_not_served(
        NAME,
        host,
        port=settings.port,
        port_variable=PORT_VARIABLE,
        key_variable=KEY_VARIABLE,
        open_variable=OPEN_VARIABLE,
    )
    return None

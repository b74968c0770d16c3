"""The Codebot API: tasks by REST, as its published document describes them."""

from __future__ import annotations

from http import HTTPStatus

from services.contracts.rest import Problem
from services.gateway.dialects.codebot.models import Error
from services.gateway.dialects.codebot.routes import TaskRoutes, operations
from services.gateway.dialects.codebot.settings import PORT_VARIABLE, CodebotSettings
from services.gateway.dialects.dialect import Dialect, OwnPort
from services.gateway.dialects.keys import SECURITY, ApiKeys
from services.gateway.dialects.pages import changeset_pages
from services.runtime.settings import load
from services.runtime.telemetry import logger

log = logger("gateway.dialects")

NAME = "codebot"
_DESCRIPTION = """Tasks for a coding agent: submit one, poll it, take its pull request.

Every error has the status code's name and a message; every answer an `X-Request-Id`. A 503 has a `Retry-After`."""


def codebot(settings: CodebotSettings) -> Dialect | None:
    """The dialect; None where the settings name no API key, without which it is not served."""
    if not settings.keys:
        return None
    keys = ApiKeys(settings.keys, realm=NAME)
    return Dialect(
        name=NAME,
        title="Codebot HTTP API",
        description=_DESCRIPTION,
        operations=operations(TaskRoutes(settings)),
        admit=keys.admit,
        security=SECURITY,
        error=Error,
        render=render,
        limits=settings.limits,
        port=OwnPort.of(settings.port, PORT_VARIABLE),
        pages=changeset_pages(keys.admit_browser),
    )


def from_environment(_: str) -> Dialect | None:
    """The dialect as the environment has it, and a line in the log; a wrong setting ends the process with 2."""
    settings = load(CodebotSettings)
    dialect = codebot(settings)
    if dialect is None:
        tell = log.info if settings.port is None else log.warning
        tell("not served: it needs API keys", dialect=NAME, set="CODEBOT_API_KEYS", port=settings.port)
    else:
        log.info("served", dialect=NAME, api_keys=len(settings.keys), variable=PORT_VARIABLE, port=settings.port)
    return dialect


def render(problem: Problem) -> Error:
    return Error(error=HTTPStatus(problem.status).phrase, message=problem.detail)

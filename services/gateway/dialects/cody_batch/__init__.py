"""The Cody Batch API: one prompt over many repositories, as its published document describes it."""

from __future__ import annotations

from services.contracts.rest import Problem
from services.gateway.dialects.admission import admission, is_loopback, tell_not_served
from services.gateway.dialects.cody_batch.discovery import Repositories
from services.gateway.dialects.cody_batch.models import Error, ErrorField, ErrorWords
from services.gateway.dialects.cody_batch.operations import operations
from services.gateway.dialects.cody_batch.routes import Routes
from services.gateway.dialects.cody_batch.settings import (
    KEY_VARIABLE,
    OPEN_VARIABLE,
    PORT_VARIABLE,
    UNUSED,
    CodySettings,
)
from services.gateway.dialects.dialect import Dialect, OwnPort
from services.gateway.dialects.pages import changeset_pages
from services.gateway.dialects.unused import tell_unused
from services.runtime.settings import load
from services.runtime.telemetry import logger

log = logger("gateway.dialects")

NAME = "cody-batch"
_DESCRIPTION = """One prompt for many repositories: create a job, look how it goes, take its diffs or pull requests.

Every error is `{"error": {"message": …, "details"?: …}}`; every answer has an `X-Request-Id`."""
_STATUSES = {409: 400, 422: 400}


def cody_batch(settings: CodySettings, host: str) -> Dialect | None:
    """The dialect; None where it would be open to others than this machine's, and nobody said that it may.

    ``host``: where it listens.
    """
    admitted = admission(host, realm=NAME, key=settings.api_key, is_open=settings.no_auth)
    if admitted is None:
        return None
    allowed = settings.allowed_on(is_local=is_loopback(host))
    return Dialect(
        name=NAME,
        title="Cody Batch API",
        description=_DESCRIPTION,
        operations=operations(Routes(Repositories(allowed, settings.server_url, settings.max_repositories))),
        admit=admitted.admit,
        security=admitted.security,
        error=Error,
        render=render,
        statuses=_STATUSES,
        limits=settings.limits,
        port=OwnPort.of(settings.port, PORT_VARIABLE),
        pages=changeset_pages(admitted.admit_browser),
    )


def from_environment(host: str) -> Dialect | None:
    """The dialect as the environment has it, and a line in the log; a wrong setting ends the process with 2."""
    settings = load(CodySettings)
    dialect = cody_batch(settings, host)
    if dialect is not None:
        tell_unused(NAME, *UNUSED)
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


def render(problem: Problem) -> Error:
    details = [ErrorField(field=each.field, message=each.message) for each in problem.errors]
    return Error(error=ErrorWords(message=problem.detail, details=details or None))

"""The Orchestrator API: code jobs and conversations for clients and their repositories, as its document has them."""

from __future__ import annotations

from services.contracts.rest import Problem
from services.gateway.dialects.dialect import Dialect, OwnPort
from services.gateway.dialects.keys import SECURITY, ApiKeys
from services.gateway.dialects.orchestrator import clients, jobs, service
from services.gateway.dialects.orchestrator.models import Error
from services.gateway.dialects.orchestrator.settings import PORT_VARIABLE, SECRET_VARIABLE, OrchestratorSettings
from services.gateway.dialects.pages import changeset_pages
from services.gateway.dialects.unused import tell_unused
from services.runtime.settings import load
from services.runtime.telemetry import logger

log = logger("gateway.dialects")

NAME = "orchestrator"
_DESCRIPTION = """Jobs for Claude: code jobs that end in a pull request, and interactive tasks.

Every error is `{"error": "…"}`; every answer has an `X-Request-Id`. A 503 has a `Retry-After`."""
_STATUSES = {409: 400, 415: 400, 422: 400}
"""The document knows 400, 401, 404 and 500; what says that another time or size is wanted stays itself."""


def orchestrator(settings: OrchestratorSettings) -> Dialect | None:
    """The dialect; None where the settings have no secret, without which it is not served."""
    secret = settings.secret.get_secret_value()
    if not secret:
        return None
    keys = ApiKeys([secret], realm=NAME)
    operations = (
        *service.operations(service.ServiceRoutes()),
        *clients.operations(clients.ClientRoutes(settings)),
        *jobs.OPERATIONS,
    )
    return Dialect(
        name=NAME,
        title="Claude Code Orchestrator API",
        description=_DESCRIPTION,
        operations=operations,
        admit=keys.admit,
        security=SECURITY,
        error=Error,
        render=render,
        statuses=_STATUSES,
        limits=settings.limits,
        port=OwnPort.of(settings.port, PORT_VARIABLE),
        pages=changeset_pages(keys.admit_browser),
    )


def from_environment(_: str) -> Dialect | None:
    """The dialect as the environment has it, and lines in the log; a wrong setting ends the process with 2."""
    settings = load(OrchestratorSettings)
    dialect = orchestrator(settings)
    if dialect is None:
        tell = log.info if settings.port is None else log.warning
        tell("not served: it needs a secret", dialect=NAME, set=SECRET_VARIABLE, port=settings.port)
        return None
    log.info("served", dialect=NAME, variable=PORT_VARIABLE, port=settings.port)
    tell_unused(NAME, "SUPABASE_*")
    if settings.worktrees_dir is not None:
        where = settings.repos_dir / "worktrees" if settings.repos_dir else "the vcs's folder"
        log.warning("WORKTREES_DIR is not used: worktrees are beside the mirrors", dialect=NAME, worktrees=str(where))
    return dialect


def render(problem: Problem) -> Error:
    return Error(error=problem.detail)

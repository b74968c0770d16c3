"""Whether jobs can be taken, and how what they need is, each by a measure of its own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from importlib.metadata import version

from services.contracts.words import ExitReason, JobKind, JobState
from services.gateway.context import Gateway
from services.gateway.dialects.cody_batch.discovery import Repositories
from services.gateway.dialects.cody_batch.models import Dependencies, Health
from services.jobs.models import Client
from services.jobs.reading import JobFilter
from services.runtime.postgres import StoreUnavailableError

HEALTHY, UNHEALTHY = "healthy", "unhealthy"
_ENDED = (JobState.COMPLETED, JobState.FAILED)
_OF_MODEL = (ExitReason.MODEL_UNAVAILABLE, ExitReason.MODEL_REJECTED)
_DISTRIBUTION = "quarterdeck"


async def health(gateway: Gateway, client: Client, repositories: Repositories) -> Health:
    """`unhealthy`: no job can be taken: the database is away. `degraded`: jobs are taken, and may fail or wait."""
    database, github = await asyncio.gather(gateway.database.check(), repositories.health(gateway))
    is_there = database == "ok"
    found = Dependencies(
        dynamodb=HEALTHY if is_there else UNHEALTHY,
        github=github,
        claude=await _model_service(gateway, client) if is_there else UNHEALTHY,
    )
    is_whole = UNHEALTHY not in (found.github, found.claude)
    return Health(
        status=UNHEALTHY if not is_there else HEALTHY if is_whole else "degraded",
        version=version(_DISTRIBUTION),
        timestamp=datetime.now(UTC),
        dependencies=found,
    )


async def _model_service(gateway: Gateway, client: Client) -> str:
    """Agents alone speak with it: whether the newest job that ended was failed by it is what is known here."""
    try:
        page = await gateway.reading.jobs(client, JobFilter(states=_ENDED, kind=JobKind.CODE), limit=1, cursor=None)
        failed = [job for job in page.items if job.state is JobState.FAILED]
        runs = [
            run for job in failed for run in (await gateway.reading.runs(client, job.id, limit=1, cursor=None)).items
        ]
    except StoreUnavailableError:
        return UNHEALTHY
    return UNHEALTHY if any(run.exit_reason in _OF_MODEL for run in runs) else HEALTHY

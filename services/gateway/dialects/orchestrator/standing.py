"""Whether Claude and the forge can be used, as far as a gateway can tell, and how much of the queue is taken."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

from services.contracts.v1.vcs_pb2 import ListRepositoriesRequest
from services.gateway.context import Gateway
from services.gateway.dialects.forge_look import ForgeLook
from services.gateway.dialects.orchestrator.models import ClaudeState, GitState, Health, JobStatus, QueueNumbers
from services.gateway.dialects.orchestrator.settings import DEFAULT_JOBS_AT_ONCE
from services.gateway.dialects.orchestrator.translation import STATES
from services.jobs.models import Client
from services.jobs.reading import JobFilter

_DEADLINE_SECONDS: Final = 5.0
_KNOWN_SECONDS: Final = 60.0
"""Health needs no key: for whoever asks, the forge is asked no more often."""
VERSION: Final = version("quarterdeck")


def forge_look() -> ForgeLook:
    """Whether the forge lists a repository for the credentials of the vcs nodes."""
    return ForgeLook(
        ListRepositoriesRequest(limit=1),
        deadline_seconds=_DEADLINE_SECONDS,
        known_seconds=_KNOWN_SECONDS,
        unknown_seconds=_KNOWN_SECONDS,
    )


async def health(gateway: Gateway, client: Client, forge: ForgeLook) -> Health:
    running = await _count(gateway, client, JobStatus.RUNNING)
    queued = await _count(gateway, client, JobStatus.QUEUED)
    numbers = QueueNumbers(running=running, queued=queued, max_concurrent=await max_concurrent(gateway, client))
    claude = ClaudeState(authenticated=bool(await gateway.measuring.agents()), version=VERSION)
    git = GitState(authenticated=await forge.count(gateway.vcs) is not None)
    return Health(queue=numbers, claude=claude, git=git)


async def max_concurrent(gateway: Gateway, client: Client) -> int:
    """As the client's limit is now, which an operator may have changed."""
    limits = await gateway.limits.read(client)
    return limits.client.by_name.get(client.name, limits.client.default) or limits.fleet or DEFAULT_JOBS_AT_ONCE


async def _count(gateway: Gateway, client: Client, status: JobStatus) -> int:
    _, total = await gateway.reading.jobs_at(client, JobFilter(states=STATES[status]), offset=0, limit=0)
    return total

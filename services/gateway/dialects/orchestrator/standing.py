"""Whether Claude and the forge can be used, as far as a gateway can tell, and how much of the queue is taken."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from importlib.metadata import version
from typing import Final

from services.contracts.v1 import vcs_pb2
from services.gateway.context import Gateway
from services.gateway.dialects.orchestrator.models import ClaudeState, GitState, Health, JobStatus, QueueNumbers
from services.gateway.dialects.orchestrator.settings import DEFAULT_JOBS_AT_ONCE
from services.gateway.dialects.orchestrator.translation import STATES
from services.gateway.problems import ProblemError
from services.gateway.vcs_client import VcsClient
from services.jobs.models import Client
from services.jobs.reading import JobFilter

FORGE_DEADLINE: Final = timedelta(seconds=5)
FORGE_KNOWN: Final = timedelta(seconds=60)
"""A forge counts what it is asked, and health needs no key: it is asked no more often."""
VERSION: Final = version("quarterdeck")


class ForgeStanding:
    def __init__(self) -> None:
        self._is_authenticated = False
        self._known_until = 0.0
        self._asking = asyncio.Lock()

    async def is_authenticated(self, vcs: VcsClient) -> bool:
        """Whether the forge lists a repository for the credentials of the vcs nodes."""
        async with self._asking:
            if time.monotonic() >= self._known_until:
                self._is_authenticated = await _lists_repositories(vcs)
                self._known_until = time.monotonic() + FORGE_KNOWN.total_seconds()
        return self._is_authenticated


async def _lists_repositories(vcs: VcsClient) -> bool:
    try:
        async with asyncio.timeout(FORGE_DEADLINE.total_seconds()):
            await vcs.discover(vcs_pb2.ListRepositoriesRequest(limit=1))
    except (ProblemError, TimeoutError):
        return False
    return True


async def health(gateway: Gateway, client: Client, forge: ForgeStanding) -> Health:
    running = await _count(gateway, client, JobStatus.RUNNING)
    queued = await _count(gateway, client, JobStatus.QUEUED)
    numbers = QueueNumbers(running=running, queued=queued, max_concurrent=await max_concurrent(gateway, client))
    claude = ClaudeState(authenticated=await gateway.overviews.an_agent_lives(), version=VERSION)
    return Health(queue=numbers, claude=claude, git=GitState(authenticated=await forge.is_authenticated(gateway.vcs)))


async def max_concurrent(gateway: Gateway, client: Client) -> int:
    """As the client's limit is now, which an operator may have changed."""
    limits = await gateway.limits.read(client)
    return limits.client.by_name.get(client.name, limits.client.default) or limits.fleet or DEFAULT_JOBS_AT_ONCE


async def _count(gateway: Gateway, client: Client, status: JobStatus) -> int:
    _, total = await gateway.reading.jobs_at(client, JobFilter(states=STATES[status]), offset=0, limit=0)
    return total

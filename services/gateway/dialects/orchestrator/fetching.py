"""Has vcs nodes clone and fetch the client's repositories, some at a time, and says of each what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from services.contracts.repositories import NodeSync, SyncState
from services.gateway.dialects.orchestrator.models import Cloned, Fetched
from services.gateway.problems import ProblemError
from services.gateway.vcs_client import VcsClient
from services.jobs.customers import KeptRepository

AT_ONCE: Final = 4
"""Repositories. Each is waited for as long as `/v1` waits for one."""
_NOT_CLONED = "not cloned yet: clone it first"
_GOES_ON = "not at its end yet; it goes on: ask again"

Result = TypeVar("Result")


class Fetching:
    """Nothing here raises: that no vcs node can be asked is told of each repository."""

    def __init__(self, vcs: VcsClient) -> None:
        self._vcs = vcs

    async def clone(self, repository: KeptRepository) -> Cloned:
        """Where several nodes have the mirror, its path is one of theirs."""
        nodes, error = await self._fetch(repository, clone=True)
        paths = [node.path for node in nodes if node.path is not None] if error is None else []
        return Cloned(repo=repository.full_name, success=error is None, error=error, path=next(iter(paths), None))

    async def sync(self, repository: KeptRepository) -> Fetched:
        _, error = await self._fetch(repository, clone=False)
        return Fetched(repo=repository.full_name, success=error is None, error=error)

    async def _fetch(self, repository: KeptRepository, *, clone: bool) -> tuple[Sequence[NodeSync], str | None]:
        """What each node said, and what was wrong."""
        try:
            nodes = await self._vcs.sync(repository.url, clone=clone)
        except ProblemError as error:
            return (), error.detail
        return nodes, error_of(nodes)


async def each(
    repositories: Sequence[KeptRepository], fetch: Callable[[KeptRepository], Coroutine[Any, Any, Result]]
) -> list[Result]:
    """In their order, some at a time."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def fetched(repository: KeptRepository) -> Result:
        async with turns:
            return await fetch(repository)

    async with asyncio.TaskGroup() as fetching:
        tasks = [fetching.create_task(fetched(repository)) for repository in repositories]
    return [task.result() for task in tasks]


def error_of(nodes: Sequence[NodeSync]) -> str | None:
    """Why a repository is not as it should be on every node that has it; None where it is."""
    for node in nodes:
        if node.state is SyncState.FAILED:
            return node.error or "the vcs node did not say why"
    if any(node.state is SyncState.RUNNING for node in nodes):
        return _GOES_ON
    return None if any(node.state is SyncState.DONE for node in nodes) else _NOT_CLONED

"""As whom the work of a run is done: with the token that its job brought for GitHub, else with the server's own.

A token is shown to GitHub's host alone. Where it cannot be opened nothing is done: the server's own may do more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol
from uuid import UUID

from services.jobs.errors import SecretsError
from services.jobs.run_credentials import RunCredentials
from services.vcs.errors import CredentialsError
from services.vcs.forges.choosing import Forges
from services.vcs.forges.github import JobCredentials
from services.vcs.forges.job_github import JobGitHub
from services.vcs.git.credentials import Credentials
from services.vcs.mirrors.reach import Reach


@dataclass(frozen=True, slots=True)
class Hands:
    """What one somebody works with: remotes are asked, pushed to and shown on forges by the same credentials."""

    reach: Reach
    forges: Forges


class HandsOf(Protocol):
    def of_changeset(self, changeset_id: UUID) -> AbstractAsyncContextManager[Hands]:
        """Whose work it is. Raises ``CredentialsError``, ``StoreUnavailableError``."""


class Acting:
    """Both raise ``CredentialsError`` where the job's token cannot be opened, and ``StoreUnavailableError``."""

    def __init__(self, server: Hands, credentials: RunCredentials, github: JobGitHub, others: Credentials) -> None:
        """``server``: for whoever brought no token. ``others``: the credentials of every host but GitHub's."""
        self._server = server
        self._credentials = credentials
        self._github = github
        self._others = others

    async def reach_of_run(self, run_id: str) -> Reach:
        token = await _opened(self._credentials.github_token_of_run(UUID(run_id)))
        if token is not None:
            return self._reach(token)
        return replace(self._server.reach, owner=await self._credentials.owner_of_run(UUID(run_id)))

    @asynccontextmanager
    async def of_changeset(self, changeset_id: UUID) -> AsyncIterator[Hands]:
        """Good for as long as the context is open."""
        token = await _opened(self._credentials.github_token_of_changeset(changeset_id))
        if token is None:
            yield self._server
            return
        async with self._github.asked_with(token) as asked:
            yield Hands(self._reach(token), self._server.forges.through(asked))

    def _reach(self, token: str) -> Reach:
        """Anew for each use, so that no two runs share what one of them asks or fetches."""
        git = self._server.reach.git.showing(JobCredentials(self._github.config(token), self._others))
        return Reach(git, self._server.reach.mirrors.seen_through(git))


async def _opened(token: Awaitable[str | None]) -> str | None:
    try:
        return await token
    except SecretsError as error:
        raise CredentialsError(str(error)) from error

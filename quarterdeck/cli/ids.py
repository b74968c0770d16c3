"""Full ids from what a person types: an id, a start of it that only one recent thing has, or a name."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Protocol
from uuid import UUID

import typer

from quarterdeck.client import Client
from quarterdeck.errors import NotFoundError, QuarterdeckError

RECENT_JOBS = 200
RECENT_JOBS_FOR_RUNS = 20
RECENT_CHANGESETS = 200
_START = re.compile(r"[0-9a-f][0-9a-f-]{0,35}")


class UnknownIdError(QuarterdeckError):
    """Nothing has this name; or no recent job, run or changeset has this id, or several begin with it."""


async def job_id(client: Client, typed: str) -> UUID:
    """The job meant. Raises UnknownIdError, or a usage error for what can be no id."""
    return _full(typed) or _only("job", typed, [job.id async for job in client.jobs(limit=RECENT_JOBS)])


async def run_id(client: Client, typed: str) -> UUID:
    """The run meant; a start is looked for among the runs of the latest jobs."""
    return _full(typed) or _only("run", typed, [found async for found in _recent_runs(client)])


async def changeset_id(client: Client, typed: str) -> UUID:
    """The changeset meant."""
    if full := _full(typed):
        return full
    recent = [changeset.id async for changeset in client.changesets(limit=RECENT_CHANGESETS)]
    return _only("changeset", typed, recent, listed="changesets list")


async def repository_id(client: Client, typed: str) -> UUID:
    """The repository meant, by its name or id."""
    return await _named("repository", typed, client.repositories(name=typed), listed="repos list")


async def client_id(client: Client, typed: str) -> UUID:
    """The client meant, by its name or id."""
    return await _named("client", typed, client.clients(name=typed), listed="clients list")


async def run_ids(client: Client, typed: str) -> list[UUID]:
    """The run meant, or all runs of the job meant."""
    full = _full(typed)
    candidates = [full] if full else [job.id async for job in client.jobs(limit=RECENT_JOBS)]
    jobs = [candidate for candidate in candidates if str(candidate).startswith(typed.lower())]
    if not jobs:
        return [await run_id(client, typed)]
    try:
        return [run.id async for run in client.runs(_only("job", typed, jobs))]
    except NotFoundError:
        return jobs


async def _recent_runs(client: Client) -> AsyncIterator[UUID]:
    async for job in client.jobs(limit=RECENT_JOBS_FOR_RUNS):
        async for run in client.runs(job.id):
            yield run.id


def _full(typed: str) -> UUID | None:
    if not _START.fullmatch(typed.lower()):
        raise typer.BadParameter(f"{typed!r} is neither an id nor the start of one")
    try:
        return UUID(typed)
    except ValueError:
        return None


class _Named(Protocol):
    @property
    def id(self) -> UUID: ...

    @property
    def name(self) -> str: ...


async def _named(what: str, typed: str, found: AsyncIterator[_Named], *, listed: str) -> UUID:
    """A name goes before an id; ``found``: what may be called so."""
    async for each in found:
        if each.name == typed:
            return each.id
    try:
        return UUID(typed)
    except ValueError as error:
        raise UnknownIdError(f"No {what} is called {typed!r}: see `quarterdeck {listed}`.") from error


def _only(what: str, typed: str, candidates: list[UUID], *, listed: str = "jobs") -> UUID:
    found = [candidate for candidate in candidates if str(candidate).startswith(typed.lower())]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UnknownIdError(
            f"No recent {what} begins with {typed!r}: see `quarterdeck {listed}`, or give the full id."
        )
    raise UnknownIdError(f"{len(found)} recent {what}s begin with {typed!r}: give more of the id.")

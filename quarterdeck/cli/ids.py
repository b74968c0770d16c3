"""Full ids from what a person types: an id, or a start of it that only one recent job or run has."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from uuid import UUID

import typer

from quarterdeck.client import Client
from quarterdeck.errors import NotFoundError, QuarterdeckError

RECENT_JOBS = 200
RECENT_JOBS_FOR_RUNS = 20
_START = re.compile(r"[0-9a-f][0-9a-f-]{0,35}")


class UnknownIdError(QuarterdeckError):
    """No recent job or run has this id, or several begin with it."""


async def job_id(client: Client, typed: str) -> UUID:
    """The job meant. Raises UnknownIdError, or a usage error for what can be no id."""
    return _full(typed) or _only("job", typed, [job.id async for job in client.jobs(limit=RECENT_JOBS)])


async def run_id(client: Client, typed: str) -> UUID:
    """The run meant; a start is looked for among the runs of the latest jobs."""
    return _full(typed) or _only("run", typed, [found async for found in _recent_runs(client)])


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


def _only(what: str, typed: str, candidates: list[UUID]) -> UUID:
    found = [candidate for candidate in candidates if str(candidate).startswith(typed.lower())]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UnknownIdError(f"No recent {what} begins with {typed!r}: see `quarterdeck jobs`, or give the full id.")
    raise UnknownIdError(f"{len(found)} recent {what}s begin with {typed!r}: give more of the id.")

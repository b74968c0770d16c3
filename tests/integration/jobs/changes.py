"""Steps towards changesets that are stored, claimed by a vcs, or shown by a forge."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from services.contracts.words import Publish
from services.jobs.models import ClaimedRun
from services.jobs.publishing import Publication, Shown
from services.jobs.tracking import TrackedChange
from tests.integration.jobs.domain import COMMIT, Domain

HOUR = timedelta(hours=1)


def sha(digit: str) -> str:
    return digit * 40


def on_github(number: int) -> Shown:
    return Shown("github", f"https://forge.example/a/one/pull/{number}", number, HOUR)


async def store(
    domain: Domain, run: ClaimedRun, *, publish: Publish = Publish.PULL_REQUEST, commit_sha: str = COMMIT.sha
) -> UUID:
    """Let the run's agent hand a change over; return the changeset's id."""
    return await domain.running.deliver(run.hold, replace(COMMIT, sha=commit_sha), publish=publish, summary="done")


async def claim(domain: Domain, changeset_id: UUID) -> Publication | None:
    """Send a new order for the changeset where one is due, and let a vcs claim it."""
    await domain.publishing.due(overdue=timedelta())
    row = await domain.row("changesets", changeset_id)
    return await domain.publishing.claim(changeset_id, row["run_id"], dispatch=row["dispatch"], holder="vcs-1")


async def claimed(domain: Domain, changeset_id: UUID) -> Publication:
    publication = await claim(domain, changeset_id)
    assert publication is not None
    return publication


async def show(domain: Domain, publication: Publication, shown: Shown) -> None:
    """Let the vcs that holds the changeset tell that a forge shows it."""
    commit_sha = publication.commit_sha
    await domain.publishing.delivered(publication.hold, shown, branch=publication.branch, commit_sha=commit_sha)


async def publish(domain: Domain, run: ClaimedRun, number: int, *, commit_sha: str = COMMIT.sha) -> UUID:
    """Let the run end in an open pull request; return the changeset's id."""
    changeset_id = await store(domain, run, commit_sha=commit_sha)
    await show(domain, await claimed(domain, changeset_id), on_github(number))
    return changeset_id


async def open_change(
    domain: Domain, number: int, *repositories: str, commit_sha: str = COMMIT.sha, **fields: Any
) -> UUID:
    """A whole job of one run that ends in the open pull request ``number``; return the changeset's id."""
    return await publish(domain, await domain.start(*repositories, **fields), number, commit_sha=commit_sha)


async def tracked(domain: Domain, changeset_id: UUID) -> TrackedChange:
    return await domain.tracking.published(changeset_id)


async def updates(domain: Domain, changeset_id: UUID) -> list[dict[str, Any]]:
    """What was told of the changeset after its publication, in order."""
    row = await domain.row("changesets", changeset_id)
    events = await domain.events(row["job_id"])
    return [event.data for event in events if event.kind.value == "changeset.updated"]

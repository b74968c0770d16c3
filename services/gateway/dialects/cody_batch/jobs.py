"""Cody's jobs as jobs, and jobs and runs in Cody's words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from services.contracts.rest import Job, JobRequest, Run
from services.contracts.words import JobState, OnExisting, Outcome, Publish, RunState
from services.gateway.dialects.cody_batch.models import (
    CreatedJob,
    JobBody,
    JobDetails,
    JobRepository,
    JobStatus,
    ListedJob,
    RepositoryStatus,
)
from services.gateway.dialects.cody_batch.naming import job_name, kept_names, name_of, names_in

STATES: Mapping[JobStatus, tuple[JobState, ...]] = {
    JobStatus.PENDING: (JobState.QUEUED,),
    JobStatus.IN_PROGRESS: (JobState.RUNNING,),
    JobStatus.COMPLETED: (JobState.COMPLETED,),
    JobStatus.FAILED: (JobState.FAILED,),
    JobStatus.CANCELLED: (JobState.CANCELLING, JobState.CANCELLED),
}
ENDED = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)
CANCELLED = "cancelled"
"""The error of a repository whose work was cancelled."""
_DESCRIPTION_KEY, _TYPE_KEY = "description", "type"
_NAME_CHARACTERS = 100
_PULL_REQUESTS = (Publish.PULL_REQUEST, Publish.DRAFT)

UrlOf = Callable[[Run], str | None]
"""The address of a run's pull request, as its reader sees it."""


@dataclass(frozen=True)
class Source:
    """Where a named repository is cloned from. ``base_ref``: None: the remote's default branch."""

    name: str
    url: str
    base_ref: str | None = None


def job_request(wanted: JobBody, sources: Sequence[Source]) -> JobRequest:
    """The job that ``wanted`` asks for; ``sources``: its repositories, in their order."""
    about = {_DESCRIPTION_KEY: wanted.description, _TYPE_KEY: wanted.type}
    publish = Publish.PULL_REQUEST if wanted.create_pull_requests else Publish.NONE
    return JobRequest.model_validate(
        {
            "name": wanted.name,
            "prompt": wanted.prompt,
            "repositories": [{"url": source.url, "baseRef": source.base_ref} for source in sources],
            "metadata": {key: value for key, value in about.items() if value}
            | kept_names([source.name for source in sources]),
            # Jobs of one name are different pieces of work here: each has pull requests of its own.
            "options": {"publish": publish, "onExisting": OnExisting.SEPARATE},
        }
    )


def status_of(state: JobState) -> JobStatus:
    match state:
        case JobState.QUEUED:
            return JobStatus.PENDING
        case JobState.RUNNING:
            return JobStatus.IN_PROGRESS
        case JobState.COMPLETED:
            return JobStatus.COMPLETED
        case JobState.FAILED:
            return JobStatus.FAILED
        case JobState.CANCELLING | JobState.CANCELLED:
            return JobStatus.CANCELLED
        case _:
            assert_never(state)


def run_status(run: Run) -> RepositoryStatus:
    """Once started, a run is never pending again; once its cancel was accepted, nothing comes of it any more."""
    match run.state:
        case RunState.COMPLETED:
            return RepositoryStatus.COMPLETED
        case RunState.FAILED | RunState.CANCELLED:
            return RepositoryStatus.FAILED
        case _ if run.cancel_requested_at is not None:
            return RepositoryStatus.FAILED
        case RunState.QUEUED | RunState.DISPATCHED:
            return RepositoryStatus.PENDING if run.started_at is None else RepositoryStatus.IN_PROGRESS
        case RunState.RUNNING | RunState.WAITING | RunState.PUBLISHING:
            return RepositoryStatus.IN_PROGRESS
        case _:
            assert_never(run.state)


def run_ended_at(run: Run) -> datetime | None:
    if run.state in (RunState.COMPLETED, RunState.FAILED):
        return run.finished_at
    return run.cancel_requested_at or run.finished_at


def run_error(run: Run) -> str | None:
    """None where it did not fail."""
    if run_status(run) is not RepositoryStatus.FAILED:
        return None
    if run.state is not RunState.FAILED:
        return CANCELLED
    return run.error or str(run.exit_reason)


def were_changes_necessary(run: Run) -> bool | None:
    """Whether the run's diff holds anything; None while that is not known, or will never be."""
    if run.changeset is not None:
        return bool(run.changeset.files)
    return False if run.outcome in (Outcome.NO_CHANGES, Outcome.ANSWERED) else None


def is_pull_request(run: Run) -> bool:
    """Whether the run's changeset is, or is to be, reviewed at the address that it has."""
    return run.changeset is not None and run.changeset.publish in _PULL_REQUESTS


def names_of(job: Job, runs: Sequence[Run]) -> list[str]:
    """What the repositories of ``runs`` are called: as they were named, else after their addresses."""
    told = names_in(job.metadata)
    return [told[run.position] if run.position < len(told) else name_of(run.repository or "") for run in runs]


def created(job: Job) -> CreatedJob:
    """As it was made by this API."""
    return CreatedJob(
        **_about(job),
        prompt=job.prompt,
        repositories=names_in(job.metadata),
        create_pull_requests=job.options.publish in _PULL_REQUESTS,
        status=status_of(job.state),
        created_at=job.created_at,
    )


def listed(job: Job) -> ListedJob:
    about = _about(job)
    del about["description"]
    return ListedJob(
        **about,
        status=status_of(job.state),
        created_at=job.created_at,
        repository_count=job.runs.total,
        completed_count=job.runs.completed + job.runs.failed + job.runs.cancelled,
    )


def details(job: Job, runs: Sequence[Run], url_of: UrlOf) -> JobDetails:
    """``runs``: all of them, in their order."""
    status = status_of(job.state)
    cancelled_at = job.cancel_requested_at if status is JobStatus.CANCELLED else None
    errors = [error for run in runs if (error := run_error(run)) is not None]
    return JobDetails(
        **_about(job),
        prompt=job.prompt,
        repositories=[_repository(name, run, url_of) for name, run in zip(names_of(job, runs), runs, strict=True)],
        create_pull_requests=job.options.publish in _PULL_REQUESTS,
        status=status,
        created_at=job.created_at,
        started_at=job.started_at,
        completed_at=cancelled_at or job.finished_at,
        cancelled_at=cancelled_at,
        error=next(iter(errors), "Job failed") if status is JobStatus.FAILED else None,
    )


def _repository(name: str, run: Run, url_of: UrlOf) -> JobRepository:
    return JobRepository(
        name=name,
        status=run_status(run),
        pull_request_url=url_of(run),
        were_changes_necessary=were_changes_necessary(run),
        completed_at=run_ended_at(run),
    )


def _about(job: Job) -> dict[str, str]:
    """A job that was made by `/v1` is called as its prompt begins, and of the type that its kind is."""
    return {
        "job_id": job_name(job.id),
        "name": job.name or job.prompt.strip().splitlines()[0][:_NAME_CHARACTERS].strip(),
        "description": job.metadata.get(_DESCRIPTION_KEY, ""),
        "type": job.metadata.get(_TYPE_KEY) or job.kind.value,
    }

"""Jobs in the Orchestrator's words, and its requests as jobs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_never
from uuid import UUID

from services.contracts.rest import Job as NativeJob
from services.contracts.rest import JobRequest
from services.contracts.templates import subject_of
from services.contracts.words import JobKind, JobState, OnExisting, Outcome
from services.gateway.dialects.orchestrator.models import (
    ClientName,
    CreateJob,
    Feature,
    Job,
    JobMessage,
    JobStatus,
    JobType,
    RepositoryName,
)
from services.jobs.customers import Customer, KeptRepository
from services.jobs.overviews import FirstRun

MAX_BRANCH_CHARACTERS = 200
NO_CHANGES = "No changes were made"
CLIENT, FEATURE = "clientId", "featureId"
"""Metadata that jobs are filtered by."""
BRANCH = "branch"
STATES: Mapping[JobStatus, tuple[JobState, ...]] = {
    JobStatus.QUEUED: (JobState.QUEUED,),
    JobStatus.RUNNING: (JobState.RUNNING,),
    JobStatus.COMPLETED: (JobState.COMPLETED,),
    JobStatus.FAILED: (JobState.FAILED,),
    JobStatus.CANCELLED: (JobState.CANCELLING, JobState.CANCELLED),
}


@dataclass(frozen=True)
class Place:
    """For whom a job is, and where it works; a task may work nowhere."""

    customer: Customer
    repository: KeptRepository | None


def task_branch(milliseconds: int) -> str:
    """``milliseconds``: since the epoch."""
    return f"task-{milliseconds}"


def retry_branch(branch: str, milliseconds: int) -> str:
    """`<branch>-retry-<ms>`, of which the beginning is cut where it is too long for a branch."""
    end = f"-retry-{milliseconds}"
    return branch[: MAX_BRANCH_CHARACTERS - len(end)].rstrip("./") + end


def job_request(wanted: CreateJob, place: Place, branch: str) -> JobRequest:
    """The job that ``wanted`` asks for."""
    is_code = wanted.job_type is not JobType.TASK
    repository = place.repository
    return JobRequest.model_validate(
        {
            "prompt": wanted.prompt,
            "kind": JobKind.CODE if is_code else JobKind.TASK,
            "name": wanted.title,
            "repositories": [_repository(repository, branch)] if repository else [],
            "metadata": _metadata(wanted, place, branch),
            "options": _code_options(wanted) if is_code else {},
        }
    )


def _repository(repository: KeptRepository, branch: str) -> dict[str, Any]:
    return {"url": repository.url, "baseRef": repository.base_ref, "branch": branch}


def _metadata(wanted: CreateJob, place: Place, branch: str) -> dict[str, str]:
    """What is shown of the job is kept with it, as it was when the job was made."""
    repository = place.repository
    told = {
        CLIENT: place.customer.id,
        "clientName": place.customer.name,
        FEATURE: wanted.feature_id,
        "featureTitle": wanted.feature_title,
        "repositoryId": repository.id if repository else None,
        "repository": repository.full_name if repository else None,
        "createdByTeamMemberId": wanted.created_by_team_member_id,
        BRANCH: branch,
    }
    return {key: str(value) for key, value in told.items() if value is not None}


def _code_options(wanted: CreateJob) -> dict[str, Any]:
    feature = wanted.feature_title or "Feature"
    about = [f"{feature}: `{wanted.feature_id}`"] if wanted.feature_id else []
    body = "\n\n".join(["{summary}", "---", "  \n".join([*about, "Job: `{job}`"])])
    return {
        "onExisting": OnExisting.SEPARATE,
        # By their places: what is in braces in a title is not to be filled in, and a retry has a branch of its own.
        # A pull request's title is the same.
        "commitMessage": "{name}" if wanted.title else "feat: {branch}",
        "pullRequest": {"body": body},
    }


def status_of(state: JobState) -> JobStatus:
    match state:
        case JobState.QUEUED:
            return JobStatus.QUEUED
        case JobState.RUNNING:
            return JobStatus.RUNNING
        case JobState.COMPLETED:
            return JobStatus.COMPLETED
        case JobState.FAILED:
            return JobStatus.FAILED
        case JobState.CANCELLING | JobState.CANCELLED:
            return JobStatus.CANCELLED
        case _:
            assert_never(state)


def branch_of(job: NativeJob, of_run: str | None) -> str | None:
    """What was asked for; of a job that came by another way, its run's."""
    return job.metadata.get(BRANCH) or of_run


def title_of(job: NativeJob) -> str:
    return job.name or subject_of(job.prompt)


def shown(job: NativeJob, run: FirstRun | None, *, url: str | None, messages: list[JobMessage] | None = None) -> Job:
    """``run``: the job's first. ``url``: of its pull request."""
    status = status_of(job.state)
    # A cancelled job ended when that was asked for: nothing can come of it from then on.
    cancelled_at = job.cancel_requested_at if status is JobStatus.CANCELLED else None
    return Job(
        id=job.id,
        status=status,
        job_type=JobType(job.kind.value),
        prompt=job.prompt,
        branch_name=branch_of(job, run.branch if run else None),
        client=_client(job.metadata),
        feature=_feature(job.metadata),
        repository=_repository_name(job.metadata),
        title=job.name,
        created_by_team_member_id=_id(job.metadata, "createdByTeamMemberId"),
        error=_error(status, run) if run else None,
        pr_url=url,
        summary=run.summary if run else None,
        original_job_id=job.retry_of,
        created_at=job.created_at,
        started_at=job.started_at,
        completed_at=cancelled_at or job.finished_at,
        messages=messages,
    )


def _error(status: JobStatus, run: FirstRun) -> str | None:
    if status is JobStatus.FAILED:
        return run.error or f"Job failed: {run.exit_reason}"
    return NO_CHANGES if status is JobStatus.COMPLETED and run.outcome is Outcome.NO_CHANGES else None


def _client(metadata: Mapping[str, str]) -> ClientName | None:
    client_id = _id(metadata, CLIENT)
    return ClientName(id=client_id, name=metadata.get("clientName", "")) if client_id else None


def _feature(metadata: Mapping[str, str]) -> Feature | None:
    feature_id = _id(metadata, FEATURE)
    return Feature(id=feature_id, title=metadata.get("featureTitle")) if feature_id else None


def _repository_name(metadata: Mapping[str, str]) -> RepositoryName | None:
    repository_id = _id(metadata, "repositoryId")
    owner, _, name = metadata.get("repository", "").partition("/")
    return RepositoryName(id=repository_id, owner_name=owner, repo_name=name) if repository_id else None


def _id(metadata: Mapping[str, str], key: str) -> UUID | None:
    """None also where somebody wrote something else there by `/v1`."""
    try:
        return UUID(metadata.get(key, ""))
    except ValueError:
        return None

"""Tasks as jobs and jobs as tasks: Codebot's words for what the use cases take and give. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import assert_never

from services.contracts.rest import Job, JobRequest, Run
from services.contracts.words import ChangesetState, ExitReason, JobState, OnExisting
from services.gateway.dialects.codebot.models import (
    ListedTask,
    SubmitRequest,
    TaskResult,
    TaskState,
    TaskStatus,
    TaskTimes,
)
from services.gateway.dialects.codebot.naming import branch_name, pull_request_title

LISTED_CHARACTERS = 100
DETECTED_TESTS = "auto"
REPOSITORY_KEY = "repository_url"
MOST_KEPT_SECONDS = 31_536_000
"""A year: no job keeps its folder for longer."""
CANCELLED_STATES = (JobState.CANCELLING, JobState.CANCELLED)
STATES: Mapping[TaskStatus, tuple[JobState, ...]] = {
    TaskStatus.PENDING: (JobState.QUEUED,),
    TaskStatus.RUNNING: (JobState.RUNNING,),
    TaskStatus.COMPLETED: (JobState.COMPLETED,),
    TaskStatus.FAILED: (JobState.FAILED, *CANCELLED_STATES),
}


def job_request(wanted: SubmitRequest, mark: str, *, retention: timedelta) -> JobRequest:
    """The job that ``wanted`` asks for. ``mark``: seven hex digits for its branch. ``retention``: how long it is shown
    after its end, and its folder kept, for reviews too: they have its options.
    """
    tickets = {"ticket_id": wanted.ticket_id, "ticket_summary": wanted.ticket_summary}
    return JobRequest.model_validate(
        {
            "prompt": wanted.description,
            "repositories": [
                {
                    "url": wanted.repository_url,
                    "baseRef": wanted.base_branch,
                    "branch": branch_name(wanted.ticket_id, wanted.ticket_summary, mark),
                }
            ],
            # The list of tasks shows the repository, which a job without its runs does not know.
            "metadata": {key: value for key, value in tickets.items() if value}
            | {REPOSITORY_KEY: wanted.repository_url},
            "options": {
                "onExisting": OnExisting.SEPARATE,
                "pullRequest": {"title": pull_request_title(wanted.ticket_summary, wanted.description)},
                "testCommand": wanted.test_command or DETECTED_TESTS,
                "keepWorktreeSeconds": min(int(retention.total_seconds()), MOST_KEPT_SECONDS),
            },
        }
    )


def status_of(state: JobState) -> TaskStatus:
    match state:
        case JobState.QUEUED:
            return TaskStatus.PENDING
        case JobState.RUNNING:
            return TaskStatus.RUNNING
        case JobState.COMPLETED:
            return TaskStatus.COMPLETED
        case JobState.FAILED | JobState.CANCELLING | JobState.CANCELLED:
            return TaskStatus.FAILED
        case _:
            assert_never(state)


def ended_at(job: Job) -> datetime | None:
    """A cancelled task ended when that was asked for, since nothing can come of it from then on."""
    cancelled_at = job.cancel_requested_at if job.state in CANCELLED_STATES else None
    return cancelled_at or job.finished_at


def times_of(job: Job) -> TaskTimes:
    return TaskTimes(
        task_id=job.id,
        status=status_of(job.state),
        submitted_at=job.created_at,
        started_at=job.started_at,
        completed_at=ended_at(job),
    )


def task_state(job: Job, run: Run | None, *, url: str | None, work_dir: Path | None, now: datetime) -> TaskState:
    """``run``: the job's first. ``url``: of its pull request. ``work_dir``: the folder of all worktrees."""
    times = times_of(job)
    kept_in = work_dir if run and _is_kept(job, run, now) else None
    result = _result(run, url, kept_in) if run and times.status is TaskStatus.COMPLETED else None
    error = _error(job, run) if times.status is TaskStatus.FAILED else None
    return TaskState(**dict(times), result=result, error=error)


def _result(run: Run, url: str | None, work_dir: Path | None) -> TaskResult:
    return TaskResult(
        pr_url=url,
        branch_name=run.branch,
        work_dir=str(work_dir / str(run.id) / str(run.attempt)) if work_dir else None,
        outcome=run.outcome,
        tests_passed=run.changeset.verified if run.changeset else None,
        summary=run.summary,
    )


def _is_kept(job: Job, run: Run, now: datetime) -> bool:
    """Whether the folder of a completed run is there still, as far as that depends on time and pull request."""
    if run.repository is None or run.attempt == 0 or run.finished_at is None:
        return False
    is_settled = run.changeset is not None and run.changeset.state in (ChangesetState.MERGED, ChangesetState.CLOSED)
    until = run.finished_at + timedelta(seconds=job.options.keep_worktree_seconds or 0)
    return not is_settled and now < until


def _error(job: Job, run: Run | None) -> str:
    if job.state in CANCELLED_STATES:
        return "cancelled"
    if run is None:
        return "Task failed"
    words = run.error or f"Task failed: {run.exit_reason}"
    return f"Failed to clone repository: {words}" if run.exit_reason is ExitReason.CLONE_FAILED else words


def listed(job: Job, repository: str | None) -> ListedTask:
    return ListedTask(**dict(times_of(job)), repository_url=repository, description=job.prompt[:LISTED_CHARACTERS])

"""What came of one repository of a job: its changes, conversation and log, in Cody's words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from services.contracts import rest
from services.contracts.rest import Logs, Run, Transcript
from services.contracts.words import Outcome, RunState
from services.gateway.dialects.cody_batch.changes import changes_of
from services.gateway.dialects.cody_batch.jobs import (
    UrlOf,
    is_pull_request,
    run_ended_at,
    run_error,
    run_status,
    were_changes_necessary,
)
from services.gateway.dialects.cody_batch.models import LogLine, RepositoryResult
from services.gateway.dialects.cody_batch.naming import job_name
from services.gateway.dialects.cody_batch.threads import thread

Level = Literal["INFO", "WARN", "ERROR"]
_LEVELS: Final[Mapping[str, Level]] = {"warning": "WARN", "warn": "WARN", "error": "ERROR", "critical": "ERROR"}


def result(
    job_id: UUID, name: str, run: Run, *, patch: bytes, transcript: Transcript, logs: Logs, url_of: UrlOf
) -> RepositoryResult:
    """``patch``: empty where there is none (yet)."""
    return RepositoryResult(
        job_id=job_name(job_id),
        repository_name=name,
        status=run_status(run),
        pull_request_url=url_of(run),
        were_changes_necessary=were_changes_necessary(run),
        started_at=run.started_at,
        completed_at=run_ended_at(run),
        changes=changes_of(patch),
        claude_conversation=thread(run, transcript) if transcript.messages else None,
        logs=_logs(run, logs, url_of(run)),
        error=run_error(run),
    )


def _logs(run: Run, logs: Logs, url: str | None) -> list[LogLine]:
    """The run's log with its milestones between, by time."""
    lines = [_line(line) for line in logs.lines] + list(_milestones(run, url))
    return sorted(lines, key=lambda line: line.timestamp)


def _line(line: rest.LogLine) -> LogLine:
    return LogLine(timestamp=line.time, level=_LEVELS.get(line.level.lower(), "INFO"), message=line.message)


def _milestones(run: Run, url: str | None) -> Iterator[LogLine]:
    for time, message in _steps(run, url):
        if time is not None:
            yield LogLine(timestamp=time, level="INFO", message=message)
    ended, error = run_ended_at(run), run_error(run)
    if ended is not None and error is not None:
        level: Level = "ERROR" if run.state is RunState.FAILED else "WARN"
        yield LogLine(timestamp=ended, level=level, message=error)


def _steps(run: Run, url: str | None) -> Iterator[tuple[datetime | None, str]]:
    """Each with when it was; None: not yet."""
    yield run.started_at, "Starting repository analysis"
    if (changeset := run.changeset) is not None:
        yield changeset.created_at, "Generated fixes for affected files"
        if is_pull_request(run) and run.cancel_requested_at is None:
            yield changeset.created_at, "Creating pull request"
        if url is not None:
            yield changeset.published_at, f"Pull request created: {url}"
    elif run.outcome is Outcome.NO_CHANGES:
        yield run.finished_at, "No changes were necessary"

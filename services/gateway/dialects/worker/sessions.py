"""Sessions as jobs and jobs as sessions: the Worker's words for what the use cases take and give. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, assert_never
from urllib.parse import urlsplit
from uuid import UUID

from services.contracts.rest import Job, JobRequest, Run
from services.contracts.words import EventKind, JobState, PermissionMode, Publish
from services.gateway.dialects.worker.session_models import (
    DEFAULT_TURNS,
    OnDisconnect,
    RepositoryChoice,
    SessionRepository,
    SessionStatus,
    StartRequest,
)
from services.jobs.eventlog import LoggedEvent
from services.jobs.reading import JobFilter

SESSION_KEY = "session"
DISCONNECT_KEY = "onDisconnect"
_ENDED_BY_USER = (JobState.CANCELLING, JobState.CANCELLED)
Word = Literal["processing", "completed", "error"]


@dataclass(frozen=True)
class Session:
    """``is_cancelled_alone``: the work is cancelled where its client leaves."""

    id: str
    job_id: UUID
    prompt: str
    is_cancelled_alone: bool = False

    @classmethod
    def of(cls, session_id: str, job_id: UUID, prompt: str, on_disconnect: str | None) -> Session:
        return cls(session_id, job_id, prompt, on_disconnect == OnDisconnect.CANCEL)


def idempotency_key(session_id: str, ended: UUID | None) -> str:
    """Two starts at once with one id make one session. ``ended``: the job that had the id until its user ended it."""
    return f"session {session_id}" if ended is None else f"session {session_id} after {ended}"


def filter_of(session_id: str) -> JobFilter:
    return JobFilter(metadata={SESSION_KEY: session_id})


def is_gone(job: Job) -> bool:
    """Whether its user has ended the session: nobody hears of it again."""
    return job.state in _ENDED_BY_USER or job.cancel_requested_at is not None


def job_request(wanted: StartRequest, session_id: str, *, github_server: str) -> JobRequest:
    """The job that ``wanted`` asks for: on its repository, else in an empty folder, of which the change is only stored.

    ``github_server``: where repositories are that have only a name.
    """
    metadata = {SESSION_KEY: session_id}
    if wanted.wishes.on_disconnect is not None:
        metadata[DISCONNECT_KEY] = wanted.wishes.on_disconnect.value
    described: dict[str, Any] = {"prompt": wanted.prompt, "metadata": metadata, "options": _options(wanted)}
    if wanted.repository is not None:
        repository = {"url": url_of(wanted.repository, github_server), "baseRef": wanted.repository.branch}
        described["repositories"] = [repository]
    secrets = {"anthropicApiKey": wanted.anthropic_api_key, "githubToken": wanted.github_token}
    if given := {name: secret for name, secret in secrets.items() if secret is not None}:
        described["credentials"] = given
    return JobRequest.model_validate(described)


def _options(wanted: StartRequest) -> dict[str, Any]:
    wishes = wanted.wishes
    return {
        "maxTurns": wishes.max_turns or DEFAULT_TURNS,
        "permissionMode": wishes.permission_mode or PermissionMode.ACCEPT_EDITS,
        "publish": Publish.PULL_REQUEST if wishes.create_pr else Publish.NONE,
        "baseUrl": wanted.anthropic_base_url,
    }


def url_of(repository: RepositoryChoice, github_server: str) -> str:
    return repository.url or f"{github_server}/{repository.name}"


def word_of(state: JobState) -> Word:
    match state:
        case JobState.QUEUED | JobState.RUNNING | JobState.CANCELLING:
            return "processing"
        case JobState.COMPLETED:
            return "completed"
        case JobState.FAILED | JobState.CANCELLED:
            return "error"
        case _:
            assert_never(state)


def status_of(session_id: str, job: Job, run: Run | None, events: Sequence[LoggedEvent]) -> SessionStatus:
    """``events``: the durable ones that are kept, in order."""
    word = word_of(job.state)
    latest = max([job.created_at, *(each.created_at for each in events[-1:])])
    return SessionStatus(
        session_id=session_id,
        status=word,
        current_turn=_turn(run, events),
        repository=_repository(run),
        created_at=_milliseconds(job.created_at),
        last_activity_at=_milliseconds(max(latest, job.finished_at or latest)),
        completed_at=_milliseconds(job.finished_at) if job.finished_at else None,
        error_message=failure_of(run) if word == "error" else None,
    )


def failure_of(run: Run | None) -> str:
    """Why a failed session failed."""
    if run is None:
        return "the session failed"
    return run.error or f"the session failed: {run.exit_reason or run.state}"


def _turn(run: Run | None, events: Sequence[LoggedEvent]) -> int:
    started = [int(each.data.get("turn", 0)) for each in events if each.kind is EventKind.TURN_STARTED]
    return max([run.usage.turns if run else 0, *started])


def _repository(run: Run | None) -> SessionRepository | None:
    if run is None or run.repository is None:
        return None
    path = urlsplit(run.repository).path if "://" in run.repository else run.repository.rpartition(":")[2]
    name = "/".join(path.strip("/").removesuffix(".git").split("/")[-2:])
    return SessionRepository(name=name, branch=run.base_ref or (run.changeset.base_branch if run.changeset else None))


def _milliseconds(time: datetime) -> int:
    return round(time.timestamp() * 1_000)

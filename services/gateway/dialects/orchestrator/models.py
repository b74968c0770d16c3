"""The bodies of the Orchestrator API, in its document's words: they validate requests and make its OpenAPI document."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

from services.contracts.model import BranchName, Name, Ref, Text, refuse_blank
from services.contracts.rest import MAX_PROMPT_CHARACTERS
from services.gateway.dialects.dialect import FormQuery, LooseQuery, capped
from services.gateway.dialects.fields import OrBlank

MOST_LISTED = 1_000
MOST_SKIPPED = 1_000_000_000


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobType(StrEnum):
    CODE = "code"
    TASK = "task"


class MessageType(StrEnum):
    SYSTEM = "system"
    STDOUT = "stdout"
    STDERR = "stderr"
    USER_INPUT = "user_input"


def _without_blanks(values: Any) -> Any:
    return [word.strip() for word in values if word.strip()] if isinstance(values, list) else values


def _to_the_millisecond(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _one_line(text: str) -> str:
    return " ".join(text.split())


Moment = Annotated[datetime, PlainSerializer(_to_the_millisecond, return_type=str)]
GivenId = Annotated[Annotated[UUID, Field(strict=False)] | None, OrBlank]
Words = Annotated[Text, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS), AfterValidator(refuse_blank)]
Title = Annotated[Text, Field(max_length=200), AfterValidator(_one_line)]
NamePart = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.-]*[A-Za-z0-9_-][A-Za-z0-9_.-]*$")]
"""Of a repository: its owner, or its name."""


class _Request(BaseModel):
    """Fields that the document does not have are ignored."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True, strict=True)


class CreateClient(_Request):
    name: Name
    id: GivenId = Field(None, description="of one that has an id already; default: a new one")


class AddRepository(_Request):
    github_org: NamePart
    github_repo: NamePart
    default_branch: Annotated[Ref | None, OrBlank] = Field(
        None, description="where work starts; default: the remote's own"
    )
    clone_url: Annotated[Annotated[Text, Field(max_length=2_000)] | None, OrBlank] = Field(
        None, description="a Git URL, or a path where the server allows those; default: the repository on GitHub"
    )


class CreateJob(_Request):
    prompt: Words = Field(description="task description for Claude")
    client_id: GivenId = Field(None, description="needed without `githubOrg` and `githubRepo`")
    github_org: Annotated[NamePart | None, OrBlank] = None
    github_repo: Annotated[NamePart | None, OrBlank] = None
    branch_name: Annotated[BranchName | None, OrBlank] = Field(
        None, description="needed for a `code` job; made up for a `task`"
    )
    job_type: Annotated[Annotated[JobType, Field(strict=False)] | None, OrBlank] = Field(
        JobType.CODE, description="default: `code`"
    )
    feature_id: GivenId = None
    feature_title: Annotated[Title | None, OrBlank] = Field(None, description="shown with the job's feature")
    repository_id: GivenId = Field(None, description="one of the client's; default: its first")
    title: Annotated[Title | None, OrBlank] = Field(None, description="default for a `code` job: `feat: <branch>`")
    created_by_team_member_id: GivenId = None


class SendMessage(_Request):
    message: Words


class JobsQuery(FormQuery):
    repeatable = frozenset({"status"})

    status: Annotated[list[JobStatus] | None, BeforeValidator(_without_blanks)] = Field(
        None, description="any of these, separated by commas"
    )
    client_id: GivenId = None
    feature_id: GivenId = None
    limit: Annotated[int, Field(ge=1), capped(MOST_LISTED)] = Field(50, description="most jobs; 1,000 at most")
    offset: Annotated[int, Field(ge=0, le=MOST_SKIPPED)] = Field(0, description="how many are skipped")


class JobQuery(LooseQuery):
    include_messages: bool = Field(default=False, description="with stdout, stderr and what users said")


class RepositoryName(BaseModel):
    id: UUID
    owner_name: str
    repo_name: str


class Repository(RepositoryName):
    default_branch: str | None = Field(description="null: the remote's own")


class KeptRepository(Repository):
    client_id: UUID
    clone_url: str


class ClientName(BaseModel):
    id: UUID
    name: str


class ListedClient(ClientName):
    repositories: list[Repository]


class Client(ClientName):
    repository: Repository | None = Field(description="its first; null: it has none")
    repositories: list[Repository]


class ClientList(BaseModel):
    clients: list[ListedClient] = Field(description="by name")


class Feature(BaseModel):
    id: UUID
    title: str | None


class JobMessage(BaseModel):
    type: MessageType
    content: str
    created_at: Moment


class Job(BaseModel):
    id: UUID
    status: JobStatus
    job_type: JobType
    prompt: str
    branch_name: str | None
    client: ClientName | None = Field(description="null: the job came by another way")
    feature: Feature | None
    repository: RepositoryName | None
    title: str | None
    created_by_team_member_id: UUID | None
    error: str | None
    pr_url: str | None
    summary: str | None = Field(description="what the agent said last")
    original_job_id: UUID | None = Field(description="of a retry")
    created_at: Moment
    started_at: Moment | None
    completed_at: Moment | None
    messages: list[JobMessage] | None = Field(
        None, exclude_if=lambda value: value is None, description="where they were asked for, in order"
    )


class JobList(BaseModel):
    jobs: list[Job] = Field(description="newest first")
    total: int


class _Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class CreatedJob(_Answer):
    id: UUID
    status: JobStatus
    position: int = Field(description="1 is the next; 0: it has started")
    branch_name: str
    created_at: Moment


class CancelledJob(_Answer):
    id: UUID
    status: Literal[JobStatus.CANCELLED] = JobStatus.CANCELLED
    was_running: bool


class RetriedJob(_Answer):
    id: UUID
    original_job_id: UUID
    status: JobStatus
    branch_name: str


class SentMessage(_Answer):
    id: UUID
    message_sent: Literal[True] = True


class CompletingJob(BaseModel):
    id: UUID
    status: Literal["completing"] = "completing"


class RunningJob(BaseModel):
    id: UUID
    title: str
    started_at: Moment | None


class QueuedJob(BaseModel):
    id: UUID
    title: str
    created_at: Moment


class Queue(_Answer):
    running: list[RunningJob]
    queued: list[QueuedJob]
    max_concurrent: int


class QueueNumbers(_Answer):
    running: int
    queued: int
    max_concurrent: int


class ClaudeState(BaseModel):
    authenticated: bool = Field(description="an agent lives, and none does without a key")
    version: str = Field(description="this server's")


class GitState(BaseModel):
    authenticated: bool = Field(description="the forge lists repositories for the server's credentials")


class Health(BaseModel):
    status: Literal["ok"] = "ok"
    queue: QueueNumbers
    claude: ClaudeState
    git: GitState


class Fetched(BaseModel):
    repo: str
    success: bool
    error: str | None = Field(None, exclude_if=lambda value: value is None, description="why not")


class Cloned(Fetched):
    path: str | None = Field(description="of its mirror; null: not known, or there is none")


class Synced(BaseModel):
    synced: list[Fetched]


class ClonedAll(BaseModel):
    cloned: list[Cloned]


class Error(BaseModel):
    error: str = Field(description="what was wrong, and with which field")
